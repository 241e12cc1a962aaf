"""What comes in: events from the stream, and requests of people.

An event is recorded in the catalog first and acknowledged then. Between the two the process may
die: the event is delivered again, and recording it again changes nothing, because its id is the
key. What cannot be read becomes a dead letter, bytes and all, and blocks no other event.

An event may also kill the process that reads it, and the next one, and so on. The server counts how
often an entry was delivered, but that counts outages as well. So at ``max_deliveries`` an event is
read alone, for the last time, and is recorded as a dead letter before that. If reading it succeeds,
the letter is removed. If it kills the process, the letter is found, and the event is not read any
more.

An event asks for a look, whatever it holds: a right to add to a stream is none to have built.
A request is a row that `Inbox.request` wrote. It may name components, which are then built whether
due or not, may allow them to shrink, and may ask for a build from scratch. It is answered as a
whole: while one of its components is not free, all of it waits, or the others would be built again
and again.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self, cast

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.errors import UnreadableEventError
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import BatchCompleted, Event, RebuildRequested
from indexrelay.schemas.settings import RebuilderSettings
from indexrelay.storage.catalog import Catalog, InboxRow, ReceivedEvent, Unreadable
from indexrelay.storage.catalog.dead_letters import FROM_INBOX
from indexrelay.streams import ConsumerGroup, Delivery

_log = get_logger(__name__)
_COUNT: Final = 500
"""Events taken at a time: a burst becomes a few transactions. Fewer where they are large
(`indexrelay.streams.consumer.ReadSize`)."""
_USUAL_BYTES: Final = 4096
"""Ten times the size of an event of ours."""


class Intake:
    """Takes events for the rebuilders' group."""

    def __init__(
        self,
        group: ConsumerGroup,
        *,
        stream: str,
        catalog: Catalog,
        limits: RebuilderSettings,
        clock: Clock,
    ) -> None:
        self._group = group
        self._stream = stream
        self._catalog = catalog
        self._limits = limits
        self._clock = clock

    def take(self, *, block_seconds: float) -> int:
        """Wait at most ``block_seconds`` for events (0: not at all); how many there were.

        Repeated and unreadable ones count as well: each of them asks for a look.

        Raises:
            redis.exceptions.RedisError: the server is away; nothing was acknowledged.
        """
        deliveries = self._group.read(count=_COUNT, block_seconds=block_seconds)
        if not deliveries:
            return 0
        failpoint("intake.after_read")
        harmless = [each for each in deliveries if not self._is_suspect(each)]
        if harmless:
            self._receive(harmless)
        for suspect in filter(self._is_suspect, deliveries):
            self._receive_alone(suspect)
        return len(deliveries)

    def _is_suspect(self, delivery: Delivery) -> bool:
        return delivery.raw is not None and delivery.deliveries >= self._limits.max_deliveries

    def _receive(self, deliveries: Sequence[Delivery]) -> None:
        now = self._clock.now()
        received: list[ReceivedEvent] = []
        unreadable: list[Unreadable] = []
        for delivery in deliveries:
            match self._read(delivery, now):
                case ReceivedEvent() as event:
                    received.append(event)
                case Unreadable() as letter:
                    unreadable.append(letter)
        new = self._catalog.inbox.receive(received, most=self._limits.max_inbox_rows)
        if unreadable:
            self._bury(unreadable)
        failpoint("intake.after_inbox")
        self._group.acknowledge([delivery.entry_id for delivery in deliveries])
        failpoint("intake.after_acknowledge")
        _log.debug("events.received", count=len(deliveries), new=new)

    def _receive_alone(self, delivery: Delivery) -> None:
        """Read an event that may have killed the processes that read it before."""
        letters, raw = self._catalog.dead_letters, delivery.raw or b""
        entry = delivery.entry_id.decode()
        if not letters.holds(stream=self._stream, entry_id=entry, raw=raw):
            reason = f"it ended the process that read it, {self._limits.max_deliveries} times"
            letter = letters.add(stream=self._stream, entry_id=entry, raw=raw, reason=reason)
            event = self._read(delivery, self._clock.now())
            if isinstance(event, ReceivedEvent):
                letters.requeue(letter, event)
            elif isinstance(event, Unreadable):
                letters.amend(letter, reason=event.reason)
        else:
            _log.error("event.deadly", entry=entry, deliveries=delivery.deliveries)
        self._group.acknowledge([delivery.entry_id])

    def _read(self, delivery: Delivery, now: datetime) -> ReceivedEvent | Unreadable | None:
        if delivery.raw is None:
            # Trimmed before any rebuilder read it. What it announced is in the catalog.
            _log.warning("event.trimmed", entry=delivery.entry_id.decode())
            return None
        try:
            return read_event(delivery.raw, received_at=now)
        except UnreadableEventError as error:
            entry_id = delivery.entry_id.decode()
            return Unreadable(entry_id=entry_id, raw=delivery.raw, reason=error.reason)

    def _bury(self, letters: Sequence[Unreadable]) -> None:
        """Keep what could not be read; one line in the log, however many there are."""
        first = letters[0]
        dropped = self._catalog.dead_letters.add_some(
            letters, stream=self._stream, most=self._limits.max_dead_letters
        )
        _log.error(
            "event.unreadable",
            entry=first.entry_id,
            reason=first.reason,
            events=len(letters),
            dropped=dropped,
        )


