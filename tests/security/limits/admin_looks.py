"""How much of a map and of a search in the lab one answer holds, and what stays open for them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from indexrelay.admin.lab import LabRequest
from indexrelay.admin.maps import Maps, _drawn, shown_payload
from indexrelay.admin.version_cache import FieldError, VersionCache
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.testing import FakeClock
from tests.security.limits.table import Row, exercises


class Drawn:
    """A map of so many entries, as far as it is looked at."""

    def __init__(self, count: int) -> None:
        self.ids = [f"id {number}" for number in range(count)]
        self.coordinates = np.zeros((count, 2), np.float32)

    def __len__(self) -> int:
        return len(self.ids)


@exercises("points of a map that the admin page shows")
def _points(row: Row, request: pytest.FixtureRequest) -> None:
    projection: Any = Drawn(row.number + 100)
    drawn = _drawn(projection, Maps(_cache(request))._max_points)
    assert len(drawn.body) == 12 * row.number
    assert drawn.shown is not None
    assert len(drawn.shown) == row.number


@exercises("entries of a map in one answer")
def _entries(row: Row, request: pytest.FixtureRequest) -> None:
    maps: Any = Maps(_cache(request))
    named = SimpleNamespace(version="0" * 64)
    maps.chart = lambda *_: SimpleNamespace(
        points=10**6, named=named, ids=lambda rows: [""] * len(rows)
    )
    maps._entries_of = lambda _chart, ids, _kinds: [None] * len(ids)
    assert len(maps.entries("chart", None, range(row.number)).entries) == row.number
    with pytest.raises(FieldError, match=f"at most {row.number} rows"):
        maps.entries("chart", None, range(row.number + 1))


@exercises("hits of a side of the search lab")
def _hits(row: Row, _request: pytest.FixtureRequest) -> None:
    asked = {"sides": [{"component": "tracks"}], "text": "a"}
    LabRequest.model_validate({**asked, "k": row.number})
    with pytest.raises(ValidationError, match="less than or equal"):
        LabRequest.model_validate({**asked, "k": row.number + 1})


@exercises("bytes of a payload's JSON that the map and the lab show as it is")
def _payload(row: Row, _request: pytest.FixtureRequest) -> None:
    longest = b'"' + b"x" * (row.number - 2) + b'"'
    assert shown_payload(longest) == ("x" * (row.number - 2), None)
    payload, start = shown_payload(longest[:-1] + b'x"')
    assert payload is None
    assert start is not None
    assert len(start) < row.number


@exercises("versions that the admin service keeps open for the map and the lab")
def _versions(row: Row, request: pytest.FixtureRequest) -> None:
    cache: Any = _cache(request)
    cache._opener = SimpleNamespace(open=lambda *_, **__: object())
    for number in range(row.number + 5):
        cache.open(SimpleNamespace(component="tracks", version=str(number)))
    assert len(cache) == row.number


def _cache(request: pytest.FixtureRequest) -> VersionCache:
    folder: Path = request.getfixturevalue("tmp_path")
    return VersionCache(ArtifactStore(folder / "artifacts"), definitions={}, clock=FakeClock())
