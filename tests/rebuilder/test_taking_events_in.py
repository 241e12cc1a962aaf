"""A burst goes into the inbox in a few steps, however many events it has."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from indexrelay.rebuilder.intake import Intake
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.events import Event, RebuildRequested
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.catalog.database import Database
from indexrelay.streams import Connection, ConsumerGroup, Keys, publish_many
from indexrelay.streams.keys import REBUILDERS_GROUP
from tests.fixtures.servers import ServerFactory

KEYS = Keys("test")
EVENTS = 1_200


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog.open(f"sqlite:///{tmp_path / 'catalog.db'}")
    yield catalog
    catalog.close()


def intake_of(connection: Connection, catalog: Catalog) -> Intake:
    return Intake(
        ConsumerGroup(connection, KEYS.events, group=REBUILDERS_GROUP, consumer="one"),
        stream=KEYS.events,
        catalog=catalog,
        max_deliveries=3,
        max_dead_letters=10,
        max_inbox_rows=100_000,
        clock=SystemClock(),
    )


def requests(count: int) -> list[bytes]:
    now = datetime.now(UTC)
    return [
        Event.of(
            RebuildRequested(request_id=f"r{number}"), source="test", time=now, id=f"r{number}"
        ).to_bytes()
        for number in range(count)
    ]


def test_a_burst_is_read_recorded_and_acknowledged_five_hundred_at_a_time(
    redis_connection: Connection, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    transactions: list[Database] = []
    acknowledged: list[int] = []
    write, acknowledge = Database.write, ConsumerGroup.acknowledge

    def counted_write(database: Database) -> Any:
        transactions.append(database)
        return write(database)

    def counted_acknowledge(group: ConsumerGroup, entry_ids: Sequence[bytes]) -> int:
        acknowledged.append(len(entry_ids))
        return acknowledge(group, entry_ids)

    publish_many(redis_connection, KEYS.events, requests(EVENTS))
    intake = intake_of(redis_connection, catalog)
    monkeypatch.setattr(Database, "write", counted_write)
    monkeypatch.setattr(ConsumerGroup, "acknowledge", counted_acknowledge)
    taken = [intake.take(block_seconds=0) for _ in range(4)]
    assert taken == [500, 500, 200, 0]
    assert len(transactions) == 3
    assert acknowledged == [500, 500, 200]
    assert [row.event_id for row in catalog.inbox.open()] == [f"r{n}" for n in range(EVENTS)]
    assert redis_connection.commands.xpending(KEYS.events, REBUILDERS_GROUP)["pending"] == 0


def test_large_events_are_taken_a_few_at_a_time_and_small_ones_many_again(
    redis_connection: Connection, catalog: Catalog
) -> None:
    intake = intake_of(redis_connection, catalog)
    publish_many(redis_connection, KEYS.events, [b"x" * 1_048_576] * 20)
    assert intake.take(block_seconds=0) == 20  # nobody knew
    publish_many(redis_connection, KEYS.events, [b"x" * 1_048_576] * 20)
    assert [intake.take(block_seconds=0) for _ in range(4)] == [8, 8, 4, 0]
    publish_many(redis_connection, KEYS.events, requests(300))
    assert [intake.take(block_seconds=0) for _ in range(6)] == [8, 16, 32, 64, 128, 52]


def test_a_server_that_hangs_up_on_too_large_an_answer_is_asked_for_less(
    server_factory: ServerFactory, catalog: Catalog
) -> None:
    with Connection.open(server_factory().url) as connection:
        connection.commands.config_set("client-output-buffer-limit", "normal 4mb 0 0")
        publish_many(connection, KEYS.events, [b"x" * 1_000_000] * 12)
        intake = intake_of(connection, catalog)
        with pytest.raises(RedisConnectionError):
            intake.take(block_seconds=0)
        taken = [intake.take(block_seconds=0) for _ in range(3)]
        assert taken[:2] == [1, 2]
        assert connection.commands.xpending(KEYS.events, REBUILDERS_GROUP)["pending"] >= 5
