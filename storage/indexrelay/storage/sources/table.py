"""The source of collections in a user's own SQL table.

The ids are cast to text and sorted by the bytes of that text, whatever their own type and collation
are, since every source keeps that order. Everything is read in one transaction that shows one
moment. A vector may be bytes (float32), JSON text, or what a driver made of it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import sqlalchemy as sa
from numpy.typing import ArrayLike
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.names import canonical_json
from indexrelay.schemas.settings import TableSource
from indexrelay.storage.catalog.collections import Collection, DeclaredCollection
from indexrelay.storage.entries import CHUNK_ROWS, Entries, SnapshotBase, SourceSnapshot
from indexrelay.storage.errors import InvalidEntriesError, SourceError
from indexrelay.storage.urls import connect_arguments, driver_url
from indexrelay.storage.validation import EntryRules, check_entries, check_ids


class EntriesFromTable:
    """`CollectionSource` of a table.

    With ``updated_at_column`` the table looks new when that column's greatest value or the number
    of rows changes. Without it only `EntryLog.mark` gives it a new generation.
    """

    def __init__(self, declared: DeclaredCollection, settings: TableSource) -> None:
        self._declared = declared
        self._settings = settings

    def observe(self) -> int:
        """Number the table as it looks now.

        Raises:
            SourceError: it cannot be read.
        """
        return self._number().generation

    def look(self) -> int | None:
        """0: there is no row that would be read; ``None``: there are some.

        Raises:
            SourceError: the database, the table or one of its columns cannot be read.
        """
        with _named(self._where), ExitStack() as stack:
            row = self._connect(stack).execute(self._queries.sample).first()
        return 0 if row is None else None

    def left_out(self) -> Mapping[str, int]:
        """How many rows have no vector now, where such rows are left out.

        Raises:
            SourceError: it cannot be read.
        """
        with _named(self._where), ExitStack() as stack:
            return self._count(self._connect(stack))[1]

    @contextmanager
    def snapshot(self) -> Iterator[SourceSnapshot]:
        """One read transaction of the table's database.

        Raises:
            SourceError: it cannot be read, or rows cannot be entries; the latter while reading.
        """
        collection = self._number()
        with ExitStack() as stack:
            with _named(self._where):
                connection = self._connect(stack)
                count, left_out = self._count(connection)
            yield TableSnapshot(
                collection=collection.name,
                epoch=collection.epoch,
                generation=collection.generation,
                dimension=collection.dimension,
                metric=collection.metric,
                count=count,
                left_out=left_out,
                _rules=self._declared.rules,
                _connection=connection,
                _queries=self._queries,
                _where=self._where,
            )

    @cached_property
    def _engine(self) -> sa.Engine:
        return table_engine(self._settings.url.get_secret_value())

    @cached_property
    def _queries(self) -> "TableQueries":
        return TableQueries(self._settings, self._engine.dialect.name)

    @property
    def _where(self) -> str:
        return f"table {self._settings.table!r} of collection {self._declared.name!r}"

    def _number(self) -> Collection:
        if self._queries.looks is None:
            return self._declared.current()
        with _named(self._where), ExitStack() as stack:
            count, newest = self._connect(stack).execute(self._queries.looks).one()
        return self._declared.numbered(canonical_json([count, str(newest)]).decode())

    def _count(self, connection: sa.Connection) -> tuple[int, dict[str, int]]:
        """How many rows there are to read, and how many are left out."""
        rows, vectors = connection.execute(self._queries.counts).one()
        if rows == vectors or not self._queries.skips_missing:
            return rows, {}
        return vectors, {"without_vector": rows - vectors}

    def _connect(self, stack: ExitStack) -> sa.Connection:
        """A connection with its transaction; both end with ``stack``."""
        connection = stack.enter_context(self._engine.connect())
        stack.enter_context(connection.begin())
        return connection


@dataclass(frozen=True, kw_only=True)
class TableSnapshot(SnapshotBase):
    """The table's rows, as a stream."""

    _rules: EntryRules
    _connection: sa.Connection
    _queries: "TableQueries"
    _where: str

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Entries]:
        """Every row once, in the order of the ids' UTF-8 bytes.

        Raises:
            SourceError: rows that cannot be entries; the message names their ids.
        """
        streaming = {"stream_results": True, "max_row_buffer": rows}
        before: list[str] = []
        with (
            _named(self._where),
            self._connection.execute(self._queries.rows, execution_options=streaming) as result,
        ):
            for chunk in result.partitions(rows):
                entries = self._entries(*zip(*chunk, strict=True))
                self._check_order([*before, *entries.ids])
                yield entries
                before = entries.ids[-1:]

    def _entries(
        self,
        ids: tuple[Any, ...],
        vectors: tuple[Any, ...],
        texts: tuple[Any, ...],
        payloads: tuple[Any, ...],
    ) -> Entries:
        try:
            known = check_ids(ids)  # before anything else, since the others are named by them
            return check_entries(
                known,
                decode_vectors(vectors, known, dimension=self.dimension),
                texts,
                payloads,
                dimension=self.dimension,
                metric=self.metric,
                payloads_are_json=True,
                rules=self._rules,
            )
        except InvalidEntriesError as error:
            raise error.in_source(self._where, lambda row: f"id {ids[row]!r:.80}") from error

    def _check_order(self, ids: list[str]) -> None:
        for before, id_ in pairwise(ids):
            if before == id_:
                raise SourceError(f"{self._where}: id given more than once: id {id_!r:.80}")
            if before > id_:  # by code point, whose order is that of the UTF-8 bytes
                raise SourceError(
                    f"{self._where}: the database sorts {before!r:.80} before {id_!r:.80}, "
                    "not by bytes; give the id column a binary collation"
                )


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Name the table in the errors of its database."""
    try:
        yield
    except SQLAlchemyError as error:
        reason = getattr(error, "orig", None) or error
        # Further lines of a server's answer show where in the statement it was.
        said = str(reason).strip().partition("\n")[0]
        raise SourceError(f"{where} cannot be read: {said}") from error


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
            case _:  # the snapshot checks the order of what it reads
                self._order = id_

    @property
    def counts(self) -> sa.Select[int, int]:
        """How many rows there are, and how many of them have a vector."""
        vectors: sa.ColumnElement[int] = sa.func.count(self._vector)
        return sa.select(sa.func.count(), vectors).select_from(self._table)

    @property
    def looks(self) -> sa.Select[Any] | None:
        """What differs when rows were added, removed or changed; ``None``: no column shows it."""
        updated_at = self._settings.updated_at_column
        if updated_at is None:
            return None
        newest: sa.ColumnElement[Any] = sa.func.max(sa.column(updated_at))
        return sa.select(sa.func.count(), newest).select_from(self._table)

    @property
    def rows(self) -> sa.Select[Any]:
        """id, vector, text, payload of every row that is to be read, in order."""
        settings = self._settings
        # As text whatever their types are: some drivers decode JSON columns.
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
        """One row of all columns that are ever read, if there is one.

        The columns are named with their table: SQLite takes an unknown quoted name for a text.
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
    """An engine whose every transaction shows one moment.

    It keeps no connection open between two of them: an occasional look needs no pool, and there is
    nothing to close or to lose in a fork.

    Raises:
        SourceError: no URL, or an SQLite file that does not exist (connecting would create it).
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
            _begin_explicitly(engine)
        case "postgresql":
            engine = engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        case "mysql" | "mariadb":
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
        case _:
            engine = engine.execution_options(isolation_level="SERIALIZABLE")
    return engine


def _begin_explicitly(engine: sa.Engine) -> None:
    """Python's driver opens no transaction for a SELECT: two of them could see two states."""

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, record: object) -> None:  # noqa: ARG001 - SQLAlchemy's signature
        connection.isolation_level = None
        connection.execute("PRAGMA query_only = ON")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")


