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
committed. A number above it was made up, or the catalog came from a backup as well. That is left to
a person (`indexrelay reconcile --above`). Where no reader serves it, only the key holds it, and the
key is replaced.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict
from redis.exceptions import NoPermissionError, RedisError
from sqlalchemy.exc import SQLAlchemyError

from indexrelay.health.redis import LONGEST_LEASES, declaring
from indexrelay.health.verdict import BUILDS, Actor, Verdict
from indexrelay.rebuilder.presence import DamageReports, ForeignWriteLog, declared_by_rebuilders
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
from indexrelay.streams.connection import refusals_of
from indexrelay.streams.leases import held_leases, limit_lease
from indexrelay.streams.repair import find_wrong_keys, mend


class RepairOutcome(StrEnum):
    """What became of a difference."""

    MENDED = "mended"
    """It was put right just now."""
    WAITING = "waiting"
    """A running process puts it right by itself."""
    LEFT = "left"
    """It stays until a person does something."""


class Finding(BaseModel):
    """One difference."""

    model_config = ConfigDict(frozen=True)

    about: str
    """``store``, ``release``, ``redis``, ``key``, ``group`` or ``lease``."""
    what: str
    standing: RepairOutcome
    advice: str = ""
    """What comes next, or what a person can do."""


class Reconciliation(BaseModel):
    """Everything that was found at one look."""

    model_config = ConfigDict(frozen=True)

    findings: tuple[Finding, ...] = ()

    @property
    def mended(self) -> tuple[str, ...]:
        """What was put right, a sentence each."""
        return tuple(each.what for each in self.findings if each.standing is RepairOutcome.MENDED)


_log = get_logger(__name__)
_MOST_LINES: Final = 20
"""At one comparison; `indexrelay status` has all of it."""
_FIRST_WAIT_SECONDS: Final = 300.0
_LONGEST_WAIT_SECONDS: Final = 3600.0


@dataclass(slots=True)
class _Said:
    """A repair that failed, and when to say so again."""

    again_at: float
    wait_seconds: float


class FindingsLog:
    """Remembers what was left at the last comparison; used by one thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left: frozenset[str] = frozenset()
        self._failed: dict[str, _Said] = {}

    def repaired(self, found: Reconciliation) -> None:
        """Log what was repaired, and what could not be."""
        now = self._clock.monotonic()
        for finding in found.findings:
            if finding.standing is RepairOutcome.MENDED:
                _log.info("reconcile.repaired", what=finding.what)
            elif finding.standing is RepairOutcome.LEFT and self._is_due(finding, now):
                _log.warning("reconcile.failed", what=finding.what, advice=finding.advice)
        still = {each.what for each in found.findings}
        self._failed = {what: said for what, said in self._failed.items() if what in still}

    def _is_due(self, finding: Finding, now: float) -> bool:
        """Whether to say it now; it counts as said then."""
        said = self._failed.get(finding.what)
        if said is None:
            said = self._failed[finding.what] = _Said(now, _FIRST_WAIT_SECONDS)
        if now < said.again_at:
            return False
        said.again_at = now + said.wait_seconds
        said.wait_seconds = min(said.wait_seconds * 2, _LONGEST_WAIT_SECONDS)
        return True

    def left(self, verdict: Verdict) -> None:
        """Log what waits for a person, if it did not at the last comparison."""
        waiting = [
            problem for problem in verdict.within(BUILDS).problems if problem.acts is Actor.PERSON
        ]
        new = [problem for problem in waiting if problem.what not in self._left]
        for problem in new[:_MOST_LINES]:
            _log.warning(
                "reconcile.left", what=problem.what, advice=problem.advice, code=problem.code
            )
        if len(new) > _MOST_LINES:
            _log.warning("reconcile.left_more", problems=len(new) - _MOST_LINES)
        self._left = frozenset(problem.what for problem in waiting)


class Renumberer:
    """Compares the store's numbers with Redis's and the readers'; for use by one thread."""

    def __init__(
        self,
        store: ArtifactStore,
        *,
        catalog: Catalog,
        connection: Connection,
        keys: Keys,
        patience_seconds: float,
        clock: Clock,
    ) -> None:
        """``patience_seconds``: how long the store has to lag before it counts as a loss."""
        self._store = store
        self._catalog = catalog
        self._connection = connection
        self._keys = keys
        self._patience = patience_seconds
        self._clock = clock
        self._behind_since: float | None = None

    def mend(self, *, rebuilders: bool) -> Iterator[Finding]:
        """Renumber the newest release where others are ahead of the store for good.

        Args:
            rebuilders: whether one is running, that would do so later.

        Raises:
            ArtifactError: the store cannot be read or written; nothing was concluded.
            redis.exceptions.RedisError: the server is away, or says no.
        """
        readers = {
            state.process: state
            for state in members_of(self._connection, self._keys, ReaderState).known.values()
        }
        announced = current_release(self._connection, self._keys)
        # Looked at after these: what was announced a moment ago was committed before that.
        highest = self._store.next_number() - 1
        newest = self._store.newest_release()
        known = self._catalog.release_record.note(highest)
        made_up = {  # one of each label: there may be a thousand
            state.label: (who, state.release)
            for who, state in readers.items()
            if state.release > known
        }
        for who, number in sorted(made_up.values()):
            yield _left(
                f"reader {who} says that it serves release {number}, and none above {known} was "
                "ever committed here",
                "see who has its password for Redis; only where catalog and artifacts both came "
                f"from a backup is it right: {commands.reconcile_above(number)}",
            )
        served = max((s.release for s in readers.values() if s.release <= known), default=0)
        if announced > known and not made_up:
            announced = 0
            yield from self._replaced(known)
        ahead = max(served, announced if announced <= known else 0)
        if ahead <= highest:
            self._behind_since = None
            return
        now = self._clock.monotonic()
        since = self._behind_since = now if self._behind_since is None else self._behind_since
        what = f"release {ahead} was announced or is served, and the store's newest is {highest}"
        if newest is None:
            yield _waiting(what, "once something is built", rebuilders)
        elif (reader := self._who_would_go_back(newest, readers)) is not None:
            yield _waiting(what, f"once a rebuild reaches what {reader} serves", rebuilders)
        elif now - since < self._patience:
            yield _waiting(what, f"if that lasts for {self._patience:g} s", rebuilders)
        else:
            reason = f"the store lost releases up to {ahead}"
            release = self._store.renumber(lost=ahead, reason=reason)
            self._behind_since = None
            yield Finding(
                about="release",
                what=f"{what}: what that serves is release {release.number} now",
                standing=RepairOutcome.MENDED,
            )

    def _replaced(self, known: int) -> Iterator[Finding]:
        """Let go of a number that only the key says, so that releases are announced again."""
        with refusals_of(self._keys.release):
            self._connection.commands.unlink(self._keys.release)
        yield Finding(
            about="release",
            what=f"the key {self._keys.release} named a release above {known}, the highest that "
            "was ever committed here, and nobody serves it: it was removed",
            standing=RepairOutcome.MENDED,
        )

    def _who_would_go_back(self, newest: Release, readers: Mapping[str, ReaderState]) -> str | None:
        """A reader that serves a later generation of something than ``newest``.

        One that nobody has committed is not waited for.
        """
        committed = {each.name: each.generation for each in self._catalog.collections.all()}
        for state in readers.values():
            for name, version in newest.components.items():
                served = state.components.get(name)
                if served is not None and _is_later(served, name, version, self._store, committed):
                    return state.reader
        return None


