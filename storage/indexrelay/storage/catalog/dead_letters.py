"""Dead letters: what was taken from a stream and could not be read, byte for byte.

A later release may be able to read them, and a person can see who sends them. A letter ends in one
of two ways, each once however often it is asked for: it is dropped, or its event goes into the
inbox in the very transaction that removes the letter.

Anybody who may add to a stream can write letters, so there is an end to them. Of a large one the
beginning is kept, with the size and the digest of all of it: no event of ours is as large. Where
there are as many as there may be, further ones are counted and let go. The first are kept and not
the last, since a flood would wash away what came before it; nothing is lost by either, because an
event only says that there is something to look for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, func, select, update

from indexrelay.schemas.canonical import sha256_hex
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.limits import shortened
from indexrelay.schemas.settings import RebuilderSettings
from indexrelay.storage.catalog.database import Database
from indexrelay.storage.catalog.inbox import ReceivedEvent
from indexrelay.storage.catalog.schema import dead_letters, inbox, letters_let_go

FROM_INBOX: Final = "inbox"
"""The ``stream`` of a letter that was a row of the inbox; its entry id is the row's event id."""


MAX_KEPT_BYTES: Final = 64 * 1024
"""Of one letter: many times what an event of ours takes."""

MAX_LETTERS: Final[int] = RebuilderSettings.model_fields["max_dead_letters"].default
"""Where nothing else is said."""

_MAX_REASON: Final = 1000
"""Characters: it names the first few fields that are wrong."""


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """What was taken from a stream and is to be a letter."""

    entry_id: str
    raw: bytes
    """All of it."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class DeadLetterHeader:
    """One of them, without its bytes."""

    id: int
    stream: str
    entry_id: str
    size: int
    """Bytes of all of it."""
    reason: str
    buried_at: datetime


@dataclass(frozen=True, kw_only=True)
class DeadLetter(DeadLetterHeader):
    """One of them."""

    raw: bytes
    """The first `MAX_KEPT_BYTES` of it."""
    digest: str
    """The sha256 of all of it."""

    @property
    def whole(self) -> bool:
        """Whether all of it is kept."""
        return len(self.raw) == self.size


@dataclass(frozen=True, kw_only=True)
class LettersLetGo:
    """Letters that were not kept since there were too many."""

    count: int
    first_at: datetime
    last_at: datetime


class DeadLetters:
    """The rows of dead letters."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def bury(self, *, stream: str, entry_id: str, raw: bytes, reason: str) -> int:
        """Keep one, and say its id; the same entry again, after a crash, is the same letter.

        It is kept however many there are.
        """
        letter = Unreadable(entry_id=entry_id, raw=raw, reason=reason)
        with self._database.write() as connection:
            return self._insert(connection, stream, letter)

    def bury_some(
        self, letters: Sequence[Unreadable], *, stream: str, most: int = MAX_LETTERS
    ) -> int:
        """Keep these as far as there is room for them; how many were let go.

        Args:
            letters: what was taken from ``stream``, oldest first.
            most: how many letters there may be in all, those of other streams among them.
        """
        with self._database.write() as connection:
            room = most - _count(connection)
            for letter in letters[: max(0, room)]:
                self._insert(connection, stream, letter)
            let_go = len(letters) - max(0, min(room, len(letters)))
            if let_go:
                self._tally(connection, stream, let_go)
        return let_go

    def _insert(self, connection: Connection, stream: str, letter: Unreadable) -> int:
        reason = shortened(letter.reason, _MAX_REASON)
        statement = self._database.insert(dead_letters).values(
            stream=stream,
            entry_id=letter.entry_id,
            digest=sha256_hex(letter.raw),
            raw=letter.raw[:MAX_KEPT_BYTES],
            size=len(letter.raw),
            reason=reason,
            buried_at=self._clock.now(),
        )
        statement = statement.on_conflict_do_update(
            index_elements=["stream", "entry_id", "digest"], set_={"reason": reason}
        )
        return int(connection.execute(statement.returning(dead_letters.c.id)).scalar_one())

    def _tally(self, connection: Connection, stream: str, count: int) -> None:
        now = self._clock.now()
        statement = self._database.insert(letters_let_go).values(
            stream=stream, count=count, first_at=now, last_at=now
        )
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=[letters_let_go.c.stream],
                set_={"count": letters_let_go.c.count + count, "last_at": now},
            )
        )

    def let_go(self) -> LettersLetGo | None:
        """What was not kept since the letters were last emptied; ``None``: nothing."""
        columns = letters_let_go.c
        with self._database.read() as connection:
            times = func.min(columns.first_at), func.max(columns.last_at)
            count, first, last = connection.execute(select(func.sum(columns.count), *times)).one()
        if not count:
            return None
        return LettersLetGo(count=int(count), first_at=first, last_at=last)

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
            _SIZE.label("size"),
            dead_letters.c.reason,
            dead_letters.c.buried_at,
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
            if _count(connection) == 0:
                connection.execute(delete(letters_let_go))
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
            if _count(connection) == 0:  # somebody has dealt with what there was
                connection.execute(delete(letters_let_go))
            return gone.rowcount == 1


_SIZE: Final = func.coalesce(dead_letters.c.size, func.length(dead_letters.c.raw))


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
        buried_at=row.buried_at,
    )
