"""What a rebuilder says about itself: its whole current state, under a key that expires.

Jobs that wait for a batch read here that a component failed, so that they need not wait for a
time-out.
"""

import os
import socket
from collections.abc import Sequence
from datetime import datetime

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from indexrelay.health.backoff import Patience
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.results import ComponentFailure, RebuilderState, RebuildResult
from indexrelay.schemas.versions import Release
from indexrelay.storage.catalog import Attempt, Catalog
from indexrelay.streams import BackendRefusedError, Connection, Keys, Presence

_log = get_logger(__name__)


class RebuilderPresence:
    """Publishes one rebuilder's state."""

    def __init__(
        self,
        connection: Connection,
        keys: Keys,
        *,
        rebuilder_id: str,
        ttl_seconds: float,
        catalog: Catalog,
        patience: Patience,
        clock: Clock,
    ) -> None:
        self._presence = Presence(connection, keys, "rebuilder")
        self._id = rebuilder_id
        self._ttl_seconds = ttl_seconds
        self._catalog = catalog
        self._patience = patience
        self._clock = clock
        self._started_at: datetime = clock.now()
        self._silent = False

    def publish(
        self,
        *,
        release: Release | None,
        building: Sequence[str],
        last_result: RebuildResult | None,
    ) -> None:
        """Say how things stand; Redis being away, or refusing, is logged and otherwise nothing."""
        state = RebuilderState(
            rebuilder=self._id,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=self._started_at,
            updated_at=self._clock.now(),
            release=0 if release is None else release.number,
            building=tuple(building),
            failures={
                name: self._failure(attempt)
                for name, attempt in self._catalog.attempts.all().items()
            },
            kept_back=self._kept_back(release),
            last_result=last_result,
        )
        try:
            self._presence.publish(
                self._id, state.model_dump_json().encode(), ttl_seconds=self._ttl_seconds
            )
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
            self._presence.remove(self._id)
        except (RedisError, BackendRefusedError) as error:
            _log.debug("presence.not_withdrawn", error=str(error))

    def _kept_back(self, release: Release | None) -> dict[str, str]:
        paused = self._catalog.attempts.paused()
        held = {} if release is None else release.holds
        return {name: f"paused: {pause.reason}" for name, pause in paused.items()} | {
            name: f"held: {hold.reason}" for name, hold in held.items()
        }

    def _failure(self, attempt: Attempt) -> ComponentFailure:
        return ComponentFailure(
            error=attempt.error,
            failures=attempt.failures,
            targets=attempt.targets,
            failed_at=attempt.failed_at,
            retry_at=self._patience.retry_at(attempt),
        )
