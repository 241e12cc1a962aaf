"""What was: rebuilds, releases, and how fresh and fast things were, over months.

    GET /history?since=…   rebuilds, samples and releases since then, for charts and lists

Redis keeps the results of rebuilds for a week, the artifacts keep some releases, and nobody else
keeps how fresh things were. So the admin service writes down what each look shows, in an SQLite
file of its own in the data folder. It holds no truth: without it nothing but charts is missing, and
one that is corrupt is set aside for a new one.

It is bounded. A sample stands for `SAMPLE_SECONDS`; what is older than a day is one sample for each
hour, what is older than three months one for each day. Of each span the worst freshness and latency
stay. Rebuilds and releases are the newest so many.
"""

import hashlib
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from pydantic import AwareDatetime
from pydantic_core import from_json, to_json

from indexrelay.admin.document import Fact
from indexrelay.operations.observer import Observation, reader_condition, trigger_of
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.files import make_private_folder, open_private
from indexrelay.schemas.gates import LATENCY, LATENCY_P99
from indexrelay.schemas.loggers import LogOnce, get_logger
from indexrelay.schemas.messages import RebuildResult
from indexrelay.schemas.names import canonical_json, shown
from indexrelay.schemas.versions import VersionManifest
from indexrelay.service.problems import RefusedError
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.artifacts.history import release_history

if TYPE_CHECKING:
    from indexrelay.admin.resources import AdminResources

_log = get_logger(__name__)

