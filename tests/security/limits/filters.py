"""What a filter may cost, and how many fields there may be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from indexrelay.components.formats.field_columns import FieldColumns, FieldColumnsWriter
from indexrelay.components.matches import FilterColumns
from indexrelay.schemas.filters import FieldType, InvalidFilterError, parse_filter
from indexrelay.schemas.settings import CollectionSettings
from tests.security.limits.table import Row, exercises

FIELDS = {"year": FieldType.NUMBER}


def refused(asked: Any) -> None:
    with pytest.raises(InvalidFilterError):
        parse_filter(asked, FIELDS)


@exercises("filterable fields of a collection")
def _fields(row: Row, _request: pytest.FixtureRequest) -> None:
    fields = {f"field{number}": "number" for number in range(row.number)}
    CollectionSettings.model_validate({"dimension": 2, "filterable": fields})
    with pytest.raises(ValidationError):
        CollectionSettings.model_validate({"dimension": 2, "filterable": {**fields, "x": "number"}})


@exercises("conditions of a filter")
def _conditions(row: Row, _request: pytest.FixtureRequest) -> None:
    # A list of filters counts its filters, too.
    conditions = [{"year": number} for number in range(row.number // 2)]
    parse_filter({"$or": conditions}, FIELDS)
    refused({"$or": [*conditions, {"year": 1}]})


@exercises("values in a filter")
def _values(row: Row, _request: pytest.FixtureRequest) -> None:
    values = list(range(row.number))
    parse_filter({"year": {"$in": values}}, FIELDS)
    refused({"year": {"$in": [*values, 1]}})


@exercises("levels of filters in filters")
def _levels(row: Row, _request: pytest.FixtureRequest) -> None:
    deep: dict[str, Any] = {}
    for _ in range(row.number - 1):
        deep = {"$not": deep}
    parse_filter(deep, FIELDS)
    refused({"$not": deep})


@exercises("bytes of what a version keeps of its last filters' matches")
def _kept(row: Row, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue("tmp_path") / "columns"
    rows, matching = 2_000_000, 20_000  # 400 kB each: bits of all rows, and the rows
    writer = FieldColumnsWriter(FIELDS)
    writer.extend(0, [json.dumps({"year": number % 7}) for number in range(matching)])
    writer.write(path, rows)
    none = np.empty(0, dtype=np.int64)
    columns = FilterColumns(FieldColumns(path), None, rows=rows, delta_rows=0, tombstones=none)
    first = parse_filter({"year": {"$lt": 100}}, FIELDS)
    kept = columns.matches(first)
    for limit in range(200, 200 + 2 * row.number // kept.base.bytes_held):
        columns.matches(parse_filter({"year": {"$lt": limit}}, FIELDS))
        held = sum(each.base.bytes_held + each.delta.bytes_held for each in columns._kept.values())
        assert held <= row.number
    assert columns.matches(first) is not kept
    assert columns.matches(first).base.rows.tolist() == kept.base.rows.tolist()
