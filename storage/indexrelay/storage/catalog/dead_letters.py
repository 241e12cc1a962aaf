"""Dead letters: what was taken from a stream and could not be read, byte for byte.

A later release may be able to read them, and a person can see who sends them. A letter ends in one
of two ways, each once however often it is asked for: it is dropped, or its event goes into the
inbox in the very transaction that removes the letter.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, delete, func, select, update

from indexrelay.schemas.canonical import sha256_hex
from indexrelay.schemas.clock import Clock
from indexrelay.storage.catalog.database import Database
from indexrelay.storage.catalog.inbox import ReceivedEvent
from indexrelay.storage.catalog.schema import dead_letters, inbox

FROM_INBOX: Final = "inbox"
"""The ``stream`` of a letter that was a row of the inbox; its entry id is the row's event id."""


@dataclass(frozen=True, kw_only=True)
class DeadLetterHeader:
    """One of them, without its bytes."""

    id: int
    stream: str
    entry_id: str
    size: int
    """Bytes."""
    reason: str
    buried_at: datetime


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """One of them."""

    id: int
    stream: str
    entry_id: str
    raw: bytes
    reason: str
    buried_at: datetime


class DeadLetters:
    """The rows of dead letters."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def bury(self, *, stream: str, entry_id: str, raw: bytes, reason: str) -> int:
        """Keep one, and say its id; the same entry again, after a crash, is the same letter."""
        statement = self._database.insert(dead_letters).values(
            stream=stream,
            entry_id=entry_id,
            digest=sha256_hex(raw),
            raw=raw,
            reason=reason,
            buried_at=self._clock.now(),
        )
        statement = statement.on_conflict_do_update(
            index_elements=["stream", "entry_id", "digest"], set_={"reason": reason}
        )
        with self._database.write() as connection:
            return int(connection.execute(statement.returning(dead_letters.c.id)).scalar_one())

    def holds(self, *, stream: str, entry_id: str, raw: bytes) -> bool:
        """Whether this very entry is among them."""
        found = select(dead_letters.c.id).where(
            dead_letters.c.stream == stream,
            dead_letters.c.entry_id == entry_id,
            dead_letters.c.digest == sha256_hex(raw),
        )
        with self._database.read() as connection:
            return connection.scalar(found) is not None

    def headers(self) -> list[DeadLetterHeader]:
        """All of them, oldest first, without their bytes: a flood of them fits into memory."""
        columns = (
            dead_letters.c.id,
            dead_letters.c.stream,
            dead_letters.c.entry_id,
            func.length(dead_letters.c.raw).label("size"),
            dead_letters.c.reason,
            dead_letters.c.buried_at,
        )
        with self._database.read() as connection:
            rows = connection.execute(select(*columns).order_by(dead_letters.c.id))
            return [DeadLetterHeader(**row) for row in rows.mappings()]

    def count(self) -> int:
        """How many there are."""
        with self._database.read() as connection:
            return int(connection.scalar(select(func.count()).select_from(dead_letters)) or 0)

    def all(self) -> list[DeadLetter]:
        """All of them, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(dead_letters).order_by(dead_letters.c.id))
            return [_letter(row) for row in rows]

    def get(self, letter_id: int) -> DeadLetter | None:
        """One of them; ``None``: it was dealt with, or never was."""
        with self._database.read() as connection:
            row = connection.execute(
                select(dead_letters).where(dead_letters.c.id == letter_id)
            ).one_or_none()
            return None if row is None else _letter(row)

    def amend(self, letter_id: int, *, reason: str) -> bool:
        """Replace the reason of one that still cannot be read; whether it was there."""
        with self._database.write() as connection:
            changed = connection.execute(
                update(dead_letters).where(dead_letters.c.id == letter_id).values(reason=reason)
            )
            return changed.rowcount == 1

    def revive(self, letter_id: int, event: ReceivedEvent) -> bool:
        """Put a letter's event into the inbox in its stead; whether the letter was there.

        An event that the inbox knows is nothing new, as ever. Only a row that became a letter
        itself is opened again: it was closed without having been understood. It is a request now as
        it was one before; no letter that came from a stream becomes one.
        """
        row = dict(vars(event))
        received = self._database.insert(inbox).values(**row)
        again = {**row, "requested": True, "finished_at": None}
        with self._database.write() as connection:
            stream = connection.execute(
                delete(dead_letters)
                .where(dead_letters.c.id == letter_id)
                .returning(dead_letters.c.stream)
            ).scalar_one_or_none()
            if stream is None:
                return False
            known = [inbox.c.event_id]
            connection.execute(
                received.values(requested=True).on_conflict_do_update(
                    index_elements=known, set_=again
                )
                if stream == FROM_INBOX
                else received.on_conflict_do_nothing(index_elements=known)
            )
            return True

    def discard(self, letter_id: int) -> bool:
        """Forget one that somebody has dealt with; whether it was there."""
        with self._database.write() as connection:
            gone = connection.execute(delete(dead_letters).where(dead_letters.c.id == letter_id))
            return gone.rowcount == 1


def _letter(row: Row[Any]) -> DeadLetter:
    return DeadLetter(
        id=row.id,
        stream=row.stream,
        entry_id=row.entry_id,
        raw=bytes(row.raw),
        reason=row.reason,
        buried_at=row.buried_at,
    )
