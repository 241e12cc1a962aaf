"""Compares what is released with what was announced and is served, and repairs the difference.

Sources and versions need no repair of their own: every look at the facts sees them. What is left is
the release itself (components that are no longer defined, groups that changed) and a Redis that
knows less than the store, because an announcement failed, because a stream or its group was
removed, or because it came back empty; or more, because the store has lost releases. What is not
well and cannot be repaired here is for the judge (`indexrelay.health.judge`).

**Lost releases.** A store that was wiped, or restored from a backup, continues from the releases
that it has left, and its next release would have a lower number than what readers serve. They
follow no lower number. So the newest release gets a number above the lost ones. Three states look
the same and are told apart: a store that cannot be read raises; a file system that shows new files
late must lag for a while; and a restored store is behind its sources, so as long as a reader serves
later generations than its newest release, the rebuild is waited for.

What Redis and readers say is not trusted: the catalog knows the highest number that was ever
committed. A number above it was made up, or the catalog came from a backup as well. The first is
much more likely, and would let anyone who may write one key use up numbers, and push out releases
that are kept for a rollback. So it is left to a person (`indexrelay reconcile --above`). Where no
reader serves the number, only the key holds it, and the key is replaced.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict
from redis.exceptions import NoPermissionError, RedisError
from sqlalchemy.exc import SQLAlchemyError

from indexrelay.health.redis import LONGEST_LEASES
from indexrelay.health.status import BUILDS, Actor, Code, Verdict
from indexrelay.rebuilder.presence import CorruptionReports, ForeignWriteLog, declared_by_rebuilders
from indexrelay.rebuilder.publisher import Announcer, Publisher
from indexrelay.schemas import commands
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import ComponentState, ReaderState, RebuilderState
from indexrelay.schemas.names import split_member_id
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import Release
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection, ConsumerGroup, Keys, current_release, members_of
from indexrelay.streams.connection import writes_to
from indexrelay.streams.leases import held_leases, limit_lease
from indexrelay.streams.presence import Members
from indexrelay.streams.repair import find_wrong_keys, repair_key

_log = get_logger(__name__)
_LAGGING_LOOKS: Final = 2
"""A store that lags for so many times the usual pause has lost what it lacks."""


class RepairOutcome(StrEnum):
    """What became of a difference."""

    REPAIRED = "repaired"
    """Just now."""
    WAITING = "waiting"
    """A running process repairs it later."""
    LEFT = "left"
    """It stays until a person does something."""


class Finding(BaseModel):
    """One difference."""

    model_config = ConfigDict(frozen=True)

    about: str
    """``store``, ``release``, ``redis``, ``key``, ``group`` or ``lease``."""
    what: str
    outcome: RepairOutcome
    advice: str = ""
    """What comes next, or what a person can do."""


class Reconciliation(BaseModel):
    """Everything that was found at one comparison."""

    model_config = ConfigDict(frozen=True)

    findings: tuple[Finding, ...] = ()

    @property
    def repaired(self) -> tuple[str, ...]:
        """What was repaired, a sentence each."""
        return tuple(each.what for each in self.findings if each.outcome is RepairOutcome.REPAIRED)


class Reconciler:
    """Repairs, and reports what it repaired; for use by one thread, that of the group."""

    def __init__(
        self,
        settings: Settings,
        *,
        catalog: Catalog,
        store: ArtifactStore,
        connection: Connection,
        group: ConsumerGroup,
        source: str,
        clock: Clock,
        since: datetime | None = None,
        readers: Callable[[], Members[ReaderState]] | None = None,
    ) -> None:
        """Repair one installation.

        Args:
            source: the author of what is announced and released.
            since: when the settings were read; ``None``: now.
            readers: gives who is there; ``None``: presence is read each time.
        """
        keys = Keys(settings.namespace)
        self._definitions = settings.components
        self._limits = settings.rebuilder
        self._catalog = catalog
        self._store = store
        self._connection = connection
        self._keys = keys
        self._group = group
        self._clock = clock
        self._readers = readers or (lambda: members_of(connection, keys, ReaderState))
        self._publisher = Publisher(
            store=store,
            clock=clock,
            since=since,
            by=source,
            elsewhere=lambda: declared_by_rebuilders(connection, keys),
        )
        self._announcer = Announcer(connection, keys, source=source, clock=clock)
        self._corruption_reports = CorruptionReports(store, clock)
        self._behind_since: float | None = None
        self.foreign_writes = ForeignWriteLog(clock)
        self._repairing_keys = threading.Lock()
        self.flooded = False
        """Whether the last look for keys that are not ours found so many that the next one is due
        at once."""
        self.unblocked = False
        """Whether the last look repaired a key that rebuilders use: what was refused because of it
        can be done now."""

    def reconcile(self, *, look_for_keys: bool = True) -> Reconciliation:
        """One comparison of the store with itself and with Redis; raises for neither of them.

        Args:
            look_for_keys: whether to look for keys that are not ours, and for rebuilders;
                ``False``: `repair_keys` does the first on another thread, and the caller is one.
        """
        in_redis = self._in_redis(look_for_keys=look_for_keys)
        return Reconciliation(findings=(*self._in_the_store(), *in_redis))

    def repair_keys(self) -> Reconciliation:
        """Repair the keys that hold what is not ours, and nothing else; from any thread.

        Raises:
            redis.exceptions.RedisError: the server is away, or refuses.
        """
        return Reconciliation(findings=self._wrong_keys())

    def check_corruption_reports(self) -> bool:
        """Hash again what readers cannot load; whether one of them found something new.

        Raises:
            redis.exceptions.RedisError: presence cannot be read.
        """
        return self._corruption_reports.take(self._reader_states())

    def _in_the_store(self) -> Iterator[Finding]:
        try:
            for path in self._store.repair_release():
                yield _repaired("store", f"{path} was corrupt or missing and was written again")
            release = self._publisher.publish(
                {}, definitions=self._definitions, reason="the definitions changed"
            ).release
        except (ArtifactError, OSError) as error:
            yield _unusable("store", "the artifact store cannot be used", error)
            return
        if release is not None:
            yield _repaired("release", f"release {release.number} follows the changed definitions")

    def _in_redis(self, *, look_for_keys: bool) -> Iterator[Finding]:
        try:
            has_rebuilder = True
            if look_for_keys:
                yield from self._wrong_keys()
                alive = members_of(self._connection, self._keys, RebuilderState).states
                has_rebuilder = bool(alive)
            try:
                yield from self._lost_releases(has_rebuilder=has_rebuilder)
            except SQLAlchemyError as error:
                yield _unusable("catalog", "the catalog cannot be read", error)
            newest = self._store.newest_release()
            # Redis has a lower number after a failed announcement, or when it was emptied.
            if newest and current_release(self._connection, self._keys) < newest.number:
                self._announcer.announce(newest, None)
                yield _repaired("release", f"release {newest.number} was announced")
            if self._group.ensure():
                yield _repaired("group", "the group of the rebuilders was missing and was made")
            yield from self._endless_leases()
            self._corruption_reports.take(self._reader_states())
        except RedisError as error:
            if "WRONGTYPE" in str(error):  # since `_wrong_keys` looked
                yield _unusable("key", "a key came to hold what is not ours meanwhile", error)
            else:
                yield _unusable("redis", "Redis does not answer, or refuses", error)
        except (ArtifactError, OSError) as error:
            yield _unusable("store", "the artifact store cannot be used", error)

    def _reader_states(self) -> Mapping[str, ReaderState | None]:
        members = self._readers()
        for member, why in members.dropped.items():
            label, _ = split_member_id(member)
            self.foreign_writes.note(label, f"the presence of reader {member}: {why}")
        return members.states

    def _wrong_keys(self) -> tuple[Finding, ...]:
        """First of all: whatever is asked of such a key is refused.

        Nothing where another thread is at it: a flood of keys keeps it busy for seconds.
        """
        if not self._repairing_keys.acquire(blocking=False):
            return ()
        try:
            return tuple(self._repaired_keys())
        finally:
            self._repairing_keys.release()

    def _repaired_keys(self) -> Iterator[Finding]:
        connection, keys = self._connection, self._keys
        try:
            wrong_keys = find_wrong_keys(
                connection, keys, self._limits, components=self._definitions
            )
        except NoPermissionError as error:
            _log.debug("redis.not_allowed", error=str(error))  # by the server's ACL
            return
        self.flooded = any(wrong.floods for wrong in wrong_keys)
        self.unblocked = any(wrong.hides and wrong.label is None for wrong in wrong_keys)
        for wrong in wrong_keys:
            what = repair_key(
                connection, keys, wrong, ttl_seconds=self._limits.presence_ttl_seconds
            )
            if wrong.label is not None:
                self.foreign_writes.note(wrong.label, what)
            yield _repaired("key", what)

    def _endless_leases(self) -> Iterator[Finding]:
        names = {self._keys.lease(name): name for name in self._definitions}
        longest = LONGEST_LEASES * self._limits.lease_ttl_seconds
        for key, lease in held_leases(self._connection, list(names)).items():
            if lease.seconds_left is None or lease.seconds_left > longest:
                limit_lease(self._connection, key, ttl_seconds=self._limits.lease_ttl_seconds)
                end = "had no end" if lease.seconds_left is None else "had an end far too late"
                yield _repaired("lease", f"the lease of {names[key]} {end} and was given one")

    def _lost_releases(self, *, has_rebuilder: bool) -> Iterator[Finding]:
        """Renumber the newest release where others are ahead of the store for good.

        Args:
            has_rebuilder: whether one is running, that would do so later.
        """
        readers = {state.process: state for state in self._readers().known.values()}
        announced = current_release(self._connection, self._keys)
        # Read after these: what was announced a moment ago was committed before that.
        highest = self._store.next_number() - 1
        newest = self._store.newest_release()
        known = self._catalog.release_record.note(highest)
        if announced > known:
            # One that a reader says it serves is a person's to judge (`Code.RELEASE_MADE_UP`).
            if all(state.release <= known for state in readers.values()):
                yield self._remove_release_key(known)
            announced = 0
        served = (state.release for state in readers.values() if state.release <= known)
        ahead = max([announced, *served])
        if ahead <= highest:
            self._behind_since = None
            return
        now = self._clock.monotonic()
        since = self._behind_since = now if self._behind_since is None else self._behind_since
        lag_seconds = _LAGGING_LOOKS * self._limits.reconcile_seconds
        what = f"release {ahead} was announced or is served, and the store's newest is {highest}"
        if newest is None:
            yield _waiting(what, "once something is built", has_rebuilder)
        elif (later := self._reader_ahead(newest, readers)) is not None:
            yield _waiting(what, f"once a rebuild reaches what {later} serves", has_rebuilder)
        elif now - since < lag_seconds:
            yield _waiting(what, f"if that lasts for {lag_seconds:g} s", has_rebuilder)
        else:
            reason = f"the store lost releases up to {ahead}"
            release = self._store.renumber(lost=ahead, reason=reason)
            self._behind_since = None
            yield _repaired("release", f"{what}: what that serves is release {release.number} now")

    def _remove_release_key(self, known: int) -> Finding:
        """Remove a number that only the key holds, so that releases are announced again."""
        with writes_to(self._keys.release):
            self._connection.commands.unlink(self._keys.release)
        return _repaired(
            "release",
            f"the key {self._keys.release} named a release above {known}, the highest that "
            "was ever committed here, and nobody serves it: it was removed",
        )

    def _reader_ahead(self, newest: Release, readers: Mapping[str, ReaderState]) -> str | None:
        """A reader that serves a later committed generation of something than ``newest``."""
        committed = {each.name: each.generation for each in self._catalog.collections.all()}
        for state in readers.values():
            for name, version in newest.components.items():
                served = state.components.get(name)
                if served is not None and self._is_later(served, name, version, committed):
                    return state.reader
        return None

    def _is_later(
        self, served: ComponentState, name: str, version: str, committed: Mapping[str, int]
    ) -> bool:
        manifest = self._store.version(name, version)
        return any(
            served.epochs.get(collection) == manifest.epochs.get(collection)
            and manifest.covers.get(collection, 0) < generation <= committed.get(collection, 0)
            for collection, generation in served.covers.items()
        )


def _repaired(about: str, what: str) -> Finding:
    return Finding(about=about, what=what, outcome=RepairOutcome.REPAIRED)


def _waiting(what: str, when: str, has_rebuilder: bool) -> Finding:
    """Lost releases that a running rebuilder renumbers; without one they are left."""
    outcome = RepairOutcome.WAITING if has_rebuilder else RepairOutcome.LEFT
    advice = f"a running rebuilder goes on with a number above that {when}"
    if not has_rebuilder:
        advice += f"; none is running: {commands.REBUILDER}"
    return Finding(about="release", what=what, outcome=outcome, advice=advice)


def _unusable(about: str, what: str, error: Exception) -> Finding:
    advice = {
        "catalog": "see that catalog.url is right and its database answers",
        "key": "the next comparison names it and sets it aside; nothing is lost by it",
        "redis": "start it, or correct redis.url; commits stand, and readers keep what they serve",
        "store": "see that artifacts.dir can be read and written",
    }[about]
    return Finding(about=about, what=f"{what}: {error}", outcome=RepairOutcome.LEFT, advice=advice)


_MOST_LINES: Final = 20
"""At one comparison; `indexrelay status` has all of it."""
_OF_LABELS: Final = frozenset(
    {
        Code.FOREIGN_WRITES,
        Code.MEMBER_DROPPED,
        Code.MEMBERS_CROWDED,
        Code.READER_BEHIND,
        Code.READER_LIVE_BEHIND,
        Code.READER_LOAD_FAILED,
        Code.READER_NOT_READY,
        Code.READER_OTHER_SETTINGS,
        Code.READER_SILENT,
        Code.READER_UNREADABLE,
        Code.REDIS_KEY,
        Code.RELEASE_MADE_UP,
        Code.SETTINGS_REFUSED,
    }
)
"""What stems from what a process writes about itself."""
_FIRST_WAIT_SECONDS: Final = 300.0
_LONGEST_WAIT_SECONDS: Final = 3600.0


@dataclass(slots=True)
class _Logged:
    """A repair that failed, and when it is logged again."""

    again_at: float
    wait_seconds: float


class FindingsLog:
    """Logs what comparisons find: each repair, and once what is left.

    Safe from any thread as to repairs; what is left is logged by one.

    A comparison runs every half minute, and most of what it cannot repair stays for a while. What
    only a person can repair is logged when it is found first, and again when it comes back. A
    repair that fails is logged again after waits that grow. Readers choose the words of what they
    report, so one comparison logs no more than a few new lines, and those that stem from no label
    first. The others follow at the next comparisons.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left: AbstractSet[str] = frozenset()
        """What was logged and still waits."""
        self._failed: dict[str, _Logged] = {}
        self._repairs = threading.Lock()

    def repaired(self, found: Reconciliation) -> None:
        """Log what was repaired, and what could not be."""
        with self._repairs:
            self._log_repairs(found)

    def _log_repairs(self, found: Reconciliation) -> None:
        now = self._clock.monotonic()
        for finding in found.findings:
            if finding.outcome is RepairOutcome.REPAIRED:
                _log.info("reconcile.repaired", what=finding.what)
            elif finding.outcome is RepairOutcome.LEFT and self._is_due(finding, now):
                _log.warning("reconcile.failed", what=finding.what, advice=finding.advice)
        still = {each.what for each in found.findings}
        self._failed = {what: logged for what, logged in self._failed.items() if what in still}

    def _is_due(self, finding: Finding, now: float) -> bool:
        """Whether to log it now; it counts as logged then."""
        logged = self._failed.get(finding.what)
        if logged is None:
            logged = self._failed[finding.what] = _Logged(now, _FIRST_WAIT_SECONDS)
        if now < logged.again_at:
            return False
        logged.again_at = now + logged.wait_seconds
        logged.wait_seconds = min(logged.wait_seconds * 2, _LONGEST_WAIT_SECONDS)
        return True

    def left(self, verdict: Verdict) -> None:
        """Log what waits for a person, if it did not at the last comparison."""
        waiting = {
            problem.what: problem
            for problem in verdict.within(BUILDS).problems
            if problem.acts is Actor.PERSON
        }
        new = sorted(
            (problem for what, problem in waiting.items() if what not in self._left),
            key=lambda problem: problem.code in _OF_LABELS,
        )
        logged = {problem.what for problem in new[:_MOST_LINES]}
        self._left = logged.union(self._left & waiting.keys())
        for problem in new[:_MOST_LINES]:
            _log.warning(
                "reconcile.left", what=problem.what, advice=problem.advice, code=problem.code
            )
        if len(new) > _MOST_LINES:
            _log.warning("reconcile.left_more", problems=len(new) - _MOST_LINES)
