"""A job sends what its commits changed in live collections; the commits stand whatever happens."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from indexrelay.producers import BackPressureError, Producer
from indexrelay.schemas.messages import FIELD, ChangesCommitted, Event
from indexrelay.schemas.settings import Settings
from indexrelay.storage.catalog import Catalog, CatalogSnapshot
from indexrelay.storage.changes import unpacked
from indexrelay.streams import Connection, Keys
from indexrelay.streams.publisher import CHANGES_BYTES, CHANGES_SECONDS, publish_changes

KEY = "k" * 32
VECTORS = np.eye(3, dtype=np.float32)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    tables = settings.model_dump(by_alias=True)
    tables["collections"]["tracks"]["live"] = True
    tables["live"] = {"keys": (KEY, "o" * 32)}
    return Settings.model_validate(tables)


@pytest.fixture
def sent(connection: Connection, settings: Settings) -> Callable[[], list[ChangesCommitted]]:
    """What was sent so far, each verified."""
    commands: Any = connection.commands

    def read() -> list[ChangesCommitted]:
        key = Keys(settings.namespace).changes("tracks")
        found = []
        for _, fields in commands.xrange(key):
            said = Event.from_bytes(fields[FIELD]).data
            assert isinstance(said, ChangesCommitted)
            assert said.is_signed(settings.namespace, settings.live_keys[:1])
            found.append(said)
        return found

    return read


def test_a_commit_sends_the_whole_states_of_what_it_changed(producer: Producer, sent: Any) -> None:
    with producer.batch("tracks") as batch:
        batch.upsert(["a", "b"], VECTORS[:2], payloads=[{"x": 1}, {"x": 2}], texts=["one", "two"])
    with producer.batch("tracks") as batch:
        batch.upsert(["a"], VECTORS[2:])
        batch.set_texts(["b"], ["other"])
    with producer.batch("tracks") as batch:
        batch.delete(["a", "never there"])
    said = sent()
    assert [(each.after, each.generation) for each in said] == [(0, 1), (1, 2), (2, 3)]
    changed = unpacked(said[1], dimension=3).upserts
    assert changed.ids == ["a", "b"]
    assert changed.vectors.tolist() == [VECTORS[2].tolist(), VECTORS[1].tolist()]
    assert changed.texts == ["one", "other"]
    assert changed.payloads == ['{"x":1}', '{"x":2}']
    assert unpacked(said[2], dimension=3).deletes == ["a"]


def test_what_another_job_commits_meanwhile_is_in_it_and_the_generation_says_so(
    producer: Producer, catalog: Catalog, sent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = catalog.entries.snapshot

    @contextmanager
    def late(collection: str) -> Iterator[CatalogSnapshot]:
        monkeypatch.setattr(catalog.entries, "snapshot", opened)
        with producer.batch("tracks") as batch:
            batch.upsert(["other"], VECTORS[1:2])
        with opened(collection) as snapshot:
            yield snapshot

    monkeypatch.setattr(catalog.entries, "snapshot", late)
    with producer.batch("tracks") as batch:
        batch.upsert(["own"], VECTORS[:1])
    inner, outer = sent()
    assert (inner.after, inner.generation) == (1, 2)
    assert (outer.after, outer.generation) == (0, 2)
    assert unpacked(outer, dimension=3).upserts.ids == ["other", "own"]


def test_a_batch_that_is_repeated_or_of_another_collection_sends_nothing(
    producer: Producer, sent: Any
) -> None:
    for _ in range(2):
        with producer.batch("tracks", "nightly") as batch:
            batch.upsert(["a"], VECTORS[:1])
    producer.batch_completed("files")
    assert len(sent()) == 1


def test_a_large_batch_says_its_generation_only(producer: Producer, sent: Any) -> None:
    with producer.batch("tracks") as batch:
        batch.upsert([f"n{number}" for number in range(30_000)], np.ones((30_000, 3)))
    [said] = sent()
    assert (said.generation, said.changes) == (1, None)


def test_without_redis_the_commit_stands_and_the_log_says_so(
    settings: Settings, catalog: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), Producer(settings, catalog=catalog) as producer:
        with producer.batch("tracks") as batch:
            batch.upsert(["a"], VECTORS[:1])
        assert batch.commit.generation == 1
        assert not batch.announced
    assert "changes.not_sent" in caplog.text
    assert KEY not in caplog.text


def test_changes_are_sent_although_the_backlog_is_full(
    settings: Settings, catalog: Catalog, connection: Connection, sent: Any
) -> None:
    full = settings.producer.model_copy(update={"max_backlog": 1})
    settings = settings.model_copy(update={"producer": full})
    with Producer(settings, catalog=catalog, connection=connection) as producer:
        commands: Any = connection.commands
        for _ in range(3):
            commands.xadd(Keys(settings.namespace).events, {FIELD: b"waits"})
        with pytest.raises(BackPressureError), producer.batch("tracks") as batch:
            batch.upsert(["a"], VECTORS[:1])
    assert len(sent()) == 1


def test_a_stream_of_changes_ends_by_itself_and_is_bounded_by_bytes(
    connection: Connection,
) -> None:
    commands: Any = connection.commands
    size = CHANGES_BYTES // 20
    for _ in range(150):
        publish_changes(connection, "s", b"x" * size)
    assert commands.xlen("s") * size <= CHANGES_BYTES
    assert 0 < commands.pttl("s") <= CHANGES_SECONDS * 1000
