"""Looks at the whole installation: the facts, the judge's verdict, and what rebuilds came to.

Metrics, alerts and notices are all made from one `Observation`, so that no two of them disagree.
What cannot be read is absent in it, and a problem of the verdict.

The results of rebuilds come from their stream, which Redis keeps for a week. So the success rate of
the last day is known from the first look on, however often this process is started again; what
counts up (`RebuildCounts`) begins with the process, as a monitoring system expects of a counter.
"""

import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from indexrelay.health.facts import Facts, SourceFact
from indexrelay.health.judge import judge
from indexrelay.health.redis import is_silent
from indexrelay.health.status import Verdict
from indexrelay.health.survey import Survey
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.errors import IndexRelayError, UnreadableEventError
from indexrelay.schemas.loggers import LogOnce, get_logger
from indexrelay.schemas.messages import (
    MAX_EVENT_BYTES,
    BuildOutcome,
    ComponentResult,
    Event,
    LiveStatus,
    LoadOutcome,
    ReaderState,
    RebuildFinished,
    RebuildResult,
    RebuildStatus,
)
from indexrelay.schemas.schedules import schedule_of
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import Release, root_collections
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.backups import newest_backup_at
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.errors import ReleaseUnreadableError
from indexrelay.streams import Connection, Keys
from indexrelay.streams.consumer import deliveries_of, entries_in

_log = get_logger(__name__)

DURATION_BUCKETS: Final = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)
"""Seconds: from a small batch to a full build of millions of entries."""
WINDOW: Final = timedelta(hours=24)
"""What the success rate is of."""
_WINDOW_RESULTS: Final = 10_000
"""Results of it that are remembered: as many as their stream holds."""
_ENTRY_BYTES: Final = 410
"""What an entry takes besides."""
_RELEASES: Final = 100
"""Releases that one look examines."""
_GENERATIONS: Final = 1000
"""Generations of a collection whose first sight is remembered."""
_COUNT: Final = 16
"""Entries of the stream that one call reads: 16 MiB at most of what rebuilders write."""
_BYTES: Final = 64 * 1024 * 1024
"""Of results that one look reads: four times what their stream holds, and an end where somebody
writes without one. The next look goes on from there."""


@dataclass(frozen=True, kw_only=True)
class RebuildCounts:
    """The rebuilds that ended since this process began to look."""

    ended: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By status and trigger."""
    buckets: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """By status: how many took up to each of `DURATION_BUCKETS`, and longer; not added up."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """By status: all of them together."""
    success_ratio: float | None = None
    """Of the last 24 hours; ``None``: there was none."""


@dataclass(frozen=True, kw_only=True)
class DiskSpace:
    """A volume, in bytes."""

    total: int
    free: int


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What one look found."""

    facts: Facts
    verdict: Verdict
    namespace: str = ""
    """Of the installation."""
    complete: bool = True
    """Whether all of it could be read."""
    rebuilds: RebuildCounts = RebuildCounts()
    results: tuple[RebuildResult, ...] = ()
    """What ended since the look before, oldest first."""
    earlier: tuple[RebuildResult, ...] = ()
    """What had ended when it was looked at first, of the last 24 hours, oldest first."""
    builds: Mapping[str, ComponentResult] = field(default_factory=dict)
    """By component: the last build that succeeded, of the last 24 hours and since."""
    freshness: Mapping[str, float] = field(default_factory=dict)
    """By component: the age in seconds of the oldest commit that is not served of it everywhere; 0
    where there is none."""
    releases: tuple[Release, ...] = ()
    """Those committed since the look before, oldest first."""
    disks: Mapping[str, DiskSpace] = field(default_factory=dict)
    """The volumes of ``artifacts``, ``data`` and, once there are any, ``backups``."""
    backup_at: datetime | None = None
    """When the newest backup was made; ``None``: there is none."""
    backup_due_at: datetime | None = None
    """The first slot of their schedule that has come, and that no backup followed; ``None``: there
    is none."""

    @property
    def at(self) -> datetime:
        """When it was."""
        return self.facts.now


