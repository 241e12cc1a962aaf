"""A JSON document: computed by the user's function, stored twice, judged, served."""

import gzip
import json
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from indexrelay.components.errors import DocumentError, DocumentFunctionError
from indexrelay.components.json_cache import CollectionReader, JsonCache, JsonCacheParameters
from indexrelay.components.json_cache.kind import count_items
from indexrelay.schemas.settings import Metric
from tests.components.jobs import MemorySnapshot, make_job, make_snapshot, run


def genres(inputs: Mapping[str, Any], *, upper: bool = False) -> dict[str, list[str]]:
    """A user's function: the ids of each genre."""
    table: dict[str, list[str]] = {}
    for entry in inputs["tracks"]:
        genre = entry.payload["genre"]
        table.setdefault(genre.upper() if upper else genre, []).append(entry.id)
    return table


@pytest.fixture
def functions(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A user's module, importable as ``users_functions``."""
    module = ModuleType("users_functions")
    module.genres = genres  # type: ignore[attr-defined] # a module made by hand
    monkeypatch.setitem(sys.modules, "users_functions", module)
    return module


@pytest.fixture
def tracks() -> MemorySnapshot:
    payloads = [json.dumps({"genre": genre}) for genre in ("jazz", "techno", "jazz")]
    return make_snapshot(np.eye(3, dtype=np.float32), payloads=payloads)


def cache(function: str = "users_functions:genres", **keys: Any) -> JsonCache:
    return JsonCache(JsonCacheParameters(function=function, **keys))


def returning(functions: ModuleType, document: Any, **keys: Any) -> JsonCache:
    """A cache whose function returns just this."""
    functions.given = lambda _: document  # type: ignore[attr-defined] # made by hand
    return cache("users_functions:given", **keys)


@pytest.mark.usefixtures("functions")
def test_the_users_function_makes_the_document(tracks: MemorySnapshot, tmp_path: Path) -> None:
    kind = cache(arguments={"upper": True})
    done = run(kind, make_job(tmp_path / "work", tracks))
    assert done.failed == []
    served = kind.load(done.files)
    assert served.document == {"JAZZ": ["e000000", "e000002"], "TECHNO": ["e000001"]}
    assert json.loads(served.body) == served.document
    assert gzip.decompress(served.gzipped) == served.body
    assert len(served) == len(served.body)
    served.close()


@pytest.mark.usefixtures("functions")
def test_the_same_document_has_the_same_bytes_and_tag(
    tracks: MemorySnapshot, tmp_path: Path
) -> None:
    kind = cache()
    first = kind.load(run(kind, make_job(tmp_path / "1", tracks)).files)
    second = kind.load(run(kind, make_job(tmp_path / "2", tracks)).files)
    assert (first.body, first.gzipped, first.etag) == (second.body, second.gzipped, second.etag)


def test_another_document_has_another_tag(
    functions: ModuleType, tracks: MemorySnapshot, tmp_path: Path
) -> None:
    tags = set()
    for document in ([1], [2]):
        kind = returning(functions, document)
        done = run(kind, make_job(tmp_path / str(document[0]), tracks))
        tags.add(kind.load(done.files).etag)
    assert len(tags) == 2
    assert all(tag.startswith('"') and tag.endswith('"') for tag in tags)


@pytest.mark.usefixtures("functions")
def test_the_document_is_parsed_once_for_all_threads(
    tracks: MemorySnapshot, tmp_path: Path
) -> None:
    kind = cache()
    served = kind.load(run(kind, make_job(tmp_path / "work", tracks)).files)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: id(served.document), range(32)))
    assert len(set(found)) == 1


@pytest.mark.parametrize(
    ("document", "path", "reason"),
    [
        ({"points": [{"x": 0.0}, {"x": float("nan")}]}, "$.points[1].x", "nan"),
        ([1, [2, float("-inf")]], "$[1][1]", "-inf"),
        ({"x": np.float32(1)}, "$.x", "numpy.float32"),
        ({"a": {"b": {1, 2}}}, "$.a.b", "builtins.set"),
        ({"names": ["\ud800"]}, "$.names[0]", "half a character"),
        ({"a": 1, 2: "b"}, "$", "the key 2"),
    ],
)
def test_what_is_no_json_is_named_by_its_path(
    document: Any,
    path: str,
    reason: str,
    functions: ModuleType,
    tracks: MemorySnapshot,
    tmp_path: Path,
) -> None:
    with pytest.raises(DocumentError) as caught:
        returning(functions, document).build(make_job(tmp_path / "work", tracks))
    assert caught.value.path == path
    assert reason in caught.value.reason


def test_a_document_that_contains_itself_is_named_by_its_path(
    functions: ModuleType, tracks: MemorySnapshot, tmp_path: Path
) -> None:
    document: dict[str, Any] = {"child": {}}
    document["child"]["parent"] = document
    with pytest.raises(DocumentError) as caught:
        returning(functions, document).build(make_job(tmp_path / "work", tracks))
    assert (caught.value.path, caught.value.reason) == ("$.child.parent", "it contains itself")


