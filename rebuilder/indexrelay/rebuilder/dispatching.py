"""Looks at the facts and makes out the next pass: what is due, and free to be built here.

Two sets do the work, as in a work queue: what is being built, and what came up meanwhile. A
component that becomes due again while it is built is left alone until its pass has ended, and is
then built once more, once.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime

import structlog

from indexrelay.rebuilder.backoff import Patience
from indexrelay.rebuilder.due import Facts, find_due
from indexrelay.rebuilder.leasing import Leases
from indexrelay.rebuilder.ordering import Definitions, with_descendants
from indexrelay.rebuilder.passes import PassOrder
from indexrelay.schemas.events import Event, RebuildRequested
from indexrelay.storage.catalog import Catalog, InboxRow

_log = structlog.get_logger(__name__)


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
    ) -> None:
        self._definitions = definitions
        self._catalog = catalog
        self._observe = observe
        self._leases = leases
        self._patience = patience
        self._lock = threading.Lock()
        self._building: set[str] = set()
        self._taken: set[str] = set()
        self.retry_at: datetime | None = None
        """When a failed component may be tried again, as of the last look or pass."""
        self.held_back: frozenset[str] = frozenset()
        """What was due at the last look and not free: look again soon."""

    @property
    def building(self) -> tuple[str, ...]:
        """What is being built now."""
        with self._lock:
            return tuple(sorted(self._building))

    def next_order(self, *, woken_at: datetime | None) -> PassOrder | None:
        """The next pass, its leases taken; ``None`` when nothing is due and nobody asked."""
        rows = [row for row in self._catalog.inbox.open() if row.event_id not in self._taken]
        requests = {row.event_id: _request(row) for row in rows}
        requested = self._named(request for request in requests.values() if request)
        facts = self._observe(requested)
        due = find_due(facts, self._patience)
        reasons = self._free(due.reasons)
        self.retry_at = due.retry_at
        self.held_back = frozenset(set(due.reasons) - set(reasons))
        answered = [row for row in rows if not _waits(requests[row.event_id], self.held_back)]
        if not reasons and not answered:
            return None
        with self._lock:
            self._building |= set(reasons)
            self._taken |= {row.event_id for row in answered}
        return PassOrder(
            facts=facts,
            reasons=reasons,
            force=_forced(requests.values(), reasons),
            rows=answered,
            woken_at=woken_at,
        )

    def free(self, names: Iterable[str]) -> None:
        """These are no longer being built: others may take them."""
        for name in names:
            self._leases.give_back(name)
            with self._lock:
                self._building.discard(name)

    def close(self, order: PassOrder, *, answered: bool) -> None:
        """The pass has ended; ``answered``: its events and requests need no other one."""
        with self._lock:
            left = self._building.intersection(order.reasons)
        self.free(left)
        ids = [row.event_id for row in order.rows]
        if answered and ids:
            self._catalog.inbox.finish(ids)
        with self._lock:
            self._taken -= set(ids)
        self.retry_at = self._next_retry()

    def _next_retry(self) -> datetime | None:
        """When the first of the components that failed may be tried again by itself."""
        attempts = self._catalog.attempts.all().values()
        retries = (self._patience.retry_at(attempt) for attempt in attempts)
        return min((retry for retry in retries if retry is not None), default=None)

    def _free(self, reasons: Mapping[str, str]) -> dict[str, str]:
        """Those that nobody builds, here or elsewhere, nor anything that they are made from."""
        blocked = with_descendants(self.building, self._definitions)
        free: dict[str, str] = {}
        for name, reason in reasons.items():  # parents first
            if name in blocked:
                continue
            if self._leases.take(name):
                free[name] = reason
            else:
                blocked |= with_descendants([name], self._definitions)
        return free

    def _named(self, requests: Iterable[RebuildRequested]) -> frozenset[str]:
        """The components that requests ask for by name."""
        named = {name for request in requests for name in request.components}
        for name in sorted(named - set(self._definitions)):
            _log.warning("request.unknown_component", component=name)
        return frozenset(named & set(self._definitions))


def _request(row: InboxRow) -> RebuildRequested | None:
    """What a row asks for, if it is a request."""
    data = Event.from_bytes(row.body).data
    return data if isinstance(data, RebuildRequested) else None


def _waits(request: RebuildRequested | None, held_back: AbstractSet[str]) -> bool:
    """Whether a request has to wait for a later pass."""
    return request is not None and not held_back.isdisjoint(request.components)


def _forced(requests: Iterable[RebuildRequested | None], due: Iterable[str]) -> frozenset[str]:
    """What may shrink: what a forcing request names, or all that is due if it names nothing."""
    forced: set[str] = set()
    for request in requests:
        if request is not None and request.force:
            forced |= set(request.components or due)
    return frozenset(forced)
