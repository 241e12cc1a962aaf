"""The one file of a text index: an SQLite database that is written once and then never changes.

``entries`` has a row for each entry, with id and payload; ``texts``, an FTS5 table, one for each
that has a text, under the same row number; ``facts`` the counts, so that nobody has to count.

Because the file never changes it is opened ``immutable``: no locks, no journal, nothing beside it.
SQLite maps it, and all processes of a host share the pages.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from indexrelay.components.errors import DamagedFileError
from indexrelay.components.text_index.tokens import Tokenizer
from indexrelay.storage.entries import Entries

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


def write_database(
    path: Path, chunks: Iterable[tuple[int, Entries]], *, tokenizer: Tokenizer
) -> int:
    """Write a new file, and return how many entries have a text.

    ``chunks`` come with the row number of their first entry. Equal chunks make equal files.
    """
    entries = texts = 0
    # No journal and no fsync: a file that was not finished is thrown away, and the store syncs.
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {_FORMAT}")
        connection.executescript("BEGIN;" + _TABLES.format(tokenizer=tokenizer))
        for first, chunk in chunks:
            rows = range(first, first + len(chunk))
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
def reading(path: Path) -> Iterator[None]:
    """Say what it means when SQLite cannot make sense of ``path``: `DamagedFileError`."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise DamagedFileError(path, str(error)) from error


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
