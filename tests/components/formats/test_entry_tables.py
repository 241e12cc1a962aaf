"""Ids in a mapped file: each is found at its row, and no other is."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexrelay.components.errors import CorruptFileError, UnknownEntryError
from indexrelay.components.formats.entry_tables import IdTable
from tests.components.formats.tables import on_disk, texts, write


@on_disk
@given(
    ids=st.lists(texts, min_size=1, max_size=30, unique=True),
    before=st.lists(texts, max_size=3),
    data=st.data(),
)
def test_copied_ids_are_found_in_whatever_order_they_stand(
    tmp_path: Path, ids: list[str], before: list[str], data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(ids) - 1))
    count = data.draw(st.integers(0, len(ids) - first))
    if data.draw(st.booleans()):
        ids = sorted(ids, key=str.encode)
    table = IdTable.write(tmp_path / "ids", ids)
    with IdTable.writer(tmp_path / "copy") as writer:
        writer.extend(before)
        table.copy(writer, slice(first, first + count))
        writer.extend(["after"])
    copy = IdTable(tmp_path / "copy")
    rows = [*before, *ids[first : first + count], "after"]
    assert list(copy) == rows
    assert copy.check() == len(rows) - len(set(rows))
    assert all(copy[copy.row(each)] == each for each in rows)


@on_disk
@given(ids=st.lists(texts, max_size=40, unique=True), stranger=texts)
def test_every_id_is_found_at_its_row_and_no_other_is(
    tmp_path: Path, ids: list[str], stranger: str
) -> None:
    table = IdTable.write(tmp_path / "ids", ids)
    assert table.check() == 0
    assert [table.row(name) for name in ids] == list(range(len(ids)))
    assert [table[row] for row in range(len(ids))] == ids
    assert (stranger in table) is (stranger in ids)


@on_disk
@given(ids=st.lists(st.sampled_from(["a", "b", "é", "\U0001f600", "\uffff"]), max_size=12))
def test_repeated_ids_are_counted(tmp_path: Path, ids: list[str]) -> None:
    assert IdTable.write(tmp_path / "ids", ids).check() == len(ids) - len(set(ids))


def test_repeats_are_counted_across_the_blocks_that_are_compared_at_a_time(tmp_path: Path) -> None:
    ids = [f"{row // 2:06d}" for row in range(10_000)]
    assert IdTable.write(tmp_path / "ids", ids).check() == 5000


def test_an_id_that_has_no_utf8_is_not_found_and_cannot_be_written(tmp_path: Path) -> None:
    assert "\ud800" not in IdTable.write(tmp_path / "ids", ["a"])
    with pytest.raises(UnicodeEncodeError):
        IdTable.write(tmp_path / "broken", ["\ud800"])


def test_ids_behave_as_a_sequence(tmp_path: Path) -> None:
    table = IdTable.write(tmp_path / "ids", ["c", "a", "b"])
    assert (table[-1], table[0:2], list(reversed(table))) == ("b", ["c", "a"], ["b", "a", "c"])
    with pytest.raises(IndexError):
        table[3]
    with pytest.raises(UnknownEntryError, match="no entry 'x'"):
        table.row("x")


def test_ids_that_come_in_order_need_no_permutation(tmp_path: Path) -> None:
    ids = [f"{row:03d}" for row in range(100)]
    IdTable.write(tmp_path / "sorted", ids)
    IdTable.write(tmp_path / "shuffled", ids[::-1])
    sizes = [(tmp_path / name).stat().st_size for name in ("sorted", "shuffled")]
    assert sizes[1] - sizes[0] == 4 * 100


def test_a_table_without_order_is_not_taken_for_ids(tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match="not one of ids"):
        IdTable(write(tmp_path / "payloads", ["a"]))
