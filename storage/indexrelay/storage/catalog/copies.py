"""Copies of a whole catalog, as one SQLite file, whatever the catalog itself is kept in.

**Out.** The copy is of one moment: SQLite's backup API reads inside an open transaction, and rows
of PostgreSQL are read in one REPEATABLE READ transaction. Writers go on meanwhile. A database that
holds tables of others too is copied row by row, so that none of theirs is in the copy.

**In.** A copy goes into a catalog to which nothing was committed yet, in one transaction: all of it
is there afterwards, or nothing was changed. The copy may come from anywhere. So it is looked at
before it is used: it must be a sound database without triggers and views, and nothing in it is run.

A catalog that comes back has lost the commits since the copy, and readers, tokens and versions may
still name their generations. So each collection goes on above every number that can have been given
since: no database commits `MOST_PER_SECOND` batches a second. What was lost is then never taken for
what comes (see `indexrelay.storage.catalog.collections.Collections.restore`).
"""

import contextlib
import math
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Table, delete, func, insert, inspect, select, text
from sqlalchemy.exc import SQLAlchemyError

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.files import open_private
from indexrelay.schemas.urls import sqlite_url
from indexrelay.storage.catalog.collections import go_on_above
from indexrelay.storage.catalog.database import Database
from indexrelay.storage.catalog.schema import (
    collections,
    create_tables,
    metadata,
    notices,
    release_record,
    schema,
)
from indexrelay.storage.errors import CatalogCopyError, CatalogNotEmptyError, CatalogVersionError

MOST_PER_SECOND: Final = 100_000
"""Generations of one collection that nobody can take in a second; 2 ** 63 of them last for ever."""
_LONG_AGO_SECONDS: Final = 10 * 365.0 * 86_400
"""Older copies with a time that is still to come are none that anybody would restore."""
_ROWS: Final = 2000
"""At most so many rows are in memory at a time."""
_PAGES: Final = 2000
"""SQLite's own pages, between two moments at which Ctrl-C counts."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A catalog that came from a copy."""

    generations: dict[str, int]
    """For each collection: where it goes on."""
    release: int
    """The highest number of a release that the copy knows of; 0: none."""


def write_copy(database: Database, file: Path) -> None:
    """Write a copy of the catalog to a new file, for its owner alone.

    Raises:
        OSError, sqlite3.Error: the file cannot be written.
        sqlalchemy.exc.SQLAlchemyError: the catalog cannot be read.
    """
    open_private(file, "wb").close()
    with database.snapshot() as connection:
        connection.execute(select(schema.c.version))  # fixes what all later reads see
        if database.is_postgresql or _holds_others(connection):
            _copy_rows(connection, file)
        else:
            driver: Any = connection.connection.driver_connection
            with contextlib.closing(sqlite3.connect(file)) as copy:
                driver.backup(copy, pages=_PAGES, progress=_nothing)
    with contextlib.closing(sqlite3.connect(file)) as copy:
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it


def generations_in(file: Path) -> dict[str, int]:
    """For each collection in a copy: the generation that it is at.

    Raises:
        sqlite3.Error: it is none, or cannot be read.
    """
    with contextlib.closing(sqlite3.connect(file)) as copy:
        rows = copy.execute("SELECT name, generation FROM indexrelay_collections ORDER BY name")
        return dict(rows.fetchall())


def check_copy(file: Path) -> dict[str, int]:
    """See that a copy can be taken over, and what it is at.

    Args:
        file: the copy; a table or column that it lacks may be added to it.

    Returns:
        For each collection: the generation that it is at.

    Raises:
        CatalogCopyError: the file is no copy of a catalog, or is damaged.
    """
    _check_sound(file)
    copy = Database(sqlite_url(file))
    try:
        create_tables(copy)
    except (CatalogVersionError, SQLAlchemyError) as error:
        raise CatalogCopyError(file, str(getattr(error, "orig", None) or error)) from error
    finally:
        copy.close()
    try:
        return generations_in(file)
    except sqlite3.Error as error:
        raise CatalogCopyError(file, str(error)) from error


