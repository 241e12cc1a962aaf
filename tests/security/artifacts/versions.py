"""One small version of every kind, as its build writes it, and all that may be asked of it."""

import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from indexrelay.components.embedding_cache import EmbeddingCache
from indexrelay.components.errors import InvalidQueryError, UnknownEntryError
from indexrelay.components.json_cache import JsonCache
from indexrelay.components.kind import Kind
from indexrelay.components.projection import Projection
from indexrelay.components.search import HybridIndex
from indexrelay.components.text_index import TextIndex
from indexrelay.components.vector_index import VectorIndex
from tests.components.jobs import MemorySnapshot, Row, as_previous, clustered, make_job, run

ROWS: Final = 300
DIMENSION: Final = 8
_CHANGED: Final = 20
WORDS: Final = ("blue", "train", "kind", "of", "round", "midnight", "so", "what", "giant", "steps")


def document(inputs: Mapping[str, Any]) -> dict[str, list[str]]:
    """The function of the JSON cache."""
    return {"ids": [entry.id for entry in inputs["tracks"]]}


Question = Callable[[], None]
"""Asks something, and looks at the answer."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """What a build wrote."""

    name: str
    kind: str
    """As a manifest names it."""
    parameters: dict[str, Any]
    files: Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to make one."""

    kind: type[Kind[Any, Any]]
    name: str
    parameters: Mapping[str, Any]
    continued: bool = False
    """Whether it is the second version, with a delta beside the base."""


_FIELDS: Final = {"number": "number", "word": "keyword", "words": "keywords"}

RECIPES: Final[dict[str, Recipe]] = {
    "flat index": Recipe(kind=VectorIndex, name="vector_index", parameters={"index": "Flat"}),
    "graph": Recipe(kind=VectorIndex, name="vector_index", parameters={"index": "HNSW8"}),
    "lists": Recipe(
        kind=VectorIndex,
        name="vector_index",
        parameters={"index": "IVF8,Flat", "min_recall": 0.1},
        continued=True,
    ),
    "filtered lists": Recipe(
        kind=VectorIndex,
        name="vector_index",
        parameters={"index": "IVF8,Flat", "min_recall": 0.1, "filterable": _FIELDS},
        continued=True,
    ),
    "compressed lists": Recipe(
        kind=VectorIndex,
        name="vector_index",
        parameters={"index": "IVF8,PQ4x4fs", "min_recall": 0.01},
    ),
    "delta index": Recipe(
        kind=VectorIndex,
        name="vector_index",
        parameters={"index": "PCA4,IVF8,Flat", "min_recall": 0.01},
        continued=True,
    ),
    "text index": Recipe(kind=TextIndex, name="text_index", parameters={}, continued=True),
    "filtered text index": Recipe(
        kind=TextIndex, name="text_index", parameters={"filterable": _FIELDS}, continued=True
    ),
    "both": Recipe(
        kind=HybridIndex,
        name="search",
        parameters={"vector": {"index": "Flat"}, "filterable": _FIELDS},
        continued=True,
    ),
    "map": Recipe(kind=Projection, name="projection", parameters={"method": "pca"}, continued=True),
    "JSON cache": Recipe(
        kind=JsonCache,
        name="json_cache",
        parameters={"function": f"{__name__}:document", "max_bytes": 100_000},
    ),
    "embedding cache": Recipe(
        kind=EmbeddingCache, name="embedding_cache", parameters={}, continued=True
    ),
}