class Observer:
    """Looks at one installation; for use by one thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        catalog: Catalog,
        store: ArtifactStore,
        connection: Callable[[], Connection],
        clock: Clock,
    ) -> None:
        """What is handed in stays the caller's to close.

        Args:
            connection: gives the one to Redis; called at each look, since there may be none yet.
        """
        self._settings = settings
        self._catalog = catalog
        self._store = store
        self._started_at = clock.now()
        self._behind = _FirstSeen()
        self._released: int | None = None
        self._survey = Survey(
            settings,
            catalog=lambda: catalog,
            store=lambda: store,
            connection=connection,
            clock=clock,
        )
        self._results = ResultHistory(
            connection, Keys(settings.namespace).results, since=clock.now() - WINDOW
        )
        self._rebuilds = _Counting(clock)
        self._builds: dict[str, ComponentResult] = {}
        self._failed = LogOnce()

    def look(self) -> Observation:
        """Look at everything, and judge it; what cannot be read is absent, and never raises."""
        first = not self._results.has_read
        facts = self._survey.whole()
        failed: dict[str, str] = {}
        results: list[RebuildResult] = []
        freshness: dict[str, float] = {}
        releases: list[Release] = []
        backup_at: datetime | None = None
        backup_due_at: datetime | None = None
        try:
            for result in self._results.read():
                results.append(result)  # noqa: PERF402 - what came before an error is kept
        except (RedisError, IndexRelayError, OSError) as error:
            failed["results"] = str(error)
        try:
            if not facts.unknown:  # else what is committed, or served, is not all known
                freshness = dict(_freshness(facts, self._waiting_since(facts)))
        except (SQLAlchemyError, IndexRelayError) as error:
            failed["freshness"] = str(error)
        disks = self._disks(failed)
        try:
            for release in self._new_releases(facts.release):
                releases.append(release)  # noqa: PERF402 - what came before an error is kept
        except (IndexRelayError, OSError) as error:
            failed["releases"] = str(error)
        try:
            backup_at = newest_backup_at(self._settings, facts.now)
            backup_due_at = self._backup_due_at(facts, backup_at)
        except (IndexRelayError, OSError) as error:
            failed["backups"] = str(error)
        self._builds |= {
            name: built
            for result in results
            for name, built in result.components.items()
            if name in facts.definitions and built.outcome is BuildOutcome.REBUILT
        }
        for what, why in self._failed.new(failed).items():
            _log.warning("monitoring.incomplete", what=what, error=why)
        return Observation(
            facts=facts,
            verdict=judge(facts),
            namespace=self._settings.namespace,
            complete=not facts.unknown and not failed,
            rebuilds=self._rebuilds.with_results(results, counted=not first),
            results=() if first else tuple(results),
            earlier=tuple(results) if first else (),
            builds=dict(self._builds),
            freshness=freshness,
            releases=tuple(releases),
            disks=disks,
            backup_at=backup_at,
            backup_due_at=backup_due_at,
        )

    def _disks(self, failed: dict[str, str]) -> dict[str, DiskSpace]:
        """The volumes that can be looked at; ``failed`` is given why one cannot."""
        disks: dict[str, DiskSpace] = {}
        places = {
            "artifacts": self._settings.artifacts_dir,
            "data": self._settings.data_dir,
            "backups": self._settings.backups_dir,
        }
        for place, folder in places.items():
            try:
                if place != "backups" or folder.exists():
                    disks[place] = _space(folder)
            except OSError as error:
                failed[place] = str(error)
        return disks

    def _waiting_since(self, facts: Facts) -> Callable[[str, int], datetime]:
        """When the first commit after a generation of a collection was made, or seen first."""

        def since(collection: str, served: int) -> datetime:
            at = self._catalog.collections.committed_after(collection, served)
            source = facts.sources[collection]
            return at or self._behind.since(collection, source, served, facts.now)

        return since

    def _new_releases(self, newest: Release | None) -> Iterator[Release]:
        """Those after the newest one of the look before; what is not there any more is left out."""
        if newest is None:
            return
        before, self._released = self._released, newest.number
        if before is None:
            return
        for number in range(max(before + 1, newest.number - _RELEASES), newest.number):
            with suppress(ReleaseUnreadableError):
                yield self._store.release(number)
        if newest.number > before:
            yield newest

    def _backup_due_at(self, facts: Facts, newest: datetime | None) -> datetime | None:
        backups = self._settings.backups
        if backups.schedule is None or facts.release is None:
            return None
        if newest is None:  # the first one is made without waiting for a slot
            return self._started_at
        from indexrelay.schemas.cron import next_slot  # only who has a schedule has its library

        slot = next_slot(backups.schedule, backups.timezone, after=newest)
        return slot if slot <= facts.now else None


class _FirstSeen:
    """When generations were seen first, of collections whose commits have no time."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], deque[tuple[int, datetime]]] = {}

    def since(self, collection: str, source: SourceFact, served: int, now: datetime) -> datetime:
        """When the first one after ``served`` was seen, which is less than the source's."""
        found = self._seen.setdefault((collection, source.epoch), deque(maxlen=_GENERATIONS))
        if not found or found[-1][0] != source.generation:
            found.append((source.generation, now))
        return next((at for generation, at in found if generation > served), now)


