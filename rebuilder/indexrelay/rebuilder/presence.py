"""What a rebuilder publishes about itself, and what it learns from the presence of readers.

Its state is one value under a key that expires. Jobs that wait for a batch read here that a
component failed, so that they need not wait for a time-out.

**Corruption reports.** A released version counts as whole for as long as its files look as they did
when they were hashed. A reader that hashed them again may have found corruption, and often cannot
write that into the store. Its report is not trusted, but is a reason to hash the version's blobs
once more: if one is corrupt, its component is due. Hashing takes long, and a reader may report
anything. So only released versions are hashed again, once for equal reports of any number of
readers, and for another report about the same version after a wait that doubles each time.

**Foreign writes.** What somebody else wrote under a reader's key is repaired within seconds, and
would come again as long as somebody has the password. A look from outside mostly misses it; so the
rebuilder that repaired it publishes it for an hour.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from redis.exceptions import RedisError

from indexrelay.health.facts import RetryPolicy
from indexrelay.health.redis import OF_ITS_OWN
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.declarations import declared_to_build
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import (
    ComponentFailure,
    ForeignWrites,
    LoadOutcome,
    LockWait,
    ReaderState,
    RebuilderState,
    RebuildResult,
    fitted_rebuilder,
)
from indexrelay.schemas.progress import BuildProgress
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import Release
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore
from indexrelay.storage.catalog import Attempt, Catalog
from indexrelay.streams import Connection, Identity, Keys, Presence, members_of
from indexrelay.streams.errors import is_unanswered

_log = get_logger(__name__)


class RebuilderPresence:
    """Publishes one rebuilder's state."""

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        *,
        identity: Identity,
        catalog: Catalog,
        clock: Clock,
        started_at: datetime,
    ) -> None:
        self._connection = connection
        self._keys = Keys(settings.namespace)
        self._presence = Presence(connection, self._keys, "rebuilder")
        self._identity = identity
        self._ttl_seconds = settings.rebuilder.presence_ttl_seconds
        self._catalog = catalog
        self._retry_policy = RetryPolicy.of(settings.rebuilder, settings.components)
        self._clock = clock
        self._declares = declared_to_build(settings.components, settings.collections)
        self._started_at = started_at
        self.settings_refused: str | None = None
        """Why the settings that were read again are refused; set by whoever reads them."""
        self._silent = False
        self._seen: dict[str, datetime] = {}
        self._namesakes: dict[str, str] = {}
        """Each other process under our label that is alive: its host and process."""

    def publish(
        self,
        *,
        release: Release | None,
        building: Sequence[str],
        improving: Sequence[str] = (),
        progress: Mapping[str, BuildProgress] = MappingProxyType({}),
        last_result: RebuildResult | None,
        waiting: Mapping[str, str],
        lock_waits: Sequence[LockWait] = (),
        foreign_writes: Sequence[ForeignWrites] = (),
    ) -> None:
        """Publish the state as of now; where Redis is away, or refuses, that is logged."""
        identity, attempts = self._identity, self._catalog.attempts
        state = RebuilderState(
            rebuilder=identity.label,
            host=identity.host,
            pid=identity.pid,
            instance=identity.instance,
            started_at=self._started_at,
            updated_at=self._clock.now(),
            declares=self._declares,
            settings_refused=self.settings_refused,
            release=0 if release is None else release.number,
            building=tuple(building),
            improving=tuple(improving),
            progress=dict(progress),
            failures={name: self._failure(attempt) for name, attempt in attempts.all().items()},
            kept_back={
                **{name: f"waiting: {sentence}" for name, sentence in waiting.items()},
                **{name: f"paused: {pause.reason}" for name, pause in attempts.paused().items()},
                **{
                    name: f"held: {hold.reason}"
                    for name, hold in ({} if release is None else release.holds).items()
                },
            },
            namesakes=tuple(sorted(self._namesakes.values())),
            lock_waits=tuple(lock_waits),
            foreign_writes=tuple(foreign_writes),
            last_result=last_result,
        )
        try:
            self._presence.publish(
                identity.member,
                fitted_rebuilder(state).model_dump_json().encode(),
                ttl_seconds=self._ttl_seconds,
            )
        except RedisError as error:
            self._silent = is_unanswered(error)
            _log.warning("presence.not_published", error=str(error))
        else:
            self._silent = False

    def withdraw(self) -> None:
        """End presence at once, before the key expires.

        A server that did not answer the last time is not asked: the key expires by itself.
        """
        if self._silent:
            return
        try:
            self._presence.remove(self._identity.member)
        except RedisError as error:
            _log.debug("presence.not_withdrawn", error=str(error))

    def find_namesakes(self) -> None:
        """Find other processes under our label that are alive, and log each once.

        One that was killed stays present until its TTL ends, and the process that was started in
        its place has its label. So only a state that was renewed between two of our looks counts.
        For one thread, and not for the one that keeps presence alive: this looks for keys.
        """
        us = self._identity
        try:
            roster = self._presence.members([us.label])
            everyone = members_of(self._connection, self._keys, RebuilderState, roster=roster).known
        except RedisError as error:
            _log.debug("rebuilders.unknown", error=str(error))
            return
        others = {
            member: state
            for member, state in everyone.items()
            if state.label == us.label and member != us.member
        }
        alive = {
            member: f"{state.host}:{state.pid}"
            for member, state in others.items()
            if member in self._namesakes
            or self._seen.get(member, state.updated_at) != state.updated_at
        }
        for member in alive.keys() - self._namesakes.keys():
            _log.error(
                "rebuilder.not_alone",
                rebuilder=us.label,
                other=alive[member],
                advice=f"each takes the events that the other has begun with; {OF_ITS_OWN}",
            )
        self._namesakes = alive
        self._seen = {member: state.updated_at for member, state in others.items()}

    def _failure(self, attempt: Attempt) -> ComponentFailure:
        return ComponentFailure(
            error=attempt.error,
            failures=attempt.failures,
            targets=attempt.targets,
            failed_at=attempt.failed_at,
            failing_since=attempt.first_failed_at,
            retry_at=self._retry_policy.retry_at(attempt),
        )


