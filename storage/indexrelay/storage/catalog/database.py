"""The database: its transactions, its engine, and reads and writes of many entries at once.

There are three kinds of transaction: `read` sees committed rows, `write` is the only one that may
change any, `snapshot` sees the same rows for its whole length. SQLAlchemy builds every statement of
the catalog except the bulk ones. These go to the driver's own cursor, because a row that passes
through SQLAlchemy costs about twice as much (0.54 of the driver's speed for writes, 0.65 for
reads).

**SQLite.** Python's driver opens transactions at moments of its own choosing; it is told not to,
and ``BEGIN`` is sent here: plain for readers, ``BEGIN IMMEDIATE`` for writers, because a
transaction that reads first and writes later gets "database is locked" at once, whatever the
time-out (101 times in one probe). WAL lets readers work beside a writer. ``synchronous=FULL``
costs one fsync per commit and is required: without it a power cut can take back the last commits,
and their generation numbers would be assigned a second time. ``json_each`` turns a list of ids into
a table inside one statement; a temporary table or a statement per id costs several times as much.

**PostgreSQL.** Writers run at READ COMMITTED, so that after they waited for the generation's row
they see what the previous writer wrote; snapshots run at REPEATABLE READ, read-only. ``unnest`` of
four arrays is as fast as COPY into a temporary table (100,000 rows of 128: insert 0.86 s against
0.78 s, overwrite 1.36 s against 1.47 s) and leaves no table behind in the system catalogs, which a
COPY per commit would fill with dead rows.

An SQLite file that was replaced (a backup moved into its place) lives on without a name in every
process that has it open: what is committed there is lost. So a connection to another file than the
one that has the name now is dropped before its next use. An open connection must not be carried
across a fork: closing it in the child would break the parent's. The child drops them and opens its
own.
"""

import contextlib
import json
import os
import sqlite3
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from itertools import count, repeat
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from sqlalchemy import URL, Connection, Engine, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DisconnectionError

from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.files import FILE_MODE, LockWaits, make_private_folder
from indexrelay.storage.catalog import schema
from indexrelay.storage.entries import Entries, Vectors
from indexrelay.storage.errors import CatalogUrlError
from indexrelay.storage.urls import connect_arguments, driver_url


class Update(NamedTuple):
    """A new text or payload of an entry whose vector stays."""

    id: str
    sets_text: bool
    text: str | None
    """``None`` where it is set: the text goes."""
    sets_payload: bool
    payload: str | None


StoredRow = tuple[str, bytes, str | None, str | None]
"""id, vector, text, payload."""

ChangedRow = tuple[str, bytes | None, str | None, str | None, bool]
"""The same, and whether it is a tombstone."""

STORED = np.dtype("<f4")
"""How vectors are kept, whatever the machine's byte order."""


class BulkRows(Protocol):
    """Many entries of one collection, by its ``key``, inside a transaction that is the caller's."""

    def upsert(self, connection: Connection, key: int, generation: int, chunk: Entries) -> None:
        """Write ``chunk``, whose ids differ, as it stands at ``generation``.

        A text or payload that is ``None`` stays what it is in an entry that is live.
        """
        ...

    def update(
        self, connection: Connection, key: int, generation: int, updates: Sequence[Update]
    ) -> int:
        """Set or clear texts and payloads of live entries; say how many there were."""
        ...

    def delete(self, connection: Connection, key: int, generation: int, ids: Sequence[str]) -> int:
        """Turn the live ones among ``ids`` into tombstones; say how many there were."""
        ...

    def count_live(self, connection: Connection, key: int, ids: Sequence[str]) -> int:
        """How many of ``ids``, which differ, are live."""
        ...

    def live_among(self, connection: Connection, key: int, ids: Sequence[str]) -> set[str]:
        """Which of ``ids`` are live."""
        ...

    def live(
        self, connection: Connection, key: int, dimension: int, rows: int
    ) -> Iterator[Entries]:
        """Every live entry in the order of the ids' bytes, ``rows`` at a time."""
        ...

    def changed(
        self, connection: Connection, key: int, after: int, rows: int
    ) -> Iterator[list[ChangedRow]]:
        """Every entry and tombstone younger than ``after``, in the same order."""
        ...