def _is_later(
    served: ComponentState,
    name: str,
    version: str,
    store: ArtifactStore,
    committed: Mapping[str, int],
) -> bool:
    manifest = store.version(name, version)
    return any(
        served.epochs.get(collection) == manifest.epochs.get(collection)
        and manifest.covers.get(collection, 0) < generation <= committed.get(collection, 0)
        for collection, generation in served.covers.items()
    )


def _waiting(what: str, when: str, rebuilders: bool) -> Finding:
    advice = f"a running rebuilder goes on with a number above that {when}"
    if rebuilders:
        return Finding(about="release", what=what, standing=RepairOutcome.WAITING, advice=advice)
    return _left(what, f"{advice}; none is running: {commands.REBUILDER}")


def _left(what: str, advice: str) -> Finding:
    return Finding(about="release", what=what, standing=RepairOutcome.LEFT, advice=advice)


_LAGGING_LOOKS = 2
"""A store that lags behind for so many times the usual pause has lost what it lacks."""


class Reconciler:
    """Repairs, and says what it repaired; for use by one thread, that of the group."""

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
    ) -> None:
        """Speak as ``source`` where something has to be announced."""
        keys = Keys(settings.namespace)
        self._definitions = settings.components
        self._store = store
        self._publisher = Publisher(
            store=store,
            clock=clock,
            by=source,
            elsewhere=lambda: declared_by_rebuilders(connection, keys),
        )
        self._renumberer = Renumberer(
            store,
            catalog=catalog,
            connection=connection,
            keys=keys,
            patience_seconds=_LAGGING_LOOKS * settings.rebuilder.reconcile_seconds,
            clock=clock,
        )
        self._announcer = Announcer(connection, keys, source=source, clock=clock)
        self._group = group
        self._doubts = DamageReports(store, clock)
        self._connection = connection
        self._keys = keys
        self._limits = settings.rebuilder
        self.foreign_writes = ForeignWriteLog(clock)

    def reconcile(self) -> Reconciliation:
        """One comparison of the store with itself and with Redis; raises for neither of them."""
        return Reconciliation(findings=(*self._in_the_store(), *self._in_redis()))

    def mend_keys(self) -> Reconciliation:
        """Mend the keys that hold what is not ours, and nothing else.

        Raises:
            redis.exceptions.RedisError: the server is away, or refuses.
        """
        return Reconciliation(findings=tuple(self._wrong_keys()))

    def heed_readers(self) -> bool:
        """Doubt what readers cannot load; whether one of them found something new.

        Raises:
            redis.exceptions.RedisError: presence cannot be read.
        """
        return self._doubts.take(self._readers())

    def _in_the_store(self) -> Iterator[Finding]:
        try:
            for path in self._store.mend_release():
                yield _mended("store", f"{path} was damaged or gone and was written anew")
            tidied = self._publisher.publish(
                {}, definitions=self._definitions, reason="the definitions changed"
            ).release
        except (ArtifactError, OSError) as error:
            yield _unusable("store", "the artifact store cannot be used", error)
            return
        if tidied is not None:
            yield _mended("release", f"release {tidied.number} follows the changed definitions")

    def _in_redis(self) -> Iterator[Finding]:
        try:
            yield from self._wrong_keys()
            alive = members_of(self._connection, self._keys, RebuilderState).states
            yield from self._lost_releases(alive)
            yield from self._lent(alive)
            yield from self._announcement()
            yield from self._missing_group()
            yield from self._endless_leases()
            self._doubts.take(self._readers())
        except RedisError as error:
            if "WRONGTYPE" in str(error):  # since `_wrong_keys` looked
                yield _unusable("key", "a key came to hold what is not ours meanwhile", error)
            else:
                yield _unusable("redis", "Redis does not answer, or refuses", error)
        except (ArtifactError, OSError) as error:
            yield _unusable("store", "the artifact store cannot be used", error)

    def _lost_releases(self, alive: Mapping[str, RebuilderState | None]) -> Iterator[Finding]:
        try:
            yield from self._renumberer.mend(rebuilders=bool(alive))
        except SQLAlchemyError as error:
            yield _unusable("catalog", "the catalog cannot be read", error)

    def _lent(self, alive: Mapping[str, RebuilderState | None]) -> Iterator[Finding]:
        """What has left the settings and stays in the release, and because of whom."""
        newest = self._store.newest_release()
        for name in sorted(set() if newest is None else newest.components.keys()):
            if name not in self._definitions and (keeping := declaring(name, alive)):
                yield Finding(
                    about="release",
                    what=f"{name} is declared no longer and stays in the release: rebuilder "
                    f"{', '.join(keeping)} was started with it, and would build it anew",
                    standing=RepairOutcome.LEFT,
                    advice="start that one again, with these settings",
                )

    def _readers(self) -> Mapping[str, ReaderState | None]:
        members = members_of(self._connection, self._keys, ReaderState)
        for member, why in members.dropped.items():
            label, _ = split_member_id(member)
            self.foreign_writes.note(label, f"the presence of reader {member}: {why}")
        return members.states

    def _announcement(self) -> Iterator[Finding]:
        newest = self._store.newest_release()
        if newest is not None and self._announcer.is_behind(newest):
            self._announcer.announce(newest, None)
            yield _mended("release", f"release {newest.number} was announced")

    def _missing_group(self) -> Iterator[Finding]:
        if self._group.ensure():
            yield _mended("group", "the group of the rebuilders was missing and was made")

    def _wrong_keys(self) -> Iterator[Finding]:
        """First of all: whatever is asked of such a key is refused."""
        connection, keys = self._connection, self._keys
        try:
            wrong_keys = find_wrong_keys(
                connection, keys, self._limits, components=self._definitions
            )
        except NoPermissionError as error:
            _log.debug("redis.not_allowed", error=str(error))  # by the server's ACL
            return
        for wrong in wrong_keys:
            said = mend(connection, keys, wrong, ttl_seconds=self._limits.presence_ttl_seconds)
            if wrong.label is not None:
                self.foreign_writes.note(wrong.label, said)
            yield _mended("key", said)

    def _endless_leases(self) -> Iterator[Finding]:
        names = {self._keys.lease(name): name for name in self._definitions}
        longest = LONGEST_LEASES * self._limits.lease_ttl_seconds
        for key, lease in held_leases(self._connection, list(names)).items():
            if lease.seconds_left is None or lease.seconds_left > longest:
                limit_lease(self._connection, key, ttl_seconds=self._limits.lease_ttl_seconds)
                end = "had no end" if lease.seconds_left is None else "had an end far too late"
                yield _mended("lease", f"the lease of {names[key]} {end} and was given one")


def _mended(about: str, what: str) -> Finding:
    return Finding(about=about, what=what, standing=RepairOutcome.MENDED)


def _unusable(about: str, what: str, error: Exception) -> Finding:
    advice = {
        "catalog": "see that catalog.url is right and its database answers",
        "key": "the next comparison names it and sets it aside; nothing is lost by it",
        "redis": "start it, or correct redis.url; commits stand, and readers keep what they serve",
        "store": "see that artifacts.dir can be read and written",
    }[about]
    return Finding(about=about, what=f"{what}: {error}", standing=RepairOutcome.LEFT, advice=advice)
