"""Dead letters: messages of streams that could not be read, kept byte for byte.

A dead letter is a message from a stream that could not be read, byte for byte. A later release may
read it, and a person can see who sends them. It ends in one of two ways, each of them once: it is
discarded, or its event goes into the inbox in the transaction that removes the letter. Anybody who
may add to a stream can cause dead letters, so they are bounded as well: of a large message the
beginning is kept, with the size and the digest of all of it, and beyond the limit further letters
are only counted. The first are kept and not the last, since a flood would push out what came before
it. Nothing is lost by either, because an event only says that there is something to look for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Row,
    delete,
    func,
    select,
    update,
)

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.names import sha256_hex, shortened
from indexrelay.schemas.settings import RebuilderSettings
from indexrelay.storage.catalog.database import Database
from indexrelay.storage.catalog.inbox import ReceivedEvent
from indexrelay.storage.catalog.schema import dead_letters, dropped_letters, inbox

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

    def newest(self, *, most: int, before: int | None = None, raw_bytes: int) -> list[DeadLetter]:
        """At most ``most`` of them, the newest first, with the first ``raw_bytes`` of each.

        Args:
            before: only those of a lower id; ``None``: all.
        """
        columns = (
            *(each for each in dead_letters.c if each.name not in ("raw", "size")),
            func.substr(dead_letters.c.raw, 1, raw_bytes).label("raw"),
            _SIZE.label("size"),
        )
        chosen = select(*columns).order_by(dead_letters.c.id.desc()).limit(most)
        if before is not None:
            chosen = chosen.where(dead_letters.c.id < before)
        with self._database.read() as connection:
            return [_letter(row) for row in connection.execute(chosen)]

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
        row = event._asdict()
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