def make(name: str, folder: Path) -> Version:
    """Build the version that is called ``name``."""
    recipe = RECIPES[name]
    kind = recipe.kind(recipe.kind.Parameters.model_validate(recipe.parameters))
    source = MemorySnapshot(_rows(range(ROWS)), dimension=DIMENSION)
    job = make_job(folder / "first", source)
    done = run(kind, job)
    assert not done.failed, (name, done.failed)
    if recipe.continued:
        upserts = _rows(range(ROWS - _CHANGED // 2, ROWS + _CHANGED), seed=8)
        source = source.commit(upserts, deletes=[f"e{row:06d}" for row in range(0, 15, 3)])
        previous = as_previous(job, done)
        done = run(kind, make_job(folder / "second", source, previous=previous))
        assert not done.failed, (name, done.failed)
        assert done.built.extends, name
    return Version(
        name=name,
        kind=recipe.name,
        parameters=dict(recipe.parameters),
        files={label: path.read_bytes() for label, path in done.files.items()},
    )


def _rows(numbers: Sequence[int], *, seed: int = 7) -> dict[str, Row]:
    vectors = clustered(ROWS * 2, DIMENSION, seed=seed)
    return {
        f"e{number:06d}": Row(
            vector=vectors[number],
            text=None if number % 11 == 0 else " ".join(WORDS[number % 7 : number % 7 + 4]),
            payload=None if number % 5 == 0 else json.dumps(_payload(number)),
        )
        for number in numbers
    }


def _payload(number: int) -> dict[str, Any]:
    return {"number": number, "word": WORDS[number % 10], "words": list(WORDS[: number % 3])}


def ask(name: str, served: Any) -> None:
    """Everything that a user may ask of a served version, once; what it answers is looked at.

    An entry that is not there and a query that is none are answers as well.

    Raises:
        CorruptFileError: it is corrupt.
        AssertionError: an answer is none.
    """
    for question in _QUESTIONS[RECIPES[name].kind](served):
        with suppress(UnknownEntryError, InvalidQueryError):
            question()


def _of_vectors(served: Any) -> Iterator[Question]:
    vector = np.linspace(-1, 1, DIMENSION).astype(np.float32)
    yield lambda: _hits(served.search(vector, k=10))
    yield lambda: _hits(served.search(vector, k=1000))
    yield lambda: _hits(served.search_many(np.stack([vector, -vector]))[1])
    for each in _some_ids(served):
        yield partial(lambda name: _hits(served.search_by_id(name, k=5)), each)
        yield partial(lambda name: _check(served.vector(name).shape == (DIMENSION,)), each)
        yield partial(lambda name: _json(served.payload(name)), each)
        yield partial(lambda name: _check(isinstance(name in served, bool)), each)
    yield lambda: _texts(served.ids)
    for asked in _FILTERS if served.fields else ():
        yield partial(lambda one: _hits(served.search(vector, k=10, filter=one)), asked)
        yield partial(lambda one: _entries(served, one), asked)
    yield lambda: _hits(served.search(vector, k=10, without=["e000001", "nobody"], explain=True))


def _of_texts(served: Any) -> Iterator[Question]:
    for each in ("blue train", "midnight", 'so "what" OR', "", "nothing of this"):
        yield partial(lambda words: _hits(served.search(words, k=20)), each)
    for each in ("e000001", "e000010", "e000299"):
        yield partial(lambda name: _json(served.payload(name)), each)
        yield partial(lambda name: _check(isinstance(served.text(name), str | None)), each)
        yield partial(lambda name: _check(isinstance(name in served, bool)), each)
    yield lambda: _check(isinstance(served.frequency("train"), int))
    yield lambda: _check(len(served) >= 0 and served.texts >= 0 and served.findable >= 0)
    for asked in _FILTERS if served.fields else ():
        yield partial(lambda one: _hits(served.search("blue train", k=10, filter=one)), asked)
        yield partial(lambda one: _entries(served, one), asked)


def _of_both(served: Any) -> Iterator[Question]:
    vector = np.linspace(-1, 1, DIMENSION).astype(np.float32)
    for asked in ({"vector": vector}, {"text": "blue train"}, {"vector": vector, "text": "blue"}):
        yield partial(lambda one: _hits(served.search(**one, k=10)), asked)
        yield partial(lambda one: _hits(served.search(**one, k=5, filter=_FILTERS[0])), asked)
        yield partial(lambda one: _hits(served.search(**one, fusion="scores", explain=True)), asked)
    for each in ("e000001", "e000150", "e000310"):
        yield partial(lambda name: _hits(served.search_by_id(name, k=5)), each)
        yield partial(lambda name: _check(isinstance(name in served, bool)), each)
    yield lambda: _hits(served.search_like(like=["e000001"], unlike=["e000150"], k=5))
    yield lambda: _hits(served.neighbours(["e000001"], k=3)["e000001"])
    for asked in _FILTERS:
        yield partial(lambda one: _entries(served, one), asked)


def _of_maps(served: Any) -> Iterator[Question]:
    yield lambda: _check(served.coordinates.shape == (len(served), 2))
    yield lambda: _check(bool(np.isfinite(served.coordinates).all()))
    yield lambda: _texts(served.ids)
    for each in _some_ids(served):
        yield partial(lambda name: _check(served.get(name).shape == (2,)), each)


def _of_documents(served: Any) -> Iterator[Question]:
    yield lambda: _json(served.document)
    yield lambda: _check(gzip.decompress(served.gzipped) == served.body)
    yield lambda: _check(served.etag.startswith('"') and len(served) == len(served.body))


def _of_embeddings(served: Any) -> Iterator[Question]:
    yield lambda: _check(served.to_numpy().shape == (len(served), DIMENSION))
    yield lambda: _check(sum(len(block) for _, block in served.blocks(64)) == len(served))
    yield lambda: _texts(served.ids)
    for each in _some_ids(served):
        yield partial(lambda name: _check(served.get(name).shape == (DIMENSION,)), each)
    yield lambda: _check(served.get_many(list(islice(served.ids, 3))).shape[1] == DIMENSION)


_QUESTIONS: Final[dict[type[Kind[Any, Any]], Callable[[Any], Iterator[Question]]]] = {
    VectorIndex: _of_vectors,
    TextIndex: _of_texts,
    HybridIndex: _of_both,
    Projection: _of_maps,
    JsonCache: _of_documents,
    EmbeddingCache: _of_embeddings,
}


def _some_ids(served: Any) -> list[str]:
    return ["e000001", "e000150", "e000299", "e000310", *islice(served.ids, 2)]


def _hits(hits: Any) -> None:
    for hit in hits:
        _check(isinstance(hit.id, str) and isinstance(hit.score, float))
        _json(hit.payload)


_FILTERS: Final[tuple[dict[str, Any], ...]] = (
    {"number": {"$gte": 7, "$lt": 250}},
    {"word": "blue", "words": {"$any": ["train", "blue"]}},
    {"$not": {"word": {"$in": ["of", "round"]}}},
    {"words": {"$exists": False}},
)


def _entries(served: Any, asked: dict[str, Any]) -> None:
    page = served.scroll(asked, limit=20)
    _check(served.count(asked) >= len(page.entries))
    for entry in [*page.entries, *served.get(["e000001", "e000310", "nobody"])]:
        if entry is not None:
            _check(isinstance(entry.id, str))
            _json(entry.payload)


def _texts(ids: Any) -> None:
    _check(all(isinstance(each, str) for each in islice(ids, 2000)))


def _json(value: Any) -> None:
    json.dumps(value)


def _check(right: bool) -> None:
    assert right, "an answer is none"
