"""Looks at the facts and makes out the next pass: what is due, and free to be built here.

Two sets do the work, as in a work queue: what is being built, and what came up meanwhile. A
component that becomes due again while it is built is left alone until its pass has ended, and is
then built once more, once.

The leases are taken between two looks. The first says what is worth a lease; by the time it is had,
another pass or another host may have built and released the component, and only the second look,
under the lease, knows.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime

from indexrelay.health.backoff import Patience
from indexrelay.health.dependencies import Definitions, moving_with
from indexrelay.health.due import Due, find_due, why_not, withheld
from indexrelay.health.facts import Facts
from indexrelay.rebuilder.asking import Asked
from indexrelay.rebuilder.build_units import find_together
from indexrelay.rebuilder.leasing import Leases
from indexrelay.rebuilder.passes import PassOrder
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.groups import groups_of
from indexrelay.schemas.results import RebuildResult
from indexrelay.storage.catalog import Catalog


@dataclass(frozen=True)
class _Look:
    """What one look at the inbox and at the facts found."""

    asked: Asked
    facts: Facts
    due: Due


class Dispatcher:
    """Hands out passes; safe to use from the loop and from passes that end."""

    def __init__(
        self,
        definitions: Definitions,
        *,
        catalog: Catalog,
        observe: Callable[[frozenset[str]], Facts],
        leases: Leases,
        patience: Patience,
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
        asked = Asked.read(self._catalog, besides=taken)
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
