"""Decides what the next pass builds: what is due, and free to be built here.

Two sets do the work, as in a work queue: what is being built, and what became due meanwhile. A
component that becomes due again while it is built is left alone until its pass has ended, and is
then built once more, once.

Among several rebuilders one lease per component decides, renewed by a thread of its own while it is
held. The leases are taken between two looks at the facts. The first says what is worth a lease; by
the time it is held, another pass or another host may have built and released the component, and
only the second look, under the lease, is sure.

A lease only saves work. What keeps the result right when two hosts build the same component is the
commit (`indexrelay.rebuilder.publisher`). A lease that cannot be taken means that another has it,
with one exception: a server without memory refuses only leases that are free, and what it refuses
is built without one.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from redis.exceptions import RedisError

from indexrelay.health.due import Due, find_due, why_not, withheld
from indexrelay.health.facts import Facts, RetryPolicy
from indexrelay.rebuilder.inbox import OpenRows
from indexrelay.rebuilder.passes import PassOrder, find_together
from indexrelay.schemas.clock import Clock, SupervisedThread
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.files import LockWaits
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import LockWait, RebuildResult
from indexrelay.schemas.versions import Definitions, groups_of, moving_with
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import BackendRefusedError, Connection, Keys, Lease
from indexrelay.streams.errors import is_unanswered

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
        except RedisError as error:
            self.silent = is_unanswered(error)
            _log.warning(event, component=component, error=str(error))
            return None
        self.silent = False
        return said


class LeaseHeartbeat:
    """Calls ``renew`` at a third of the leases' TTL, from `start` to `stop`."""

    def __init__(self, renew: Callable[[], None], *, ttl_seconds: float) -> None:
        self._renew = renew
        self._period_seconds = ttl_seconds / 3
        self._stopping = threading.Event()
        self._thread = SupervisedThread(
            self._keep, name="indexrelay-leases", wait=self._stopping.wait
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

    def _keep(self) -> None:
        while not self._stopping.wait(self._period_seconds):
            try:
                self._renew()
            except Exception as error:  # noqa: BLE001 - the next renewal may still be in time
                _log.warning("leases.not_renewed", error=f"{type(error).__name__}: {error}")


@dataclass(frozen=True)
class _Look:
    """What one look at the inbox and at the facts found."""

    asked: OpenRows
    facts: Facts
    due: Due


class Scheduler:
    """Hands out passes; safe to use from the loop and from passes that end."""

    def __init__(
        self,
        definitions: Definitions,
        *,
        catalog: Catalog,
        observe: Callable[[frozenset[str]], Facts],
        leases: Leases,
        patience: RetryPolicy,
        workers: int,
    ) -> None:
        """``workers``: how many builds may run at a time."""
        self._definitions = definitions
        self._catalog = catalog
        self._observe = observe
        self._leases = leases
        self._patience = patience
        self._workers = workers
        self._torn: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self._building: set[str] = set()
        self._taken: set[str] = set()
        self.retry_at: datetime | None = None
        """When a failed component may be tried again, as of the last look or pass."""
        self.held_back: frozenset[str] = frozenset()
        """What was due at the last look and not free: look again soon."""
        self.look_soon = False
        """Whether something was built and is not released yet although nothing is wrong."""
        self.waiting: Mapping[str, str] = {}
        """What could not be built at the last look by no fault of its own, and why: it waits for
        others of its group, or for a catalog that went back in time."""

    @property
    def building(self) -> tuple[str, ...]:
        """What is being built now."""
        with self._lock:
            return tuple(sorted(self._building))

    def next_order(self, *, woken_at: datetime | None) -> PassOrder | None:
        """The next pass, its leases taken; ``None`` when nothing is due and nobody asked."""
        look = self._look()
        leased = self._lease(look.due.reasons)
        try:
            failpoint("dispatch.after_lease")
            if leased:
                # Whoever had them until now released before letting go: only this look is sure.
                look = self._look()
            order = self._order(look, leased, woken_at)
        except BaseException:
            self._leases.give_back(leased)
            raise
        taken = set(order.reasons)
        self._leases.give_back(leased - taken)
        if not taken and not order.rows:
            return None
        with self._lock:
            self._building |= taken
            self._taken |= {row.event_id for row in order.rows}
        return order

    def heed(self, result: RebuildResult) -> None:
        """Remember the groups of which the members that were built came from different moments.

        That is nobody's fault, and nothing brings the next look: so it is to be soon.
        """
        rebuilt, waiting = set(result.indexes_rebuilt), result.waiting.keys()
        built = {
            group: result.components.keys() & set(members)
            for group, members in groups_of(self._definitions).items()
        }
        torn = {group for group, names in built.items() if names & waiting and names <= rebuilt}
        with self._lock:
            self._torn = self._torn.difference(group for group, names in built.items() if names)
            self._torn |= torn
        if torn:
            self.look_soon = True

    def free(self, names: Iterable[str]) -> None:
        """These are no longer being built: others may take them."""
        freed = set(names)
        self._leases.give_back(freed)
        with self._lock:
            self._building -= freed

    def close(
        self,
        order: PassOrder,
        *,
        left: AbstractSet[str],
        answered: bool,
        result: RebuildResult | None = None,
    ) -> None:
        """The pass has ended.

        Args:
            left: what of it was not freed yet.
            answered: its events and requests need no other one.
            result: what came of it, for whoever asked.
        """
        ids = [row.event_id for row in order.rows]
        try:
            # Before the leases go: who takes them next must not find these requests open.
            if answered and ids:
                failpoint("inbox.before_finish")
                self._catalog.inbox.finish(ids, result=result)
                failpoint("inbox.after_finish")
        finally:
            with self._lock:
                self._taken -= set(ids)
            self.free(left)
        self.retry_at = self._next_retry()

    def _look(self) -> _Look:
        """What there is to do, as of now."""
        with self._lock:
            taken = set(self._taken)  # before the rows are read: a pass may finish some meanwhile
        asked = OpenRows.read(self._catalog, besides=taken)
        facts = self._observe(asked.named())
        return _Look(asked, facts, find_due(facts, self._patience))

    def _order(self, look: _Look, leased: AbstractSet[str], woken_at: datetime | None) -> PassOrder:
        """The pass that may begin with what is ``leased``."""
        elsewhere = set(look.due.reasons) - leased
        # Nor does a group wait in two passes for each other: all of it goes into one.
        held_back = moving_with(elsewhere, self._definitions).intersection(look.due.reasons)
        self.retry_at = look.due.retry_at
        self.held_back = frozenset(held_back)
        self.look_soon = False
        asked, facts, due = look.asked.ready(held_back), look.facts, look.due
        if asked != look.asked:
            facts = replace(facts, requested=asked.named())
            due = find_due(facts, self._patience)
        reasons = {name: why for name, why in due.reasons.items() if name not in held_back}
        self.waiting = {
            **withheld(facts),
            **{name: wait.sentence for name, wait in due.waiting.items()},
        }
        with self._lock:
            torn = self._torn
        together = find_together(reasons.keys(), facts, workers=self._workers, torn=torn)
        return PassOrder(
            facts=facts,
            reasons=reasons,
            together=together,
            afresh=frozenset().union(
                *(
                    unit
                    for unit in together
                    if any(self._definitions[name].group in torn for name in unit)
                )
            ),
            waiting=due.waiting,
            refused={
                name: due.waiting[name].sentence if name in due.waiting else why_not(name, facts)
                for name in sorted(facts.requested - set(due.reasons))
            },
            force=asked.forced(reasons),
            full=asked.full(reasons),
            rows=asked.rows,
            woken_at=woken_at,
        )

    def _next_retry(self) -> datetime | None:
        """When the first of the components that failed may be tried again by itself."""
        attempts = self._catalog.attempts.all().values()
        retries = (self._patience.retry_at(attempt) for attempt in attempts)
        return min((retry for retry in retries if retry is not None), default=None)

    def _lease(self, due: Iterable[str]) -> set[str]:
        """Those that nobody builds, nor what they are made from, nor others of their group."""
        blocked = moving_with(self.building, self._definitions)
        leased: set[str] = set()
        due = list(due)
        self._leases.want(due)
        for name in due:  # parents first
            if name in blocked:
                continue
            if self._leases.take(name):
                leased.add(name)
            else:
                blocked |= moving_with([name], self._definitions)
        return leased
