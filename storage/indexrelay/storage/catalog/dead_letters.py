"""Dead letters: what was taken from a stream and could not be read, byte for byte.

A later release may be able to read them, and a person can see who sends them.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select

from indexrelay.schemas.canonical import sha256_hex
from indexrelay.schemas.clock import Clock
from indexrelay.storage.catalog.database import Database
from indexrelay.storage.catalog.schema import dead_letters


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

    def all(self) -> list[DeadLetter]:
        """All of them, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(dead_letters).order_by(dead_letters.c.id))
            return [
                DeadLetter(
                    id=row.id,
                    stream=row.stream,
                    entry_id=row.entry_id,
                    raw=bytes(row.raw),
                    reason=row.reason,
                    buried_at=row.buried_at,
                )
                for row in rows
            ]

    def discard(self, letter_id: int) -> bool:
        """Forget one that somebody has dealt with; whether it was there."""
        with self._database.write() as connection:
            gone = connection.execute(delete(dead_letters).where(dead_letters.c.id == letter_id))
            return gone.rowcount == 1
