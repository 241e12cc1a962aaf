"""A burst goes into the inbox in a few steps, however many events it has."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from indexrelay.rebuilder.inbox import Intake
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.messages import Event, RebuildRequested
from indexrelay.schemas.settings import RebuilderSettings
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.catalog.database import Database
from indexrelay.streams import Connection, ConsumerGroup, Keys, publish_many
from indexrelay.streams.keys import REBUILDERS_GROUP

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
        limits=RebuilderSettings(max_deliveries=3, max_dead_letters=10),
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
