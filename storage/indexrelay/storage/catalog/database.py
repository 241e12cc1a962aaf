"""The database: its transactions, its engine, and reads and writes of many entries at once.

There are three kinds of transaction: `read` sees committed rows, `write` is the only one that may
change any, `snapshot` sees the same rows for its whole length. SQLAlchemy builds every statement of
the catalog except the bulk ones. These go to the driver's own cursor, because a row that passes
through SQLAlchemy costs about twice as much (0.54 of the driver's speed for writes, 0.65 for
reads).

**SQLite.** Python's driver opens transactions at moments that it chooses; this is switched off,
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
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime
from itertools import count, repeat
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from sqlalchemy import (
    URL,
    BigInteger,
    Connection,
    Dialect,
    Engine,
    Integer,
    Table,
    Text,
    create_engine,
    event,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DisconnectionError
from sqlalchemy.types import TypeDecorator

from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.files import FILE_MODE, LockWaits, make_private_folder
from indexrelay.storage.entries import CHUNK_ROWS, STORED, Entries, Update, Vectors
from indexrelay.storage.errors import CatalogUrlError
from indexrelay.storage.urls import connect_arguments, driver_url


class Database:
    """One database; safe to use from several threads, each transaction on one of them."""

    def __init__(self, url: str) -> None:
        """Take the URL; connects to nothing yet.

        Raises:
            CatalogUrlError: no database for a catalog.
            MissingExtraError: psycopg is needed and not installed.
        """
        self.lock_waits = LockWaits(SystemClock())  # a database waits by real time in tests, too
        self._engine = engine = _make_engine(url, self.lock_waits)
        self.is_postgresql = engine.dialect.name == "postgresql"
        self.bulk: BulkRows
        self._readers: Engine
        self._snapshots: Engine
        if self.is_postgresql:
            self.bulk = PostgresqlRows()
            self._readers = engine.execution_options(isolation_level="READ COMMITTED")
            self._writers = self._readers
            self._snapshots = engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        else:
            self.bulk = SqliteRows()
            self._readers = self._snapshots = engine
            self._writers = engine.execution_options(**{_WRITES: True})

    def close(self) -> None:
        """Close every connection; safe twice."""
        self._engine.dispose()

    def read(self) -> AbstractContextManager[Connection]:
        """A transaction that changes nothing and waits for no lock."""
        return self._readers.begin()

    def write(self) -> AbstractContextManager[Connection]:
        """A transaction that commits on leaving, and rolls back on an error."""
        return self._writers.begin()

    def take_turn(self, connection: Connection, number: int) -> None:
        """Have transactions that take the same number follow each other, from here to their end."""
        if self.is_postgresql:  # a writing transaction of SQLite is alone anyway
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({number:d})")

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A read-only transaction in which the first read fixes what all later ones see."""
        with self._snapshots.connect() as connection, connection.begin():
            yield connection

    def insert(self, table: Table) -> "postgresql.Insert | sqlite.Insert":
        """An INSERT that can say ``ON CONFLICT``."""
        return postgresql.insert(table) if self.is_postgresql else sqlite.insert(table)


# Column types that are the same on both databases

ByteOrderedText = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that sorts by its UTF-8 bytes; SQLite's own order is that already."""

Serial = BigInteger().with_variant(Integer, "sqlite")
"""A 64-bit key that the database counts up; SQLite does so for INTEGER only."""


class Instant(TypeDecorator[datetime]):
    """A moment in UTC, as ISO 8601 text of fixed width: readable, and its order is time's."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """To UTC, with microseconds even where they are 0."""
        return None if value is None else value.astimezone(UTC).isoformat(timespec="microseconds")

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """An aware `datetime`."""
        return None if value is None else datetime.fromisoformat(value)


class ForeignText(TypeDecorator[str]):
    """Text from outside that has to be storable whatever is in it.

    An error's message or the id of an event may hold NUL, which PostgreSQL refuses, or lone
    surrogates, which have no UTF-8. Both are escaped instead of refused: the record of a failure
    must not fail.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """NUL becomes U+2400, a lone surrogate its escape."""
        if value is None:
            return None
        shown = value.replace("\0", "\N{SYMBOL FOR NULL}")
        return shown.encode("utf-8", "backslashreplace").decode()


# Engines

BUSY_SECONDS = 30
"""How long a writer waits for the one before it; SQLite has one writer at a time, and of
PostgreSQL's those of one collection wait for each other."""
CACHE_KIB = 32 * 1024
"""Page cache of a writer to SQLite, used as needed. SQLite's own 2 MB are less than the index
pages of a large collection, and a batch that touches them all over takes a third longer."""
_READER_CACHE_KIB = 2000
"""Page cache of a reader: SQLite's own. A build reads each page once, and counts its memory."""
_TURN_SECONDS = 1
_THE_CATALOG = "the catalog"
"""The name of its lock where a long wait is reported."""
_LOCK_NOT_AVAILABLE = "55P03"
"""PostgreSQL's code for a wait that was longer than ``lock_timeout``."""
_WRITES = "indexrelay_writes"
"""The execution option that marks the transactions of writers to SQLite."""
_BEGIN_WRITE = "BEGIN IMMEDIATE"


