"""Many batches, one transaction, one round trip."""

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from indexrelay.producers import AsyncProducer, BacklogFullError, BatchClosedError, Producer
from indexrelay.producers.errors import (
    NotCommittedError,
    UndeclaredCollectionError,
    WrongSourceError,
)
from indexrelay.schemas.messages import FIELD, BatchCompleted, Event
from indexrelay.schemas.session import SessionToken
from indexrelay.schemas.settings import Settings
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.catalog.database import Database
from indexrelay.storage.errors import (
    BatchContentError,
    InvalidBatchIdError,
    InvalidEntriesError,
)
from indexrelay.streams import Connection, Keys, publish_many
from tests.producers.presence import HandClock

ROW = np.ones((1, 3), np.float32)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def announced(connection: Connection) -> list[tuple[str, str, int]]:
    entries: Any = connection.commands.xrange(Keys("indexrelay").events)
    said = [Event.from_bytes(fields[FIELD]).data for _, fields in entries]
    assert all(isinstance(data, BatchCompleted) for data in said)
    return [
        (data.collection, data.batch_id, data.generation)
        for data in said
        if isinstance(data, BatchCompleted)
    ]


def count(catalog: Catalog, collection: str) -> int:
    return catalog.collections.get(collection).count


def test_batches_are_committed_when_the_outer_block_ends_and_each_is_announced(
    producer: Producer, catalog: Catalog, connection: Connection
) -> None:
    with producer.batches() as batches:
        for number in range(3):
            with batches.batch("tracks", f"song {number}") as batch:
                batch.upsert([f"id {number}"], ROW)
        batches.batch_completed("files", batch_id="folder")
        with pytest.raises(NotCommittedError, match="block of its batches has not ended"):
            _ = batch.commit
        assert (count(catalog, "tracks"), announced(connection)) == (0, [])
        assert len(batches) == 4
        assert list(batches.commits) == []
    assert count(catalog, "tracks") == 3
    assert batch.commit.generation == 3
    assert batch.announced
    assert batches.announced
    assert len(batches) == 4
    assert announced(connection) == [
        ("tracks", "song 0", 1),
        ("tracks", "song 1", 2),
        ("tracks", "song 2", 3),
        ("files", "folder", 1),
    ]
    assert [commit.batch_id for commit in batches.commits][-2:] == ["song 2", "folder"]


def test_what_was_committed_gives_a_session_token(producer: Producer, catalog: Catalog) -> None:
    with producer.batches() as batches:
        for number in range(2):
            with batches.batch("tracks") as batch:
                batch.upsert([f"id {number}"], ROW)
        batches.batch_completed("files")
        with pytest.raises(NotCommittedError):
            _ = batch.session
    tracks, files = (catalog.collections.get(name).epoch for name in ("tracks", "files"))
    assert batch.session == SessionToken.at("tracks", tracks, 2)
    assert batches.session == batch.session.merge(SessionToken.at("files", files, 1))