FILE_NAME: Final = "admin-history.db"
SAMPLE_SECONDS: Final = 15
MAX_REBUILDS: Final = 20_000
MAX_RELEASES: Final = 5_000
MAX_SAMPLES: Final = 2_000
"""In one answer: more than a chart has pixels for; between them the worst counts."""
_SPANS: Final = (
    (SAMPLE_SECONDS, timedelta(days=1)),
    (3600, timedelta(days=90)),
    (86_400, timedelta(days=3 * 365)),
)
"""The seconds that a sample stands for, and how old such a one becomes."""
_THIN_SECONDS: Final = 900.0
"""Between two looks at what has become too old."""
_RELEASES_AT_ONCE: Final = 200
_NAMES, _MESSAGE, _REQUESTS = 100, 1000, 10
"""Of one rebuild: components, characters of its message, and ids of requests. Results come through
Redis, and whoever may write there could fill a disk."""
_TOO_LARGE: Final = 2**63
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_VERSION: Final = 1

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS rebuilds (
    id TEXT PRIMARY KEY, at INTEGER NOT NULL, seconds REAL NOT NULL, status TEXT NOT NULL,
    cause TEXT NOT NULL, rebuilt TEXT NOT NULL, failed TEXT NOT NULL, release INTEGER,
    message TEXT NOT NULL, request_ids TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS rebuilds_at ON rebuilds (at);
CREATE TABLE IF NOT EXISTS samples (
    at INTEGER PRIMARY KEY, seconds INTEGER NOT NULL, freshness REAL, p50 REAL, p99 REAL,
    success REAL, readers INTEGER, converged INTEGER
);
CREATE TABLE IF NOT EXISTS releases (number INTEGER PRIMARY KEY, at INTEGER, facts TEXT NOT NULL);
"""
_MERGED: Final = """
    max(freshness), avg(p50), max(p99), avg(success), max(readers), min(converged)
"""
"""Several samples as one."""


class PastRebuild(Fact):
    """A rebuild that ended."""

    id: str
    at: datetime
    """When it ended."""
    seconds: float
    status: str
    trigger: str
    """``batch``, ``request``, ``schedule`` or ``repair``."""
    components: tuple[str, ...]
    """Those that were rebuilt, or failed."""
    failed: tuple[str, ...]
    release: int | None
    message: str
    request_ids: tuple[str, ...]


class Sample(Fact):
    """How it was during a span of time; null: that was not known."""

    at: datetime
    """When the span began."""
    seconds: int
    """How long it is."""
    freshness_seconds: float | None
    """The age of the oldest commit that was not served everywhere, at the worst."""
    p50_ms: float | None
    """Of a query of the slowest index, as its gates measured it."""
    p99_ms: float | None
    success_ratio: float | None
    """Of the rebuilds of the 24 hours before."""
    readers: int | None
    converged: int | None
    """Of those: that served the newest release."""


class PastRelease(Fact):
    """A release, and what it changed."""

    number: int
    made_at: datetime | None
    by: str
    reason: str
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    holds: tuple[str, ...]


class RebuildTotals(Fact):
    """Of all rebuilds of the time that was asked for, also those that are left out."""

    count: int
    succeeded: int
    partly: int
    failed: int
    median_seconds: float | None


class HistoryView(Fact):
    """What was since then."""

    since: datetime
    oldest: datetime | None
    """Of what is kept at all; null: nothing yet."""
    totals: RebuildTotals
    rebuilds: tuple[PastRebuild, ...]
    """The newest first."""
    samples: tuple[Sample, ...]
    """The oldest first."""
    releases: tuple[PastRelease, ...]
    """The newest first."""


@dataclass(frozen=True, kw_only=True)
class _Slot:
    """A sample that is not over yet."""

    at: int
    """Milliseconds since 1970, as all times in the file."""
    freshness: float | None
    p50: float | None
    p99: float | None
    success: float | None
    readers: int | None
    converged: int | None


class History:
    """Writes down what looks show; `add` belongs to one thread, `view` and `close` to any."""

    def __init__(self, path: Path, *, store: ArtifactStore, clock: Clock) -> None:
        """Nothing is opened before the first look.

        Args:
            path: of the file; it and its folder are made, for their owner alone.
            store: where what a release changed is read.
        """
        self._path = path
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._slot: _Slot | None = None
        self._slots: list[_Slot] = []
        self._rebuilds: dict[str, RebuildResult] = {}
        """Not written yet, by their ids."""
        self._released = 0
        self._thin_at: float | None = None
        self._failed = LogOnce()

    def add(self, seen: Observation) -> None:
        """Take one look in; what cannot be written is a warning, and is tried again at the next."""
        self._sample(seen)
        for result in (*seen.earlier, *seen.results):
            self._rebuilds[_id_of(result)] = result
        failed: dict[str, str] = {}
        for what, write in (("looks", self._write), ("releases", self._write_releases)):
            try:
                write(seen)
            except Exception as error:  # noqa: BLE001 - the look is what people see, and goes on
                failed[what] = str(error)
                self._give_up(error)
        for why in self._failed.new(failed).values():
            _log.warning("history.not_written", path=str(self._path), error=why)
        self._forget()

    def view(self, since: datetime, *, limit: int) -> dict[str, Any]:
        """The fields of a `HistoryView`, in types of JSON.

        Args:
            limit: how many rebuilds and releases at most, the newest.

        Raises:
            sqlite3.Error, OSError: the file cannot be read.
        """
        first = _milliseconds(since)
        with self._opened() as connection:
            width = self._width(connection, first)
            rebuilds = connection.execute(
                "SELECT id, at, seconds, status, cause, rebuilt, failed, release, message, "
                "request_ids FROM rebuilds WHERE at >= ? ORDER BY at DESC LIMIT ?",
                (first, limit),
            ).fetchall()
            samples = connection.execute(
                f"SELECT min(at), max(max(seconds), ?), {_MERGED} FROM samples "  # noqa: S608 - ours
                "WHERE at >= ? GROUP BY at / ? ORDER BY 1",
                (width // 1000, first, width),
            ).fetchall()
            releases = connection.execute(
                "SELECT facts FROM releases WHERE at >= ? ORDER BY number DESC LIMIT ?",
                (first, limit),
            ).fetchall()
            totals = _totals(connection, first)
            oldest = connection.execute(
                "SELECT min(at) FROM (SELECT min(at) AS at FROM rebuilds UNION ALL "
                "SELECT min(at) FROM samples UNION ALL SELECT min(at) FROM releases)"
            ).fetchone()[0]
        return {
            "since": since,
            "oldest": None if oldest is None else _moment(oldest),
            "totals": totals,
            "rebuilds": [_rebuild_fields(row) for row in rebuilds],
            "samples": [_sample_fields(row) for row in samples],
            "releases": [from_json(facts) for (facts,) in releases],
        }

    def close(self) -> None:
        """Write what is not written yet, and close the file; safe twice, and before the first look.
        A look that comes later opens it again."""
        with self._lock:
            if self._slot is not None and self._connection is not None:
                with suppress(sqlite3.Error), _transaction(self._connection):
                    _put_samples(self._connection, [*self._slots, self._slot])
                    self._slots = []
            self._slot = None
            self._shut()

    def _write(self, seen: Observation) -> None:
        now = self._clock.monotonic()
        is_old = self._thin_at is None or now >= self._thin_at
        if not (self._slots or self._rebuilds or is_old):
            return
        with self._opened() as connection, _transaction(connection):
            _put_samples(connection, self._slots)
            _put_rebuilds(connection, self._rebuilds, now=seen.at)
            if is_old:
                _thin(connection, now=seen.at)
        self._slots, self._rebuilds = [], {}
        if is_old:
            self._thin_at = now + _THIN_SECONDS

    def _write_releases(self, seen: Observation) -> None:
        """Those that came; at first all that the artifacts have and the file has not."""
        newest = 0 if seen.facts.release is None else seen.facts.release.number
        if newest == self._released:
            return
        with self._opened() as connection:
            known = connection.execute("SELECT max(number) FROM releases").fetchone()[0] or 0
        numbers = self._store.release_numbers()
        # A store that was lost begins again below what is known: then those are the releases.
        wanted = [each for each in numbers if each > known] if newest > known else numbers
        found = release_history(self._store, most=min(len(wanted), _RELEASES_AT_ONCE))
        rows = [
            (
                each.number,
                _milliseconds(each.made_at or self._clock.now()),
                canonical_json(
                    {
                        **each.model_dump(mode="json", exclude={"components", "by", "reason"}),
                        "by": shown(each.by),
                        "reason": shown(each.reason),
                    }
                ).decode(),
            )
            for each in found
        ]
        with self._opened() as connection, _transaction(connection):
            connection.executemany("INSERT OR REPLACE INTO releases VALUES (?, ?, ?)", rows)
        self._released = newest

    def _sample(self, seen: Observation) -> None:
        """Take the look into the sample of its time; one that is over waits to be written."""
        at = _milliseconds(seen.at) // (SAMPLE_SECONDS * 1000) * SAMPLE_SECONDS * 1000
        freshness = max(seen.freshness.values(), default=None)
        readers, converged = _readers(seen)
        slot = self._slot
        if slot is None or slot.at != at:
            if slot is not None:
                self._slots.append(slot)
            p50, p99 = _latencies(seen.facts.versions)
            slot = _Slot(
                at=at,
                freshness=None,
                p50=p50,
                p99=p99,
                success=None,
                readers=None,
                converged=None,
            )
        known = [each for each in (slot.freshness, freshness) if each is not None]
        self._slot = replace(
            slot,
            freshness=max(known, default=None),
            success=seen.rebuilds.success_ratio,
            readers=readers,
            converged=converged,
        )

    def _forget(self) -> None:
        """Of what could not be written the oldest, so that a full disk fills no memory."""
        del self._slots[:-MAX_SAMPLES]
        for id_ in [*self._rebuilds][:-MAX_REBUILDS]:
            del self._rebuilds[id_]

    def _width(self, connection: sqlite3.Connection, first: int) -> int:
        """The milliseconds that one sample of an answer is to stand for."""
        begin = connection.execute("SELECT min(at) FROM samples WHERE at >= ?", (first,)).fetchone()
        step = SAMPLE_SECONDS * 1000
        whole = _milliseconds(self._clock.now()) - (begin[0] or first)
        return max(-(-whole // MAX_SAMPLES // step), 1) * step

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The file, for this thread alone; opened where it is not."""
        with self._lock:
            if self._connection is None:
                self._connection = _open(self._path)
            yield self._connection

    def _give_up(self, error: Exception) -> None:
        """Close the file; one that is no database, or is corrupt, is set aside.

        What is no fault of the file lies in what was to be written, and would be there again at
        each look: that is dropped.
        """
        if not isinstance(error, sqlite3.Error | OSError | IndexRelayError):
            self._slots, self._rebuilds = [], {}
        with self._lock:
            self._shut()
            is_corrupt = isinstance(error, sqlite3.DatabaseError)
            if not is_corrupt or isinstance(error, sqlite3.OperationalError):
                return
            with suppress(OSError):
                self._path.replace(self._path.with_name(f"{self._path.name}.corrupt"))
                for end in ("-wal", "-shm"):
                    self._path.with_name(self._path.name + end).unlink(missing_ok=True)

    def _shut(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


class NewerHistoryError(IndexRelayError):
    """Raised when the file was written by a later version; it is left as it is."""

    def __init__(self, path: Path, version: int) -> None:
        super().__init__(
            f"{path} was written by a later version (format {version}); history is neither shown "
            "nor kept until that runs again, or the file is removed"
        )


def history_routes(resources: "AdminResources") -> APIRouter:
    """The route, without a prefix."""
    router = APIRouter()

    @router.get("/history", response_model=HistoryView)
    def history(
        since: Annotated[AwareDatetime | None, Query()] = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    ) -> Response:
        """What was since then, or all that is kept; at most ``limit`` rebuilds and releases."""
        try:
            found = resources.history.view(since or _EPOCH, limit=limit)
        except sqlite3.Error as error:
            raise RefusedError(503, f"the history cannot be read: {error}") from error
        return Response(to_json(found), media_type="application/json")

    return router


def _open(path: Path) -> sqlite3.Connection:
    make_private_folder(path.parent)
    with open_private(path, "ab"):
        pass  # SQLite gives its other files the same mode
    connection = sqlite3.connect(path, timeout=2.0, isolation_level=None, check_same_thread=False)
    try:
        _see_version(path, connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # a crash may cost the last samples
        connection.executescript(_TABLES)
        connection.execute(f"PRAGMA user_version = {_VERSION}")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # the disk is full: SQLite has rolled back by itself
            connection.execute("ROLLBACK")
        raise


def _see_version(path: Path, connection: sqlite3.Connection) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > _VERSION:
        raise NewerHistoryError(path, version)


def _put_samples(connection: sqlite3.Connection, slots: list[_Slot]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                each.at,
                SAMPLE_SECONDS,
                each.freshness,
                each.p50,
                each.p99,
                each.success,
                each.readers,
                each.converged,
            )
            for each in slots
        ],
    )


def _put_rebuilds(
    connection: sqlite3.Connection, results: Mapping[str, RebuildResult], *, now: datetime
) -> None:
    connection.executemany(
        "INSERT OR IGNORE INTO rebuilds VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                id_,
                # A rebuilder whose clock is ahead would hide what comes after it.
                _milliseconds(min(each.finished_at, now)),
                max((each.finished_at - each.started_at).total_seconds(), 0.0),
                str(each.status),
                trigger_of(each),
                " ".join(each.indexes_rebuilt[:_NAMES]),
                " ".join(each.indexes_failed[:_NAMES]),
                each.release if each.release is None or each.release < _TOO_LARGE else None,
                shown(each.message, _MESSAGE),
                to_json([shown(id_, 200) for id_ in each.request_ids[:_REQUESTS]]).decode(),
            )
            for id_, each in results.items()
        ],
    )