def vector_bytes(vectors: Vectors) -> Iterator[memoryview]:
    """Each row as its stored bytes, without a copy of its own."""
    width = vectors.shape[1] * STORED.itemsize
    stored = np.ascontiguousarray(vectors, dtype=STORED).data.cast("B")
    return (stored[start : start + width] for start in range(0, len(stored), width))


def gathered(
    fetch: Callable[[int], Sequence[StoredRow]], dimension: int, *, rows: int, portion: int
) -> Iterator[Entries]:
    """What ``fetch(at most so many)`` gives until it gives nothing, ``rows`` at a time, as columns.

    A ``portion`` that fits the processor's cache is taken apart before the next one is fetched: row
    by row into 10,000 objects first, and then through all of them again, takes a third longer.
    """
    width = dimension * STORED.itemsize
    more = True
    while more:
        ids: list[str] = []
        texts: list[str | None] = []
        payloads: list[str | None] = []
        vectors = np.empty((rows, dimension), dtype=STORED)
        stored = vectors.data.cast("B")
        while more and len(ids) < rows:
            fetched = fetch(min(portion, rows - len(ids)))
            start = len(ids) * width
            stored[start : start + len(fetched) * width] = b"".join([row[1] for row in fetched])
            ids += [row[0] for row in fetched]
            texts += [row[2] for row in fetched]
            payloads += [row[3] for row in fetched]
            more = bool(fetched)
        if ids:
            found = vectors if len(ids) == rows else vectors[: len(ids)].copy()
            yield Entries(
                ids=ids,
                vectors=found.astype(np.float32, copy=False),
                texts=texts,
                payloads=payloads,
            )


def entries_of(rows: Sequence[StoredRow], dimension: int) -> Entries:
    """Stored rows as columns; the vectors are one array."""
    if not rows:
        return Entries(ids=[], vectors=np.empty((0, dimension), np.float32), texts=[], payloads=[])
    left = iter((rows,))
    return next(gathered(lambda _: next(left, ()), dimension, rows=len(rows), portion=len(rows)))


_SQLITE_UPSERT = """
INSERT INTO indexrelay_entries (collection, generation, deleted, id, vector, text, payload)
VALUES (?, ?, 0, ?, ?, ?, ?)
ON CONFLICT (collection, id) DO UPDATE SET
  generation = excluded.generation, deleted = 0, vector = excluded.vector,
  text = coalesce(excluded.text, text), payload = coalesce(excluded.payload, payload)
"""
_SQLITE_UPDATE = """
UPDATE indexrelay_entries
SET generation = ?1,
    text = CASE WHEN ?4 THEN ?5 ELSE text END,
    payload = CASE WHEN ?6 THEN ?7 ELSE payload END
WHERE collection = ?2 AND id = ?3 AND NOT deleted
"""
_SQLITE_DELETE = """
UPDATE indexrelay_entries
SET generation = ?, deleted = 1, vector = NULL, text = NULL, payload = NULL
WHERE collection = ? AND NOT deleted AND id IN (SELECT value FROM json_each(?))
"""
_SQLITE_COUNT_LIVE = """
SELECT count(*) FROM indexrelay_entries
WHERE collection = ? AND NOT deleted AND id IN (SELECT value FROM json_each(?))
"""
_SQLITE_LIVE_AMONG = """
SELECT id FROM indexrelay_entries
WHERE collection = ? AND NOT deleted AND id IN (SELECT value FROM json_each(?))
"""
_SQLITE_LIVE = """
SELECT id, vector, text, payload FROM indexrelay_entries
WHERE collection = ? AND NOT deleted ORDER BY id
"""
_SQLITE_CHANGED = """
SELECT id, vector, text, payload, deleted FROM indexrelay_entries
WHERE collection = ? AND generation > ? ORDER BY id
"""
_PORTION = 500
"""Rows that are fetched and taken apart at a time: a quarter of a megabyte at 128 dimensions."""


