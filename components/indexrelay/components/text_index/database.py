"""The one file of a text index: an SQLite database that is written once and then never changes.

``entries`` has a row for each entry, with id, payload and text, numbered in the order of the ids.
``terms`` is an FTS5 table without content: under the same row number the terms that the analyser
made of the text. FTS5's own tokenizer only cuts them apart again at the spaces between them.
``frequencies`` says how many texts each term is in, ``facts`` how many there are and what cut them.
A small batch is applied to a copy of the last version's file (`changes`).

Because the file never changes it is opened ``immutable``: no locks and no journal. It is read and
not mapped: a connection has 2 MB of its pages, the system the others. A database is a program as
much as it is data: a view under the name of a table runs whatever query it holds, and need not end.
So a file must have the tables that a build makes and no other object, its schema is not trusted,
and every use of it has a deadline.
"""

import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from indexrelay.components.errors import CorruptFileError, of_memory, of_sqlite
from indexrelay.components.text_index.analyser import Analyser
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.storage.entries import Entries

_APPLICATION_ID: Final = 0x69727478
"""``irtx``: what tells this file from any other SQLite database."""
FORMAT: Final = 2
FIRST_FORMAT: Final = 1
"""What was written before there was an analyser; it is still served (`search`)."""
_TABLES: Final = """
    CREATE TABLE entries (row INTEGER PRIMARY KEY, id TEXT NOT NULL, payload TEXT, text TEXT);
    CREATE VIRTUAL TABLE terms USING fts5 (text, content = '', tokenize = "ascii tokenchars '+#.'");
    CREATE TABLE frequencies (term TEXT PRIMARY KEY, texts INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE facts (
        entries INTEGER NOT NULL, texts INTEGER NOT NULL, findable INTEGER NOT NULL,
        tokenizer TEXT NOT NULL, analyser TEXT NOT NULL
    );
"""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a file holds."""

    entries: int
    texts: int
    """Entries that have a text."""
    findable: int
    """Texts that have a term; what is punctuation alone has none."""


GAP: Final = 64
"""Below 128, so that the distance of neighbours in an FTS5 list still is one byte."""


def row_numbers(first: int, count: int) -> range:
    """The row numbers of the ``count`` entries from the ``first``-th (0) on, in a new file."""
    return range((first + 1) * GAP, (first + count + 1) * GAP, GAP)


def write_database(
    path: Path, chunks: Iterable[tuple[int, Entries]], *, analyser: Analyser
) -> Counts:
    """Write a new file.

    ``chunks`` come with how many entries came before them. Equal chunks make equal files.
    """
    entries = texts = findable = 0
    with writing(path) as connection:
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.executescript("BEGIN;" + _TABLES)
        for first, chunk in chunks:
            rows = row_numbers(first, len(chunk))
            connection.executemany(
                "INSERT INTO entries VALUES (?, ?, ?, ?)",
                zip(rows, chunk.ids, chunk.payloads, chunk.texts, strict=True),
            )
            given = [text for text in chunk.texts if text is not None]
            cut = (
                (row, " ".join(analyser.terms(text)))
                for row, text in zip(rows, chunk.texts, strict=True)
                if text is not None
            )
            indexed = [(row, terms) for row, terms in cut if terms]
            connection.executemany("INSERT INTO terms (rowid, text) VALUES (?, ?)", indexed)
            entries += len(chunk)
            texts += len(given)
            findable += len(indexed)
        connection.execute("CREATE INDEX entries_by_id ON entries (id)")
        # One segment for all terms: a query looks in one place, and equal texts give equal files.
        connection.execute("INSERT INTO terms (terms) VALUES ('optimize')")
        vocabulary(connection)
        connection.execute("INSERT INTO frequencies SELECT term, doc FROM temp.vocabulary")
        connection.execute(
            "INSERT INTO facts VALUES (?, ?, ?, ?, ?)",
            (entries, texts, findable, analyser.tokenizer, analyser.identity),
        )
        connection.execute("COMMIT")
    return Counts(entries=entries, texts=texts, findable=findable)


_MOST_ENTRIES: Final = 1 << 48


def counts_of(connection: sqlite3.Connection) -> Counts:
    """What the file says that it holds.

    Raises:
        ValueError: that is not possible.
    """
    first_format = format_of(connection) == FIRST_FORMAT
    columns = "entries, texts, texts" if first_format else "entries, texts, findable"
    rows = connection.execute(f"SELECT {columns} FROM facts LIMIT 2").fetchall()  # noqa: S608 - ours
    if len(rows) != 1:
        raise ValueError(f"{len(rows)} rows of facts")
    [(entries, texts, findable)] = rows
    if not all(isinstance(each, int) for each in rows[0]):
        raise ValueError("facts that are no numbers")
    if not all(0 <= each < _MOST_ENTRIES for each in rows[0]):
        raise ValueError(f"{entries} entries, {texts} texts, {findable} of them to be found")
    return Counts(entries=entries, texts=texts, findable=findable)


def vocabulary(connection: sqlite3.Connection) -> None:
    """Let ``temp.vocabulary`` be FTS5's own list: each term, and how many texts it is in."""
    connection.execute(
        "CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab ('main', 'terms', 'row')"
    )


