"""Whoever has the password of one reader sets keys under its label, as fast as one connection can.

Every look for keys has an end then: builds go on, a wait ends in time, the rebuilder stays present,
and the keys go faster than they come.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from indexrelay.producers import NotServedError, Producer
from indexrelay.rebuilder import Rebuilder
from indexrelay.schemas.messages import ReaderState, RebuilderState
from indexrelay.schemas.settings import RebuilderSettings, Settings
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection, Keys, Presence, members_of
from indexrelay.streams.keys import SCAN_SECONDS, scan, within
from indexrelay.streams.presence import MAX_PROCESSES
from indexrelay.streams.repair import Repair, find_wrong_keys
from tests.rebuilder.conftest import behaving
from tests.streams.polling import eventually

pytestmark = pytest.mark.server

KEYS = Keys("flooded")
LIMITS = RebuilderSettings()
MANY = 100_000
"""A hundred times as many as are looked at."""
LIMIT_SECONDS = 60.0
"""On a machine that does much else."""
SLACK_SECONDS = 5.0
LEAST_BUILT = 2
PRESENCE_SECONDS = 3.0
WAIT_SECONDS = 0.5


@pytest.fixture
def connection(real_connection: Connection) -> Iterator[Connection]:
    yield real_connection
    real_connection.commands.flushdb()


def add(connection: Connection, numbers: Iterator[int], most: int) -> None:
    """Some thousand keys of one label in one round trip."""
    commands: Any = connection.commands
    with commands.pipeline(transaction=False) as pipeline:
        for _ in range(most):
            pipeline.set(KEYS.reader(f"evil:{next(numbers):016x}"), b"x", px=3_000_000)
        pipeline.execute()


def fill(connection: Connection, most: int) -> None:
    numbers = count()
    for _ in range(0, most, 10_000):
        add(connection, numbers, 10_000)


def values_read(connection: Connection) -> int:
    """How often the server was asked for the value of a key, or for its length."""
    called: dict[str, Any] = connection.commands.info("commandstats")
    names = ("get", "getrange", "mget", "strlen")
    return sum(called.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in names)


FLOOD = """
import sys
import redis
commands, number = redis.Redis(**eval(sys.argv[1])), 0
while True:
    pipeline = commands.pipeline(transaction=False)
    for number in range(number, number + 1000):
        pipeline.set(sys.argv[2] + "%016x" % number, b"x", px=3_000_000)
    pipeline.execute()
"""


@contextmanager
def flooding(connection: Connection) -> Iterator[None]:
    """From another process, which takes nothing from the threads of this one."""
    given: dict[str, Any] = connection.commands.connection_pool.connection_kwargs
    known = {"host", "port", "db", "path", "username", "password"} & given.keys()
    where = {{"path": "unix_socket_path"}.get(name, name): given[name] for name in known}
    command = [sys.executable, "-c", FLOOD, repr(where), KEYS.reader("evil:")]
    with subprocess.Popen(command) as process:
        try:
            yield
            assert process.poll() is None
        finally:
            process.kill()


def rebuilder_is_seen(connection: Connection) -> bool:
    """However long it takes to find it on a slow server."""
    found = members_of(connection, KEYS, RebuilderState, in_time=within(LIMIT_SECONDS))
    return bool(found.states)


def reader(label: str) -> ReaderState:
    now = datetime.now(UTC)
    return ReaderState(
        reader=label, host="h", pid=1, instance="0a", started_at=now, updated_at=now, ready=True,
        release=0,
    )  # fmt: skip


def test_a_look_has_an_end_and_says_under_which_label_there_are_too_many(
    connection: Connection,
) -> None:
    fill(connection, MANY)
    presence = Presence(connection, KEYS, "reader")
    honest = reader("honest")
    presence.publish(honest.member, honest.model_dump_json().encode(), ttl_seconds=60)
    read, began = values_read(connection), time.monotonic()
    members = members_of(connection, KEYS, ReaderState)
    assert values_read(connection) - read <= 2 * (MAX_PROCESSES + 1)
    assert "evil" in members.crowded
    assert len(members.states) <= MAX_PROCESSES + 1
    assert time.monotonic() - began < SCAN_SECONDS + SLACK_SECONDS
    over = presence.members(in_time=lambda: False)
    assert over.cut
    roster = presence.members(["honest"], in_time=within(LIMIT_SECONDS))
    assert (honest.member in roster.ids, roster.crowded, roster.cut) == (True, frozenset(), False)
    roster = presence.members(["evil"])
    assert roster.crowded == {"evil"}
    [wrong] = find_wrong_keys(connection, KEYS, LIMITS, components=())
    assert (wrong.label, wrong.floods) == ("evil", True)
    repair = Repair(connection, KEYS, LIMITS, components=())
    [step] = repair.look()
    assert "deleted" in repair.carry_out(step)
    assert [*scan(connection, KEYS.reader("*"))] == [KEYS.reader(honest.member)]


def test_builds_go_on_and_the_rebuilder_stays_present_while_keys_are_added(
    connection: Connection, tmp_path: Path
) -> None:
    settings = Settings.model_validate(
        {
            "namespace": "flooded",
            "data_dir": tmp_path,
            "collections": {"tracks": {"dimension": 2}},
            "components": {"index": behaving("tracks")},
            "rebuilder": {
                "quiet_seconds": 0.01,
                "block_seconds": 0.05,
                "presence_ttl_seconds": PRESENCE_SECONDS,
            },
        }
    )
    store = ArtifactStore(settings.artifacts_dir)
    fill(connection, MANY // 2)
    with (
        closing(Catalog.open(settings.catalog_url)) as catalog,
        Producer(settings, catalog=catalog, connection=connection) as job,
    ):
        rebuilder = Rebuilder(settings, catalog=catalog, store=store, connection=connection)
        rebuilder.start()
        try:
            eventually(lambda: bool(members_of(connection, KEYS, RebuilderState).states))
            with flooding(connection):
                ends = time.monotonic() + PRESENCE_SECONDS
                built = 0
                while built < LEAST_BUILT or time.monotonic() < ends:
                    with job.batch("tracks") as batch:
                        batch.upsert([str(built)], [[1, 0]])
                    began = time.monotonic()
                    while not _has_reached(store, batch.commit.generation):
                        assert time.monotonic() - began < LIMIT_SECONDS
                        time.sleep(0.05)
                        assert rebuilder_is_seen(connection)
                    built += 1
                for readers in (None, 1, ["honest"]):
                    began = time.monotonic()
                    with pytest.raises(NotServedError):
                        job.wait_served(batch.commit, timeout_seconds=WAIT_SECONDS, readers=readers)
                    assert time.monotonic() - began < WAIT_SECONDS + SLACK_SECONDS
            eventually(
                lambda: len({*scan(connection, KEYS.reader("*"))}) <= MAX_PROCESSES,
                seconds=LIMIT_SECONDS,
            )
        finally:
            rebuilder.stop()


def _has_reached(store: ArtifactStore, generation: int) -> bool:
    release = store.newest_release()
    if release is None:
        return False
    covers = store.version("index", release.components["index"]).covers
    return covers["tracks"] == generation
