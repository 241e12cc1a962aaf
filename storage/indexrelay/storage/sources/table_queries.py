"""What is asked of a user's table, and how to ask it of one frozen moment.

The ids are cast to text and sorted by the bytes of that text, whatever their own type and collation
are, since that is the order that every source keeps.
"""

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from indexrelay.schemas.settings import TableSource
from indexrelay.storage.errors import SourceError
from indexrelay.storage.urls import connect_arguments, driver_url


class TableQueries:
    """The statements for one table; names are quoted where the database needs it."""

    def __init__(self, settings: TableSource, dialect: str) -> None:
        self._settings = settings
        self._table = sa.table(settings.table)
        self._vector: sa.ColumnElement[Any] = sa.column(settings.vector_column)
        self.skips_missing = settings.on_missing_vector == "skip"
        """Whether rows without a vector are left out."""
        id_: sa.ColumnElement[Any] = sa.cast(sa.column(settings.id_column), sa.Text)
        self._id = id_
        self._order: sa.ColumnElement[Any]
        match dialect:
            case "sqlite":
                self._order = id_.collate("BINARY")
            case "postgresql":
                self._order = id_.collate("C")
            case "mysql" | "mariadb":
                self._order = sa.cast(id_, sa.LargeBinary)
            case _:  # the reader checks the order that comes
                self._order = id_

    @property
    def counts(self) -> sa.Select[int, int]:
        """How many rows there are, and how many of them have a vector."""
        vectors: sa.ColumnElement[int] = sa.func.count(self._vector)
        return sa.select(sa.func.count(), vectors).select_from(self._table)

    @property
    def looks(self) -> sa.Select[Any] | None:
        """What differs when rows came, went or changed; ``None`` when no column says so."""
        updated_at = self._settings.updated_at_column
        if updated_at is None:
            return None
        newest: sa.ColumnElement[Any] = sa.func.max(sa.column(updated_at))
        return sa.select(sa.func.count(), newest).select_from(self._table)

    @property
    def rows(self) -> sa.Select[Any]:
        """id, vector, text, payload of every row that is to be read, in order."""
        settings = self._settings
        # As text whatever their types are: a JSON column would arrive decoded, or not, by driver.
        texts = [
            sa.null() if name is None else sa.cast(sa.column(name), sa.Text)
            for name in (settings.text_column, settings.payload_column)
        ]
        columns = [self._id, self._vector, *texts]
        named = [column.label(f"column_{n}") for n, column in enumerate(columns)]
        rows = sa.select(*named).select_from(self._table).order_by(self._order)
        return rows.where(self._vector.is_not(None)) if self.skips_missing else rows

    @property
    def sample(self) -> sa.Select[Any]:
        """One row of all columns that are ever asked for, if there is one that is to be read.

        The columns are named with their table: SQLite takes a quoted name that it does not know
        for a text.
        """
        settings = self._settings
        given = (
            settings.id_column,
            settings.vector_column,
            settings.text_column,
            settings.payload_column,
            settings.updated_at_column,
        )
        names = dict.fromkeys(name for name in given if name is not None)
        table = sa.table(settings.table, *map(sa.column, names))
        row = sa.select(*table.c).limit(1)
        vector = table.c[settings.vector_column]
        return row.where(vector.is_not(None)) if self.skips_missing else row


def table_engine(url: str) -> sa.Engine:
    """An engine whose every transaction is one frozen view.

    It keeps no connection open between two of them: a look now and then needs no pool, and there is
    nothing to close or to lose in a fork.

    Raises:
        SourceError: no URL, or an SQLite file that is not there (connecting would make it).
        MissingExtraError: psycopg is needed and not installed.
    """
    try:
        parsed = driver_url(url)
        engine = sa.create_engine(
            parsed, poolclass=NullPool, connect_args=connect_arguments(parsed)
        )
    except (sa.exc.ArgumentError, ImportError) as error:
        raise SourceError(f"source.url cannot be used: {type(error).__name__}") from error
    match engine.dialect.name:
        case "sqlite":
            if parsed.database is None or not Path(parsed.database).is_file():
                raise SourceError(f"there is no SQLite database {parsed.database!r}")
            _begin_ourselves(engine)
        case "postgresql":
            engine = engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        case "mysql" | "mariadb":
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
        case _:
            engine = engine.execution_options(isolation_level="SERIALIZABLE")
    return engine


def _begin_ourselves(engine: sa.Engine) -> None:
    """Python's driver opens no transaction for a SELECT: two of them could see two states."""

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, record: object) -> None:  # noqa: ARG001 - SQLAlchemy's signature
        connection.isolation_level = None
        connection.execute("PRAGMA query_only = ON")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")