class SqliteRows:
    """`BulkRows` on the standard library's `sqlite3`."""

    def upsert(self, connection: Connection, key: int, generation: int, chunk: Entries) -> None:
        """One prepared statement, run for each row."""
        rows = zip(
            repeat(key),
            repeat(generation),
            chunk.ids,
            vector_bytes(chunk.vectors),
            chunk.texts,
            chunk.payloads,
            strict=False,  # the first two never end
        )
        _cursor(connection).executemany(_SQLITE_UPSERT, rows)

    def update(
        self, connection: Connection, key: int, generation: int, updates: Sequence[Update]
    ) -> int:
        """One prepared statement, run for each row."""
        rows = ((generation, key, *update) for update in updates)
        return int(_cursor(connection).executemany(_SQLITE_UPDATE, rows).rowcount)

    def delete(self, connection: Connection, key: int, generation: int, ids: Sequence[str]) -> int:
        """One statement for all of them."""
        cursor = _cursor(connection).execute(_SQLITE_DELETE, (generation, key, _array(ids)))
        return int(cursor.rowcount)

    def count_live(self, connection: Connection, key: int, ids: Sequence[str]) -> int:
        """One statement for all of them."""
        found = _cursor(connection).execute(_SQLITE_COUNT_LIVE, (key, _array(ids))).fetchone()
        return int(found[0])

    def live_among(self, connection: Connection, key: int, ids: Sequence[str]) -> set[str]:
        """One statement for all of them."""
        return {
            row[0] for row in _cursor(connection).execute(_SQLITE_LIVE_AMONG, (key, _array(ids)))
        }

    def live(
        self, connection: Connection, key: int, dimension: int, rows: int
    ) -> Iterator[Entries]:
        """Through the primary key, which has the order."""
        with closing(_cursor(connection)) as cursor:
            cursor.execute(_SQLITE_LIVE, (key,))
            yield from gathered(cursor.fetchmany, dimension, rows=rows, portion=_PORTION)

    def changed(
        self, connection: Connection, key: int, after: int, rows: int
    ) -> Iterator[list[ChangedRow]]:
        """Through the index by generation, then sorted."""
        with closing(_cursor(connection)) as cursor:
            cursor.execute(_SQLITE_CHANGED, (key, after))
            while chunk := cursor.fetchmany(rows):
                yield chunk


def _cursor(connection: Connection) -> Any:
    return connection.connection.cursor()


def _array(ids: Sequence[str]) -> str:
    return json.dumps(ids, ensure_ascii=False)


_POSTGRESQL_UPSERT = """
INSERT INTO indexrelay_entries AS entry (collection, generation, deleted, id, vector, text, payload)
SELECT %s, %s, false, row.id, row.vector, row.text, row.payload
FROM unnest(%b::text[], %b::bytea[], %b::text[], %b::text[]) AS row (id, vector, text, payload)
ON CONFLICT (collection, id) DO UPDATE SET
  generation = excluded.generation, deleted = false, vector = excluded.vector,
  text = coalesce(excluded.text, entry.text), payload = coalesce(excluded.payload, entry.payload)
"""
_POSTGRESQL_UPDATE = """
UPDATE indexrelay_entries AS entry
SET generation = %s,
    text = CASE WHEN row.sets_text THEN row.text ELSE entry.text END,
    payload = CASE WHEN row.sets_payload THEN row.payload ELSE entry.payload END
FROM unnest(%b::text[], %b::boolean[], %b::text[], %b::boolean[], %b::text[])
  AS row (id, sets_text, text, sets_payload, payload)
WHERE entry.collection = %s AND entry.id = row.id AND NOT entry.deleted
"""
_POSTGRESQL_DELETE = """
UPDATE indexrelay_entries
SET generation = %s, deleted = true, vector = NULL, text = NULL, payload = NULL
WHERE collection = %s AND NOT deleted AND id = ANY (%b::text[])
"""
_POSTGRESQL_COUNT_LIVE = """
SELECT count(*) FROM indexrelay_entries
WHERE collection = %s AND NOT deleted AND id = ANY (%b::text[])
"""
_POSTGRESQL_LIVE_AMONG = """
SELECT id FROM indexrelay_entries
WHERE collection = %s AND NOT deleted AND id = ANY (%b::text[])
"""
_POSTGRESQL_LIVE = """
SELECT id, vector, text, payload FROM indexrelay_entries
WHERE collection = %s AND NOT deleted ORDER BY id
"""
_POSTGRESQL_CHANGED = """
SELECT id, vector, text, payload, deleted FROM indexrelay_entries
WHERE collection = %s AND generation > %s ORDER BY id
"""


