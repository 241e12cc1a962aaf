"""A job hears that nobody follows, and its batch is committed all the same."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indexrelay.producers import (
    AsyncProducer,
    BacklogFullError,
    BackPressureError,
    EventRefusedError,
    Producer,
)
from indexrelay.schemas.settings import Settings
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection, ConsumerGroup, Keys
from indexrelay.streams.keys import REBUILDERS_GROUP
from tests.fixtures.servers import ServerFactory
from tests.producers.presence import HandClock

ROW = np.ones((1, 3), np.float32)
KEYS = Keys("indexrelay")


@pytest.fixture
def limited(
    settings: Settings, catalog: Catalog, connection: Connection, clock: HandClock
) -> Iterator[Producer]:
    """A producer that may leave two events waiting."""
    few = settings.model_copy(
        update={"producer": settings.producer.model_copy(update={"max_backlog": 2})}
    )
    with Producer(few, catalog=catalog, connection=connection, clock=clock) as opened:
        yield opened


def commit_one(producer: Producer, batch_id: str) -> bool:
    with producer.batch("tracks", batch_id) as batch:
        batch.upsert([batch_id], ROW)
    return batch.announced


def fill(producer: Producer, clock: HandClock) -> None:
    for number in range(3):
        clock.pass_by(1.0)
        assert commit_one(producer, f"b{number}")
    clock.pass_by(1.0)


def test_a_backlog_is_reported_after_the_commit_and_nothing_is_added(
    limited: Producer, connection: Connection, catalog: Catalog, clock: HandClock
) -> None:
    fill(limited, clock)
    with pytest.raises(BacklogFullError, match="max_backlog") as raised:  # noqa: SIM117 - as a job writes it
        with limited.batch("tracks", "one_too_many") as batch:
            batch.upsert(["x"], ROW)
    assert raised.value.commit == batch.commit
    assert not batch.announced
    assert catalog.collections.get("tracks").generation == batch.commit.generation == 4
    assert connection.commands.xlen(KEYS.events) == 3


def test_the_same_batch_again_commits_nothing_twice_and_is_announced_when_there_is_room(
    limited: Producer, connection: Connection, catalog: Catalog, clock: HandClock
) -> None:
    fill(limited, clock)
    with pytest.raises(BacklogFullError):
        commit_one(limited, "again")
    group = ConsumerGroup(connection, KEYS.events, group=REBUILDERS_GROUP, consumer="one")
    group.read(count=10, block_seconds=0)
    with pytest.raises(BacklogFullError):
        commit_one(limited, "again")  # what was seen holds for a second
    clock.pass_by(1.0)
    assert commit_one(limited, "again")
    assert catalog.collections.get("tracks").generation == 4


def test_the_backlog_is_looked_at_once_a_second_and_not_for_each_event(
    limited: Producer, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    def counted(*_args: object, most: int, **_keys: object) -> int:
        looks.append(most)
        return 0

    monkeypatch.setattr("indexrelay.producers.events.backlog", counted)
    for number in range(50):
        commit_one(limited, f"b{number}")
    assert looks == [2]
    clock.pass_by(1.0)
    commit_one(limited, "later")
    assert looks == [2, 2]


def test_requests_are_never_held_up(limited: Producer, catalog: Catalog, clock: HandClock) -> None:
    fill(limited, clock)
    request = limited.request_rebuild(["voyager"])
    assert [row.event_id for row in catalog.inbox.open()] == [request]


def test_jobs_that_keep_their_own_data_and_asynchronous_ones_meet_it_too(
    limited: Producer, clock: HandClock
) -> None:
    fill(limited, clock)
    with pytest.raises(BackPressureError) as raised:
        limited.batch_completed("files")
    assert raised.value.commit.collection == "files"

    async def job() -> None:
        async with AsyncProducer(limited).batch("tracks", "async") as batch:
            await batch.upsert(["x"], ROW)

    with pytest.raises(BackPressureError) as raised:
        asyncio.run(job())
    assert raised.value.commit.batch_id == "async"


@pytest.mark.server
def test_a_server_that_is_full_is_reported_while_the_commit_stands_and_consumers_drain(
    server_factory: ServerFactory, tmp_path: Path
) -> None:
    server = server_factory()
    server.start()
    url = server.url
    settings = Settings.model_validate(
        {"data_dir": tmp_path, "redis": {"url": url}, "collections": {"tracks": {"dimension": 3}}}
    )
    with Producer.open(settings) as producer, Connection.open(url) as connection:
        assert commit_one(producer, "before")
        connection.commands.config_set("maxmemory", 1)
        with pytest.raises(EventRefusedError, match="maxmemory") as raised:
            commit_one(producer, "refused")
        assert raised.value.commit.generation == 2
        assert raised.value.__cause__ is not None
        connection.commands.config_set("maxmemory", 0)
        group = ConsumerGroup(connection, KEYS.events, group=REBUILDERS_GROUP, consumer="one")
        group.ensure()
        connection.commands.config_set("maxmemory", 1)
        [delivery] = group.read(count=10, block_seconds=0)
        assert group.acknowledge([delivery.entry_id]) == 1
        connection.commands.config_set("maxmemory", 0)
        assert commit_one(producer, "refused")
