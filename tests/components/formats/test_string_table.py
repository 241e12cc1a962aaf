"""Strings in a mapped file: what was written is read, and what is corrupt is refused."""

import struct
from bisect import bisect_left
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.formats.entry_tables import IdTable
from indexrelay.components.formats.string_table import StringTable, StringTableWriter
from tests.components.formats.tables import on_disk, texts, write


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
    rows=st.lists(st.text(min_size=1, max_size=5) | st.just("ä\0ö"), min_size=1, max_size=20)
    | st.lists(st.none() | texts, min_size=1, max_size=20),
    data=st.data(),
)
def test_many_rows_at_a_time_are_what_they_are_one_by_one(
    tmp_path: Path, rows: list[str | None], data: st.DataObject
) -> None:
    rows = [None if row is None else row.encode("utf-8", "ignore").decode() for row in rows]
    table = StringTable(write(tmp_path / "t", rows))
    drawn = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=64, max_size=80))
    expected = [rows[row] for row in drawn]
    assert table.many(np.array(drawn)) == table.many(drawn) == expected
    raws = [None if row is None else row.encode() for row in expected]
    assert table.raw_many(np.array(drawn)) == table.raw_many(drawn) == raws


def test_many_rows_that_are_corrupt_or_missing_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t", [f"row {row}" for row in range(100)])
    whole = path.read_bytes()
    rows = np.arange(100)
    for damaged, reason in (
        (whole.replace(b"row 7r", b"row \xffr"), "not UTF-8"),
        (whole.replace(b"row 7r", b"row \xc3r"), "not UTF-8"),
        (whole[:-16] + struct.pack("<qq", 10**6, 590), "outside"),
        (whole[:-16] + struct.pack("<qq", -3, 590), "outside"),
        (whole[:-8] + struct.pack("<q", 10**6), "outside"),
    ):
        assert damaged != whole
        path.unlink()
        path.write_bytes(damaged)
        for read in (StringTable(path).many, StringTable(path).raw_many):
            if reason == "outside" or read.__name__ == "many":
                with pytest.raises(CorruptFileError, match=reason):
                    read(rows)
    for read in (StringTable(path).many, StringTable(path).raw_many):
        with pytest.raises(IndexError):
            read(rows + 1)


@on_disk
@given(
    ids=st.lists(st.text("abé\0", max_size=9) | st.just("id-1234"), min_size=1, max_size=90),
    data=st.data(),
)
def test_ids_are_read_from_cells_as_they_are_from_the_text(
    tmp_path: Path, ids: list[str], data: st.DataObject
) -> None:
    table = IdTable.write(tmp_path / "ids", ids)
    table.check()
    drawn = data.draw(st.lists(st.integers(0, len(ids) - 1), min_size=1, max_size=90))
    expected = [ids[row] for row in drawn]
    assert table.many(np.array(drawn)) == table.many(drawn) == expected
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(drawn))] * 2)))
    assert table.taken(np.array(drawn))[start:end] == expected[start:end]
    assert [table.row(each) for each in ids] == [table.row(each) for each in table]


def test_ids_that_were_taken_are_there_when_the_file_is_closed(tmp_path: Path) -> None:
    table = IdTable.write(tmp_path / "ids", [f"id-{row}" for row in range(100)])
    taken = table.taken(np.array([99, 7, 8, 8]))
    assert not isinstance(taken, list), "each would be made, though nobody asks for it"
    with pytest.raises(IndexError):
        table.taken(np.array([100]))
    table.close()
    assert taken[:] == ["id-99", "id-7", "id-8", "id-8"]
    assert taken[1:1] == []


@on_disk
@given(
    ids=st.lists(st.text("abé\0", max_size=9) | st.text("ab", max_size=3), max_size=60),
    wanted=st.text("abéz\0", max_size=12),
    data=st.data(),
)
def test_an_id_stands_where_the_order_of_the_bytes_has_it_with_cells_and_without(
    tmp_path: Path, ids: list[str], wanted: str, data: st.DataObject
) -> None:
    raws = sorted(each.encode() for each in ids)
    table = IdTable.write(tmp_path / "ids", [raw.decode() for raw in raws])
    start = data.draw(st.integers(0, len(raws)))
    end = data.draw(st.integers(start, len(raws)))
    assert table.place(wanted, start, end) == bisect_left(raws, wanted.encode(), start, end)
    assert (table.find(wanted) is None) == (wanted.encode() not in raws)