def format_of(connection: sqlite3.Connection) -> int:
    """The format of an open file."""
    (number,) = connection.execute("PRAGMA user_version").fetchone()
    return int(number)


def count_payloads(path: Path) -> int:
    """How many entries of a file have a payload.

    Raises:
        CorruptFileError: it is not what was written.
    """
    with reading(path), closing(open_database(path)) as connection:
        return int(connection.execute("SELECT count(payload) FROM entries").fetchone()[0])


OPEN_SECONDS: Final = 30.0
"""For opening a file: it reads a few pages."""
QUERY_SECONDS: Final = 60.0
"""For one query: its work is bounded (`search`), and takes milliseconds."""
_STEPS: Final = 50_000
"""Of SQLite's virtual machine between two looks at the clock: about a millisecond."""


class GuardedConnection(sqlite3.Connection):
    """A connection with a deadline; for one thread at a time."""

    _ends_at: float | None = None

    def guard(self, path: Path) -> None:
        """Trust nothing in the file but its data, and watch the clock.

        SQLite advises these settings for files from elsewhere (sqlite.org/security.html). Besides,
        a page of a mapped file is checked each time that it is touched, which makes a query take
        2.6 times as long, and one of its own cache once.
        """
        self._path = path
        self.set_progress_handler(self._is_late, _STEPS)
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
            self.execute(f"PRAGMA {pragma}")

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """What is asked in the body fails when it takes longer, with ``SQLITE_INTERRUPT``."""
        before, self._ends_at = self._ends_at, time.monotonic() + seconds
        try:
            yield
        finally:
            self._ends_at = before

    def _is_late(self) -> bool:
        return self._ends_at is not None and time.monotonic() > self._ends_at


def open_database(path: Path) -> GuardedConnection:
    """Open the file for reading; the connection may be used by any thread, one at a time.

    Raises:
        CorruptFileError: it is no such file, of another version, or not as long as it says.
        OSError: it cannot be opened.
    """
    size = path.stat().st_size
    uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
    with reading(path):
        connection = sqlite3.connect(
            uri,
            uri=True,
            check_same_thread=False,
            isolation_level=None,
            factory=GuardedConnection,
        )
        try:
            with connection.within(OPEN_SECONDS):
                connection.guard(path)
                _refuse_others(connection, path, size)
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that writes a file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # No journal and no fsync: a file that was not finished is thrown away, and the store syncs.
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        yield connection


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say what SQLite's errors about ``path`` mean: corruption, or what the system refuses.

    What is asked in here is always the same, so a value that it cannot be is the file's fault.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise of_sqlite(path, error) from error
    except MemoryError as error:  # Python's own word for SQLITE_NOMEM
        raise of_memory(path) from error
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        if isinstance(error, IndexRelayError):  # a query that is none
            raise
        raise CorruptFileError(path, f"{type(error).__name__}: {error}") from error


