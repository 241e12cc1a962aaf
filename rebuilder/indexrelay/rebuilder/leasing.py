"""Who builds what, among several rebuilders: one lease per component, renewed while it is held.

A lease only saves work. What keeps the result right when two hosts build the same component is the
commit (`indexrelay.rebuilder.releasing`). So a lease that cannot be had means "someone else's", but
for one reason: a server without memory refuses only what is free, and that is built without. One
that passed to another is logged and changes nothing.
"""

import threading
from collections.abc import Callable, Iterable

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.file_locks import LockWaits
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.results import LockWait
from indexrelay.streams import BackendRefusedError, Connection, Keys, Lease

_log = get_logger(__name__)


class Leases:
    """The leases of one rebuilder."""

    def __init__(
        self,
        connection: Connection,
        keys: Keys,
        *,
        owner: Callable[[], str],
        ttl_seconds: float,
        longest_build_seconds: Callable[[str], float],
        clock: Clock,
    ) -> None:
        """``longest_build_seconds``: of a component; a lease that is held for longer is told of."""
        self._connection = connection
        self._keys = keys
        self._owner = owner
        self._ttl_seconds = ttl_seconds
        self._held: dict[str, Lease] = {}
        self._longest_build_seconds = longest_build_seconds
        self._waits = LockWaits(clock)
        self._lock = threading.Lock()
        self.silent = False
        """Whether the server did not answer when it was asked last; a refusal is an answer."""

    def take(self, component: str) -> bool:
        """Whether this rebuilder may build ``component`` now."""
        lease = Lease(
            self._connection,
            self._keys.lease(component),
            owner=self._owner(),
            ttl_seconds=self._ttl_seconds,
        )
        name = f"the lease of {component}"
        full = False

        def acquire() -> bool:
            nonlocal full
            try:
                return lease.acquire()
            except BackendRefusedError as error:
                full = error.code == "OOM"
                raise

        taken = self._attempt(acquire, "lease.unavailable", component)
        if taken is False:
            self._waits.note(
                name, told_after_seconds=self._longest_build_seconds(component) + self._ttl_seconds
            )
        if full:
            # It is free, and a lease only saves work: whoever fills the memory stops no build.
            self._waits.over(name)
            return True
        if taken is not True:
            return False
        self._waits.over(name)
        with self._lock:
            self._held[component] = lease
        return True

    @property
    def waits(self) -> tuple[LockWait, ...]:
        """Leases that another rebuilder has held for longer than a build may take."""
        return self._waits.long

    def want(self, components: Iterable[str]) -> None:
        """These are due, and no others."""
        self._waits.keep([f"the lease of {name}" for name in components])

    def give_back(self, components: Iterable[str]) -> None:
        """Let others build them; a lease that Redis has already forgotten is nothing.

        A server that did not answer once is not asked again: the leases end by themselves.
        """
        with self._lock:
            leases = {name: self._held.pop(name) for name in components if name in self._held}
        for component, lease in leases.items():
            if self._attempt(lease.release, "lease.not_released", component) is None:
                return

    def renew(self) -> None:
        """Keep what is held; to be called at a third of the TTL, from any thread.

        One that ended meanwhile, because this came late or the server lost it, is taken again
        unless another has it.
        """
        with self._lock:
            held = dict(self._held)
        for component, lease in held.items():
            renewed = self._attempt(lease.renew, "lease.not_renewed", component)
            if renewed is None:
                return  # the next one would not be renewed either
            if not renewed:
                self._take_again(component, lease)

    def _take_again(self, component: str, lease: Lease) -> None:
        taken = self._attempt(lease.acquire, "lease.not_renewed", component)
        if taken is None:
            return
        with self._lock:
            holder = self._held.get(component)
            if holder is lease and not taken:
                del self._held[component]
        if holder is lease:
            # What is built meanwhile goes on: its release decides whether it is still news.
            _log.warning("lease.taken_again" if taken else "lease.lost", component=component)
        elif holder is None and taken:  # after it was given back: nobody would do so again
            self._attempt(lease.release, "lease.not_released", component)

    def _attempt(self, act: Callable[[], bool], event: str, component: str) -> bool | None:
        """What the server said; ``None``: nothing, or that it refuses."""
        try:
            said = act()
        except (RedisError, BackendRefusedError) as error:
            self.silent = isinstance(error, RedisConnectionError | RedisTimeoutError)
            _log.warning(event, component=component, error=str(error))
            return None
        self.silent = False
        return said
