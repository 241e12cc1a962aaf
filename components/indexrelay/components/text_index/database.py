"""The one file of a text index: an SQLite database that is written once and then never changes.

``entries`` has a row for each entry, with id and payload, numbered in the order of the ids
(`row_numbers`); ``texts``, an FTS5 table, one for each that has a text, under the same row number;
``facts`` the counts, so that nobody has to count. A small batch is applied to a copy of the last
version's file (`changes`).

Because the file never changes it is opened ``immutable``: no locks, no journal, nothing beside it.
SQLite maps it, and all processes of a host share the pages.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from indexrelay.components.errors import DamagedFileError
from indexrelay.components.system_errors import of_sqlite
from indexrelay.components.text_index.changes import Applied, apply
from indexrelay.components.text_index.file_copy import copy_file
from indexrelay.components.text_index.query import Tokenizer
from indexrelay.components.text_index.row_numbers import first_numbers
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.storage.entries import Changes, Entries

_APPLICATION_ID: Final = 0x69727478
"""``irtx``: what tells this file from any other SQLite database."""
_FORMAT: Final = 1
_MAPPED_BYTES: Final = 2**31 - 65_536
"""As much as SQLite maps at all; what lies beyond is read page by page."""

_TABLES: Final = """
    CREATE TABLE entries (row INTEGER PRIMARY KEY, id TEXT NOT NULL, payload TEXT);
    CREATE VIRTUAL TABLE texts USING fts5 (body, tokenize = '{tokenizer}');
    CREATE TABLE facts (entries INTEGER NOT NULL, texts INTEGER NOT NULL);
"""


class TooManyChangesError(IndexRelayError):
    """Raised inside of a build that continues another, which then is a full one."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What changes made of a file."""

    applied: Applied
    entries: int
    """How many it has now."""
    texts: int
    """How many of them have a text."""


def write_database(
    path: Path, chunks: Iterable[tuple[int, Entries]], *, tokenizer: Tokenizer
) -> int:
    """Write a new file, and return how many entries have a text.

    ``chunks`` come with how many entries came before them. Equal chunks make equal files.
    """
    entries = texts = 0
    with _writing(path) as connection:
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {_FORMAT}")
        connection.executescript("BEGIN;" + _TABLES.format(tokenizer=tokenizer))
        for first, chunk in chunks:
            rows = first_numbers(first, len(chunk))
            connection.executemany(
                "INSERT INTO entries VALUES (?, ?, ?)",
                zip(rows, chunk.ids, chunk.payloads, strict=True),
            )
            given = [
                (row, text) for row, text in zip(rows, chunk.texts, strict=True) if text is not None
            ]
            connection.executemany("INSERT INTO texts (rowid, body) VALUES (?, ?)", given)
            entries += len(chunk)
            texts += len(given)
        connection.execute("CREATE INDEX entries_by_id ON entries (id)")
        # One segment for all words: a query looks in one place, and equal texts give equal files.
        connection.execute("INSERT INTO texts (texts) VALUES ('optimize')")
        connection.execute("INSERT INTO facts VALUES (?, ?)", (entries, texts))
        connection.execute("COMMIT")
    return texts


def change_database(path: Path, last: Path, chunks: Iterable[Changes], *, most: int) -> Change:
    """Apply ``chunks`` to a copy of ``last``; the words that they bring are merged bit by bit.

    Args:
        path: the new file.
        last: the file of the previous version.
        chunks: what changed since.
        most: so many changes at most; beyond, the file is given up.

    Raises:
        DamagedFileError: ``last`` is not what was written.
        NoRoomError: new ids find no row numbers.
        TooManyChangesError: there are more than ``most``.
    """
    open_database(last).close()
    copy_file(last, path)
    applied = Applied()
    with reading(last), _writing(path) as connection:
        connection.execute("BEGIN")
        for chunk in chunks:
            applied += apply(connection, chunk)
            if applied.changes > most:
                raise TooManyChangesError
        # FTS5 keeps the size of every text in a row of its own, whose number is that of the text.
        connection.execute(
            "UPDATE facts SET entries = (SELECT count(*) FROM entries), "
            "texts = (SELECT count(*) FROM texts_docsize)"
        )
        connection.execute("COMMIT")
        entries, texts = connection.execute("SELECT entries, texts FROM facts").fetchone()
    return Change(applied=applied, entries=entries, texts=texts)


def count_payloads(path: Path) -> int:
    """How many entries of a file have a payload.

    Raises:
        DamagedFileError: it is not what was written.
    """
    with reading(path), closing(open_database(path)) as connection:
        return int(connection.execute("SELECT count(payload) FROM entries").fetchone()[0])


def open_database(path: Path) -> sqlite3.Connection:
    """Open the file for reading; the connection may be used by any thread, one at a time.

    Raises:
        DamagedFileError: it is no such file, of another version, or not as long as it says.
        OSError: it cannot be opened.
    """
    size = path.stat().st_size
    uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    with reading(path):
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)
        try:
            _refuse_others(connection, path, size)
            connection.execute(f"PRAGMA mmap_size = {_MAPPED_BYTES}")
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def _writing(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # No journal and no fsync: a file that was not finished is thrown away, and the store syncs.
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        yield connection


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say what SQLite's errors about ``path`` mean: damage, or what the system refuses."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise of_sqlite(path, error) from error


def _refuse_others(connection: sqlite3.Connection, path: Path, size: int) -> None:
    names = ("application_id", "user_version", "page_count", "page_size")
    application, version, pages, page_bytes = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names
    )
    if application != _APPLICATION_ID:
        raise DamagedFileError(path, "it is not a text index")
    if version != _FORMAT:
        raise DamagedFileError(path, f"it is a text index of version {version}, not {_FORMAT}")
    if pages * page_bytes != size:
        raise DamagedFileError(path, f"it has {size} bytes instead of {pages * page_bytes}")
