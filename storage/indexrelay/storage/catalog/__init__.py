"""The catalog: what the data is, and what was asked for, in SQLite or PostgreSQL.

`Catalog` groups the rows of one database by what they are about: collections, entries, the inbox
with its dead letters, and the attempts of the rebuilder. ``schema`` has the tables; ``database``
has the transactions and everything that differs between the two databases.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Self

from indexrelay.schemas.clock import Clock, SystemClock
from indexrelay.storage.catalog.attempts import (
    Attempt,
    Attempts,
    Failures,
    Pause,
    ReleaseRecord,
)
from indexrelay.storage.catalog.collections import Collection, CollectionLog, Collections
from indexrelay.storage.catalog.copies import Imported, check_empty, importing, write_copy
from indexrelay.storage.catalog.database import Database
from indexrelay.storage.catalog.dead_letters import (
    DeadLetter,
    DeadLetterHeader,
    DeadLetters,
    DroppedLetters,
    Unreadable,
)
from indexrelay.storage.catalog.entry_log import CatalogSnapshot, ChangeCount, EntryLog
from indexrelay.storage.catalog.inbox import Answer, Inbox, InboxRow, ReceivedEvent, RequestRow
from indexrelay.storage.catalog.notices import NoticeRow
from indexrelay.storage.catalog.schedules import ScheduleRows, ScheduleState
from indexrelay.storage.catalog.schema import create_tables, improvements, tables_exist
from indexrelay.storage.entries import BatchChanges, Commit


class Catalog:
    """The truth about what the data is and what was asked for.

    Safe to use from several threads and, opened in each, from several processes. A child that was
    forked while no other thread was in the middle of a query may continue to use it; to be sure,
    let it open its own (SQLite's locks belong to the process, and a fork copies them as they are).
    """

    def __init__(self, database: Database, clock: Clock, *, migrated: Sequence[str] = ()) -> None:
        self.migrated = tuple(migrated)
        """What was added to it when it was opened here, since an earlier release had made it:
        ``TABLE`` or ``TABLE.COLUMN``."""
        self._database = database
        self._clock = clock
        self.lock_waits = database.lock_waits
        """The waits for the database's locks, in this process."""
        self.collections = Collections(database, clock)
        self.entries = EntryLog(database, clock)
        self.inbox = Inbox(database, clock)
        self.attempts = Attempts(database, clock)
        self.improvements = Failures(database, clock, improvements)
        """The failed builds that were to improve a version."""
        self.dead_letters = DeadLetters(database, clock)
        self.release_record = ReleaseRecord(database, clock)
        self.schedules = ScheduleRows(database, clock, self.inbox)
        self.notices = NoticeRow(database)

    @classmethod
    def open(cls, url: str, *, clock: Clock = SystemClock()) -> Self:  # noqa: B008 - it has no state
        """Open the catalog at an SQLAlchemy URL, and create the tables that are missing.

        ``sqlite:///PATH`` (the folder is created, too) or ``postgresql://…``.

        Raises:
            CatalogUrlError: the URL names no database that can hold a catalog.
            CatalogVersionError: the tables are of another version.
            MissingExtraError: PostgreSQL without psycopg installed.
            sqlalchemy.exc.OperationalError: the database cannot be reached.
        """
        database = Database(url)
        try:
            migrated = create_tables(database)
        except BaseException:
            database.close()
            raise
        return cls(database, clock, migrated=migrated)

    @staticmethod
    def is_there(url: str) -> bool:
        """Whether the catalog exists at that URL; nothing is created. Raises what `open` raises."""
        return tables_exist(url)

    def write_copy(self, file: Path) -> None:
        """Write all of it to a new SQLite file, as it is at one moment; writers go on meanwhile.

        Raises:
            OSError, sqlite3.Error: the file cannot be written.
            sqlalchemy.exc.SQLAlchemyError: the catalog cannot be read.
        """
        write_copy(self._database, file)

    def check_empty(self) -> None:
        """See that nothing was committed, so that a copy may be taken over.

        Raises:
            CatalogNotEmptyError: something was.
        """
        check_empty(self._database)

    def importing(self, file: Path, *, copied_at: datetime) -> AbstractContextManager[Imported]:
        """Take over a copy; it is committed when the ``with`` ends without an error.

        Each collection goes on above every generation that can have been given since ``copied_at``.

        Raises:
            CatalogNotEmptyError: batches were committed to this catalog.
            CatalogCopyError: the file is no sound copy of a catalog.
        """
        return importing(self._database, file, copied_at=copied_at, clock=self._clock)

    def close(self) -> None:
        """Close every connection; safe twice."""
        self._database.close()


__all__ = [
    "Answer",
    "Attempt",
    "Attempts",
    "BatchChanges",
    "Catalog",
    "CatalogSnapshot",
    "ChangeCount",
    "Collection",
    "CollectionLog",
    "Collections",
    "Commit",
    "DeadLetter",
    "DeadLetterHeader",
    "DeadLetters",
    "DroppedLetters",
    "EntryLog",
    "Failures",
    "Imported",
    "Inbox",
    "InboxRow",
    "Pause",
    "ReceivedEvent",
    "RequestRow",
    "ScheduleRows",
    "ScheduleState",
    "Unreadable",
]