def test_one_object_in_two_places_is_no_circle(
    functions: ModuleType, tracks: MemorySnapshot, tmp_path: Path
) -> None:
    shared = {"name": "x"}
    kind = returning(functions, [shared, shared])
    assert run(kind, make_job(tmp_path / "work", tracks)).failed == []


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize(
    ("function", "arguments", "sentence"),
    [
        ("no_such_module:f", {}, "cannot be imported"),
        ("users_functions:genre", {}, "has no function 'genre'"),
        ("users_functions:genres", {"lower": True}, "cannot be called with \\(inputs, lower\\)"),
    ],
)
def test_a_function_that_cannot_be_called_is_named(
    function: str,
    arguments: dict[str, Any],
    sentence: str,
    tracks: MemorySnapshot,
    tmp_path: Path,
) -> None:
    with pytest.raises(DocumentFunctionError, match=sentence):
        cache(function, arguments=arguments).build(make_job(tmp_path / "work", tracks))


def test_what_the_function_raises_itself_goes_through(
    functions: ModuleType, tracks: MemorySnapshot, tmp_path: Path
) -> None:
    def broken(inputs: Mapping[str, Any]) -> None:
        raise TypeError("the function's own")

    functions.broken = broken  # type: ignore[attr-defined] # a module made by hand
    with pytest.raises(TypeError, match="the function's own"):
        cache("users_functions:broken").build(make_job(tmp_path / "work", tracks))


@pytest.mark.parametrize(
    "function", ["genres", "users functions:genres", "a:b:c", ":f", "m:", "a..b:c"]
)
def test_a_function_is_written_as_module_and_name(function: str) -> None:
    with pytest.raises(ValueError, match="module:function"):
        cache(function)


@pytest.mark.parametrize(
    ("document", "items"),
    [
        (None, 0),
        ([], 0),
        ([1, 2], 2),
        ({}, 0),
        ({"a": {}, "b": {}}, 2),
        ({"points": [1, 2, 3], "bounds": [0, 1]}, 3),
        ({"points": [], "title": "empty"}, 0),
        ("text", 1),
    ],
)
def test_entries_are_the_documents_own_items(document: Any, items: int) -> None:
    assert count_items(document) == items


def test_an_empty_document_is_refused_where_the_inputs_are_not_empty(
    functions: ModuleType, tracks: MemorySnapshot, tmp_path: Path
) -> None:
    job = make_job(tmp_path / "work", tracks)
    assert run(returning(functions, {"points": []}), job).failed == ["not_empty"]
    assert run(returning(functions, {"points": []}, allow_empty=True), job).failed == []


def test_an_empty_document_of_an_empty_collection_is_right(
    functions: ModuleType, tmp_path: Path
) -> None:
    nothing = make_snapshot(np.empty((0, 4), np.float32))
    done = run(returning(functions, []), make_job(tmp_path / "work", nothing))
    assert done.failed == []


def test_a_document_over_the_limit_is_refused_and_measured(
    functions: ModuleType, tracks: MemorySnapshot, tmp_path: Path
) -> None:
    kind = returning(functions, ["x" * 100], max_bytes=50)
    done = run(kind, make_job(tmp_path / "work", tracks))
    assert done.failed == ["size_bytes"]
    assert (done.check("size_bytes").measured, done.check("size_bytes").limit) == (104, 50)


@pytest.mark.usefixtures("functions")
def test_the_gates_read_what_lies_on_disk(tracks: MemorySnapshot, tmp_path: Path) -> None:
    kind, job = cache(), make_job(tmp_path / "work", tracks)
    done = run(kind, job)
    done.files["document.json"].write_bytes(b'{"jazz":[]}')
    failed = {check.name for check in kind.verify(job, done.built, done.files) if not check.passed}
    assert failed == {"parses_back", "gzip_equals_document", "not_empty"}


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize(
    ("name", "gates"),
    [
        ("document.json", {"parses_back", "gzip_equals_document", "not_empty"}),
        ("document.json.gz", {"gzip_equals_document"}),
    ],
)
def test_a_file_cut_short_fails_its_gates(
    name: str, gates: set[str], tracks: MemorySnapshot, tmp_path: Path
) -> None:
    kind, job = cache(), make_job(tmp_path / "work", tracks)
    done = run(kind, job)
    path = done.files[name]
    path.write_bytes(path.read_bytes()[:-4])
    failed = {check.name for check in kind.verify(job, done.built, done.files) if not check.passed}
    assert failed == gates


def test_a_collection_is_read_entry_by_entry_or_in_chunks(tracks: MemorySnapshot) -> None:
    reader = CollectionReader(tracks)
    assert (reader.name, reader.generation, reader.dimension) == ("tracks", 1, 3)
    assert (reader.metric, reader.count, len(reader)) == (Metric.COSINE, 3, 3)
    entries = list(reader)
    assert [entry.id for entry in entries] == tracks.ids
    assert entries[1].payload == {"genre": "techno"}
    np.testing.assert_array_equal(entries[2].vector, [0, 0, 1])
    assert [len(chunk) for chunk in reader.chunks(2)] == [2, 1]


def test_the_truth_of_a_collection_is_refused(tracks: MemorySnapshot) -> None:
    with pytest.raises(TypeError, match="count > 0"):
        bool(CollectionReader(tracks))
