"""Strings in a mapped file: what was written is read, and what is damaged is refused."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexrelay.components.errors import DamagedFileError, UnknownEntryError
from indexrelay.components.formats.id_table import IdTable
from indexrelay.components.formats.payload_table import PayloadTable
from indexrelay.components.formats.string_table import StringTable, StringTableWriter

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
on_disk = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write(path: Path, rows: list[str | None]) -> Path:
    with StringTableWriter(path) as writer:
        writer.extend(rows[:2])
        writer.extend(rows[2:])
    return path


@on_disk
@given(rows=st.lists(st.none() | texts, max_size=40))
def test_every_row_comes_back_as_it_was_written(tmp_path: Path, rows: list[str | None]) -> None:
    table = StringTable(write(tmp_path / "t", rows))
    table.check()
    assert list(table) == rows
    backwards = np.arange(len(rows))[::-1]
    assert table.many(backwards) == rows[::-1]


@on_disk
@given(
    rows=st.lists(st.none() | texts, max_size=40),
    before=st.lists(st.none() | texts, max_size=10),
    data=st.data(),
)
def test_rows_are_copied_in_one_piece_and_are_the_same_there(
    tmp_path: Path, rows: list[str | None], before: list[str | None], data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(rows)))
    count = data.draw(st.integers(0, len(rows) - first))
    table = StringTable(write(tmp_path / "t", rows))
    with StringTableWriter(tmp_path / "copy") as writer:
        writer.extend(before)
        writer.copy(table, slice(first, first + count))
        writer.extend(["after"])
    copy = StringTable(tmp_path / "copy")
    copy.check()
    assert list(copy) == [*before, *rows[first : first + count], "after"]
    assert copy.same(len(before), table, first, count=count)
    other = data.draw(st.lists(st.none() | texts, min_size=count, max_size=count))
    different = StringTable(write(tmp_path / "other", other))
    assert copy.same(len(before), different, 0, count=count) == (
        other == rows[first : first + count]
    )


def test_rows_beyond_the_end_are_neither_copied_nor_the_same(tmp_path: Path) -> None:
    table = StringTable(write(tmp_path / "t", ["a", "b"]))
    with (
        pytest.raises(DamagedFileError, match="outside"),
        StringTableWriter(tmp_path / "copy") as writer,
    ):
        writer.copy(table, slice(1, 3))
    with pytest.raises(DamagedFileError, match="outside"):
        table.same(0, table, 1, count=2)


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
    with pytest.raises(DamagedFileError, match="not one of ids"):
        IdTable(write(tmp_path / "payloads", ["a"]))


def test_payloads_are_parsed_and_may_be_missing(tmp_path: Path) -> None:
    table = PayloadTable(write(tmp_path / "p", ['{"a": [1, null]}', None, '"x"', "null"]))
    assert table.many(np.array([2, 0, 1, 3])) == ["x", {"a": [1, None]}, None, None]
    assert table.text_many(np.arange(4)) == ['{"a": [1, null]}', None, '"x"', "null"]


def test_a_payload_that_is_not_json_says_that_the_file_is_damaged(tmp_path: Path) -> None:
    table = PayloadTable(write(tmp_path / "p", ["{"]))
    with pytest.raises(DamagedFileError, match="not JSON"):
        table.many(np.array([0]))


def test_a_writer_that_fails_leaves_a_file_that_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t"
    with pytest.raises(UnicodeEncodeError), StringTableWriter(path) as writer:
        writer.extend(["a" * 100, "\ud800"])
    with pytest.raises(DamagedFileError, match="not a string table"):
        StringTable(path)


@pytest.mark.parametrize("keep", [0, 1, 31, 32, 60, -1])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path / "t", ["one", None, "three"])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamagedFileError):
        StringTable(path)


def test_a_table_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t", ["one"])
    raw = bytearray(path.read_bytes())
    raw[8:12] = struct.pack("<I", 2)
    path.write_bytes(raw)
    with pytest.raises(DamagedFileError, match="version 2"):
        StringTable(path)


@on_disk
@given(data=st.data())
def test_a_changed_byte_raises_or_reads_but_never_crashes(
    tmp_path: Path, data: st.DataObject
) -> None:
    ids = ["delta", "alpha", "charlie", "bravo"]
    path = tmp_path / "ids"
    IdTable.write(path, ids).close()
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.unlink()
    path.write_bytes(raw)
    try:
        table = IdTable(path)
        table.check()
        assert len([table[row] for row in range(len(table))]) == len(table)
        assert [name in table for name in ids]
    except DamagedFileError:
        pass


@pytest.mark.parametrize("damage", ["offset", "order", "text"])
def test_the_full_check_finds_what_opening_does_not_look_at(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "ids"
    IdTable.write(path, ["bb", "aa"]).close()
    raw = bytearray(path.read_bytes())
    match damage:
        case "offset":
            raw[48:56] = struct.pack("<q", 2**40)
        case "order":
            raw[-8:] = struct.pack("<ii", 1, 1)
        case "text":
            raw[32] = 0xFF
    path.unlink()
    path.write_bytes(raw)
    with pytest.raises(DamagedFileError):
        IdTable(path).check()


@on_disk
@given(rows=st.lists(st.none() | texts, max_size=30), first=st.integers(0, 31), data=st.data())
def test_rows_are_compared_as_a_whole_as_they_are_one_by_one(
    tmp_path: Path, rows: list[str | None], first: int, data: st.DataObject
) -> None:
    table = StringTable(write(tmp_path / "table", rows))
    others = data.draw(st.just(rows[first:]) | st.lists(st.none() | texts, max_size=30))
    inside = first + len(others) <= len(rows)
    same = inside and table.many(np.arange(first, first + len(others))) == others
    assert table.holds(first, others) == same


def test_a_row_that_begins_inside_of_a_letter_is_damage(tmp_path: Path) -> None:
    path = write(tmp_path / "table", ["ä", "b", ""])
    StringTable(path).check()
    raw = path.read_bytes()
    offsets = np.array([0, 2, 3, 3], dtype="<i8").tobytes()
    assert raw.endswith(offsets)
    path.write_bytes(raw.replace(offsets, np.array([0, 1, 3, 3], dtype="<i8").tobytes()))
    with pytest.raises(DamagedFileError, match="inside of a letter"):
        StringTable(path).check()