class ResultHistory:
    """The results of rebuilds, from a moment on, each once; for use by one thread."""

    def __init__(self, connection: Callable[[], Connection], key: str, *, since: datetime) -> None:
        self._connection = connection
        self._key = key
        self._after = b"%d-0" % max(int(since.timestamp() * 1000), 0)
        self.has_read = False
        """Whether a read has come to the end of the stream."""

    def read(self) -> Iterator[RebuildResult]:
        """What is there and was not read before, oldest first.

        Raises:
            redis.exceptions.RedisError: the server is away, or refuses; what was yielded by then
                is not read again.
            IndexRelayError, OSError: it cannot be reached at all.
        """
        commands = self._connection().commands
        read = 0
        while read < _BYTES:
            # A rebuilder's user of Redis may read on here, and may not go through a range.
            reply: Any = commands.xread({self._key: self._after}, count=_COUNT)
            entries = entries_in(reply)
            for delivery in deliveries_of(entries):
                self._after = delivery.entry_id
                size = len(delivery.raw or b"")
                read += size + _ENTRY_BYTES
                if delivery.raw is not None and size <= MAX_EVENT_BYTES:
                    yield from _result_in(delivery.raw)
            if len(entries) < _COUNT:
                self.has_read = True
                return


def _result_in(raw: bytes) -> Iterator[RebuildResult]:
    try:
        data = Event.from_bytes(raw).data
    except UnreadableEventError:  # a rebuilder of another major version, or somebody else
        return
    if isinstance(data, RebuildFinished):
        yield RebuildResult.model_validate(data.model_dump())


