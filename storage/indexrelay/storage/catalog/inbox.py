"""The inbox: every event and request that still asks for something; and the dead letters.

An event's id is its key, so the repeats of an at-least-once stream change nothing. Finished rows
stay for a week, because a repeat can come after the work is done.

Streams are not trusted. An event from a stream says "look now" and no more; what a request asks for
counts only in a row that `Inbox.request` wrote, which is marked in a column that nothing else
writes. An event can neither become a request by its content nor take a request's place by its id:
`Inbox.request` replaces a received row of the same id. The answer to a request is in its row, too
(`Inbox.answer`), because anybody may have written what a stream says.

The number of rows is bounded. The oldest finished rows go first. When too many are open, further
events are accepted without a row: the recorded ones cause a look at everything. Requests are
refused instead, since each asks for something of its own.

A dead letter is a message from a stream that could not be read, byte for byte. A later release may
read it, and a person can see who sends them. It ends in one of two ways, each of them once: it is
discarded, or its event goes into the inbox in the transaction that removes the letter. Anybody who
may add to a stream can cause dead letters, so they are bounded as well: of a large message the
beginning is kept, with the size and the digest of all of it, and beyond the limit further letters
are only counted. The first are kept and not the last, since a flood would push out what came before
it. Nothing is lost by either, because an event only says that there is something to look for.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import ValidationError
from sqlalchemy import (
    Connection,
    Row,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    not_,
    null,
    or_,
    select,
    true,
    update,
)

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.messages import Event, RebuildRequested, RebuildResult, fitted_result
from indexrelay.schemas.names import sha256_hex, shortened
from indexrelay.schemas.settings import RebuilderSettings
from indexrelay.storage.catalog.database import Database
from indexrelay.storage.catalog.schema import answers, dead_letters, dropped_letters, inbox
from indexrelay.storage.errors import TooManyRequestsError

KEEP_FINISHED: Final = timedelta(days=7)
"""Longer than a stream holds an entry for a consumer that is away."""

MAX_ROWS: Final[int] = RebuilderSettings.model_fields["max_inbox_rows"].default
"""Unless the caller gives another number."""

MAX_ANSWERS: Final = 1000
"""Results that are kept for the requests; several requests that one pass answers share one."""

MAX_OPEN_REQUESTS: Final = 1000
"""Unanswered requests: more than one for each hour of a month."""


@dataclass(frozen=True, kw_only=True)
class ReceivedEvent:
    """An event as it was taken from a stream."""

    event_id: str
    type: str
    body: bytes
    """The whole event as it was in the stream (JSON): `Event.from_bytes` reads it."""
    received_at: datetime


@dataclass(frozen=True, kw_only=True)
class InboxRow(ReceivedEvent):
    """An event, or a request in the form of one, that is not finished."""

    requested: bool
    """Whether `Inbox.request` wrote it. Otherwise its body is ignored, and is empty here, so that a
    flood of events does not fill memory."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The state of a request."""

    finished: bool
    result: RebuildResult | None
    """``None``: it is not finished, nothing was due, a rebuilder of an earlier release, or of a
    later major version, answered it, or there were too many answers since."""


