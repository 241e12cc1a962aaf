"""What a rebuilder says about itself: its whole current state, under a key that expires.

Jobs that wait for a batch read here that a component failed, so that they need not wait for a
time-out.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from indexrelay.health.backoff import Patience
from indexrelay.health.redis_health import OF_ITS_OWN
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.declarations import Declaration
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.message_size import fitted_rebuilder
from indexrelay.schemas.results import (
    ComponentFailure,
    ForeignWrites,
    LockWait,
    RebuilderState,
    RebuildResult,
)
from indexrelay.schemas.versions import Release
from indexrelay.storage.catalog import Attempt, Catalog
from indexrelay.streams import BackendRefusedError, Connection, Identity, Keys, Presence, present

_log = get_logger(__name__)


def declared_by_rebuilders(connection: Connection, keys: Keys) -> frozenset[str]:
    """The components that some rebuilder which runs now was started with.

    None where presence cannot be read: then nobody is known to build them.
    """
    try:
        states = present(connection, keys, "rebuilder", RebuilderState)
    except (RedisError, BackendRefusedError) as error:
        _log.debug("rebuilders.unknown", error=str(error))
        return frozenset()
    return frozenset(
        name
        for state in states.values()
        if state is not None and state.declares is not None
        for name in state.declares.components
    )


class RebuilderPresence:
    """Publishes one rebuilder's state."""

    def __init__(
        self,
        connection: Connection,
        keys: Keys,
        *,
        identity: Identity,
        ttl_seconds: float,
        catalog: Catalog,
        patience: Patience,
        clock: Clock,
        declares: Declaration,
    ) -> None:
        self._presence = Presence(connection, keys, "rebuilder")
        self._connection = connection
        self._keys = keys
        self._identity = identity
        self._ttl_seconds = ttl_seconds
        self._catalog = catalog
        self._patience = patience
        self._clock = clock
        self._declares = declares
        self._started_at: datetime = clock.now()
        self._silent = False
        self._seen: dict[str, datetime] = {}
        self._namesakes: dict[str, str] = {}
        """For each other process under our label that is alive: its host and process."""

    def publish(
        self,
        *,
        release: Release | None,
        building: Sequence[str],
        last_result: RebuildResult | None,
        waiting: Mapping[str, str],
        lock_waits: Sequence[LockWait] = (),
        foreign_writes: Sequence[ForeignWrites] = (),
    ) -> None:
        """Say how things stand; Redis being away, or refusing, is logged and otherwise nothing."""
        identity = self._identity
        state = RebuilderState(
            rebuilder=identity.label,
            host=identity.host,
            pid=identity.pid,
            instance=identity.instance,
            started_at=self._started_at,
            updated_at=self._clock.now(),
            declares=self._declares,
            release=0 if release is None else release.number,
            building=tuple(building),
            failures={
                name: self._failure(attempt)
                for name, attempt in self._catalog.attempts.all().items()
            },
            kept_back=self._kept_back(release, waiting),
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
            self._look_for_namesakes()
        except (RedisError, BackendRefusedError) as error:
            self._silent = isinstance(error, RedisConnectionError | RedisTimeoutError)
            _log.warning("presence.not_published", error=str(error))
        else:
            self._silent = False

    def withdraw(self) -> None:
        """Be gone at once, rather than when the key expires.

        A server that did not answer the last time is not asked: the key expires by itself.
        """
        if self._silent:
            return
        try:
            self._presence.remove(self._identity.member)
        except (RedisError, BackendRefusedError) as error:
            _log.debug("presence.not_withdrawn", error=str(error))

    def _look_for_namesakes(self) -> None:
        """Find other processes under our label that are alive, and log each once.

        One that was killed stays present until its TTL ends, and whoever was started in its place
        has its label. So only a state that was renewed between two of our looks counts.
        """
        us = self._identity
        everyone = present(self._connection, self._keys, "rebuilder", RebuilderState)
        others = {
            member: state
            for member, state in everyone.items()
            if state is not None and state.label == us.label and member != us.member
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

    def _kept_back(self, release: Release | None, waiting: Mapping[str, str]) -> dict[str, str]:
        paused = self._catalog.attempts.paused()
        held = {} if release is None else release.holds
        return (
            {name: f"waiting: {sentence}" for name, sentence in waiting.items()}
            | {name: f"paused: {pause.reason}" for name, pause in paused.items()}
            | {name: f"held: {hold.reason}" for name, hold in held.items()}
        )

    def _failure(self, attempt: Attempt) -> ComponentFailure:
        return ComponentFailure(
            error=attempt.error,
            failures=attempt.failures,
            targets=attempt.targets,
            failed_at=attempt.failed_at,
            failing_since=attempt.first_failed_at,
            retry_at=self._patience.retry_at(attempt),
        )
