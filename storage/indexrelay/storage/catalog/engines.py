"""An SQLAlchemy engine for each of the two databases, set so that both keep the same promises.

**SQLite.** Python's driver opens transactions at moments of its own choosing; it is told not to,
and ``BEGIN`` is said here: plain for readers, ``BEGIN IMMEDIATE`` for writers, because a
transaction that reads first and writes later gets "database is locked" at once, whatever the
time-out (101 times in one probe). WAL lets readers go on beside a writer. ``synchronous=FULL``
costs one fsync per commit and is not optional here: without it a power cut can take back the last
commits, and their generation numbers would be given out a second time.

**PostgreSQL.** Writers run at READ COMMITTED, so that after waiting for the generation's row they
see what the one before them wrote; snapshots run at REPEATABLE READ, read-only.

A file of SQLite's that was replaced (a backup moved into its place) lives on, nameless, in whoever
has it open: what is committed there is lost. So a connection to another file than the one that has
the name now is given up when it would be used next.

An open connection must not be carried across a fork: closing it in the child would break the
parent's. The child forgets them and opens its own.
"""

import contextlib
import os
import sqlite3
import weakref
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import ArgumentError, DisconnectionError

from indexrelay.schemas.file_locks import LockWaits
from indexrelay.schemas.private_files import FILE_MODE, make_private_folder
from indexrelay.storage.errors import CatalogUrlError
from indexrelay.storage.urls import connect_arguments, driver_url

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