def _thin(connection: sqlite3.Connection, *, now: datetime) -> None:
    """Put old samples together, and remove what is too old or too much."""
    for (seconds, age), (longer, _) in pairwise(_SPANS):
        width = longer * 1000
        before = _milliseconds(now - age) // width * width
        old = (seconds, before)
        merged = connection.execute(
            f"SELECT at / {width} * {width}, {longer}, {_MERGED} FROM samples "  # noqa: S608 - ours
            f"WHERE seconds = ? AND at < ? GROUP BY at / {width}",
            old,
        ).fetchall()
        connection.execute("DELETE FROM samples WHERE seconds = ? AND at < ?", old)
        connection.executemany(
            "INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?)", merged
        )
    oldest = _milliseconds(now - _SPANS[-1][1])
    ahead = _milliseconds(now + timedelta(days=1))  # a clock was wrong
    connection.execute("DELETE FROM samples WHERE at < ? OR at > ?", (oldest, ahead))
    for table, key, most in (
        ("rebuilds", "at", MAX_REBUILDS),
        ("releases", "number", MAX_RELEASES),
    ):
        connection.execute(
            f"DELETE FROM {table} WHERE {key} < (SELECT {key} FROM {table} "  # noqa: S608 - ours
            f"ORDER BY {key} DESC LIMIT 1 OFFSET ?)",
            (most - 1,),
        )