def _make_engine(url: str, waits: LockWaits) -> Engine:
    """An engine for ``url`` that notes in ``waits`` what it waits for; connects to nothing yet.

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
    """The file of an SQLite database; ``None``: another database, or no URL."""
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
            waits.note(_THE_CATALOG, report_after_seconds=0.0)

    @event.listens_for(engine, "commit")
    def _note_end(connection: object) -> None:  # noqa: ARG001 - SQLAlchemy's signature
        waits.over(_THE_CATALOG)

    return engine


def _sqlite_engine(url: URL, waits: LockWaits) -> Engine:
    if url.database in (None, "", ":memory:"):
        raise CatalogUrlError(
            "catalog.url names an SQLite database in memory, which no other process could see; "
            "name a file: sqlite:///PATH"
        )
    if not url.database.startswith("file:"):
        make_private_folder(Path(url.database).parent)
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS, "isolation_level": None})

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
        writes = _WRITES in connection.get_execution_options()
        pages = CACHE_KIB if writes else _READER_CACHE_KIB
        connection.exec_driver_sql(f"PRAGMA cache_size = -{pages}")
        if writes:
            _begin_writing(connection, waits)
        else:
            connection.exec_driver_sql("BEGIN")

    return engine


def _begin_writing(connection: Connection, waits: LockWaits) -> None:
    """Wait for the previous writer in turns of a second, so that a long wait is reported."""
    driver: Any = connection.connection.driver_connection
    driver.execute(f"PRAGMA busy_timeout = {_TURN_SECONDS * 1000}")
    try:
        for _ in range(BUSY_SECONDS // _TURN_SECONDS - 1):
            try:
                driver.execute(_BEGIN_WRITE)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                waits.note(_THE_CATALOG)
            else:
                break
        else:
            connection.exec_driver_sql(_BEGIN_WRITE)  # whose error is SQLAlchemy's
        waits.over(_THE_CATALOG)
    finally:
        driver.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")


def _make_private(path: Path) -> None:
    """Create the file if it is missing, for its owner alone; SQLite's other files get its mode."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with contextlib.suppress(OSError):  # it is there, or SQLite says what is wrong
        os.close(os.open(path, flags, FILE_MODE))


def _file_at(path: str | None) -> tuple[int, int] | None:
    """Which file has the name now; ``None``: there is none."""
    try:
        found = Path(path or "").stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _forget_in_children(engine: Engine) -> None:
    """Drop this process's connections in a forked child without closing them."""
    known = weakref.ref(engine)  # the hook stays for ever; the engine does not

    def forget() -> None:
        engine = known()
        if engine is not None:
            engine.dispose(close=False)

    os.register_at_fork(after_in_child=forget)


# Many entries at once

StoredRow = tuple[str, bytes, str | None, str | None]
"""id, vector, text, payload."""

ChangedRow = tuple[str, bytes | None, str | None, str | None, bool]
"""The same, and whether it is a tombstone, which has no vector."""


