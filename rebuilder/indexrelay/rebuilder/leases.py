"""The leases of one rebuilder: which components it may build, renewed while it builds them.

A lease only saves work (`indexrelay.streams.leases`). One that cannot be taken means that another
has it, with one exception: a server without memory refuses only leases that are free, and what it
refuses is built without one.
"""

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Self

from redis.exceptions import RedisError

from indexrelay.schemas.clock import Clock, SupervisedThread
from indexrelay.schemas.files import LockWaits
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import LockWait
from indexrelay.schemas.settings import Settings
from indexrelay.streams import BackendRefusedError, Connection, Identity, Keys, Lease
from indexrelay.streams.errors import is_unanswered
from indexrelay.streams.leases import LeaseOwner

_log = get_logger(__name__)


class Leases:
    """The leases of one rebuilder; safe to use from several threads."""

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        *,
        identity: Identity,
        clock: Clock,
        key: Callable[[Keys, str], str] = Keys.lease,
    ) -> None:
        """``key``: of the lease of a component."""
        self._definitions = settings.components
        self._limits = settings.rebuilder
        self._connection = connection
        self._key = partial(key, Keys(settings.namespace))
        self._identity = identity
        self._held: dict[str, Lease] = {}
        self._waits = LockWaits(clock)
        self._lock = threading.Lock()
        self.silent = False
        """Whether the server did not answer the last call; a refusal is an answer."""

    def take(self, component: str) -> bool:
        """Whether this rebuilder may build ``component`` now."""
        lease = Lease(
            self._connection,
            self._key(component),
            owner=str(LeaseOwner.of(self._identity)),
            ttl_seconds=self._limits.lease_ttl_seconds,
        )
        name = f"the lease of {component}"
        taken = self._attempt(lease.acquire, "lease.unavailable", component)
        if isinstance(taken, BackendRefusedError) and taken.code == "OOM":
            # The lease is free, and only saves work: a full server stops no build.
            self._waits.over(name)
            return True
        if taken is not True:
            if taken is False:
                self._waits.note(name, report_after_seconds=self._longest_seconds(component))
            return False
        self._waits.over(name)
        with self._lock:
            self._held[component] = lease
        return True

    def _longest_seconds(self, component: str) -> float:
        """A lease that another rebuilder holds for longer is reported."""
        definition = self._definitions.get(component)
        own = definition.build_timeout_seconds if definition is not None else None
        return (own or self._limits.build_timeout_seconds) + self._limits.lease_ttl_seconds

    @property
    def waits(self) -> tuple[LockWait, ...]:
        """Leases that another rebuilder has held for longer than a build may take."""
        return self._waits.long

    def want(self, components: Iterable[str]) -> None:
        """These are due, and no others."""
        self._waits.keep([f"the lease of {name}" for name in components])

    def give_back(self, components: Iterable[str]) -> None:
        """Let others build them; leases that Redis has lost already need nothing.

        A server that did not answer once is not asked again: the leases end by themselves.
        """
        with self._lock:
            leases = {name: self._held.pop(name) for name in components if name in self._held}
        for component, lease in leases.items():
            if not isinstance(self._attempt(lease.release, "lease.not_released", component), bool):
                return

    def renew(self) -> None:
        """Prolong what is held; to be called at a third of the TTL, from any thread.

        A lease that ended meanwhile, because this call was late or the server lost it, is taken
        again unless another has it.
        """
        with self._lock:
            held = dict(self._held)
        for component, lease in held.items():
            renewed = self._attempt(lease.renew, "lease.not_renewed", component)
            if not isinstance(renewed, bool):
                return  # the next one would not be renewed either
            if not renewed:
                self._take_again(component, lease)

    def _take_again(self, component: str, lease: Lease) -> None:
        taken = self._attempt(lease.acquire, "lease.not_renewed", component)
        if not isinstance(taken, bool):
            return
        with self._lock:
            holder = self._held.get(component)
            if holder is lease and not taken:
                del self._held[component]
        if holder is lease:
            # The build goes on: its release decides whether its version is still newer.
            _log.warning("lease.taken_again" if taken else "lease.lost", component=component)
        elif holder is None and taken:  # after it was given back: nobody else would give it back
            self._attempt(lease.release, "lease.not_released", component)

    def _attempt(self, call: Callable[[], bool], event: str, component: str) -> bool | RedisError:
        """What the server answered, or the error that it did not, or that it refuses."""
        try:
            answer = call()
        except RedisError as error:
            self.silent = is_unanswered(error)
            _log.warning(event, component=component, error=str(error))
            return error
        self.silent = False
        return answer


class LeaseHeartbeat:
    """Calls ``renew`` at a third of the TTL of leases, or of presence, from `start` to `stop`.

    In a thread of its own, because everything else may be late: a look at the facts waits for the
    catalog, a comparison for the store, a read for its events. On a busy machine with short leases
    that took longer than a TTL, and another rebuilder built the same component at the same time.
    """

    def __init__(
        self, renew: Callable[[], None], *, ttl_seconds: float, name: str = "leases"
    ) -> None:
        self._renew = renew
        self._name = name
        self._period_seconds = ttl_seconds / 3
        self._stopping = threading.Event()
        self._thread = SupervisedThread(
            self._run, name=f"indexrelay-{name}", wait=self._stopping.wait
        )
        self._started = False

    def start(self) -> None:
        """Start the thread; safe twice, and nothing once `stop` was called."""
        if not self._started and not self._stopping.is_set():
            self._started = True
            self._thread.start()

    def stop(self) -> None:
        """Return when nothing is renewed any more; safe twice and before `start`."""
        self._stopping.set()
        if self._started:
            self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._stopping.wait(self._period_seconds):
            try:
                self._renew()
            except Exception as error:  # noqa: BLE001 - the next renewal may still be in time
                _log.warning(f"{self._name}.not_renewed", error=f"{type(error).__name__}: {error}")