def _totals(connection: sqlite3.Connection, first: int) -> dict[str, Any]:
    counts = dict(
        connection.execute(
            "SELECT status, count(*) FROM rebuilds WHERE at >= ? GROUP BY status", (first,)
        ).fetchall()
    )
    count = sum(counts.values())
    middle = connection.execute(
        "SELECT seconds FROM rebuilds WHERE at >= ? ORDER BY seconds LIMIT 1 OFFSET ?",
        (first, count // 2),
    ).fetchone()
    return {
        "count": count,
        "succeeded": counts.get("SUCCESS", 0),
        "partly": counts.get("PARTIAL_SUCCESS", 0),
        "failed": counts.get("FAILURE", 0),
        "median_seconds": None if middle is None else middle[0],
    }


def _rebuild_fields(row: tuple[Any, ...]) -> dict[str, Any]:
    id_, at, seconds, status, cause, rebuilt, failed, release, message, request_ids = row
    bad = failed.split()
    return {
        "id": id_,
        "at": _moment(at),
        "seconds": seconds,
        "status": status,
        "trigger": cause,
        "components": [*rebuilt.split(), *bad],
        "failed": bad,
        "release": release,
        "message": message,
        "request_ids": from_json(request_ids),
    }


def _sample_fields(row: tuple[Any, ...]) -> dict[str, Any]:
    at, seconds, freshness, p50, p99, success, readers, converged = row
    return {
        "at": _moment(at),
        "seconds": seconds,
        "freshness_seconds": freshness,
        "p50_ms": p50,
        "p99_ms": p99,
        "success_ratio": success,
        "readers": readers,
        "converged": converged,
    }


def _readers(seen: Observation) -> tuple[int | None, int | None]:
    """How many there are, and how many of them serve the newest release; of what is known."""
    if seen.facts.redis is None:
        return None, None
    found = [
        reader_condition(member, state, seen.facts)
        for member, state in seen.facts.known_readers.items()
    ]
    return len(found), found.count("serving")


def _latencies(versions: Mapping[str, VersionManifest]) -> tuple[float | None, float | None]:
    """Those of the slowest index that is released."""
    found: dict[str, float] = {}
    for manifest in versions.values():
        for check in manifest.checks:
            name = check.name.rpartition(".")[2]  # of a part, its name comes first
            if name in (LATENCY, LATENCY_P99) and check.measured is not None:
                found[name] = max(found.get(name, 0.0), check.measured)
    return found.get(LATENCY), found.get(LATENCY_P99)


def _id_of(result: RebuildResult) -> str:
    """The same for the same result, whoever reads it and how often."""
    told = (
        result.started_at.isoformat(),
        result.finished_at.isoformat(),
        str(result.release),
        *result.indexes_rebuilt,
        *result.indexes_failed,
        *result.request_ids,
        *result.batch_ids,
    )
    return hashlib.sha256("\n".join(told).encode(errors="backslashreplace")).hexdigest()[:16]


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
