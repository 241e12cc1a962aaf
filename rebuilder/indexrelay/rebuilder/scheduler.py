"""Decides what the next pass builds: what is due and free to be built here, and in which order.

Two sets do the work, as in a work queue: what is being built, and what became due meanwhile. A
component that becomes due again while it is built is left alone until its pass has ended, and is
then built once more, once.

Among several rebuilders one lease per component decides, renewed by a thread of its own while it is
held. The leases are taken between two looks at the facts. The first says what is worth a lease; by
the time it is held, another pass or another host may have built and released the component, and
only the second look, under the lease, is sure.

A lease only saves work (`indexrelay.streams.leases`). One that cannot be taken means that another
host has it, with one exception: a server without memory refuses only leases that are free, and what
it refuses is built without one. What keeps the result right when two hosts build the same component
is the commit (`indexrelay.rebuilder.publisher`).

A group moves only where its members cover the same generation of what they share. Members that are
built side by side read it at almost the same moment, which is fast and mostly enough. But a member
that begins when another has ended reads what was committed meanwhile: where batches come faster
than builds end, and there are fewer workers than members, no two would agree. Such members
form a unit, which is built one after another from the same snapshots; and so do members after a
pass in which a commit came between them. What is read from a table or a folder is always read in a
unit: an equal generation of it means that it looks the same, and not that it has the same rows.
"""

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from graphlib import TopologicalSorter
from typing import Self, TypeVar

from redis.exceptions import RedisError

from indexrelay.health.due import Due, find_due, why_not, withheld
from indexrelay.health.facts import Facts, RetryPolicy
from indexrelay.health.improvements import find_improvements
from indexrelay.health.survey import Survey
from indexrelay.rebuilder.inbox import OpenRows
from indexrelay.rebuilder.passes import PassOrder, Turn, would_keep_back
from indexrelay.schemas.clock import Clock, SupervisedThread
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.files import LockWaits
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import LockWait, RebuildResult
from indexrelay.schemas.settings import CatalogSource, Settings
from indexrelay.schemas.versions import (
    Definitions,
    ancestors_of,
    groups_of,
    mates_of,
    moving_with,
    parents_of,
)
from indexrelay.storage.catalog import Catalog
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


@dataclass(frozen=True)
class _Look:
    """What one look at the inbox and at the facts found."""

    open: OpenRows
    facts: Facts
    due: Due


