"""Who tells people: one row, which one operator holds, and what the next one has to go on with.

The row has the holder and a count that the holder raises at each look. It is changed only by
whoever names both as they stand there, in one statement. So of two that want it one gets it, and a
holder that was cut off finds out at its next look. No times are compared: whoever wants it watches
the count by a clock of its own (`indexrelay.operations.notice_lease`).
"""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select, update

from indexrelay.storage.catalog.database import Database
from indexrelay.storage.catalog.schema import notices

_KEY: Final = 1
NOBODY: Final = ""


@dataclass(frozen=True, kw_only=True)
class NoticeHolder:
    """The row, as it stands there."""

    owner: str
    """`NOBODY`: whoever had it has given it back."""
    beat: int
    state: dict[str, Any]
    """What the holder goes on with, as of its last look; JSON."""


class NoticeRow:
    """The one row."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self) -> NoticeHolder | None:
        """Who holds it; ``None``: nobody ever did."""
        with self._database.read() as connection:
            found = connection.execute(select(notices)).mappings().first()
        if found is None:
            return None
        return NoticeHolder(owner=found["owner"], beat=found["beat"], state=found["state"])

    def take(self, owner: str, *, seen: NoticeHolder | None) -> NoticeHolder | None:
        """Take it from whoever `read` has seen; ``None``: it is not so any more.

        Args:
            owner: who takes it.
            seen: what was read last; ``None``: that nobody ever had it.
        """
        taken = NoticeHolder(
            owner=owner,
            beat=1 if seen is None else seen.beat + 1,
            state={} if seen is None else seen.state,
        )
        return taken if self._write(taken, seen=seen) else None

    def renew(
        self, held: NoticeHolder, *, owner: str, state: dict[str, Any]
    ) -> NoticeHolder | None:
        """Say that it is still held, and with what the next one goes on; ``None``: it was taken.

        Args:
            held: as it was written last.
            owner: the same, or `NOBODY`, to give it back.
            state: what the next holder goes on with; JSON.
        """
        renewed = NoticeHolder(owner=owner, beat=held.beat + 1, state=state)
        return renewed if self._write(renewed, seen=held) else None

    def _write(self, new: NoticeHolder, *, seen: NoticeHolder | None) -> bool:
        values = {"owner": new.owner, "beat": new.beat, "state": new.state}
        if seen is None:
            insert = self._database.insert(notices).values(key=_KEY, **values)
            statement = insert.on_conflict_do_nothing(index_elements=[notices.c.key])
            with self._database.write() as connection:  # PostgreSQL counts no inserted rows
                return connection.execute(statement.returning(notices.c.key)).first() is not None
        same = (notices.c.key == _KEY, notices.c.owner == seen.owner, notices.c.beat == seen.beat)
        with self._database.write() as connection:
            return connection.execute(update(notices).where(*same).values(**values)).rowcount > 0
