"""The catalog: what the data is, and what was asked for, in SQLite or PostgreSQL.

One file for each group of rows; `schema` has the tables, `database` the transactions, and the two
``bulk_`` files what each driver does with many entries at once.
"""

from indexrelay.storage.catalog.attempts import Attempt, Attempts, Pause
from indexrelay.storage.catalog.catalog import Catalog
from indexrelay.storage.catalog.collections import Collection, CollectionLog, Collections
from indexrelay.storage.catalog.commits import BatchChanges, Commit
from indexrelay.storage.catalog.dead_letters import (
    DeadLetter,
    DeadLetterHeader,
    DeadLetters,
    LettersLetGo,
    Unreadable,
)
from indexrelay.storage.catalog.entry_log import EntryLog
from indexrelay.storage.catalog.inbox import Answer, Inbox, InboxRow, ReceivedEvent
from indexrelay.storage.catalog.snapshot import CatalogSnapshot

__all__ = [
    "Answer",
    "Attempt",
    "Attempts",
    "BatchChanges",
    "Catalog",
    "CatalogSnapshot",
    "Collection",
    "CollectionLog",
    "Collections",
    "Commit",
    "DeadLetter",
    "DeadLetterHeader",
    "DeadLetters",
    "EntryLog",
    "Inbox",
    "InboxRow",
    "LettersLetGo",
    "Pause",
    "ReceivedEvent",
    "Unreadable",
]
