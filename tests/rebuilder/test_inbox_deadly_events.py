"""Events that kill the process that reads them, on a real server and in real processes."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from indexrelay.rebuilder.inbox import Intake
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.messages import Event, RebuildRequested
from indexrelay.schemas.settings import RebuilderSettings
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection, ConsumerGroup, Keys, publish_many
from indexrelay.streams.keys import REBUILDERS_GROUP
from tests.rebuilder.deadly_program import DEADLY, MAX_DELIVERIES

pytestmark = pytest.mark.server
KEYS = Keys("test")


@pytest.fixture
def catalog_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'catalog.db'}"


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    catalog = Catalog.open(catalog_url)
    yield catalog
    catalog.close()


def request(request_id: str) -> bytes:
    data = RebuildRequested(request_id=request_id)
    return Event.of(data, source="test", time=datetime.now(UTC), id=request_id).to_bytes()


def open_ids(catalog: Catalog) -> list[str]:
    return [row.event_id for row in catalog.inbox.open()]


def run_until_it_lives(url: str, catalog_url: str) -> int:
    """Start it again and again, as a supervisor would; how often it was killed."""
    for deaths in range(10):
        command = [sys.executable, "-m", "tests.rebuilder.deadly_program", url, catalog_url]
        code = subprocess.run(command, check=False).returncode
        if code == 0:
            return deaths
        assert code == -signal.SIGKILL
    raise AssertionError("it was killed ten times")


def test_an_event_that_kills_is_a_dead_letter_after_exactly_so_many_deaths(
    redis_url: str, redis_connection: Connection, catalog: Catalog, catalog_url: str
) -> None:
    publish_many(redis_connection, KEYS.events, [request("r1"), DEADLY, request("r2")])
    assert run_until_it_lives(redis_url, catalog_url) == MAX_DELIVERIES
    [letter] = catalog.dead_letters.all()
    assert letter.raw == DEADLY
    assert letter.reason == "it ended the process that read it, 3 times"
    assert sorted(open_ids(catalog)) == ["r1", "r2"]
    assert redis_connection.commands.xpending(KEYS.events, REBUILDERS_GROUP)["pending"] == 0
    assert run_until_it_lives(redis_url, catalog_url) == 0


def test_an_event_that_outages_handed_out_often_is_received_like_any_other(
    redis_connection: Connection, catalog: Catalog
) -> None:
    publish_many(redis_connection, KEYS.events, [request("r1"), b"unreadable"])

    def consumer() -> ConsumerGroup:
        return ConsumerGroup(redis_connection, KEYS.events, group=REBUILDERS_GROUP, consumer="one")

    for _ in range(2 * MAX_DELIVERIES):
        assert len(consumer().read(count=10, block_seconds=0)) == 2  # and the reply is lost
    intake = Intake(
        consumer(),
        stream=KEYS.events,
        catalog=catalog,
        limits=RebuilderSettings(max_deliveries=MAX_DELIVERIES, max_dead_letters=10),
        clock=SystemClock(),
    )
    intake.take(block_seconds=0)
    assert open_ids(catalog) == ["r1"]
    [letter] = catalog.dead_letters.all()
    assert letter.reason.startswith("not JSON")
    assert redis_connection.commands.xpending(KEYS.events, REBUILDERS_GROUP)["pending"] == 0
