"""A large installation, as an admin page sees it: many components, many readers, a long history.

The components are built, small as they are. Of the readers there is what they publish of themselves
and no process, and the history has rebuilds that were written into it.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from indexrelay.admin.history import FILE_NAME
from indexrelay.schemas.messages import ComponentState, LoadOutcome, ReaderState
from indexrelay.schemas.versions import Release
from indexrelay.streams import Connection, Keys
from indexrelay.streams.presence import Presence
from measuring.arrays import COLLECTION, drawn, entry_id
from measuring.instances import Instances, free_ports, instances
from measuring.rounds import Say
from measuring.servers import bench_server

ENTRIES: Final = 200
DIMENSION: Final = 16
_TTL_SECONDS: Final = 3_600.0
_APART_SECONDS: Final = 60
"""Between two rebuilds of the history."""


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """It runs, and its page answers."""

    url: str
    """Of the page."""
    readers: tuple[ReaderState, ...]
    """As they were published first."""
    presence: Presence
    versions: dict[str, str]
    """Of the server that took part."""

    def publish(self, state: ReaderState) -> None:
        """Have a reader say something else of itself."""
        _publish(self.presence, state)


@contextmanager
def fleet(*, readers: int, components: int, rebuilds: int, say: Say) -> Iterator[Fleet]:
    """It, for as long as the ``with`` lasts.

    Args:
        readers: how many are present.
        components: how many are released, and served by each of them.
        rebuilds: of the history.
        say: where it stands.
    """
    (port,) = free_ports(1)
    tables = _tables(components, port)
    with bench_server() as server, instances(server.url, tables) as there:
        say(f"building {components} components")
        vectors = drawn(ENTRIES, DIMENSION, clusters=8)
        with there.producer.batch(COLLECTION) as batch:
            batch.upsert([entry_id(row) for row in range(ENTRIES)], vectors)
        there.release_all(COLLECTION)
        release = there.store.newest_release()
        if release is None:
            raise RuntimeError("nothing was released")
        states = tuple(_reader(number, release, there) for number in range(readers))
        with Connection.open(server.url) as connection:
            presence = Presence(connection, Keys(there.settings.namespace), "reader")
            for state in states:
                _publish(presence, state)
            url = there.start_admin()
            _write_history(there, rebuilds)
            yield Fleet(url=f"{url}/", readers=states, presence=presence, versions=server.versions)


def _reader(number: int, release: Release, there: Instances) -> ReaderState:
    """What one reader says that serves everything."""
    now = datetime.now(UTC)
    components = {}
    for name, version in release.components.items():
        manifest = there.store.version(name, version)
        components[name] = ComponentState(
            outcome=LoadOutcome.APPLIED,
            version=version,
            wanted=version,
            covers=manifest.covers,
            epochs=manifest.epochs,
            stamps=manifest.stamps,
            entries=manifest.entries,
            seconds=0.01,
            applied_at=now,
        )
    return ReaderState(
        reader=f"reader-{number:03d}",
        host=f"host-{number % 20}",
        pid=1000 + number,
        instance=f"{number:016x}",
        started_at=now - timedelta(hours=1),
        updated_at=now,
        ready=True,
        release=release.number,
        components=components,
    )


def _write_history(there: Instances, count: int) -> None:
    """Write rebuilds into the history of the admin service, which has made its file by then: one
    a minute until now, each of the tenth failed, and a sample beside each."""
    file = there.settings.data_dir / FILE_NAME
    there.wait("the history", lambda: file.exists() and _has_tables(file))
    now = 1000 * int(time.time())
    rebuilds, samples = [], []
    for number in range(count):
        at = now - 1000 * _APART_SECONDS * (count - number)
        status = "failure" if number % 10 == 9 else "success"
        seconds = 2.0 + number % 7
        name = f"similar_{number % 30}"
        rebuilt, failed = ("", name) if status == "failure" else (name, "")
        message = f"rebuild {number} of the benchmark"
        rebuilds.append(
            (f"b{number:08d}", at, seconds, status, "event", rebuilt, failed, None, message, "[]")
        )
        samples.append((at, 15, 0.5 * (number % 5), 1.0, 3.0, 0.9, 200, 200))
    with closing(sqlite3.connect(file, timeout=60)) as connection, connection:
        connection.executemany(
            "INSERT INTO rebuilds VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rebuilds
        )
        connection.executemany(
            "INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?)", samples
        )


def _has_tables(file: Path) -> bool:
    with closing(sqlite3.connect(file, timeout=60)) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    return {"rebuilds", "samples"} <= names


def _publish(presence: Presence, state: ReaderState) -> None:
    presence.publish(state.member, state.model_dump_json().encode(), ttl_seconds=_TTL_SECONDS)


def _tables(components: int, port: int) -> str:
    """The settings."""
    return f"""
[log]
level = "error"
[admin]
port = {port}
[rebuilder]
release_after_seconds = 600
[collections.{COLLECTION}]
dimension = {DIMENSION}
metric = "l2"
[components.similar]
kind = "vector_index"
from = "{COLLECTION}"
index = "Flat"
matrix = {{ seed = {list(range(components))} }}
"""