class Inbox:
    """The rows of events and requests."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def receive(self, events: Sequence[ReceivedEvent], *, most: int = MAX_ROWS) -> int:
        """Record the events that are not known yet; returns how many were new.

        Args:
            most: how many rows there may be; beyond it finished ones are removed, or new events are
                not recorded.
        """
        if not events:
            return 0
        rows = [
            {
                "event_id": event.event_id,
                "type": event.type,
                "body": event.body,
                "received_at": event.received_at,
            }
            for event in events
        ]
        statement = self._database.insert(inbox).on_conflict_do_nothing(
            index_elements=[inbox.c.event_id]
        )
        with self._database.write() as connection:
            new = connection.scalars(statement.returning(inbox.c.position), rows).all()
            return len(new) - _make_room(connection, new, most) if new else 0

    def request(
        self,
        request_id: str,
        *,
        components: Sequence[str],
        force: bool = False,
        full: bool = False,
        reason: str,
    ) -> bool:
        """Record what a person or a schedule asks for; whether it was new.

        The row looks like a received `RebuildRequested` with ``request_id`` as the event's id, so
        that an event that wakes the rebuilder under the same id is a repeat of it. An event of that
        id that was received before is replaced.

        Raises:
            TooManyRequestsError: `MAX_OPEN_REQUESTS` are open; nothing was recorded.
            ValueError: an invalid component name, more than 1,000 of them, or a reason of more than
                1,000 characters.
        """
        now = self._clock.now()
        event = Event.of(
            RebuildRequested(
                request_id=request_id,
                components=tuple(components),
                force=force,
                full=full,
                reason=reason,
            ),
            source="indexrelay/inbox",
            time=now,
            id=request_id,
        )
        row = {"type": event.type, "body": event.to_bytes(), "received_at": now, "requested": True}
        statement = (
            self._database.insert(inbox)
            .values(event_id=event.id, **row)
            .on_conflict_do_update(
                index_elements=[inbox.c.event_id],
                set_={**row, "finished_at": null()},
                where=_RECEIVED,
            )
        )
        asked = select(inbox.c.position).where(inbox.c.event_id == event.id, not_(_RECEIVED))
        waiting = (
            select(func.count())
            .select_from(inbox)
            .where(not_(_RECEIVED), inbox.c.finished_at.is_(None))
        )
        with self._database.write() as connection:
            if connection.scalar(asked) is not None:
                return False
            if (connection.scalar(waiting) or 0) >= MAX_OPEN_REQUESTS:
                raise TooManyRequestsError(MAX_OPEN_REQUESTS)
            connection.execute(statement)
            return True

    def open(self) -> list[InboxRow]:
        """The rows that are not finished, oldest first."""
        body = case((_RECEIVED, literal(b"")), else_=inbox.c.body).label("body")
        columns = inbox.c.event_id, inbox.c.type, body, inbox.c.received_at, inbox.c.requested
        with self._database.read() as connection:
            rows = connection.execute(
                select(*columns).where(inbox.c.finished_at.is_(None)).order_by(inbox.c.position)
            )
            return [
                InboxRow(
                    event_id=row.event_id,
                    type=row.type,
                    body=bytes(row.body),
                    received_at=row.received_at,
                    requested=bool(row.requested),
                )
                for row in rows
            ]

    def finish(self, event_ids: Iterable[str], *, result: RebuildResult | None = None) -> None:
        """Mark these rows as finished, and remove those that were finished a week ago.

        Args:
            result: the answer to those of them that are requests.
        """
        now = self._clock.now()
        finished = [{"done": event_id} for event_id in event_ids]
        with self._database.write() as connection:
            if finished:
                connection.execute(
                    update(inbox)
                    .where(inbox.c.event_id == bindparam("done"), inbox.c.finished_at.is_(None))
                    .values(finished_at=now),
                    finished,
                )
                if result is not None:
                    self._answer(connection, finished, result, now)
            connection.execute(delete(inbox).where(inbox.c.finished_at < now - KEEP_FINISHED))
            connection.execute(delete(answers).where(answers.c.answered_at < now - KEEP_FINISHED))

    def _answer(
        self,
        connection: Connection,
        finished: Sequence[Mapping[str, str]],
        result: RebuildResult,
        now: datetime,
    ) -> None:
        """Store ``result`` as the answer to the requests among ``finished``."""
        request = inbox.c.event_id == bindparam("done"), not_(_RECEIVED)
        asked = [
            done
            for done in finished
            if connection.scalar(select(inbox.c.position).where(*request), done) is not None
        ]
        if not asked:
            return
        raw = fitted_result(result).model_dump_json().encode()
        statement = insert(answers).values(result=raw, answered_at=now).returning(answers.c.key)
        key = connection.scalar(statement)
        connection.execute(update(inbox).where(*request).values(answer=key), asked)
        connection.execute(delete(answers).where(answers.c.key <= key - MAX_ANSWERS))

    def answer(self, request_id: str) -> Answer | None:
        """The state of a request; ``None``: it does not exist, or was answered long ago."""
        looked = (
            select(inbox.c.finished_at, answers.c.result)
            .select_from(inbox.outerjoin(answers, answers.c.key == inbox.c.answer))
            .where(inbox.c.event_id == request_id, not_(_RECEIVED))
        )
        with self._database.read() as connection:
            row = connection.execute(looked).one_or_none()
        if row is None:
            return None
        result: RebuildResult | None = None
        if row.result is not None:
            # A later major version may have written it.
            with suppress(ValidationError):
                result = RebuildResult.model_validate_json(row.result)
        return Answer(finished=row.finished_at is not None, result=result)


_RECEIVED: Final = or_(inbox.c.requested.is_(None), inbox.c.requested != true())
"""Whether a row came from a stream; earlier releases did not record it."""


def _make_room(connection: Connection, new: Sequence[int], most: int) -> int:
    """Remove the surplus: finished rows, then ``new`` ones; returns how many of these."""
    lowest, highest = connection.execute(
        select(func.min(inbox.c.position), func.max(inbox.c.position))
    ).one()
    if highest - lowest < most:
        return 0  # nearly always: positions are assigned in order, each once
    surplus = int(connection.scalar(select(func.count()).select_from(inbox)) or 0) - most
    if surplus <= 0:
        return 0
    oldest = (
        select(inbox.c.position)
        .where(inbox.c.finished_at.is_not(None))
        .order_by(inbox.c.position)
        .limit(surplus)
    )
    surplus -= connection.execute(delete(inbox).where(inbox.c.position.in_(oldest))).rowcount
    last = sorted(new)[len(new) - min(surplus, len(new)) :]
    if last:
        connection.execute(
            delete(inbox).where(inbox.c.position == bindparam("last")),
            [{"last": position} for position in last],
        )
    return len(last)


FROM_INBOX: Final = "inbox"
"""The ``stream`` of a letter that was a row of the inbox; its entry id is the row's event id."""