class BulkRows(ABC):
    """Many entries of one collection, by its ``key``, inside the caller's transaction."""

    _VALUE: ClassVar[str]
    """The driver's mark for a parameter."""
    _LISTED: ClassVar[str]
    """The condition that an id is in a list, which is one parameter."""
    _FETCHED_ROWS: ClassVar[int]
    """At most so many rows are fetched and taken apart at a time."""

    @abstractmethod
    def upsert(self, connection: Connection, key: int, generation: int, chunk: Entries) -> None:
        """Write ``chunk``, whose ids differ, with this ``generation``.

        A text or payload that is ``None`` stays as it is in an entry that is live.
        """

    @abstractmethod
    def update(
        self, connection: Connection, key: int, generation: int, updates: Sequence[Update]
    ) -> int:
        """Set or clear texts and payloads of live entries; returns how many existed."""

    def delete(self, connection: Connection, key: int, generation: int, ids: Sequence[str]) -> int:
        """Turn the live ones among ``ids`` into tombstones; returns how many there were."""
        parameters = generation, key, self._list(ids)
        return int(self._execute(connection, _DELETE, *parameters).rowcount)

    def count_live(self, connection: Connection, key: int, ids: Sequence[str]) -> int:
        """How many of ``ids``, which differ, are live."""
        return int(self._execute(connection, _COUNT_LIVE, key, self._list(ids)).fetchone()[0])

    def live_among(self, connection: Connection, key: int, ids: Sequence[str]) -> set[str]:
        """Which of ``ids`` are live."""
        return {row[0] for row in self._execute(connection, _LIVE_AMONG, key, self._list(ids))}

    def payloads(
        self, connection: Connection, key: int, ids: Sequence[str]
    ) -> dict[str, str | None]:
        """By the id of those of ``ids`` that are live: the payload."""
        return dict(self._execute(connection, _PAYLOADS, key, self._list(ids)).fetchall())

    def find(
        self, connection: Connection, key: int, entry_id: str
    ) -> tuple[str | None, str | None] | None:
        """Text and payload of a live entry; ``None``: there is none."""
        found = self._execute(connection, _FIND, key, entry_id).fetchone()
        return None if found is None else (found[0], found[1])

    def live(
        self, connection: Connection, key: int, dimension: int, rows: int
    ) -> Iterator[Entries]:
        """Every live entry in the order of the ids' bytes, ``rows`` at a time."""
        with self._stream(connection, _LIVE, key) as cursor:
            portion = min(rows, self._FETCHED_ROWS)
            yield from _gather(cursor.fetchmany, dimension, rows=rows, portion=portion)

    def changed(
        self, connection: Connection, key: int, after: int, rows: int
    ) -> Iterator[list[ChangedRow]]:
        """Every entry and tombstone younger than ``after``, in the same order."""
        with self._stream(connection, _CHANGED, key, after) as cursor:
            while chunk := cursor.fetchmany(rows):
                yield chunk

    @abstractmethod
    def _list(self, ids: Sequence[str]) -> Any:
        """The ids as one parameter."""

    @abstractmethod
    def _open_stream(self, connection: Connection) -> Any:
        """A cursor whose rows are fetched from the database bit by bit."""

    def _execute(self, connection: Connection, statement: str, *parameters: Any) -> Any:
        return _cursor(connection).execute(self._written(statement), parameters)

    @contextmanager
    def _stream(self, connection: Connection, statement: str, *parameters: Any) -> Iterator[Any]:
        with closing(self._open_stream(connection)) as cursor:
            cursor.execute(self._written(statement), parameters)
            yield cursor

    def _written(self, statement: str) -> str:
        return statement.format(value=self._VALUE, listed=self._LISTED)


_DELETE: Final = """
UPDATE indexrelay_entries
SET generation = {value}, deleted = true, vector = NULL, text = NULL, payload = NULL
WHERE collection = {value} AND NOT deleted AND id {listed}
"""
_COUNT_LIVE: Final = """
SELECT count(*) FROM indexrelay_entries
WHERE collection = {value} AND NOT deleted AND id {listed}
"""
_LIVE_AMONG: Final = """
SELECT id FROM indexrelay_entries
WHERE collection = {value} AND NOT deleted AND id {listed}
"""
_PAYLOADS: Final = """
SELECT id, payload FROM indexrelay_entries
WHERE collection = {value} AND NOT deleted AND id {listed}
"""
_FIND: Final = """
SELECT text, payload FROM indexrelay_entries
WHERE collection = {value} AND NOT deleted AND id = {value}
"""
_LIVE: Final = """
SELECT id, vector, text, payload FROM indexrelay_entries
WHERE collection = {value} AND NOT deleted ORDER BY id
"""
_CHANGED: Final = """
SELECT id, vector, text, payload, deleted FROM indexrelay_entries
WHERE collection = {value} AND generation > {value} ORDER BY id
"""


class SqliteRows(BulkRows):
    """By the standard library's `sqlite3`."""

    _VALUE = "?"
    _LISTED = "IN (SELECT value FROM json_each(?))"
    _FETCHED_ROWS = 500  # a quarter of a megabyte at 128 dimensions
    _UPSERT: Final = """
    INSERT INTO indexrelay_entries (collection, generation, deleted, id, vector, text, payload)
    VALUES (?, ?, 0, ?, ?, ?, ?)
    ON CONFLICT (collection, id) DO UPDATE SET
      generation = excluded.generation, deleted = 0, vector = excluded.vector,
      text = coalesce(excluded.text, text), payload = coalesce(excluded.payload, payload)
    """
    _UPDATE: Final = """
    UPDATE indexrelay_entries
    SET generation = ?1,
        text = CASE WHEN ?4 THEN ?5 ELSE text END,
        payload = CASE WHEN ?6 THEN ?7 ELSE payload END
    WHERE collection = ?2 AND id = ?3 AND NOT deleted
    """

    def upsert(self, connection: Connection, key: int, generation: int, chunk: Entries) -> None:
        """One prepared statement, run for each row."""
        rows = zip(
            repeat(key),
            repeat(generation),
            chunk.ids,
            _vector_bytes(chunk.vectors),
            chunk.texts,
            chunk.payloads,
            strict=False,  # the first two never end
        )
        _cursor(connection).executemany(self._UPSERT, rows)

    def update(
        self, connection: Connection, key: int, generation: int, updates: Sequence[Update]
    ) -> int:
        """One prepared statement, run for each row."""
        rows = ((generation, key, *update) for update in updates)
        return int(_cursor(connection).executemany(self._UPDATE, rows).rowcount)

    def _list(self, ids: Sequence[str]) -> str:
        return json.dumps(ids, ensure_ascii=False)

    def _open_stream(self, connection: Connection) -> Any:
        return _cursor(connection)


