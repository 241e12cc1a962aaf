"""The three kinds of transaction that the catalog knows, and nothing else of SQLAlchemy's engine.

`read` sees committed rows, `write` is the only one that may change any, `snapshot` sees the same
rows however long it lasts.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from sqlalchemy import Connection, Engine, Table
from sqlalchemy.dialects import postgresql, sqlite

from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.file_locks import LockWaits
from indexrelay.storage.catalog import schema
from indexrelay.storage.catalog.bulk import BulkRows
from indexrelay.storage.catalog.bulk_postgresql import PostgresqlRows
from indexrelay.storage.catalog.bulk_sqlite import SqliteRows
from indexrelay.storage.catalog.engines import BEGIN, WRITING, make_engine, sqlite_file


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
