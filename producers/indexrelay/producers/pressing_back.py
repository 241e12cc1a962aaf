"""Whether the rebuilders still follow: looked at now and then, not before every event.

One look costs a round trip (a length, and only of a long stream more), so it holds for a second.
Where nobody can say how long the backlog is, the event is tried, and the server's answer counts.
"""

import threading

from redis.exceptions import RedisError

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.loggers import get_logger
from indexrelay.streams.backlog import backlog
from indexrelay.streams.connection import Connection
from indexrelay.streams.keys import REBUILDERS_GROUP

log = get_logger(__name__)
_HOLDS_SECONDS = 1.0


class BacklogGauge:
    """Watches one events stream; safe to use from several threads."""

    def __init__(self, key: str, *, max_backlog: int | None, clock: Clock) -> None:
        self._key = key
        self._max_backlog = max_backlog
        self._clock = clock
        self._look_at = clock.monotonic()
        self._over = False
        self._looking = threading.Lock()

    def is_full(self, connection: Connection) -> bool:
        """Whether more than ``max_backlog`` events wait for a rebuilder."""
        if self._max_backlog is None:
            return False
        with self._looking:
            now = self._clock.monotonic()
            if now >= self._look_at:
                self._look_at = now + _HOLDS_SECONDS
                self._over = self._look(connection, self._max_backlog)
            return self._over

    def _look(self, connection: Connection, most: int) -> bool:
        try:
            return backlog(connection, self._key, REBUILDERS_GROUP, most=most) > most
        except RedisError as error:
            log.debug("backlog.unknown", error=str(error))
            return False