class PostgresqlRows:
    """`BulkRows` on psycopg 3."""

    def __init__(self) -> None:
        self._numbers = count()  # a server-side cursor needs a name of its own

    def upsert(self, connection: Connection, key: int, generation: int, chunk: Entries) -> None:
        """One statement for the whole chunk."""
        vectors = list(vector_bytes(chunk.vectors))
        _execute(
            connection,
            _POSTGRESQL_UPSERT,
            (key, generation, chunk.ids, vectors, chunk.texts, chunk.payloads),
        )

    def update(
        self, connection: Connection, key: int, generation: int, updates: Sequence[Update]
    ) -> int:
        """One statement for all of them."""
        columns = map(list, zip(*updates, strict=True))
        return int(_execute(connection, _POSTGRESQL_UPDATE, (generation, *columns, key)).rowcount)

    def delete(self, connection: Connection, key: int, generation: int, ids: Sequence[str]) -> int:
        """One statement for all of them."""
        return int(_execute(connection, _POSTGRESQL_DELETE, (generation, key, list(ids))).rowcount)

    def count_live(self, connection: Connection, key: int, ids: Sequence[str]) -> int:
        """One statement for all of them."""
        return int(_execute(connection, _POSTGRESQL_COUNT_LIVE, (key, list(ids))).fetchone()[0])

    def live_among(self, connection: Connection, key: int, ids: Sequence[str]) -> set[str]:
        """One statement for all of them."""
        return {row[0] for row in _execute(connection, _POSTGRESQL_LIVE_AMONG, (key, list(ids)))}

    def live(
        self, connection: Connection, key: int, dimension: int, rows: int
    ) -> Iterator[Entries]:
        """Through a server-side cursor; smaller portions would be more round trips."""
        with self._cursor(connection) as cursor:
            cursor.execute(_POSTGRESQL_LIVE, (key,))
            yield from gathered(cursor.fetchmany, dimension, rows=rows, portion=rows)

    def changed(
        self, connection: Connection, key: int, after: int, rows: int
    ) -> Iterator[list[ChangedRow]]:
        """Through a server-side cursor."""
        with self._cursor(connection) as cursor:
            cursor.execute(_POSTGRESQL_CHANGED, (key, after))
            while chunk := cursor.fetchmany(rows):
                yield chunk

    def _cursor(self, connection: Connection) -> Any:
        name = f"indexrelay_{next(self._numbers)}"
        return _driver(connection).cursor(name, binary=True)


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


def _execute(connection: Connection, statement: str, parameters: tuple[Any, ...]) -> Any:
    return _driver(connection).execute(statement, parameters)


BUSY_SECONDS = 30
"""How long a writer waits for the one before it; SQLite has one writer at a time, and of
PostgreSQL's those of one collection wait for each other."""

_TURN_SECONDS = 1
THE_CATALOG = "the catalog"
"""What its lock is called where a long wait for it is told of."""
_LOCK_NOT_AVAILABLE = "55P03"
"""PostgreSQL's code for a wait that was longer than ``lock_timeout``."""

CACHE_KIB = 32 * 1024
"""Pages that a writer to SQLite may hold, where it needs them. Its own 2 MB are less than the index
pages of a large collection, and a batch that touches them all over takes a third longer."""
_READER_KIB = 2000
"""… and a reader: SQLite's own. A build reads each page once, and counts its memory."""

