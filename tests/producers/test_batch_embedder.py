"""Texts without vectors, in a collection that has an embedder."""

import asyncio
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from indexrelay.components.embedder import Embedders
from indexrelay.producers import (
    BatchContentError,
    Commit,
    EmbeddingError,
    InvalidEntriesError,
    Producer,
)
from indexrelay.producers.asynchronous import AsyncProducer
from indexrelay.schemas.settings import Settings
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection
from tests.producers.test_batch import live

MODULE = "function_of_the_batch_tests"


def embed(texts: list[str]) -> Any:
    """As many vectors as texts; none for the text ``bad``."""
    if "bad" in texts:
        raise ValueError("it has no words")
    return np.array([[len(text), 1, 0] for text in texts])


@pytest.fixture
def embedding(settings: Settings) -> Iterator[Settings]:
    """The settings with an embedder for ``tracks``."""
    module = sys.modules[MODULE] = ModuleType(MODULE)
    module.embed = embed  # type: ignore[attr-defined]
    tracks = settings.collections["tracks"].model_dump() | {"embedder": f"{MODULE}:embed"}
    yield Settings.model_validate(
        settings.model_dump() | {"components": {}, "collections": {"tracks": tracks}}
    )
    del sys.modules[MODULE]


@pytest.fixture
def producer(embedding: Settings, catalog: Catalog, connection: Connection) -> Iterator[Producer]:
    with Producer(embedding, catalog=catalog, connection=connection) as opened:
        yield opened


def test_texts_without_vectors_become_entries_with_the_vectors_of_the_embedder(
    producer: Producer, catalog: Catalog
) -> None:
    with producer.batch("tracks") as batch:
        batch.upsert(["a", "b"], texts=["one", "three"], payloads=[{"n": 1}, None])
        batch.upsert(["c"], [[7, 7, 7]], texts=["a vector of the job's own"])
    assert live(catalog) == {"a": [3, 1, 0], "b": [5, 1, 0], "c": [7, 7, 7]}


def test_a_text_without_a_vector_is_named_by_row_and_the_others_are_not_lost(
    producer: Producer, catalog: Catalog
) -> None:
    with producer.batch("tracks") as batch:
        with pytest.raises(EmbeddingError, match=r"row 1: .*it has no words") as raised:
            batch.upsert(["a", "b", "c"], texts=["one", "bad", "three"])
        assert list(raised.value.errors) == [1]
        assert len(batch) == 0
        batch.upsert(["a", "c"], texts=["one", "three"])
    assert live(catalog) == {"a": [3, 1, 0], "c": [5, 1, 0]}


@pytest.mark.parametrize("texts", [None, ["one", None]])
def test_a_row_with_neither_a_vector_nor_a_text_is_refused(
    producer: Producer, texts: list[str | None] | None
) -> None:
    with (
        producer.batch("tracks") as batch,
        pytest.raises(InvalidEntriesError, match=r"neither a vector nor a text: .*row 1 \('b'\)"),
    ):
        batch.upsert(["a", "b"], texts=texts)


def test_without_an_embedder_vectors_have_to_be_given(
    settings: Settings, catalog: Catalog, connection: Connection
) -> None:
    producer = Producer(settings, catalog=catalog, connection=connection)
    with (
        producer.batch("tracks") as batch,
        pytest.raises(InvalidEntriesError, match="collection tracks has no embedder"),
    ):
        batch.upsert(["a"], texts=["one"])


def test_a_text_has_the_same_vector_in_every_batch(producer: Producer, catalog: Catalog) -> None:
    with producer.batches() as batches:
        for name in ("a", "b"):
            with batches.batch("tracks") as batch:
                batch.upsert([name], texts=["same"])
    assert live(catalog) == {"a": [4, 1, 0], "b": [4, 1, 0]}


def test_a_process_hands_its_embedders_to_its_producer(
    embedding: Settings, catalog: Catalog, connection: Connection
) -> None:
    embedders = Embedders(embedding)
    embedder = embedders.of("tracks")
    assert embedder is not None
    embedder.vector("known")
    sys.modules[MODULE].embed = None  # type: ignore[attr-defined] # no other can be loaded
    producer = Producer(embedding, catalog=catalog, connection=connection, embedders=embedders)
    with producer.batch("tracks") as batch:
        batch.upsert(["a"], texts=["known"])
    assert live(catalog) == {"a": [5, 1, 0]}


def test_an_asynchronous_batch_takes_texts_as_well(producer: Producer, catalog: Catalog) -> None:
    async def job() -> None:
        async with AsyncProducer(producer).batch("tracks") as batch:
            await batch.upsert(["a"], texts=["one"])

    asyncio.run(job())
    assert live(catalog) == {"a": [3, 1, 0]}


def test_a_repeat_is_known_by_its_texts_where_the_embedder_gives_another_vector(
    embedding: Settings,
    catalog: Catalog,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []

    def drifting(texts: list[str]) -> Any:
        calls.append(len(texts))
        return np.array([[len(text), 1, len(calls)] for text in texts])

    monkeypatch.setattr(sys.modules[MODULE], "embed", drifting)

    def commit(text: str, **given: Any) -> Commit:
        with (
            Producer(embedding, catalog=catalog, connection=connection) as producer,
            producer.batch("tracks", batch_id="once") as batch,
        ):
            batch.upsert(["a", "b"], texts=[text, "three"], **given)
        return batch.commit

    first = commit("one")
    again = commit("one")
    assert len(calls) >= 2
    assert (again.generation, again.repeated) == (first.generation, True)
    for other in ({"text": "two"}, {"text": "one", "vectors": [[3, 1, 1], [5, 1, 1]]}):
        with pytest.raises(BatchContentError):
            commit(**other)
