"""F10: no room for artifacts, none for entries, a volume that is read-only, a database in use.

Whatever it is, the last release serves on, the error names it, and once it is over everything
catches up by itself. What needs a volume of its own needs root; a locked database does not.
"""

import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sqlalchemy.exc import OperationalError

from faults.bench import Bench
from faults.recorder import COLLECTION
from faults.rows import Row
from indexrelay.schemas.messages import BatchCompleted, Event
from indexrelay.streams import publish
from tests.fixtures.volumes import Volume, may_mount

ARTIFACTS_BYTES, DATABASE_BYTES = 8 << 20, 4 << 20
BACK_SECONDS = 10.0
"""A writer's retry, a reconcile, a build and a reload, on a busy machine."""
START_SECONDS = 90.0
SHORT_SECONDS, LONG_SECONDS = 2.0, 33.0
"""How long the database is locked: for less and for more than a writer waits."""
FULL_SECONDS = 30.0
"""How long the volume stays full where the log is watched: the first lines are news."""
_COMMIT_SECONDS = 2.0
_LONG_EVERY = 5
_READERS = 2
_MOST_COMMITS = 1000
"""What fits into the space that SQLite's log has taken already is still committed."""


def run(program: Path, row: Row, runs: int) -> None:
    """Each run breaks each of them once."""
    with ExitStack() as stack:
        volumes: tuple[Volume, Volume] | None = None
        tables = ""
        if may_mount():
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ir-volumes-")))
            volumes = (
                stack.enter_context(Volume(root / "artifacts", ARTIFACTS_BYTES)),
                stack.enter_context(Volume(root / "database", DATABASE_BYTES)),
            )
            tables = (
                f'[artifacts]\ndir = "{volumes[0].path / "store"}"\n'
                f'[catalog]\nurl = "sqlite:///{volumes[1].path / "catalog.db"}"\n'
            )
        bench = stack.enter_context(Bench(program, tables=tables))
        bench.bring_up(readers=_READERS, seconds=START_SECONDS)
        for number in range(runs):
            seconds = LONG_SECONDS if number % _LONG_EVERY == 1 else SHORT_SECONDS
            with row.run(f"database locked for {seconds:.0f} s, run {number}"):
                _locked_database(bench, row, seconds)
            if volumes is not None:
                with row.run(f"artifacts full, run {number}"):
                    _full_artifacts(bench, row, volumes[0])
                with row.run(f"artifacts read-only, run {number}"):
                    _read_only_artifacts(bench, row, volumes[0])
                with row.run(f"database full, run {number}"):
                    _full_database(bench, row, volumes[1])
        if volumes is None:
            row.figures.append("no full and no read-only volume: mounting one needs root")
        row.broke(bench.violations())


def _full_artifacts(bench: Bench, row: Row, volume: Volume) -> None:
    logged = {name: _LogLines(bench, name) for name in bench.processes}
    with _serving_on(bench):
        volume.fill()
        try:
            bench.commit()
            bench.wait(lambda: _failed_for(bench, "No space left on device"))
            if row.timed:
                _log_stays_quiet(bench, logged)
        finally:
            volume.free()
    if row.timed:
        bench.commit()  # after so many failures the next retry by itself is minutes away
    _back(bench, row)


def _log_stays_quiet(bench: Bench, logged: "dict[str, _LogLines]") -> None:
    """Batches keep coming while nothing can be built; no process logs a line a second about it."""
    began = time.monotonic()
    for number in range(round(FULL_SECONDS / _COMMIT_SECONDS)):
        bench.commit()
        due = began + (number + 1) * _COMMIT_SECONDS
        bench.wait(partial(_is_past, due))
    seconds = time.monotonic() - began
    for name, words in logged.items():
        assert words.lines < seconds, f"{name} logged {words.lines} lines in {seconds:.0f} s"


def _is_past(moment: float) -> bool:
    return time.monotonic() >= moment


def _read_only_artifacts(bench: Bench, row: Row, volume: Volume) -> None:
    with _serving_on(bench):
        volume.become("ro")
        try:
            bench.commit()
            bench.wait(lambda: _failed_for(bench, "Read-only file system"))
        finally:
            volume.become("rw")
    _back(bench, row)


def _full_database(bench: Bench, row: Row, volume: Volume) -> None:
    """The job gets an error; the rebuilder, which cannot write events, logs that and retries."""
    logged = _LogLines(bench)
    batch = bench.new_batch()
    volume.fill()
    try:
        refused = ""
        for _ in range(_MOST_COMMITS):
            try:
                bench.commit(batch)
            except OperationalError as error:
                refused = str(error)
                break
            batch = bench.new_batch()
        assert "database or disk is full" in refused, refused or "nothing was refused"
        bench.wait(lambda: _poked(bench, logged, "database or disk is full"))
        assert all(state.ready for state in bench.states().values())
        assert len(bench.states()) == _READERS
    finally:
        volume.free()
    assert not bench.commit(batch).repeated  # the job's next run
    _back(bench, row)


def _locked_database(bench: Bench, row: Row, seconds: float) -> None:
    """Another process holds the write lock; a job and a rebuilder wait for it as they may."""
    logged = _LogLines(bench)
    path = bench.settings.catalog_url.removeprefix("sqlite:///")
    with _serving_on(bench), _write_lock(path):
        locked_at = time.monotonic()
        _poke(bench)
        bench.wait(lambda: time.monotonic() - locked_at >= seconds, seconds + 1)
        if seconds == LONG_SECONDS:
            bench.wait(lambda: logged.since("database is locked"))
    bench.commit()
    _back(bench, row)


@contextmanager
def _write_lock(path: str) -> Iterator[None]:
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
    finally:
        connection.close()


@contextmanager
def _serving_on(bench: Bench) -> Iterator[None]:
    """What is served in the end is what was served before, by the same processes."""
    before = {name: (state.pid, state.release) for name, state in bench.states().items()}
    yield
    after = bench.states()
    assert {name: (state.pid, state.release) for name, state in after.items()} == before
    assert all(state.ready for state in after.values())


def _failed_for(bench: Bench, words: str) -> bool:
    """Whether the newest attempt at every component names the cause."""
    attempts = bench.catalog.attempts.all()
    return attempts.keys() == set(bench.settings.components) and all(
        words in attempt.error and attempt.transient for attempt in attempts.values()
    )


class _LogLines:
    """What a process logs from now on."""

    def __init__(self, bench: Bench, process: str = "rebuilder-1") -> None:
        self._log = bench.processes[process].log
        self._from = self._log.stat().st_size

    def since(self, words: str) -> bool:
        return words.encode() in self._read()

    @property
    def lines(self) -> int:
        """How many there are."""
        return self._read().count(b"\n")

    def _read(self) -> bytes:
        with self._log.open("rb") as log:
            log.seek(self._from)
            return log.read()


def _poked(bench: Bench, logged: _LogLines, words: str) -> bool:
    """Give the rebuilder something to write until it logs why it cannot."""
    _poke(bench)
    return logged.since(words)


def _poke(bench: Bench) -> None:
    """An event about what is committed already: it is one more row to write."""
    collection = bench.catalog.collections.get(COLLECTION)
    news = BatchCompleted(
        collection=COLLECTION,
        epoch=collection.epoch,
        batch_id="again",
        generation=collection.generation,
    )
    event = Event.of(news, source="faults", time=datetime.now(UTC))
    publish(bench.connection, bench.keys.events, event.to_bytes())


def _back(bench: Bench, row: Row) -> None:
    seconds = bench.settle()
    assert not bench.catalog.attempts.all()
    row.recovered(seconds, within=BACK_SECONDS)