class PostgresqlRows(BulkRows):
    """By psycopg 3: whole columns as arrays, one statement for each chunk, all in binary."""

    _VALUE = "%s"
    _LISTED = "= ANY (%b::text[])"
    _FETCHED_ROWS = CHUNK_ROWS  # smaller portions would be more round trips
    _UPSERT: Final = """
    INSERT INTO indexrelay_entries AS entry
      (collection, generation, deleted, id, vector, text, payload)
    SELECT %s, %s, false, row.id, row.vector, row.text, row.payload
    FROM unnest(%b::text[], %b::bytea[], %b::text[], %b::text[]) AS row (id, vector, text, payload)
    ON CONFLICT (collection, id) DO UPDATE SET
      generation = excluded.generation, deleted = false, vector = excluded.vector,
      text = coalesce(excluded.text, entry.text),
      payload = coalesce(excluded.payload, entry.payload)
    """
    _UPDATE: Final = """
    UPDATE indexrelay_entries AS entry
    SET generation = %s,
        text = CASE WHEN row.sets_text THEN row.text ELSE entry.text END,
        payload = CASE WHEN row.sets_payload THEN row.payload ELSE entry.payload END
    FROM unnest(%b::text[], %b::boolean[], %b::text[], %b::boolean[], %b::text[])
      AS row (id, sets_text, text, sets_payload, payload)
    WHERE entry.collection = %s AND entry.id = row.id AND NOT entry.deleted
    """

    def __init__(self) -> None:
        self._numbers = count()  # a server-side cursor needs a name of its own

    def upsert(self, connection: Connection, key: int, generation: int, chunk: Entries) -> None:
        """One statement for the whole chunk."""
        vectors = list(_vector_bytes(chunk.vectors))
        columns = chunk.ids, vectors, chunk.texts, chunk.payloads
        self._execute(connection, self._UPSERT, key, generation, *columns)

    def update(
        self, connection: Connection, key: int, generation: int, updates: Sequence[Update]
    ) -> int:
        """One statement for all of them."""
        columns = map(list, zip(*updates, strict=True))
        return int(self._execute(connection, self._UPDATE, generation, *columns, key).rowcount)

    def _list(self, ids: Sequence[str]) -> list[str]:
        return list(ids)

    def _open_stream(self, connection: Connection) -> Any:
        name = f"indexrelay_{next(self._numbers)}"
        driver: Any = connection.connection.driver_connection
        return driver.cursor(name, binary=True)


@contextmanager
def savepoint(connection: Connection) -> Iterator[None]:
    """A part of a transaction that an error takes back by itself.

    By the driver's cursor: SQLAlchemy's own takes a third of what a small batch does.
    """
    cursor = _cursor(connection)
    cursor.execute("SAVEPOINT part")
    try:
        yield
    except BaseException:
        cursor.execute("ROLLBACK TO SAVEPOINT part")
        raise
    finally:
        cursor.execute("RELEASE SAVEPOINT part")


def _cursor(connection: Connection) -> Any:
    """A cursor of the driver, inside the connection's transaction."""
    return connection.connection.cursor()


def _vector_bytes(vectors: Vectors) -> Iterator[memoryview]:
    """Each row as its stored bytes; they are not copied one by one."""
    width = vectors.shape[1] * STORED.itemsize
    stored = np.ascontiguousarray(vectors, dtype=STORED).data.cast("B")
    return (stored[start : start + width] for start in range(0, len(stored), width))


def _gather(
    fetch: Callable[[int], Sequence[StoredRow]], dimension: int, *, rows: int, portion: int
) -> Iterator[Entries]:
    """All rows that ``fetch(at most so many)`` returns, as columns of ``rows`` rows.

    A ``portion`` that fits the processor's cache is taken apart before the next one is fetched:
    to fetch 10,000 rows first, and then to go through all of them again, takes a third longer.
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


def entries_of(rows: Sequence[ChangedRow], dimension: int) -> Entries:
    """Live rows as columns."""
    vectors = b"".join([row[1] or b"" for row in rows])
    return Entries(
        ids=[row[0] for row in rows],
        vectors=np.frombuffer(bytearray(vectors), STORED)
        .reshape(len(rows), dimension)
        .astype(np.float32, copy=False),
        texts=[row[2] for row in rows],
        payloads=[row[3] for row in rows],
    )