def cell_bytes(path: Path) -> int:
    """What the header says about cells."""
    return int.from_bytes(path.read_bytes()[12:16], "little") >> 8


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["track-1", "track-10", "track-2"], 9),
        (["ü" * 20] * 3, 41),
        (["short"] * 30 + ["long" * 50], 0),
        (["track-1", "track\0" + "2"], 0),
        ([], 0),
    ],
)
def test_ids_of_about_one_length_have_cells(tmp_path: Path, ids: list[str], expected: int) -> None:
    table = IdTable.write(tmp_path / "ids", ids)
    assert cell_bytes(tmp_path / "ids") == expected
    assert list(table) == ids


def test_a_cell_with_another_text_than_its_row_is_found_by_the_full_check(tmp_path: Path) -> None:
    path = tmp_path / "ids"
    IdTable.write(path, ["b-1", "a-1", "c-1"]).close()
    raw = path.read_bytes()
    assert raw.endswith(b"b-1\0a-1\0c-1\0")
    path.unlink()
    path.write_bytes(raw[:-4] + b"d-1\0")
    table = IdTable(path)
    with pytest.raises(CorruptFileError, match="cell"):
        table.check()
    path.unlink()
    path.write_bytes(raw[:-4] + b"\xff-1\0")
    with pytest.raises(CorruptFileError, match="not UTF-8"):
        IdTable(path).many([2])
    with pytest.raises(CorruptFileError, match="not UTF-8"):
        IdTable(path).taken(np.array([2]))
    with pytest.raises(IndexError):
        IdTable(path).many([3])


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
        pytest.raises(CorruptFileError, match="outside"),
        StringTableWriter(tmp_path / "copy") as writer,
    ):
        writer.copy(table, slice(1, 3))
    with pytest.raises(CorruptFileError, match="outside"):
        table.same(0, table, 1, count=2)


def test_a_writer_that_fails_leaves_a_file_that_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t"
    with pytest.raises(UnicodeEncodeError), StringTableWriter(path) as writer:
        writer.extend(["a" * 100, "\ud800"])
    with pytest.raises(CorruptFileError, match="not a string table"):
        StringTable(path)


@pytest.mark.parametrize("keep", [0, 1, 31, 32, 60, -1])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path / "t", ["one", None, "three"])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorruptFileError):
        StringTable(path)


def test_a_table_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t", ["one"])
    raw = bytearray(path.read_bytes())
    raw[8:12] = struct.pack("<I", 3)
    path.write_bytes(raw)
    with pytest.raises(CorruptFileError, match="version 3"):
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
    except CorruptFileError:
        pass


@pytest.mark.parametrize("corrupt", ["offset", "order", "text"])
def test_the_full_check_finds_what_opening_does_not_look_at(tmp_path: Path, corrupt: str) -> None:
    path = tmp_path / "ids"
    IdTable.write(path, ["bb", "aa"]).close()
    raw = bytearray(path.read_bytes())
    match corrupt:
        case "offset":
            raw[48:56] = struct.pack("<q", 2**40)
        case "order":
            raw[64:72] = struct.pack("<ii", 1, 1)
        case "text":
            raw[32] = 0xFF
    path.unlink()
    path.write_bytes(raw)
    with pytest.raises(CorruptFileError):
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


def test_a_row_that_begins_inside_of_a_letter_is_corruption(tmp_path: Path) -> None:
    path = write(tmp_path / "table", ["ä", "b", ""])
    StringTable(path).check()
    raw = path.read_bytes()
    offsets = np.array([0, 2, 3, 3], dtype="<i8").tobytes()
    assert raw.endswith(offsets)
    path.write_bytes(raw.replace(offsets, np.array([0, 1, 3, 3], dtype="<i8").tobytes()))
    with pytest.raises(CorruptFileError, match="inside of a letter"):
        StringTable(path).check()