@contextlib.contextmanager
def importing(
    database: Database, file: Path, *, copied_at: datetime, clock: Clock
) -> Iterator[Imported]:
    """Take over a copy, which is committed when the ``with`` ends without an error.

    Args:
        database: an empty catalog, with its tables.
        file: the copy; a table or column that it lacks may be added to it.
        copied_at: a moment before it was made.

    Raises:
        CatalogNotEmptyError: batches were committed to the catalog.
        CatalogCopyError: the file is no copy of a catalog, or is damaged.
        sqlalchemy.exc.SQLAlchemyError: the catalog cannot be written.
    """
    check_copy(file)
    copy = Database(sqlite_url(file))
    try:
        with copy.read() as source, database.write() as target:
            _empty(target, is_postgresql=database.is_postgresql)
            for table in _tables():
                _copy_table(source, target, table)
                if database.is_postgresql:
                    _count_on(target, table)
            elapsed = (clock.now() - copied_at).total_seconds()
            if elapsed < 0:  # a clock was wrong, and nobody knows by how much
                elapsed = _LONG_AGO_SECONDS
            lost = math.ceil(elapsed) * MOST_PER_SECOND
            found = target.execute(select(collections.c.name, collections.c.generation)).all()
            generations = {
                name: go_on_above(target, name, generation + lost, clock)
                for name, generation in sorted((row.name, row.generation) for row in found)
            }
            number = target.scalar(select(release_record.c.number)) or 0
            yield Imported(generations=generations, release=int(number))
    finally:
        copy.close()


def check_empty(database: Database) -> None:
    """See that a copy may be taken over.

    Raises:
        CatalogNotEmptyError: batches were committed to the catalog.
    """
    with database.read() as connection:
        _check_empty(connection)


def _check_empty(connection: Connection) -> None:
    # A rebuilder that runs has declared them by now, which is nothing to be lost.
    filled = select(collections.c.name).where(collections.c.generation > 0)
    names = connection.scalars(filled.order_by(collections.c.name)).all()
    if names:
        raise CatalogNotEmptyError(names)


def _empty(connection: Connection, *, is_postgresql: bool) -> None:
    """Remove what a catalog without a commit may hold, under a lock against commits."""
    if is_postgresql:
        connection.execute(text(f"LOCK TABLE {collections.name} IN EXCLUSIVE MODE"))
    _check_empty(connection)
    for table in _tables():
        connection.execute(delete(table))


def _tables() -> Sequence[Table]:
    """Those that are copied: who tells people now, and of what, is no data of an installation."""
    return [each for each in metadata.sorted_tables if each not in (schema, notices)]


def _holds_others(connection: Connection) -> bool:
    ours = {table.name for table in metadata.sorted_tables}
    found = inspect(connection)
    return bool(set(found.get_table_names()) - ours or found.get_view_names())


def _copy_rows(connection: Connection, file: Path) -> None:
    copy = Database(sqlite_url(file))
    try:
        create_tables(copy)
        with copy.write() as target:
            for table in _tables():
                _copy_table(connection, target, table)
    finally:
        copy.close()


def _copy_table(source: Connection, target: Connection, table: Table) -> None:
    streamed = source.execution_options(stream_results=True, yield_per=_ROWS)
    keys = [column.key for column in table.columns]
    rows = streamed.execute(select(*table.columns))
    for some in rows.partitions(_ROWS):
        target.execute(insert(table), [dict(zip(keys, row, strict=True)) for row in some])


def _count_on(connection: Connection, table: Table) -> None:
    """Let PostgreSQL count on above the keys that were given."""
    column = table.autoincrement_column
    if column is not None:
        highest = select(func.max(column)).scalar_subquery()
        sequence = func.pg_get_serial_sequence(table.name, column.name)
        connection.execute(select(func.setval(sequence, highest)).where(highest.is_not(None)))


def _check_sound(file: Path) -> None:
    """Refuse what is no sound database, and what would run something when it is used."""
    try:
        with contextlib.closing(sqlite3.connect(file)) as copy:
            copy.execute("PRAGMA trusted_schema = OFF")
            copy.execute("PRAGMA cell_size_check = ON")
            kinds = {row[0] for row in copy.execute("SELECT type FROM sqlite_master")}
            if active := kinds - {"table", "index"}:
                raise CatalogCopyError(file, f"it has a {' and a '.join(sorted(active))}")
            damage = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
            if damage != "ok":
                raise CatalogCopyError(file, f"it is damaged: {damage}")
            copy.execute("SELECT version FROM indexrelay_schema").fetchone()
    except sqlite3.Error as error:
        raise CatalogCopyError(file, str(error)) from error


def _nothing(status: int, remaining: int, total: int) -> None:
    """Called between two portions of pages: where Python looks whether Ctrl-C was pressed."""