BEGIN = "indexrelay_begin"
"""The execution option that holds the statement with which SQLite transactions begin."""
WRITING = "BEGIN IMMEDIATE"
"""That of writers."""


def make_engine(url: str, waits: LockWaits) -> Engine:
    """An engine for ``url``; connects to nothing yet, and notes in ``waits`` what it waits for.

    Raises:
        CatalogUrlError: no URL, an SQLite database in memory, or another kind of database.
        MissingExtraError: the URL is PostgreSQL's and psycopg is not installed.
    """
    try:
        parsed = driver_url(url)
    except ArgumentError as error:
        raise CatalogUrlError(
            "catalog.url cannot be read as an SQLAlchemy URL; write sqlite:///PATH or "
            "postgresql://USER:PASSWORD@HOST/DATABASE"
        ) from error
    if parsed.drivername == "postgresql+psycopg":
        engine = _postgresql_engine(parsed, waits)
    elif parsed.get_backend_name() == "sqlite":
        engine = _sqlite_engine(parsed, waits)
    else:
        raise CatalogUrlError(
            f"catalog.url names {parsed.drivername!r}; a catalog is kept in SQLite "
            "(sqlite:///PATH) or PostgreSQL (postgresql://…)"
        )
    _forget_in_children(engine)
    return engine


def sqlite_file(url: str) -> Path | None:
    """The file of an SQLite database; ``None``: it is none, or no URL."""
    try:
        parsed = driver_url(url)
    except (ArgumentError, ImportError):
        return None
    named = parsed.get_backend_name() == "sqlite" and parsed.database
    return Path(named) if named and not named.startswith("file:") else None


def _postgresql_engine(url: URL, waits: LockWaits) -> Engine:
    engine = create_engine(url, pool_pre_ping=True, connect_args=connect_arguments(url))

    @event.listens_for(engine, "connect")
    def _limit_waits(connection: Any, record: object) -> None:  # noqa: ARG001 - SQLAlchemy's signature
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = '{BUSY_SECONDS}s'")
        connection.commit()

    @event.listens_for(engine, "handle_error")
    def _note_wait(context: Any) -> None:
        if getattr(context.original_exception, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
            waits.note(THE_CATALOG, told_after_seconds=0.0)

    @event.listens_for(engine, "commit")
    def _note_end(connection: object) -> None:  # noqa: ARG001 - SQLAlchemy's signature
        waits.over(THE_CATALOG)

    return engine


def _sqlite_engine(url: URL, waits: LockWaits) -> Engine:
    if url.database in (None, "", ":memory:"):
        raise CatalogUrlError(
            "catalog.url names an SQLite database in memory, which no other process could see; "
            "name a file: sqlite:///PATH"
        )
    if not url.database.startswith("file:"):
        make_private_folder(Path(url.database).parent)
    engine = create_engine(
        url, connect_args={"timeout": BUSY_SECONDS, "isolation_level": None}
    ).execution_options(**{BEGIN: "BEGIN"})

    @event.listens_for(engine, "do_connect")
    def _make_file(dialect: object, record: object, args: object, parameters: object) -> None:  # noqa: ARG001 - SQLAlchemy's signature
        if url.database is not None and not url.database.startswith("file:"):
            _make_private(Path(url.database))

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, record: Any) -> None:
        record.info["file"] = _file_at(url.database)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "checkout")
    def _refuse_replaced(connection: object, record: Any, proxy: object) -> None:  # noqa: ARG001 - SQLAlchemy's signature
        found = _file_at(url.database)
        if found is not None and found != record.info["file"]:
            raise DisconnectionError(f"{url.database} was replaced")  # the pool connects again

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        begin = connection.get_execution_options()[BEGIN]
        pages = CACHE_KIB if begin == WRITING else _READER_KIB
        connection.exec_driver_sql(f"PRAGMA cache_size = -{pages}")
        if begin == WRITING:
            _begin_writing(connection, waits)
        else:
            connection.exec_driver_sql(begin)

    return engine


