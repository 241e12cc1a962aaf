"""Who builds what, among several rebuilders: one lease per component, renewed while it is held.

A lease only saves work. What keeps the result right when two hosts build the same component is the
commit (`indexrelay.rebuilder.releasing`). So a lease that cannot be had, for whatever reason, means
"someone else's", and one that is lost is logged and changes nothing.
"""

import threading
from collections.abc import Callable

import structlog
from redis.exceptions import RedisError

from indexrelay.streams import Connection, Keys, Lease

_log = structlog.get_logger(__name__)


class Leases:
    """The leases of one rebuilder."""

    def __init__(
        self, connection: Connection, keys: Keys, *, owner: str, ttl_seconds: float
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._owner = owner
        self._ttl_seconds = ttl_seconds
        self._held: dict[str, Lease] = {}
        self._lock = threading.Lock()

    def take(self, component: str) -> bool:
        """Whether this rebuilder may build ``component`` now."""
        lease = Lease(
            self._connection,
            self._keys.lease(component),
            owner=self._owner,
            ttl_seconds=self._ttl_seconds,
        )
        if not _attempt(lease.acquire, "lease.unavailable", component):
            return False
        with self._lock:
            self._held[component] = lease
        return True

    def give_back(self, component: str) -> None:
        """Let others build it; a lease that Redis has already forgotten is nothing."""
        with self._lock:
            lease = self._held.pop(component, None)
        if lease is not None:
            _attempt(lease.release, "lease.not_released", component)

    def renew(self) -> None:
        """Keep what is held; to be called at a third of the TTL."""
        with self._lock:
            held = dict(self._held)
        for component, lease in held.items():
            if not _attempt(lease.renew, "lease.not_renewed", component):
                _log.warning("lease.lost", component=component)


def _attempt(act: Callable[[], bool], event: str, component: str) -> bool:
    try:
        return act()
    except RedisError as error:
        _log.warning(event, component=component, error=str(error))
        return False
