"""What a filter matches in base and delta, held against a model that looks at every entry."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexrelay.components import matches
from indexrelay.components.errors import CorruptFileError
from indexrelay.components.formats.field_columns import FieldColumns, FieldColumnsWriter
from indexrelay.components.matches import FilterColumns, LayerMatches, field_details
from indexrelay.schemas.filters import Fields, FieldType, InvalidFilterError
from tests.components.filter_model import FIELDS, filters, fulfils, payloads


def columns_of(path: Path, rows: list[Any], fields: Fields = FIELDS) -> FieldColumns:
    writer = FieldColumnsWriter(fields)
    writer.extend(0, map(json.dumps, rows))
    writer.write(path, len(rows))
    return FieldColumns(path)


def of(folder: Path, base: list[Any], delta: list[Any], dead: set[int]) -> FilterColumns:
    return FilterColumns(
        columns_of(folder / "base", base),
        columns_of(folder / "delta", delta),
        rows=len(base),
        delta_rows=len(delta),
        tombstones=np.array(sorted(dead), dtype=np.int64),
    )


@settings(max_examples=200, deadline=None)
@given(
    base=st.lists(payloads(), max_size=60),
    delta=st.lists(payloads(), max_size=5),
    asked=filters(),
    data=st.data(),
)
def test_a_filter_matches_what_the_model_says(
    base: list[Any],
    delta: list[Any],
    asked: dict[str, Any],
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    dead = data.draw(st.sets(st.sampled_from(range(len(base))), max_size=5)) if base else set()
    columns = of(tmp_path_factory.mktemp("matches"), base, delta, dead)
    parsed = columns.parse(asked)
    found = columns.everything() if parsed is None else columns.matches(parsed)
    alive = [row for row in range(len(base)) if row not in dead]
    assert found.base.rows.tolist() == [row for row in alive if fulfils(base[row], asked)]
    assert found.delta.rows.tolist() == [
        row for row, payload in enumerate(delta) if fulfils(payload, asked)
    ]
    assert len(found) == found.base.count + found.delta.count
    if parsed is not None:
        assert columns.matches(parsed) is found, "it is kept"


def test_few_matches_and_many_are_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.arange(1000) % 3 == 0
    few = LayerMatches(None, mask, 1000)
    monkeypatch.setattr(matches, "FEW_ROWS", 10)
    many = LayerMatches(None, mask, 1000)
    many_rows = LayerMatches(np.flatnonzero(mask), None, 1000)
    assert many_rows.bytes_held == many.bytes_held < few.bytes_held
    for each in (few, many, many_rows):
        assert len(each) == 334
        assert each.rows.tolist() == np.flatnonzero(mask).tolist()
        assert (each.mask == mask).all()
        assert each.bits.tobytes() == np.packbits(mask, bitorder="little").tobytes()
        fewer = each.without(np.array([0, 1, 3]))
        assert fewer.rows.tolist() == np.flatnonzero(mask).tolist()[2:]


def test_a_version_keeps_a_bounded_number_of_filters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matches, "_KEPT", 3)
    columns = of(tmp_path, [{"year": year} for year in range(10)], [], set())
    asked = [columns.parse({"year": year}) for year in range(10)]
    answers = [columns.matches(each) for each in asked if each is not None]
    assert [len(each) for each in answers] == [1] * 10
    assert asked[9] is not None
    assert columns.matches(asked[9]) is answers[9]
    assert asked[0] is not None
    assert columns.matches(asked[0]) is not answers[0]
    assert len(columns._kept) == 3


def test_what_is_kept_takes_a_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matches, "_KEPT_BYTES", 1000)
    columns = of(tmp_path, [{"year": year} for year in range(10)], [], set())
    for year in range(10):
        parsed = columns.parse({"year": year})
        assert parsed is not None
        columns.matches(parsed)
    assert 0 < columns._kept_bytes <= 1000
    assert sum(each.base.bytes_held + each.delta.bytes_held for each in columns._kept.values()) == (
        columns._kept_bytes
    )


def test_room_for_sketches_counts_as_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matches, "_KEPT_BYTES", 1000)
    base = columns_of(tmp_path / "base", [{"year": year % 2} for year in range(10)])
    none = np.empty(0, dtype=np.int64)
    columns = FilterColumns(base, None, rows=10, delta_rows=0, tombstones=none, sketch_bytes=64)
    for year in range(2):
        columns.matching({"year": year})
    assert len(columns._kept) == 1
    assert 5 * 64 < columns._kept_bytes <= 1000


def test_a_filter_is_parsed_once_and_none_passes_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matches, "_KEPT", 3)
    columns = of(tmp_path, [{"year": 1, "live": True}], [], set())
    first = columns.parse({"year": 1})
    assert columns.parse({"year": 1}) is first
    assert columns.parse({"year": 1.0}) == first
    assert columns.parse({"live": True}) != first
    for wrong in ({"year": True}, {"live": 1}, {"year": "1"}, {"year": object()}):
        with pytest.raises(InvalidFilterError):
            columns.parse(wrong)
    for year in range(10):
        columns.parse({"year": year})
        columns.parse({"year": year, "genre": "x" * 5000})
    assert len(columns._parsed) <= 3
    assert columns.parse({"year": 1}) == first


def test_a_version_without_columns_answers_only_filters_that_ask_for_nothing() -> None:
    none = np.empty(0, dtype=np.int64)
    columns = FilterColumns(None, None, rows=3, delta_rows=0, tombstones=none)
    assert columns.parse({}) is None
    assert columns.parse(None) is None
    assert len(columns.everything()) == 3
    with pytest.raises(InvalidFilterError, match="declare some"):
        columns.parse({"year": 3})


NAME, KIND = next(iter(FIELDS.items()))


@pytest.mark.parametrize(
    "other",
    [
        {name: kind for name, kind in FIELDS.items() if name != NAME},
        {**FIELDS, "numbre": FieldType.NUMBER},
        {**FIELDS, NAME: next(kind for kind in FieldType if kind is not KIND)},
    ],
    ids=["one is missing", "one too many", "another type"],
)
def test_a_delta_with_other_fields_than_its_base_is_corrupt(tmp_path: Path, other: Fields) -> None:
    base, delta = columns_of(tmp_path / "base", []), columns_of(tmp_path / "delta", [], other)
    none = np.empty(0, dtype=np.int64)
    with pytest.raises(CorruptFileError, match="delta is corrupt: it has other fields"):
        FilterColumns(base, delta, rows=0, delta_rows=0, tombstones=none)


def test_details_count_live_entries_and_values_of_another_type(tmp_path: Path) -> None:
    base = columns_of(tmp_path / "base", [{"year": 1}, {"year": "x"}, {"year": "y"}, {}])
    delta = columns_of(tmp_path / "delta", [{"year": 2}, {"year": []}])
    found = field_details(base, delta, np.array([1]))
    assert found["year"] == {"type": "number", "entries": 2, "of_another_type": 2}
    assert found["live"] == {"type": "boolean", "entries": 0, "of_another_type": 0}