class _Counting:
    """Adds up results."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ended: Counter[tuple[str, str]] = Counter()
        self._buckets: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}
        self._window: deque[tuple[datetime, bool]] = deque(maxlen=_WINDOW_RESULTS)

    def with_results(self, results: Sequence[RebuildResult], *, counted: bool) -> RebuildCounts:
        """The counts with these; ``counted``: not only in the success rate."""
        for result in results:
            # A clock that is ahead would keep a result, and what came after it, for ever.
            ended = min(result.finished_at, self._clock.now())
            self._window.append((ended, result.status is RebuildStatus.SUCCESS))
            if counted:
                self._count(result)
        oldest = self._clock.now() - WINDOW
        while self._window and self._window[0][0] < oldest:
            self._window.popleft()
        succeeded = sum(success for _, success in self._window)
        return RebuildCounts(
            ended=dict(self._ended),
            buckets={status: tuple(each) for status, each in self._buckets.items()},
            seconds=dict(self._seconds),
            success_ratio=succeeded / len(self._window) if self._window else None,
        )

    def _count(self, result: RebuildResult) -> None:
        status = str(result.status)
        self._ended[status, trigger_of(result)] += 1
        seconds = max((result.finished_at - result.started_at).total_seconds(), 0.0)
        buckets = self._buckets.setdefault(status, [0] * (len(DURATION_BUCKETS) + 1))
        buckets[sum(seconds > bound for bound in DURATION_BUCKETS)] += 1
        self._seconds[status] = self._seconds.get(status, 0.0) + seconds


def trigger_of(result: RebuildResult) -> str:
    """What a rebuild came from: ``schedule``, ``request``, ``batch``, or ``repair`` of what was
    changed, corrupt or missed."""
    if any(schedule_of(request) is not None for request in result.request_ids):
        return "schedule"
    if result.request_ids:
        return "request"
    return "batch" if result.batch_ids else "repair"


def reader_condition(member: str, state: ReaderState, facts: Facts) -> str:
    """One word for a reader that is present: one of `READER_CONDITIONS`.

    ``serving``: it has worked through the newest release, and has of each component that it names
    the version that the release wants of it. One that is to serve something and names nothing is
    not ready, whatever it says.

    Args:
        member: its name among the present ones.
    """
    if is_silent(state, member, facts):
        return "silent"
    if any(each.outcome is LoadOutcome.FAILED for each in state.components.values()):
        return "refusing"
    release = facts.release
    if release is not None and state.release < release.number:
        return "behind"
    wanted = {} if release is None else release.for_reader(state.label).components
    if not state.ready or (wanted and not state.components):
        return "not_ready"
    served = {name: each.version for name, each in state.components.items()}
    has_all = all(served.get(name, version) == version for name, version in wanted.items())
    return "serving" if has_all else "behind"


READER_CONDITIONS: Final = ("silent", "refusing", "behind", "serving", "not_ready")


def _freshness(
    facts: Facts, waiting_since: Callable[[str, int], datetime]
) -> Iterator[tuple[str, float]]:
    """For each declared component: the age of the oldest commit that some reader does not serve.

    Where no reader has it, what is released counts; where nothing is released, every commit waits.
    What is made from a source that cannot be read is left out.
    """
    asked: dict[tuple[str, int], datetime] = {}
    for name in facts.definitions:
        oldest: datetime | None = None
        roots = root_collections(name, facts.definitions)
        if not facts.unreadable.keys().isdisjoint(roots):
            continue
        for collection in sorted(roots):
            source = facts.sources.get(collection)
            if source is None:
                continue
            served = _served_generation(name, collection, source.epoch, facts)
            if served >= source.generation:
                continue
            if (collection, served) not in asked:
                asked[collection, served] = waiting_since(collection, served)
            at = asked[collection, served]
            oldest = at if oldest is None else min(oldest, at)
        yield name, 0.0 if oldest is None else max((facts.now - oldest).total_seconds(), 0.0)


def _served_generation(name: str, collection: str, epoch: str, facts: Facts) -> int:
    """The generation of a collection that a component contains wherever it is served."""
    found = []
    for state in facts.known_readers.values():
        component = state.components.get(name)
        if component is None:  # it is not to serve it, or has not heard of it yet
            continue
        same = component.epochs.get(collection) == epoch
        covered = component.covers.get(collection, 0) if same else 0
        live = state.live.get(collection)
        if live is not None and live.epoch == epoch and live.status is not LiveStatus.IDLE:
            covered = max(covered, live.generation)
        found.append(covered)
    if found:
        return min(found)
    manifest = facts.versions.get(name)
    if manifest is None or manifest.epochs.get(collection) != epoch:
        return 0
    return manifest.covers.get(collection, 0)


def _space(folder: Path) -> DiskSpace:
    found = shutil.disk_usage(folder)
    return DiskSpace(total=found.total, free=found.free)