_BYTES: Final = (bytes, bytearray, memoryview)
_NUMBERS: Final = frozenset({int, float})
_IN_JSON: Final = {dict: "an object", str: "a text", bool: "true or false", type(None): "null"}


class _NoVectorError(IndexRelayError):
    """Raised where a value is no vector, with what it is instead."""


def decode_vectors(values: Sequence[Any], ids: Sequence[str], *, dimension: int) -> ArrayLike:
    """One column of a chunk as something `numpy.asarray` takes.

    Bytes are float32 in the machine's order; text is a JSON array (pgvector's text form is one).

    Raises:
        InvalidEntriesError: no vector, bytes of another length, text that is no JSON array of as
            many numbers, anything else; the rows that have the first one's problem are named.
    """
    size = dimension * 4
    if all(isinstance(value, _BYTES) and len(value) == size for value in values):
        stored = np.frombuffer(bytearray().join(values), dtype=np.float32)
        return stored.reshape(len(values), dimension)
    vectors: list[Any] = []
    problems: dict[int, str] = {}
    for row, value in enumerate(values):
        try:
            vectors.append(_numbers(value, dimension))
        except _NoVectorError as error:
            problems[row] = str(error)
    if problems:
        problem = next(iter(problems.values()))
        rows = [row for row, each in problems.items() if each == problem]
        raise InvalidEntriesError(problem, rows=rows, ids=ids)
    return vectors


def _numbers(value: Any, dimension: int) -> Any:
    """One vector, as a list or an array.

    Raises:
        _NoVectorError: it is none.
    """
    match value:
        case None:
            raise _NoVectorError(
                "no vector (NULL); embed the row, or leave it out with "
                'on_missing_vector = "skip" in the table of its source'
            )
        case bytes() | bytearray() | memoryview():
            return _from_bytes(bytes(value), dimension)
        case str():
            return _checked(_from_json(value), dimension)
        case list() | tuple():
            return _checked(list(value), dimension)
        case np.ndarray():
            return value
        case _:
            raise _NoVectorError(
                f"vector of type {type(value).__name__}, neither bytes nor a JSON array"
            )


def _from_bytes(value: bytes, dimension: int) -> Any:
    size = dimension * 4
    if len(value) == size:
        return np.frombuffer(value, dtype=np.float32)
    wanted = f"not of {dimension} float32 values ({size} bytes)"
    if not value:
        raise _NoVectorError(f"vector of 0 bytes, {wanted}; a row without a vector has NULL")
    hint = "; are these float64 values?" if len(value) == 2 * size else ""
    raise _NoVectorError(f"vector of {len(value)} bytes, {wanted}{hint}")


def _from_json(text: str) -> list[Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise _NoVectorError("vector text that is no JSON array") from None
    if not isinstance(value, list):
        kind = _IN_JSON.get(type(value), "a number")
        advice = "; a row without a vector has NULL" if value is None else ""
        raise _NoVectorError(f"vector text that is JSON, but {kind} and no array{advice}")
    return value


def _checked(numbers: list[Any], dimension: int) -> list[Any]:
    if len(numbers) != dimension:
        raise _NoVectorError(f"vector of {len(numbers)} numbers, not of {dimension}")
    if not _NUMBERS.issuperset(map(type, numbers)):
        for place, number in enumerate(numbers):
            if isinstance(number, bool) or number is None or isinstance(number, list | dict | str):
                kind = _IN_JSON.get(type(number), "an array")
                raise _NoVectorError(f"vector that has {kind} in place of a number (at {place})")
    return numbers