MAX_KEPT_BYTES: Final = 64 * 1024
"""Of one letter: many times the size of an event of indexrelay."""

MAX_LETTERS: Final[int] = RebuilderSettings.model_fields["max_dead_letters"].default
"""Unless the caller gives another number."""

_MAX_REASON: Final = 1000
"""Characters: it names the first few wrong fields."""


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A message of a stream that becomes a dead letter."""

    entry_id: str
    raw: bytes
    """All of it."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class DeadLetterHeader:
    """A dead letter without its bytes."""

    id: int
    stream: str
    entry_id: str
    size: int
    """Bytes of all of it."""
    reason: str
    added_at: datetime


@dataclass(frozen=True, kw_only=True)
class DeadLetter(DeadLetterHeader):
    """A message that could not be read."""

    raw: bytes
    """Its first `MAX_KEPT_BYTES`."""
    digest: str
    """The sha256 of all of it."""

    @property
    def whole(self) -> bool:
        """Whether all of it is kept."""
        return len(self.raw) == self.size


@dataclass(frozen=True, kw_only=True)
class DroppedLetters:
    """Letters that were not kept because there were too many."""

    count: int
    first_at: datetime
    last_at: datetime


class DeadLetters:
    """The rows of dead letters."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def add(self, *, stream: str, entry_id: str, raw: bytes, reason: str) -> int:
        """Keep one, however many there are; returns its id.

        The same entry again, after a crash, is the same letter.
        """
        letter = Unreadable(entry_id=entry_id, raw=raw, reason=reason)
        with self._database.write() as connection:
            return self._insert(connection, stream, letter)

    def add_some(
        self, letters: Sequence[Unreadable], *, stream: str, most: int = MAX_LETTERS
    ) -> int:
        """Keep these as far as there is room for them; returns how many were dropped.

        Args:
            letters: what was taken from ``stream``, oldest first.
            most: how many letters there may be in all, those of other streams among them.
        """
        with self._database.write() as connection:
            room = most - _count(connection)
            for letter in letters[: max(0, room)]:
                self._insert(connection, stream, letter)
            dropped = len(letters) - max(0, min(room, len(letters)))
            if dropped:
                self._count_dropped(connection, stream, dropped)
        return dropped

    def _insert(self, connection: Connection, stream: str, letter: Unreadable) -> int:
        reason = shortened(letter.reason, _MAX_REASON)
        statement = self._database.insert(dead_letters).values(
            stream=stream,
            entry_id=letter.entry_id,
            digest=sha256_hex(letter.raw),
            raw=letter.raw[:MAX_KEPT_BYTES],
            size=len(letter.raw),
            reason=reason,
            added_at=self._clock.now(),
        )
        statement = statement.on_conflict_do_update(
            index_elements=["stream", "entry_id", "digest"], set_={"reason": reason}
        )
        return int(connection.execute(statement.returning(dead_letters.c.id)).scalar_one())

    def _count_dropped(self, connection: Connection, stream: str, count: int) -> None:
        now = self._clock.now()
        statement = self._database.insert(dropped_letters).values(
            stream=stream, count=count, first_at=now, last_at=now
        )
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=[dropped_letters.c.stream],
                set_={"count": dropped_letters.c.count + count, "last_at": now},
            )
        )

    def dropped(self) -> DroppedLetters | None:
        """What was not kept since there were last no letters; ``None``: nothing."""
        columns = dropped_letters.c
        with self._database.read() as connection:
            times = func.min(columns.first_at), func.max(columns.last_at)
            count, first, last = connection.execute(select(func.sum(columns.count), *times)).one()
        if not count:
            return None
        return DroppedLetters(count=int(count), first_at=first, last_at=last)

    def holds(self, *, stream: str, entry_id: str, raw: bytes) -> bool:
        """Whether exactly this entry is among them."""
        found = select(dead_letters.c.id).where(
            dead_letters.c.stream == stream,
            dead_letters.c.entry_id == entry_id,
            dead_letters.c.digest == sha256_hex(raw),
        )
        with self._database.read() as connection:
            return connection.scalar(found) is not None

    def headers(self) -> list[DeadLetterHeader]:
        """All of them, oldest first, without their bytes, so that a flood fits into memory."""
        columns = (
            dead_letters.c.id,
            dead_letters.c.stream,
            dead_letters.c.entry_id,
            _SIZE.label("size"),
            dead_letters.c.reason,
            dead_letters.c.added_at.label("added_at"),
        )
        with self._database.read() as connection:
            rows = connection.execute(select(*columns).order_by(dead_letters.c.id))
            return [DeadLetterHeader(**row) for row in rows.mappings()]

    def count(self) -> int:
        """How many there are."""
        with self._database.read() as connection:
            return _count(connection)

    def all(self) -> list[DeadLetter]:
        """All of them, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(dead_letters).order_by(dead_letters.c.id))
            return [_letter(row) for row in rows]

    def get(self, letter_id: int) -> DeadLetter | None:
        """One of them; ``None``: it does not exist, or not any more."""
        with self._database.read() as connection:
            row = connection.execute(
                select(dead_letters).where(dead_letters.c.id == letter_id)
            ).one_or_none()
            return None if row is None else _letter(row)

    def amend(self, letter_id: int, *, reason: str) -> bool:
        """Replace the reason of one that still cannot be read; whether it existed."""
        with self._database.write() as connection:
            changed = connection.execute(
                update(dead_letters).where(dead_letters.c.id == letter_id).values(reason=reason)
            )
            return changed.rowcount == 1

    def requeue(self, letter_id: int, event: ReceivedEvent) -> bool:
        """Move a letter's event into the inbox; whether the letter existed.

        An event that the inbox knows is a repeat, as always. Only a row of the inbox that became a
        letter is opened again: it was finished without having been understood. It is a request
        again, as it was before; a letter that came from a stream never becomes one.
        """
        row = dict(vars(event))
        known = [inbox.c.event_id]
        received = self._database.insert(inbox).values(**row)
        with self._database.write() as connection:
            stream = _remove(connection, letter_id)
            if stream == FROM_INBOX:
                again = {**row, "requested": True, "finished_at": None}
                received = received.values(requested=True)
                connection.execute(received.on_conflict_do_update(index_elements=known, set_=again))
            elif stream is not None:
                connection.execute(received.on_conflict_do_nothing(index_elements=known))
            return stream is not None

    def discard(self, letter_id: int) -> bool:
        """Remove one that a person has dealt with; whether it existed."""
        with self._database.write() as connection:
            return _remove(connection, letter_id) is not None


_SIZE: Final = func.coalesce(dead_letters.c.size, func.length(dead_letters.c.raw))


def _remove(connection: Connection, letter_id: int) -> str | None:
    """Remove a letter, and with the last one the record of dropped ones; returns its stream."""
    removed = delete(dead_letters).where(dead_letters.c.id == letter_id)
    stream = connection.execute(removed.returning(dead_letters.c.stream)).scalar_one_or_none()
    if stream is not None and _count(connection) == 0:
        connection.execute(delete(dropped_letters))
    return stream


def _count(connection: Connection) -> int:
    return int(connection.scalar(select(func.count()).select_from(dead_letters)) or 0)


def _letter(row: Row[Any]) -> DeadLetter:
    raw = bytes(row.raw)
    return DeadLetter(
        id=row.id,
        stream=row.stream,
        entry_id=row.entry_id,
        size=len(raw) if row.size is None else row.size,
        raw=raw,
        digest=row.digest,
        reason=row.reason,
        added_at=row.buried_at,
    )