def _begin_writing(connection: Connection, waits: LockWaits) -> None:
    """Wait for the writer before us in turns of a second, so that a long wait is told of."""
    driver: Any = connection.connection.driver_connection
    driver.execute(f"PRAGMA busy_timeout = {_TURN_SECONDS * 1000}")
    try:
        for _ in range(BUSY_SECONDS // _TURN_SECONDS - 1):
            try:
                driver.execute(WRITING)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                waits.note(THE_CATALOG)
            else:
                break
        else:
            connection.exec_driver_sql(WRITING)  # whose error is SQLAlchemy's
        waits.over(THE_CATALOG)
    finally:
        driver.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")


def _make_private(path: Path) -> None:
    """Make the file where it is missing, for its owner alone; SQLite's other files get its mode."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with contextlib.suppress(OSError):  # it is there, or SQLite says what is wrong
        os.close(os.open(path, flags, FILE_MODE))


def _file_at(path: str | None) -> tuple[int, int] | None:
    """Which file has the name now; ``None``: none has."""
    try:
        found = Path(path or "").stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _forget_in_children(engine: Engine) -> None:
    """Let a forked child drop this process's connections without closing them."""
    known = weakref.ref(engine)  # the hook stays for ever; the engine need not

    def forget() -> None:
        engine = known()
        if engine is not None:
            engine.dispose(close=False)

    os.register_at_fork(after_in_child=forget)


class Database:
    """One database; safe to use from several threads, each transaction on one of them."""

    def __init__(self, engine: Engine, waits: LockWaits) -> None:
        """``waits``: where the engine notes what it waits for."""
        self._engine = engine
        self.lock_waits = waits
        self._postgresql = engine.dialect.name == "postgresql"
        self.bulk: BulkRows = PostgresqlRows() if self._postgresql else SqliteRows()
        self._readers = self._snapshots = engine
        if self._postgresql:
            self._readers = self._writers = engine.execution_options(
                isolation_level="READ COMMITTED"
            )
            self._snapshots = engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        else:
            self._writers = engine.execution_options(**{BEGIN: WRITING})

    @classmethod
    def open(cls, url: str) -> "Database":
        """Connect, and make the tables where they are missing.

        Raises:
            CatalogUrlError: no database for a catalog.
            CatalogVersionError: the tables are another release's.
            MissingExtraError: psycopg is needed and not installed.
        """
        database = cls._unopened(url)
        try:
            with database.read() as connection:
                current = schema.is_current(connection)
            if not current:
                with database.write() as connection:
                    schema.create(connection)
        except BaseException:
            database.close()
            raise
        return database

    @classmethod
    def is_there(cls, url: str) -> bool:
        """Whether the tables are there; nothing is made by asking. Raises what `open` raises."""
        file = sqlite_file(url)
        if file is not None and not file.exists():
            return False
        database = cls._unopened(url)
        try:
            with database.read() as connection:
                return schema.is_current(connection)
        finally:
            database.close()

    @classmethod
    def _unopened(cls, url: str) -> "Database":
        waits = LockWaits(SystemClock())  # a database waits by real time, whoever's clock we have
        return cls(make_engine(url, waits), waits)

    def close(self) -> None:
        """Close every connection; safe twice."""
        self._engine.dispose()

    def read(self) -> AbstractContextManager[Connection]:
        """A transaction that changes nothing and waits for nobody."""
        return self._readers.begin()

    def write(self) -> AbstractContextManager[Connection]:
        """A transaction that commits on leaving, and rolls back on an error."""
        return self._writers.begin()

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A read-only transaction in which the first read fixes what all later ones see."""
        with self._snapshots.connect() as connection, connection.begin():
            yield connection

    def insert(self, table: Table) -> "postgresql.Insert | sqlite.Insert":
        """An INSERT that can say ``ON CONFLICT``."""
        return postgresql.insert(table) if self._postgresql else sqlite.insert(table)
