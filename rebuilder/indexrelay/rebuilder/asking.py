"""What is asked for: the open rows of the inbox, events and people's requests alike.

An event asks for a look, whatever it says: whoever can add to a stream has no say in what is
built. A request is a row that `Inbox.request` wrote. It may name components, which are then built
whether due or not, may allow them to shrink, and may want them built from scratch. It is answered
as a whole: while one of its components is not free, all of it waits, or what nobody else wants
would be built again and again.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Self

from indexrelay.schemas.errors import UnreadableEventError
from indexrelay.schemas.events import Event, RebuildRequested
from indexrelay.schemas.loggers import get_logger
from indexrelay.storage.catalog import Catalog, InboxRow
from indexrelay.storage.catalog.dead_letters import FROM_INBOX

_log = get_logger(__name__)


@dataclass(frozen=True)
class Asked:
    """Open rows, and what those of them that are requests ask for."""

    rows: tuple[InboxRow, ...]
    requests: Mapping[str, RebuildRequested]
    """By event id."""

    @classmethod
    def read(cls, catalog: Catalog, *, besides: AbstractSet[str]) -> Self:
        """What the inbox holds, ``besides`` the rows that a running pass answers."""
        rows = tuple(row for row in catalog.inbox.open() if row.event_id not in besides)
        requests = {}
        for row in rows:
            request = _request(row, catalog) if row.requested else None
            if request is not None:
                requests[row.event_id] = request
        return cls(rows, requests)

    def named(self) -> frozenset[str]:
        """The components that are asked for by name."""
        return frozenset(name for request in self.requests.values() for name in request.components)

    def forced(self, due: Iterable[str]) -> frozenset[str]:
        """What may shrink: what a forcing request names, or all that is due if it names nothing."""
        return _meant((each for each in self.requests.values() if each.force), due)

    def full(self, due: Iterable[str]) -> frozenset[str]:
        """What is built from scratch, by the same rule."""
        return _meant((each for each in self.requests.values() if each.full), due)

    def ready(self, held_back: AbstractSet[str]) -> Self:
        """Those rows that need not wait for anything that is ``held_back``.

        A request that names nothing and wants more than a look (to force, to build from scratch)
        means all that is due, so it waits for all of it.
        """
        waiting = {
            event_id
            for event_id, request in self.requests.items()
            if not held_back.isdisjoint(request.components)
            or (held_back and (request.force or request.full) and not request.components)
        }
        return type(self)(
            tuple(row for row in self.rows if row.event_id not in waiting),
            {id_: request for id_, request in self.requests.items() if id_ not in waiting},
        )


def _meant(requests: Iterable[RebuildRequested], due: Iterable[str]) -> frozenset[str]:
    """What requests are about: what they name, or all that is ``due`` where they name nothing."""
    all_due = frozenset(due)
    return frozenset().union(*(request.components or all_due for request in requests))


def _request(row: InboxRow, catalog: Catalog) -> RebuildRequested | None:
    """What a row asks for, if it is a request; one that cannot be read must not block all."""
    try:
        data = Event.from_bytes(row.body).data
    except UnreadableEventError as error:
        letter = catalog.dead_letters.bury(
            stream=FROM_INBOX, entry_id=row.event_id, raw=row.body, reason=error.reason
        )
        _log.error("event.unreadable", entry=row.event_id, dead_letter=letter, reason=error.reason)
        return None
    return data if isinstance(data, RebuildRequested) else None
