"""The inbox: every event and request that still asks for something.

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
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from pydantic import ValidationError
from sqlalchemy import (
    Connection,
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
from indexrelay.schemas.errors import UnreadableEventError
from indexrelay.schemas.messages import Event, RebuildRequested, RebuildResult, fitted_result
from indexrelay.schemas.settings import RebuilderSettings
from indexrelay.storage.catalog.database import Database
from indexrelay.storage.catalog.schema import answers, inbox
from indexrelay.storage.errors import RequestCoveredError, TooManyRequestsError

KEEP_FINISHED: Final = timedelta(days=7)
"""Longer than a stream holds an entry for a consumer that is away."""

MAX_ROWS: Final[int] = RebuilderSettings.model_fields["max_inbox_rows"].default
"""Unless the caller gives another number."""

MAX_ANSWERS: Final = 1000
"""Results that are kept for the requests; several requests that one pass answers share one."""

MAX_OPEN_REQUESTS: Final = 1000
"""Unanswered requests: more than one for each hour of a month."""


class ReceivedEvent(NamedTuple):
    """An event as it was taken from a stream; a tuple, since a burst makes tens of thousands a
    second."""

    event_id: str
    type: str
    body: bytes
    """The whole event as it was in the stream (JSON): `Event.from_bytes` reads it."""
    received_at: datetime


@dataclass(frozen=True, kw_only=True)
class InboxRow:
    """An event, or a request in the form of one, that is not finished."""

    event_id: str
    type: str
    body: bytes
    """As in `ReceivedEvent`."""
    received_at: datetime
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


@dataclass(frozen=True, kw_only=True)
class RequestRow:
    """A request, and what became of it."""

    position: int
    """Grows from row to row."""
    request: RebuildRequested
    received_at: datetime
    finished_at: datetime | None
    """``None``: it waits, or is worked on."""
    result: RebuildResult | None
    """As in `Answer`."""


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
        rows = [event._asdict() for event in events]
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
        failure_cooldown_seconds: float | None = None,
        reason: str,
        requested_by: str = "",
        unless_covered: bool = False,
    ) -> bool:
        """Record what a person or a schedule asks for; whether it was new.

        The row looks like a received `RebuildRequested` with ``request_id`` as the event's id, so
        that an event that wakes the rebuilder under the same id is a repeat of it. An event of that
        id that was received before is replaced.

        Args:
            unless_covered: whether one that is open and asks for as much is enough. Of any number
                that ask at the same moment, in any number of processes, one is recorded then.

        Raises:
            RequestCoveredError: ``unless_covered``, and there is one; nothing was recorded.
            TooManyRequestsError: `MAX_OPEN_REQUESTS` are open; nothing was recorded.
            ValueError: an invalid component name, more than 1,000 of them, or a reason of more than
                1,000 characters.
        """
        request = RebuildRequested(
            request_id=request_id,
            requested_by=requested_by,
            components=tuple(components),
            force=force,
            full=full,
            failure_cooldown_seconds=failure_cooldown_seconds,
            reason=reason,
        )
        with self._database.write() as connection:
            if unless_covered:
                self._database.take_turn(connection, _TURN)
                for known in _open_requests(connection):
                    if _covers(known, request):
                        raise RequestCoveredError(known.request_id)
            return self.insert(connection, request)

    def insert(self, connection: Connection, request: RebuildRequested) -> bool:
        """As `request`, within a transaction of the caller's.

        Raises:
            TooManyRequestsError: `MAX_OPEN_REQUESTS` are open; nothing was recorded.
        """
        now = self._clock.now()
        event = Event.of(request, source="indexrelay/inbox", time=now, id=request.request_id)
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

    def traceparents(self, event_ids: Sequence[str]) -> list[str]:
        """The trace contexts that these events carry, the oldest first; each once."""
        rows = select(inbox.c.body).where(inbox.c.event_id.in_(event_ids))
        found: dict[str, None] = {}
        with self._database.read() as connection:
            for body in connection.scalars(rows.order_by(inbox.c.position)):
                with suppress(UnreadableEventError):
                    traceparent = Event.from_bytes(bytes(body)).traceparent
                    if traceparent is not None:
                        found[traceparent] = None
        return list(found)

    def open_requests(self) -> list[RebuildRequested]:
        """What is asked for and not answered, as far as this release can read it."""
        with self._database.read() as connection:
            return _open_requests(connection)

    def requests(self, *, before: int | None = None, most: int = 100) -> list[RequestRow]:
        """The requests of the last week and those that are open, the newest first.

        Args:
            before: the position of a row: only older ones.
            most: how many at most.
        """
        rows = _REQUEST_ROWS.order_by(inbox.c.position.desc()).limit(most)
        if before is not None:
            rows = rows.where(inbox.c.position < before)
        with self._database.read() as connection:
            return [row for found in connection.execute(rows) for row in _request_row(found)]

    def find_request(self, request_id: str) -> RequestRow | None:
        """One request; ``None``: it does not exist, or was answered long ago."""
        row = _REQUEST_ROWS.where(inbox.c.event_id == request_id)
        with self._database.read() as connection:
            found = [each for raw in connection.execute(row) for each in _request_row(raw)]
        return found[0] if found else None

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
        return Answer(finished=row.finished_at is not None, result=_result_of(row.result))


_RECEIVED: Final = or_(inbox.c.requested.is_(None), inbox.c.requested != true())
"""Whether a row came from a stream; earlier releases did not record it."""


_TURN: Final = 7241936509
"""Of those that look at what is open before they record a request."""

_REQUEST_ROWS: Final = (
    select(
        inbox.c.position,
        inbox.c.body,
        inbox.c.received_at,
        inbox.c.finished_at,
        answers.c.result,
    )
    .select_from(inbox.outerjoin(answers, answers.c.key == inbox.c.answer))
    .where(not_(_RECEIVED))
)


def _request_row(row: Any) -> Iterator[RequestRow]:
    """The row, if this release can read it."""
    with suppress(UnreadableEventError):
        request = Event.from_bytes(bytes(row.body)).data
        if isinstance(request, RebuildRequested):
            yield RequestRow(
                position=row.position,
                request=request,
                received_at=row.received_at,
                finished_at=row.finished_at,
                result=_result_of(row.result),
            )


def _result_of(raw: bytes | None) -> RebuildResult | None:
    if raw is not None:
        with suppress(ValidationError):  # a later major version may have written it
            return RebuildResult.model_validate_json(raw)
    return None


def _open_requests(connection: Connection) -> list[RebuildRequested]:
    rows = select(inbox.c.body).where(inbox.c.finished_at.is_(None), not_(_RECEIVED))
    found = []
    for body in connection.scalars(rows.order_by(inbox.c.position)):
        with suppress(UnreadableEventError):
            found.append(Event.from_bytes(bytes(body)).data)
    return [each for each in found if isinstance(each, RebuildRequested)]


def _covers(known: RebuildRequested, asked: RebuildRequested) -> bool:
    """Whether the answer to one request answers another as well.

    Whatever is due is covered by the same, and components by a request that names them.
    """
    if (asked.force and not known.force) or (asked.full and not known.full):
        return False
    if known.failure_cooldown_seconds is not None and asked.failure_cooldown_seconds is None:
        return False  # it leaves out what is paused, or failed too often
    if not asked.components:
        return not known.components
    return set(asked.components) <= set(known.components)


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