def declared_by_rebuilders(connection: Connection, keys: Keys) -> frozenset[str]:
    """The components that the running rebuilders were started with.

    None where presence cannot be read: then no other rebuilder is known to build them.
    """
    try:
        states = members_of(connection, keys, RebuilderState).known
    except RedisError as error:
        _log.debug("rebuilders.unknown", error=str(error))
        return frozenset()
    return frozenset(
        name
        for state in states.values()
        if state.declares is not None
        for name in state.declares.components
    )


_FIRST_WAIT_SECONDS: Final = 60.0
_LONGEST_WAIT_SECONDS: Final = 3600.0


@dataclass(frozen=True, kw_only=True)
class _Rehashed:
    """A version that was hashed again, and when it may be once more."""

    next_at: float
    wait_seconds: float


class CorruptionReports:
    """Takes up what readers report as corrupt; for use by one thread."""

    def __init__(self, store: ArtifactStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: set[tuple[str, str, str | None]] = set()
        self._rehashed: dict[tuple[str, str], _Rehashed] = {}

    def take(self, states: Mapping[str, ReaderState | None]) -> bool:
        """Hash again what live readers cannot load; whether there is something new.

        Raises:
            ArtifactError: the artifacts cannot be read.
        """
        release = self._store.newest_release()
        released = frozenset[tuple[str, str]]() if release is None else release.versions
        found = {
            (name, component.wanted, component.error)
            for state in states.values()
            if state is not None
            for name, component in state.components.items()
            if component.outcome is LoadOutcome.FAILED and component.wanted is not None
            if (name, component.wanted) in released
        }
        self._rehashed = {key: each for key, each in self._rehashed.items() if key in released}
        new = False
        for name, version, error in sorted(found - self._known, key=repr):
            if not self._is_time(name, version):
                found.remove((name, version, error))  # it is new again when its time comes
                continue
            new = True
            try:
                self._store.forget_checks(name, version)
            except ArtifactError:
                continue  # the version is unreadable, and every look at the facts shows that
            _log.info("version.hashed_again", component=name, version=version, error=error)
        self._known = found
        return new

    def _is_time(self, name: str, version: str) -> bool:
        """Whether a version may be hashed again now; if so, the next time is later."""
        now, last = self._clock.monotonic(), self._rehashed.get((name, version))
        if last is not None and now < last.next_at:
            return False
        wait = (
            _FIRST_WAIT_SECONDS
            if last is None
            else min(2 * last.wait_seconds, _LONGEST_WAIT_SECONDS)
        )
        self._rehashed[name, version] = _Rehashed(next_at=now + wait, wait_seconds=wait)
        return True


_KEPT: Final = timedelta(hours=1)
_MOST_LABELS: Final = 20
"""Those that were seen last; a state names them all."""


class ForeignWriteLog:
    """Counts foreign writes by label; safe from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: tuple[ForeignWrites, ...] = ()
        """The newest at the end; replaced as a whole."""
        self._noting = threading.Lock()

    def note(self, label: str, what: str) -> None:
        """It was seen, or repaired, once more."""
        with self._noting:
            self._note(label, what)

    def _note(self, label: str, what: str) -> None:
        now = self._clock.now()
        before = next((each for each in self._seen if each.label == label), None)
        noted = ForeignWrites(
            label=label,
            times=1 if before is None else before.times + 1,
            first_at=now if before is None else before.first_at,
            last_at=now,
            last=what,
        )
        others = tuple(each for each in self.recent if each.label != label)
        self._seen = (*others, noted)[-_MOST_LABELS:]

    @property
    def recent(self) -> tuple[ForeignWrites, ...]:
        """Those of the last hour."""
        oldest = self._clock.now() - _KEPT
        return tuple(each for each in self._seen if each.last_at >= oldest)
