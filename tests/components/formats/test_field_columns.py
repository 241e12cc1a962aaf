"""Columns of filterable fields: what is written is read, and a corrupt file raises."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.formats.field_columns import FieldColumns, FieldColumnsWriter
from indexrelay.schemas.filters import AnyOf, Between, FieldType
from tests.components.filter_model import FIELDS, payloads

ROWS = [
    {"year": 3, "genre": "b", "tags": ["x", "y"], "live": True},
    {"year": 1, "genre": "a", "tags": [], "added": "2024-05-01"},
    None,
    {"year": 3, "genre": None, "tags": ["x"], "album": {"label": "ECM"}},
    {"year": "three", "genre": ["b"], "live": False},
]


def written(path: Path, rows: list[Any], fields: dict[str, FieldType] = FIELDS) -> FieldColumns:
    writer = FieldColumnsWriter(fields)
    writer.extend(0, [None if row is None else json.dumps(row) for row in rows])
    writer.write(path, len(rows))
    return FieldColumns(path)


@pytest.fixture
def columns(tmp_path: Path) -> FieldColumns:
    return written(tmp_path / "fields.columns", ROWS)


def rows_of(columns: FieldColumns, condition: AnyOf | Between) -> list[int]:
    column = columns[condition.field]
    return np.flatnonzero(column.mask(column.slices(condition))).tolist()


def test_the_rows_of_a_value_are_a_slice(columns: FieldColumns) -> None:
    year = columns["year"]
    [where] = year.slices(AnyOf("year", (3.0,)))
    assert where[1] - where[0] == 2, "how many there are is known before they are read"
    assert year.one_value(where)
    assert year.rows_of([where]).tolist() == [0, 3]
    assert year.slices(AnyOf("year", (2.0,))) == []


def test_rows_of_several_values_come_in_order_and_once(columns: FieldColumns) -> None:
    for condition, rows in (
        (AnyOf("tags", ("x", "y")), [0, 3]),
        (AnyOf("year", (1.0, 3.0)), [0, 1, 3]),
        (Between("year", 0.0, 9.0, above_low=True, below_high=True), [0, 1, 3]),
    ):
        column = columns[condition.field]
        assert column.rows_of(column.slices(condition)).tolist() == rows


def test_a_range_is_one_slice_of_many_values(columns: FieldColumns) -> None:
    between = Between("year", 0.0, None, above_low=False, below_high=False)
    [where] = columns["year"].slices(between)
    assert not columns["year"].one_value(where)
    assert rows_of(columns, between) == [0, 1, 3]
    assert rows_of(columns, Between("year", 1.0, 3.0, above_low=True, below_high=True)) == []
    assert rows_of(columns, Between("genre", "a", "b", above_low=True, below_high=False)) == [0]


def test_each_type_has_its_values_in_order(columns: FieldColumns) -> None:
    assert {column.name: list(column.values) for column in columns} == {
        "added": [1_714_521_600_000_000],
        "album.label": ["ECM"],
        "genre": ["a", "b"],
        "live": [False, True],
        "tags": ["x", "y"],
        "year": [1.0, 3.0],
    }
    assert rows_of(columns, AnyOf("tags", ("x",))) == [0, 3]
    assert rows_of(columns, AnyOf("live", (False,))) == [4]


def test_an_empty_list_is_there_and_null_is_not(columns: FieldColumns) -> None:
    assert columns["tags"].presence().tolist() == [True, True, False, True, False]
    assert columns["genre"].presence().tolist() == [True, True, False, False, False]
    assert columns["tags"].present == 3


def test_a_value_of_another_type_counts_as_missing_and_is_known(columns: FieldColumns) -> None:
    assert columns["year"].others.tolist() == [4]
    assert columns["genre"].others.tolist() == [4]
    assert not columns["year"].presence()[4]
    assert columns["live"].others.tolist() == []


def test_columns_may_have_no_rows(tmp_path: Path) -> None:
    empty = written(tmp_path / "empty", [])
    assert rows_of(empty, AnyOf("year", (1.0,))) == []
    empty.check()


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(payloads(), max_size=20), data=st.data())
def test_copied_rows_are_as_those_that_were_written(
    rows: list[Any], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("columns")
    kept = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    fresh = data.draw(st.lists(payloads(), max_size=5))
    last = written(folder / "last", rows)
    stay = [row for row, keep in zip(rows, kept, strict=True) if keep]
    moved = np.where(kept, np.cumsum(kept) - 1, -1) if kept else np.empty(0, dtype=np.int64)
    writer = FieldColumnsWriter(FIELDS)
    writer.extend(len(stay), [json.dumps(each) for each in fresh])
    writer.copy(last, moved.astype(np.int64))
    writer.write(folder / "next", len(stay) + len(fresh))
    written(folder / "wanted", [*stay, *fresh]).check()
    assert (folder / "next").read_bytes() == (folder / "wanted").read_bytes()


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_changed_file_raises_or_leads_to_rows_that_exist(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("columns") / "fields.columns"
    written(path, ROWS)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path.write_bytes(content[:end])
    try:
        columns = FieldColumns(path)
        for column in columns:
            assert len(column.presence()) == columns.rows
            for value in column.values:
                [*slices] = column.slices(AnyOf(column.name, (value,)))
                for where in slices:
                    assert all(0 <= row < columns.rows for row in column.rows_of([where]))
                assert len(column.mask(slices)) == columns.rows
        columns.check()
    except CorruptFileError:
        return


def test_a_check_finds_rows_that_are_out_of_order(tmp_path: Path) -> None:
    path = tmp_path / "fields.columns"
    columns = written(path, [{"year": 1}, {"year": 1}], {"year": FieldType.NUMBER})
    columns.check()
    content = path.read_bytes()
    rows = np.array([0, 1], "<i4").tobytes()
    assert content.count(rows) == 1
    path.write_bytes(content.replace(rows, rows[::-1].replace(b"\0\0\0\1", b"\1\0\0\0")))
    with pytest.raises(CorruptFileError):
        FieldColumns(path).check()
