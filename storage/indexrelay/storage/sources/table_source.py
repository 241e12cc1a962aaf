"""The source of collections that lie in a user's own SQL table."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from indexrelay.schemas.canonical import canonical_json
from indexrelay.schemas.settings import TableSource
from indexrelay.storage.catalog import Collection
from indexrelay.storage.entries import CHUNK_ROWS, Entries, SourceSnapshot
from indexrelay.storage.errors import InvalidEntriesError, SourceError
from indexrelay.storage.sources.declared import DeclaredCollection
from indexrelay.storage.sources.outside import OutsideSnapshot, refused
from indexrelay.storage.sources.table_queries import TableQueries, table_engine
from indexrelay.storage.sources.table_vectors import decode_vectors
from indexrelay.storage.validation import SizeLimits, check_entries, check_ids


class EntriesFromTable:
    """`CollectionSource` of a table.

    With ``updated_at_column`` the table looks new when that column's greatest value or the number
    of rows does. Without it only `EntryLog.mark` says so.
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
            return self._count(self._connect(stack)).left_out

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
                counts = self._count(connection)
            sizes = self._declared.sizes
            yield TableSnapshot(collection, sizes, counts, connection, self._queries, self._where)

    @cached_property
    def _engine(self) -> Engine:
        return table_engine(self._settings.url.get_secret_value())

    @cached_property
    def _queries(self) -> TableQueries:
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

    def _count(self, connection: Connection) -> "_Counts":
        rows, vectors = connection.execute(self._queries.counts).one()
        if not self._queries.skips_missing:
            return _Counts(given=rows, left_out={})
        missing = rows - vectors
        return _Counts(given=vectors, left_out={"without_vector": missing} if missing else {})

    def _connect(self, stack: ExitStack) -> Connection:
        """A connection with its transaction; both end with ``stack``."""
        connection = stack.enter_context(self._engine.connect())
        stack.enter_context(connection.begin())
        return connection


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """Rows of a table at one moment."""

    given: int
    left_out: Mapping[str, int]


class TableSnapshot(OutsideSnapshot):
    """The table's rows, as a stream."""

    def __init__(
        self,
        collection: Collection,
        sizes: SizeLimits,
        counts: "_Counts",
        connection: Connection,
        queries: TableQueries,
        where: str,
    ) -> None:
        super().__init__(collection, sizes, counts.given, counts.left_out)
        self._connection = connection
        self._queries = queries
        self._where = where

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
                sizes=self._sizes,
            )
        except InvalidEntriesError as error:
            raise refused(error, self._where, lambda row: f"id {ids[row]!r:.80}") from error

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
    """Say which table it was that the database complained of."""
    try:
        yield
    except SQLAlchemyError as error:
        reason = getattr(error, "orig", None) or error
        # A server's answer goes on for lines, about where in the statement it was.
        said = str(reason).strip().partition("\n")[0]
        raise SourceError(f"{where} cannot be read: {said}") from error