def read_event(raw: bytes, *, received_at: datetime) -> ReceivedEvent:
    """The row that ``raw`` makes in the inbox, whether from the stream or from a dead letter.

    Raises:
        UnreadableEventError: no event, or one that does not belong into the events stream.
    """
    event = Event.from_bytes(raw)
    if event.type not in _TAKEN:
        raise UnreadableEventError(f"{event.type} does not belong into this stream", raw)
    return ReceivedEvent(event.id, event.type, _kept(event, raw), received_at)


_TAKEN: Final = frozenset({BatchCompleted.TYPE, RebuildRequested.TYPE})
"""By name, which is that of the data's class: `isinstance` of a pydantic class is slow."""


def _kept(event: Event, raw: bytes) -> bytes:
    """The bytes for the inbox: those that came, where they are few and ask for no more than a look.

    Of a request from a stream only the look is kept, and of a large event only the fields that are
    known.
    """
    if event.type == RebuildRequested.TYPE:
        data = cast("RebuildRequested", event.data)
        look = RebuildRequested(request_id=data.request_id, reason=data.reason)
        if data != look:
            return event.model_copy(update={"data": look}).to_bytes()
    return raw if len(raw) <= _USUAL_BYTES else event.to_bytes()


@dataclass(frozen=True)
class OpenRows:
    """Open rows of the inbox, and what those of them that are requests ask for."""

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

    @property
    def named(self) -> frozenset[str]:
        """The components that are asked for by name."""
        return frozenset(name for request in self.requests.values() for name in request.components)

    @property
    def scheduled(self) -> dict[str, float]:
        """Those of them that only schedules ask for; for how long they are left alone when they
        failed too often."""
        found: dict[str, float] = {}
        for request in self.requests.values():
            cooldown = request.failure_cooldown_seconds
            for name in request.components:
                found[name] = min(found.get(name, math.inf), 0.0 if cooldown is None else cooldown)
        return {name: cooldown for name, cooldown in found.items() if cooldown}

    @property
    def asked_for_due(self) -> bool:
        """Whether whatever is due is asked for, by no name."""
        return any(not request.components for request in self.requests.values())

    def forced(self, due: Iterable[str]) -> frozenset[str]:
        """What may shrink: what a forcing request names, or all that is due if it names nothing."""
        return _meant((each for each in self.requests.values() if each.force), due)

    def full(self, due: Iterable[str]) -> frozenset[str]:
        """What is built from scratch, by the same rule."""
        return _meant((each for each in self.requests.values() if each.full), due)

    def ready(self, blocked: AbstractSet[str], *, owed: AbstractSet[str] = frozenset()) -> Self:
        """Those rows that need not wait for anything that is ``blocked``.

        A request that names nothing and asks for more than a look (to force, to build from scratch)
        means all that is due, so it waits for all of it. So does one without which some of what is
        blocked would not be due (``owed``): once it was answered nobody would have asked.
        """
        waiting = {
            event_id
            for event_id, request in self.requests.items()
            if not blocked.isdisjoint(request.components)
            or (not request.components and (owed or (blocked and (request.force or request.full))))
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
    """What a row asks for, if it is a request; one that cannot be read becomes a dead letter."""
    try:
        data = Event.from_bytes(row.body).data
    except UnreadableEventError as error:
        letter = catalog.dead_letters.add(
            stream=FROM_INBOX, entry_id=row.event_id, raw=row.body, reason=error.reason
        )
        _log.error("event.unreadable", entry=row.event_id, dead_letter=letter, reason=error.reason)
        return None
    return data if isinstance(data, RebuildRequested) else None