class Scheduler:
    """Hands out passes; safe to use from the loop and from passes that end."""

    def __init__(
        self,
        definitions: Definitions,
        *,
        catalog: Catalog,
        survey: Survey,
        leases: Leases,
        retry_policy: RetryPolicy,
        workers: int,
        improved: Callable[[Facts], Mapping[str, str]] = lambda _facts: {},
    ) -> None:
        """Hand out passes.

        Args:
            workers: how many builds may run at a time.
            improved: finds the better versions that are built and not released (`Facts.improved`).
        """
        self._definitions = definitions
        self._catalog = catalog
        self._survey = survey
        self._leases = leases
        self._retry_policy = retry_policy
        self._workers = workers
        self._improved = improved
        self._disagreeing: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self._building: set[str] = set()
        self._taken: set[str] = set()
        self.retry_at: datetime | None = None
        """When a failed component may be retried, or one that waits by the policy of its collection
        may be built, as of the last look or pass."""
        self._deferred_until: Sequence[datetime | None] = ()
        self.blocked: frozenset[str] = frozenset()
        """What was due at the last look and not free: look again soon."""
        self.look_soon = False
        """Whether something was built and is not released yet although nothing is wrong."""
        self.waiting: Mapping[str, str] = {}
        """What was not built at the last look although nothing of it is wrong, and why: it waits
        for others of its group, or for a catalog that went back in time."""
        self.may_improve = False
        """Whether at the last look something that serves could be improved."""

    @property
    def building(self) -> tuple[str, ...]:
        """What is being built now."""
        with self._lock:
            return tuple(sorted(self._building))

    def next_order(self, *, woken_at: datetime | None, quick: bool = False) -> PassOrder | None:
        """The next pass, its leases taken; ``None`` when nothing is due and nobody asked.

        Args:
            quick: what is ready soonest will do, since the caller improves it later.
        """
        look = self._look()
        leased = self._lease(look.due.reasons)
        try:
            failpoint("dispatch.after_lease")
            if leased:
                # The previous owner released its version before the lease: this look sees it.
                look = self._look()
            order = replace(self._order(look, leased, woken_at), quick=quick)
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

    def expect_more(self) -> None:
        """Something was built that leads to more, without any event: look soon."""
        self.look_soon = True

    def free(self, names: Iterable[str], result: RebuildResult) -> None:
        """These were built before the rest of their pass: others may take them.

        Args:
            result: of their builds.
        """
        self._note(result)
        self._free(names)

    def end(
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
            answered: its events and requests need no other pass.
            result: of the whole pass, and the answer to its requests; ``None``: it has none.
        """
        if result is not None:
            self._note(result)  # before the components are free for the next pass
        ids = [row.event_id for row in order.rows]
        try:
            # Before the leases are given back: the next owner must not find these requests open.
            if answered and ids:
                failpoint("inbox.before_finish")
                self._catalog.inbox.finish(ids, result=result)
                failpoint("inbox.after_finish")
        finally:
            with self._lock:
                self._taken -= set(ids)
            self._free(left)
        attempts = self._catalog.attempts.all().values()
        retries = (self._retry_policy.retry_at(attempt) for attempt in attempts)
        moments = (*retries, *self._deferred_until)
        self.retry_at = min((each for each in moments if each is not None), default=None)

    def _free(self, names: Iterable[str]) -> None:
        freed = set(names)
        self._leases.give_back(freed)
        with self._lock:
            self._building -= freed

    def _note(self, result: RebuildResult) -> None:
        """Remember the groups whose members were built, and cover different generations.

        No component failed, so nothing brings the next look: it is to be soon.
        """
        rebuilt, waiting = set(result.indexes_rebuilt), result.waiting.keys()
        built = {
            group: result.components.keys() & set(members)
            for group, members in groups_of(self._definitions).items()
        }
        disagreeing = {
            group for group, names in built.items() if names & waiting and names <= rebuilt
        }
        with self._lock:
            agreeing = {group for group, names in built.items() if names}
            self._disagreeing = (self._disagreeing - agreeing) | disagreeing
        if disagreeing:
            self.look_soon = True

    def _look(self) -> _Look:
        """What there is to do, as of now."""
        with self._lock:
            taken = set(self._taken)  # before the rows are read: a pass may finish some meanwhile
        rows = OpenRows.read(self._catalog, besides=taken)
        facts = self._survey.of_builds(
            rows.named, asked_for_due=rows.asked_for_due, scheduled=rows.scheduled
        )
        if facts.improvable:
            facts = replace(facts, improved=self._improved(facts))
        return _Look(rows, facts, find_due(facts, self._retry_policy))

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

    def _order(self, look: _Look, leased: AbstractSet[str], woken_at: datetime | None) -> PassOrder:
        """The pass that may begin with what is ``leased``."""
        elsewhere = set(look.due.reasons) - leased
        # All of a group goes into one pass: two passes would wait for each other's members.
        blocked = moving_with(elsewhere, self._definitions).intersection(look.due.reasons)
        self.retry_at = look.due.look_at
        self._deferred_until = [each.until for each in look.due.deferred.values()]
        self.blocked = frozenset(blocked)
        self.look_soon = False
        self.may_improve = bool(
            look.facts.improvable
            and find_improvements(look.facts, look.due, self._retry_policy).reasons
        )
        rows = look.open.ready(blocked, owed=self._owed(look, blocked))
        facts, due = look.facts, look.due
        if rows != look.open:
            facts = replace(
                facts,
                requested=rows.named,
                asked_for_due=rows.asked_for_due,
                scheduled=rows.scheduled,
            )
            due = find_due(facts, self._retry_policy)
        reasons = {name: why for name, why in due.reasons.items() if name not in blocked}
        waiting = {name: wait.sentence for name, wait in due.waiting.items()}
        self.waiting = {**withheld(facts), **waiting}
        with self._lock:
            disagreeing = self._disagreeing
        units = find_units(reasons.keys(), facts, workers=self._workers, disagreeing=disagreeing)
        return PassOrder(
            facts=facts,
            reasons=reasons,
            turns=find_turns(reasons, facts, units),
            not_reused=frozenset().union(
                *(
                    unit
                    for unit in units
                    if any(self._definitions[name].group in disagreeing for name in unit)
                )
            ),
            waiting=due.waiting,
            refused={
                name: waiting[name] if name in waiting else why_not(name, facts)
                for name in sorted(facts.requested - set(due.reasons))
            },
            force=rows.forced(reasons),
            full=rows.full(reasons),
            rows=rows.rows,
            woken_at=woken_at,
        )

    def _owed(self, look: _Look, blocked: AbstractSet[str]) -> AbstractSet[str]:
        """What is due only since somebody asked for whatever is due, and is not free."""
        if not blocked or not look.facts.asked_for_due:
            return frozenset()
        unasked = find_due(replace(look.facts, asked_for_due=False), self._retry_policy)
        return blocked - unasked.reasons.keys()


Unit = frozenset[str]
"""Components that are built one after another from the same snapshots; mostly one."""
NodeT = TypeVar("NodeT", bound=Hashable)
Order = Mapping[NodeT, AbstractSet[NodeT]]
"""For each component, or unit: those that are to be built before it."""


def find_units(
    due: AbstractSet[str], facts: Facts, *, workers: int, disagreeing: AbstractSet[str]
) -> tuple[Unit, ...]:
    """The units of two components or more.

    Args:
        due: what the pass builds.
        workers: how many builds may begin at a time.
        disagreeing: the groups whose members covered different generations the last time.
    """
    order = parents_first(due, facts)
    units = {name: frozenset({name}) for name in order}
    grouped = {
        group: _moving(due, members, facts)
        for group, members in groups_of(facts.definitions).items()
    }
    at_once = {name for names in grouped.values() for name in names if not order[name]}
    for group, names in grouped.items():
        for collection, readers in _readers(names, facts).items():
            if len(readers) > 1 and (
                group in disagreeing
                or len(at_once) > workers
                or any(order[name] for name in readers)  # begins when what it is made from ended
                or not _keeps_its_generations(collection, facts)
            ):
                _join(readers, units)
    _join_circles(units, order)
    return tuple(unit for unit in dict.fromkeys(units.values()) if len(unit) > 1)


def find_turns(
    reasons: Mapping[str, str], facts: Facts, units: Iterable[Unit]
) -> dict[Turn, set[Turn]]:
    """What a pass builds, in turns; for each: those that are to be built before it.

    Parents are built first. A member of a group whose last build failed is built before those that
    could not be released without it, so that nothing is built again and again for nothing.
    """
    order = parents_first(reasons.keys(), facts)
    unit_of = {name: frozenset({name}) for name in order}
    unit_of |= {name: unit for unit in units for name in unit}
    between = units_first(unit_of.values(), order)
    waited_for: set[str] = set()
    for name in order:
        for mate in reasons.keys() & set(mates_of(name, facts.definitions)) & facts.attempts.keys():
            if not would_keep_back(mate, name, facts, reasons):
                continue
            mine, theirs = unit_of[name], unit_of[mate]
            # Two that failed would wait for each other, and so would a parent for its child.
            if mine != theirs and mine not in reached(theirs, between):
                between[mine].add(theirs)
            elif mine == theirs and name not in reached(mate, order):
                order[name].add(mate)
            waited_for.add(mate)
    last = facts.attempts.keys() - waited_for
    turns = {unit: in_turn(unit, order, last=last) for unit in between}
    return {turns[unit]: {turns[each] for each in before} for unit, before in between.items()}


def parents_first(due: AbstractSet[str], facts: Facts) -> dict[str, set[str]]:
    """For each component that is due: those of its parents that are."""
    return {
        name: {
            each for each in parents_of(facts.definitions[name], facts.definitions) if each in due
        }
        for name in sorted(due)
    }


def units_first(units: Iterable[Unit], order: Order[str]) -> dict[Unit, set[Unit]]:
    """The same order between units."""
    unit_of = {name: unit for unit in units for name in unit}
    return {
        unit: {unit_of[earlier] for name in unit for earlier in order[name]} - {unit}
        for unit in dict.fromkeys(unit_of.values())
    }


def reached(node: NodeT, order: Order[NodeT]) -> set[NodeT]:
    """All that is to be built before ``node``, and itself."""
    found: set[NodeT] = set()
    more = {node}
    while more:
        found |= more
        more = set().union(*(order[each] for each in more)) - found
    return found


def in_turn(unit: Unit, order: Order[str], *, last: AbstractSet[str]) -> Turn:
    """The components of a unit in the order in which they are built.

    Args:
        last: those that no other waits for and whose build may end the process, and with it the
            snapshots.
    """
    sorter = TopologicalSorter({name: order[name] & unit for name in sorted(unit)})
    sorter.prepare()
    ready: set[str] = set()
    found: list[str] = []
    while sorter.is_active():
        ready.update(sorter.get_ready())
        found.append(min(ready, key=lambda name: (name in last, name)))
        ready.remove(found[-1])
        sorter.done(found[-1])
    return tuple(found)


def _moving(due: AbstractSet[str], members: Iterable[str], facts: Facts) -> set[str]:
    """The members of a group that are due, and those of their ancestors that are."""
    mine = {name for name in members if name in due}
    return mine.union(*(due & set(ancestors_of(name, facts.definitions)) for name in mine))


def _readers(names: Iterable[str], facts: Facts) -> dict[str, list[str]]:
    """By collection: those that read it themselves."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        for source in facts.definitions[name].inputs:
            if source not in facts.definitions:
                found.setdefault(source, []).append(name)
    return found


def _keeps_its_generations(collection: str, facts: Facts) -> bool:
    """Whether two snapshots of one generation of it have the same rows."""
    settings = facts.collections.get(collection)
    return settings is None or isinstance(settings.source, CatalogSource)


def _join(names: Sequence[str], units: dict[str, Unit]) -> None:
    joined = frozenset[str]().union(*(units[name] for name in names))
    for name in joined:
        units[name] = joined


def _join_circles(units: dict[str, Unit], order: Order[str]) -> None:
    """What would have to be built before a unit and after it belongs to it."""
    while True:
        between = units_first(units.values(), order)
        before = {unit: reached(unit, between) for unit in between}
        circle = next(
            (
                [*unit, *other]
                for unit, earlier in before.items()
                for other in earlier
                if other != unit and unit in before[other]
            ),
            None,
        )
        if circle is None:
            return
        _join(circle, units)