def test_they_are_one_transaction_and_one_publish(
    producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[Database] = []
    publishes: list[int] = []
    write = Database.write

    def counted_write(database: Database) -> Any:
        writes.append(database)
        return write(database)

    def counted_publish(connection: Connection, key: str, raws: list[bytes]) -> list[bytes]:
        publishes.append(len(raws))
        return publish_many(connection, key, raws)

    with producer.batch("tracks") as first:  # declares the collection
        first.upsert(["first"], ROW)
    monkeypatch.setattr(Database, "write", counted_write)
    monkeypatch.setattr("indexrelay.producers.events.publish_many", counted_publish)
    with producer.batches() as batches:
        for number in range(50):
            with batches.batch("tracks") as batch:
                batch.upsert([f"id {number}"], ROW)
    assert (len(writes), publishes) == (1, [50])


def test_leaving_the_outer_block_by_an_exception_commits_nothing(
    producer: Producer, catalog: Catalog, connection: Connection
) -> None:
    with pytest.raises(KeyError), producer.batches() as batches:  # noqa: PT012 - the block is meant
        with batches.batch("tracks") as batch:
            batch.upsert(["a"], ROW)
        raise KeyError
    assert (count(catalog, "tracks"), announced(connection)) == (0, [])
    with pytest.raises(NotCommittedError, match="ended by KeyError"):
        _ = batch.commit
    assert batches.commits == ()


def test_a_batch_that_fails_alone_is_left_out_alone(producer: Producer, catalog: Catalog) -> None:
    with producer.batches() as batches:
        for name in ("good", "bad", "fine"):
            try:
                with batches.batch("tracks", name) as batch:
                    batch.upsert([name], np.zeros((1, 3)) if name == "bad" else ROW)
            except InvalidEntriesError:
                continue
    assert [commit.batch_id for commit in batches.commits] == ["good", "fine"]
    assert count(catalog, "tracks") == 2


def test_the_same_batch_again_is_the_same_batch(producer: Producer, catalog: Catalog) -> None:
    for _ in range(2):
        with producer.batches() as batches:
            for name in ("a", "b", "a"):
                with batches.batch("tracks", name) as batch:
                    batch.upsert([name], ROW)
    assert [commit.generation for commit in batches.commits] == [1, 2, 1]
    assert all(commit.repeated for commit in batches.commits)
    assert catalog.collections.get("tracks").generation == 2


def test_other_content_under_a_known_id_keeps_all_of_them_out(
    producer: Producer, catalog: Catalog, connection: Connection
) -> None:
    with producer.batch("tracks", "b") as known:
        known.upsert(["a"], ROW)
    batches = producer.batches()
    with pytest.raises(BatchContentError, match="batch 'b' of 'tracks'"), batches:  # noqa: PT012 - the whole block is meant
        for name in ("c", "b"):
            with batches.batch("tracks", name) as batch:
                batch.upsert([name], ROW)
    assert batches.commits == ()
    assert count(catalog, "tracks") == 1
    assert announced(connection) == [("tracks", "b", 1)]


def test_two_contents_under_one_new_id_are_not_committed(
    producer: Producer, catalog: Catalog
) -> None:
    batches = producer.batches()
    with pytest.raises(BatchContentError, match="is given twice in one call, first with"), batches:  # noqa: PT012 - the whole block is meant
        for name in ("c", "d"):
            with batches.batch("tracks", "new") as batch:
                batch.upsert([name], ROW)
    assert count(catalog, "tracks") == 0


def test_texts_may_be_set_of_entries_of_an_earlier_batch_of_the_block(
    producer: Producer, catalog: Catalog
) -> None:
    with producer.batches() as batches:
        with batches.batch("tracks") as batch:
            batch.upsert(["a"], ROW, ["x"])
        with batches.batch("tracks") as batch:
            batch.set_texts(["a"], ["y"])
    assert [commit.upserts for commit in batches.commits] == [1, 1]
    with catalog.entries.snapshot("tracks") as snapshot:
        (chunk,) = snapshot.chunks()
        assert chunk.texts == ["y"]


def test_what_is_wrong_is_refused_before_anything_is_committed(producer: Producer) -> None:
    with producer.batches() as batches:
        with pytest.raises(UndeclaredCollectionError):
            batches.batch("trakcs")
        with pytest.raises(WrongSourceError):
            batches.batch("files")
        with pytest.raises(WrongSourceError):
            batches.batch_completed("tracks")
        with pytest.raises(InvalidBatchIdError):
            batches.batch("tracks", "nul\0")
        with pytest.raises(InvalidBatchIdError):
            batches.batch("tracks", "")  # a variable that is not set: an id at random repeats all
        with pytest.raises(InvalidBatchIdError):
            batches.batch_completed("files", batch_id="x" * 201)
        with pytest.raises(ValueError, match="traceparent"):
            batches.batch("tracks", traceparent="none")
    assert len(batches) == 0


def test_a_batch_that_is_still_open_when_the_others_are_committed_is_refused(
    producer: Producer, catalog: Catalog
) -> None:
    with producer.batches() as batches:
        late = batches.batch("tracks")
    with pytest.raises(BatchClosedError), late:
        late.upsert(["a"], ROW)
    assert count(catalog, "tracks") == 0


def test_each_event_carries_the_trace_of_its_batch(
    producer: Producer, connection: Connection
) -> None:
    with producer.batches() as batches:
        for name, trace in (("a", TRACE), ("b", None)):
            with batches.batch("tracks", name, traceparent=trace) as batch:
                batch.upsert([name], ROW)
    entries: Any = connection.commands.xrange(Keys("indexrelay").events)
    events = [Event.from_bytes(fields[FIELD]) for _, fields in entries]
    assert [event.traceparent for event in events] == [TRACE, None]


@pytest.fixture
def limited(
    settings: Settings, catalog: Catalog, connection: Connection, clock: HandClock
) -> Iterator[Producer]:
    """A producer that may leave no event waiting."""
    none = settings.model_copy(
        update={"producer": settings.producer.model_copy(update={"max_backlog": 1})}
    )
    with Producer(none, catalog=catalog, connection=connection, clock=clock) as opened:
        yield opened


def test_back_pressure_names_every_commit_that_stands(
    limited: Producer, catalog: Catalog, clock: HandClock
) -> None:
    with limited.batches() as batches:
        for name in ("a", "b"):
            with batches.batch("tracks", name) as batch:
                batch.upsert([name], ROW)
    clock.pass_by(1.0)
    batches = limited.batches()
    for name in ("c", "d"):
        with batches.batch("tracks", name) as batch:
            batch.upsert([name], ROW)
    with pytest.raises(BacklogFullError, match="2 batches, the last of them") as raised, batches:
        pass
    assert raised.value.commits == batches.commits
    assert raised.value.commit == batch.commit
    assert not batches.announced
    assert count(catalog, "tracks") == 4


def test_the_awaitable_producer_has_them_too(
    producer: Producer, catalog: Catalog, connection: Connection
) -> None:
    async def job() -> None:
        async with AsyncProducer(producer).batches() as batches:

            async def analyse(number: int) -> None:
                async with batches.batch("tracks", f"song {number}") as batch:
                    await batch.upsert([f"id {number}"], ROW)

            await asyncio.gather(*(analyse(number) for number in range(20)))
            await batches.batch_completed("files")
            assert len(batches) == 21
        assert batches.announced
        assert {commit.generation for commit in batches.commits[:20]} == set(range(1, 21))
        assert max(each.generation for each in batches.session if each.collection == "tracks") == 20

    asyncio.run(job())
    assert count(catalog, "tracks") == 20
    assert len(announced(connection)) == 21