def _refuse_others(connection: sqlite3.Connection, path: Path, size: int) -> None:
    names = ("application_id", "user_version", "page_count", "page_size")
    application, version, pages, page_bytes = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names
    )
    if application != _APPLICATION_ID:
        raise CorruptFileError(path, "it is not a text index")
    if version not in (FIRST_FORMAT, FORMAT):
        raise CorruptFileError(
            path, f"it is a text index of format {version}; this release reads up to {FORMAT}"
        )
    if pages * page_bytes != size:
        raise CorruptFileError(path, f"it has {size} bytes instead of {pages * page_bytes}")
    _check_schema(connection, path, version)


_NAMES: Final = r"[\w\s,]*"
_COLUMNS: Final = rf"\({_NAMES}\)"
_SHADOW: Final = re.compile(
    rf"CREATE TABLE '(?:terms|texts)_\w+'\({_NAMES}(?:PRIMARY KEY{_COLUMNS})?\)(?: WITHOUT ROWID)?",
    re.ASCII,
)
_OURS: Final = {
    "entries": re.compile(rf"CREATE TABLE entries\s*{_COLUMNS}", re.ASCII),
    "facts": re.compile(rf"CREATE TABLE facts\s*{_COLUMNS}", re.ASCII),
    "frequencies": re.compile(rf"CREATE TABLE frequencies\s*{_COLUMNS}\s*WITHOUT ROWID", re.ASCII),
    "terms": re.compile(
        r"CREATE VIRTUAL TABLE terms USING fts5\s*\(text, content = '',"
        r""" tokenize = "ascii tokenchars '[+#.]*'"\)""",
        re.ASCII,
    ),
    "texts": re.compile(
        r"CREATE VIRTUAL TABLE texts USING\s+fts5\s*\(body, tokenize = '[\w ]+'\)", re.ASCII
    ),
    "entries_by_id": re.compile(r"CREATE INDEX entries_by_id ON entries \(id\)", re.ASCII),
}
"""What a build of any release writes, by name. No parentheses inside: no expression, no check."""
_TABLES_BY_FORMAT: Final = {
    1: frozenset({"entries", "facts", "texts", "entries_by_id"}),
    2: frozenset({"entries", "facts", "frequencies", "terms", "entries_by_id"}),
}


def _check_schema(connection: sqlite3.Connection, path: Path, number: int) -> None:
    """Whether a file of format ``number`` has the tables that a build makes, and nothing else.

    Raises:
        CorruptFileError: it lacks one, or there is something else.
    """
    found: set[str] = set()
    for kind, name, table, sql in connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master"
    ):
        if not _is_ours(kind, name, table, sql):
            raise CorruptFileError(path, f"it has a {kind} {name!r:.60}, which no build makes")
        found.add(name)
    lacking = sorted(_TABLES_BY_FORMAT[number] - found)
    if lacking or (found & _OURS.keys()) != _TABLES_BY_FORMAT[number]:
        raise CorruptFileError(path, f"it has other tables than a build makes: {lacking}")


def _is_ours(kind: object, name: object, table: object, sql: object) -> bool:
    if not (isinstance(name, str) and isinstance(table, str) and isinstance(sql, str)):
        return False
    if kind not in ("table", "index"):
        return False
    matches: Callable[[str], object] = _OURS[name].fullmatch if name in _OURS else _SHADOW.fullmatch
    shadow = name not in _OURS
    in_place = name.startswith(("terms_", "texts_")) if shadow else True
    of_itself = table == ("entries" if kind == "index" else name)
    return in_place and of_itself and matches(sql.strip()) is not None
