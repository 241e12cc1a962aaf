"""A connection to a file that somebody else may have written: what it may do, and for how long.

A database is a program as much as it is data: a view under the name of a table runs whatever query
it holds when that table is read, and needs not end. So a file has to have the tables that a build
makes, and no other object (`check_schema`); what its schema calls is not trusted; and every use of
it has a deadline, which SQLite asks for as it goes. FTS5 and the b-tree check their own pages.
"""

import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from indexrelay.components.errors import DamagedFileError

OPEN_SECONDS: Final = 30.0
"""For opening a file: it reads a few pages."""
QUERY_SECONDS: Final = 60.0
"""For one question: its work is bounded (`query`), and takes milliseconds."""
_STEPS: Final = 50_000
"""Of SQLite's virtual machine between two looks at the clock: about a millisecond."""
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
_TABLES: Final = {
    1: frozenset({"entries", "facts", "texts", "entries_by_id"}),
    2: frozenset({"entries", "facts", "frequencies", "terms", "entries_by_id"}),
}


class GuardedConnection(sqlite3.Connection):
    """A connection with a deadline; for one thread at a time."""

    _ends_at: float | None = None

    def guard(self, path: Path) -> None:
        """Trust nothing in the file but its data, and watch the clock."""
        self._path = path
        self.set_progress_handler(self._is_late, _STEPS)
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON"):
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


def check_schema(connection: sqlite3.Connection, path: Path, number: int) -> None:
    """Whether a file of format ``number`` has the tables that a build makes, and nothing else.

    Raises:
        DamagedFileError: it lacks one, or there is something else.
    """
    found: set[str] = set()
    for kind, name, table, sql in connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master"
    ):
        if not _is_ours(kind, name, table, sql):
            raise DamagedFileError(path, f"it has a {kind} {name!r:.60}, which no build makes")
        found.add(name)
    lacking = sorted(_TABLES[number] - found)
    if lacking or (found & _OURS.keys()) != _TABLES[number]:
        raise DamagedFileError(path, f"it has other tables than a build makes: {lacking}")


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
