"""The inbox: every event and request that still asks for something.

An event's id is its key, so the repeats of an at-least-once stream are nothing. Finished rows stay
for a week, because a repeat can come after the work is done; then they go.

Streams are not trusted. An event that came from one says "look now" and no more; what a request
asks for counts only in a row that `Inbox.request` wrote, which says so in a column that nothing
else writes. An event can neither become a request by its content nor take a request's place by its
id: `Inbox.request` replaces a received row of the same id.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import bindparam, delete, null, or_, select, true, update

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.events import Event, RebuildRequested
from indexrelay.storage.catalog.database import Database
from indexrelay.storage.catalog.schema import inbox

KEEP_FINISHED: Final = timedelta(days=7)
"""Longer than a stream holds an entry for a consumer that is away."""


@dataclass(frozen=True, kw_only=True)
class ReceivedEvent:
    """An event as it was taken from a stream."""

    event_id: str
    type: str
    body: bytes
    """The whole event as it travelled (JSON): `Event.from_bytes` reads it."""
    received_at: datetime


@dataclass(frozen=True, kw_only=True)
class InboxRow(ReceivedEvent):
    """An event, or a request in the form of one, that is not finished."""

    requested: bool
    """Whether `Inbox.request` wrote it: only then does its body count."""


class Inbox:
    """The rows of events and requests."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def receive(self, events: Sequence[ReceivedEvent]) -> int:
        """Record events, those that are known already left out; say how many were new."""
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
            return len(connection.execute(statement.returning(inbox.c.position), rows).all())

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
        an event that wakes the rebuilder under the same id is a repeat of it. An event under that
        id that came first, from whomever, is replaced.
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
                where=or_(inbox.c.requested.is_(None), inbox.c.requested != true()),
            )
        )
        with self._database.write() as connection:
            return connection.execute(statement.returning(inbox.c.position)).first() is not None

    def open(self) -> list[InboxRow]:
        """What is not finished, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(inbox).where(inbox.c.finished_at.is_(None)).order_by(inbox.c.position)
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

    def finish(self, event_ids: Iterable[str]) -> None:
        """Close these rows, and let go of those that were closed a week ago."""
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
            connection.execute(delete(inbox).where(inbox.c.finished_at < now - KEEP_FINISHED))
