"""What an entry may be: the door that batches, tables and folders share."""

import json

import pytest

from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Entries
from indexrelay.storage.errors import InvalidEntriesError
from indexrelay.storage.validation import check_entries
from tests.security.limits.table import Row, exercises


def checked(
    id_: str = "a", *, text: str | None = None, payload: object = None, as_json: bool = False
) -> Entries:
    return check_entries(
        [id_],
        [[1.0, 0.0]],
        [text],
        [json.dumps(payload) if as_json else payload],
        dimension=2,
        metric=Metric.L2,
        payloads_are_json=as_json,
    )


@exercises("an entry's id, in bytes of UTF-8")
def _id(row: Row, _request: pytest.FixtureRequest) -> None:
    assert checked("ü" * (row.number // 2)).ids == ["ü" * (row.number // 2)]
    with pytest.raises(InvalidEntriesError, match="row 0"):
        checked("ü" * (row.number // 2) + "a")


@exercises("levels of lists and objects in a payload")
def _depth(row: Row, _request: pytest.FixtureRequest) -> None:
    deep: object = 1
    for _ in range(row.number):
        deep = [deep]
    for as_json in (False, True):
        assert checked(payload=deep, as_json=as_json).payloads[0] is not None
        with pytest.raises(InvalidEntriesError, match="deeper"):
            checked(payload={"a": deep}, as_json=as_json)
