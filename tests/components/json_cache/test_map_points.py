"""The built-in function that makes a drawable document of a map."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexrelay.components.errors import DocumentFunctionError
from indexrelay.components.json_cache import JsonCache, JsonCacheParameters
from indexrelay.components.kind import ComponentInput
from indexrelay.components.projection import Projection, ProjectionParameters
from tests.components.jobs import (
    MemorySnapshot,
    clustered,
    make_job,
    make_manifest,
    make_snapshot,
    run,
)

FUNCTION = "indexrelay.components.json_cache:map_points"


def songs(count: int = 30) -> MemorySnapshot:
    payloads = [json.dumps({"title": f"song {row}", "x": "not a place"}) for row in range(count)]
    return make_snapshot(clustered(count, 8), payloads=payloads, collection="songs")


def main_map(snapshot: MemorySnapshot, folder: Path) -> ComponentInput:
    kind = Projection(ProjectionParameters())
    job = make_job(folder, snapshot, component="main_map")
    done = run(kind, job)
    return ComponentInput(manifest=make_manifest(job, done), value=kind.load(done.files))


def points(tmp_path: Path, chart: ComponentInput, *more: MemorySnapshot, **arguments: Any) -> Any:
    kind = JsonCache(JsonCacheParameters(function=FUNCTION, arguments=arguments))
    job = make_job(tmp_path / "cache", *more, components={"main_map": chart})
    done = run(kind, job)
    assert done.failed == []
    return kind.load(done.files).document["points"]


def test_every_point_of_the_map_is_there_with_its_payload(tmp_path: Path) -> None:
    snapshot = songs()
    chart = main_map(snapshot, tmp_path / "map")
    found = points(tmp_path, chart, snapshot)
    assert [point["id"] for point in found] == snapshot.ids
    assert found[3]["title"] == "song 3"
    places = np.array([[point["x"], point["y"]] for point in found])
    np.testing.assert_allclose(places, chart.value.coordinates, atol=5.1e-5)


def test_coordinates_have_as_many_decimals_as_asked_for(tmp_path: Path) -> None:
    snapshot = songs()
    found = points(tmp_path, main_map(snapshot, tmp_path / "map"), decimals=2)
    assert all(point["x"] == round(point["x"], 2) for point in found)
    assert any(point["x"] != round(point["x"], 1) for point in found)
    assert set(found[0]) == {"id", "x", "y"}


def test_only_the_named_fields_are_taken_along(tmp_path: Path) -> None:
    payloads = [json.dumps({"title": "t", "lyrics": "l"}), None, json.dumps("just text")]
    snapshot = make_snapshot(clustered(3, 8), payloads=payloads, collection="songs")
    chart = main_map(snapshot, tmp_path / "map")
    keys = [set(point) for point in points(tmp_path, chart, snapshot, fields=["title", "payload"])]
    own = {"id", "x", "y"}
    assert keys == [own | {"title"}, own, own | {"payload"}]


def test_without_exactly_one_map_it_is_an_error(tmp_path: Path) -> None:
    kind = JsonCache(JsonCacheParameters(function=FUNCTION))
    with pytest.raises(DocumentFunctionError, match="exactly one projection; there is none"):
        kind.build(make_job(tmp_path / "none", songs()))
    chart = main_map(songs(), tmp_path / "map")
    job = make_job(tmp_path / "two", components={"here": chart, "there": chart})
    with pytest.raises(DocumentFunctionError, match="there is here, there"):
        kind.build(job)
