"""From the stream into the inbox: record first, acknowledge then.

Between the two the process may die: the event is delivered again, and recording it again is
nothing, because its id is the key. What cannot be read goes to the dead letters, bytes and all, and
holds up nobody.

An event may also end the process that reads it, and the next one, and so on. The server counts how
often an entry was handed out, but that counts outages too. So at ``max_deliveries`` an event is
read by itself, for the last time, and as a dead letter already: if reading it ends well the letter
goes, and if it ends the process the letter is found, and the event is not read again.
"""

from collections.abc import Sequence
from datetime import datetime

from indexrelay.rebuilder.reading import read_event
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.errors import UnreadableEventError
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.loggers import get_logger
from indexrelay.storage.catalog import Catalog, ReceivedEvent, Unreadable
from indexrelay.streams import ConsumerGroup, Delivery

_log = get_logger(__name__)
_COUNT = 500
"""Events taken at a time: a burst becomes a few transactions. Fewer where they are large
(`indexrelay.streams.read_size`)."""


class Intake:
    """Takes events for the rebuilder's group."""

    def __init__(
        self,
        group: ConsumerGroup,
        *,
        stream: str,
        catalog: Catalog,
        max_deliveries: int,
        max_dead_letters: int,
        max_inbox_rows: int,
        clock: Clock,
    ) -> None:
        self._group = group
        self._stream = stream
        self._catalog = catalog
        self._max_deliveries = max_deliveries
        self._max_dead_letters = max_dead_letters
        self._max_inbox_rows = max_inbox_rows
        self._clock = clock

    def take(self, *, block_seconds: float) -> int:
        """Wait at most ``block_seconds`` for events (0: not at all); how many there were.

        Repeated and unreadable ones count as well: each of them said "look now".

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
            self._receive_warily(suspect)
        return len(deliveries)

    def _is_suspect(self, delivery: Delivery) -> bool:
        return delivery.raw is not None and delivery.deliveries >= self._max_deliveries

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
        new = self._catalog.inbox.receive(received, most=self._max_inbox_rows)
        self._bury(unreadable)
        failpoint("intake.after_inbox")
        self._group.acknowledge([delivery.entry_id for delivery in deliveries])
        failpoint("intake.after_acknowledge")
        _log.debug("events.received", count=len(deliveries), new=new)

    def _receive_warily(self, delivery: Delivery) -> None:
        """Read an event that may have ended those who read it before."""
        letters, raw = self._catalog.dead_letters, delivery.raw or b""
        entry = delivery.entry_id.decode()
        if not letters.holds(stream=self._stream, entry_id=entry, raw=raw):
            reason = f"it ended the process that read it, {self._max_deliveries} times"
            letter = letters.bury(stream=self._stream, entry_id=entry, raw=raw, reason=reason)
            event = self._read(delivery, self._clock.now())
            if isinstance(event, ReceivedEvent):
                letters.revive(letter, event)
            elif isinstance(event, Unreadable):
                letters.amend(letter, reason=event.reason)
        else:
            _log.error("event.deadly", entry=entry, deliveries=delivery.deliveries)
        self._group.acknowledge([delivery.entry_id])

    def _read(self, delivery: Delivery, now: datetime) -> ReceivedEvent | Unreadable | None:
        if delivery.raw is None:
            # Trimmed before anyone read it. What it said is in the catalog, so looking is enough.
            _log.warning("event.trimmed", entry=delivery.entry_id.decode())
            return None
        try:
            return read_event(delivery.raw, received_at=now)
        except UnreadableEventError as error:
            entry_id = delivery.entry_id.decode()
            return Unreadable(entry_id=entry_id, raw=delivery.raw, reason=error.reason)

    def _bury(self, letters: Sequence[Unreadable]) -> None:
        """Keep what could not be read; one line in the log, however many there are."""
        if not letters:
            return
        first = letters[0]
        let_go = self._catalog.dead_letters.bury_some(
            letters, stream=self._stream, most=self._max_dead_letters
        )
        _log.error(
            "event.unreadable",
            entry=first.entry_id,
            reason=first.reason,
            events=len(letters),
            let_go=let_go,
        )
