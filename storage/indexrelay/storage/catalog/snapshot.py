"""A collection's own entries, read inside one transaction."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection

from indexrelay.schemas.settings import Metric
from indexrelay.storage.catalog.bulk import BulkRows, ChangedRow, StoredRow, entries_of
from indexrelay.storage.entries import CHUNK_ROWS, Changes, Entries
from indexrelay.storage.errors import SnapshotClosedError


@dataclass(frozen=True, kw_only=True)
class CatalogSnapshot:
    """`SourceSnapshot` of entries that the catalog keeps."""

    collection: str
    epoch: str
    generation: int
    dimension: int
    metric: Metric
    count: int
    floor: int
    """The oldest generation whose changes can be told."""
    _key: int = field(repr=False)
    _connection: Connection = field(repr=False)
    _bulk: BulkRows = field(repr=False)

    @property
    def left_out(self) -> Mapping[str, int]:
        """Nothing: what cannot be an entry is refused when it is committed."""
        return {}

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Entries]:
        """Every live entry once, in the order of the ids' UTF-8 bytes.

        Raises:
            SnapshotClosedError: the ``with`` is over.
        """
        self._check_open()
        for chunk in self._bulk.live(self._connection, self._key, self.dimension, rows):
            yield chunk
            self._check_open()

    def changes(self, after: int, rows: int = CHUNK_ROWS) -> Iterator[Changes] | None:
        """What changed in (``after``, ``generation``], in the order of the ids' UTF-8 bytes.

        A delete may name an entry that came after ``after`` and went again. ``None`` when
        ``after`` is older than the oldest remembered delete, or lies in the future.

        Raises:
            SnapshotClosedError: the ``with`` is over.
        """
        if not self.floor <= after <= self.generation:
            return None
        return self._changes(after, rows)

    def _changes(self, after: int, rows: int) -> Iterator[Changes]:
        self._check_open()
        for chunk in self._bulk.changed(self._connection, self._key, after, rows):
            yield Changes(
                upserts=entries_of([_stored(row) for row in chunk if not row[4]], self.dimension),
                deletes=[row[0] for row in chunk if row[4]],
            )
            self._check_open()

    def _check_open(self) -> None:
        """SQLite would let a cursor run on outside of the transaction, into newer rows."""
        if self._connection.closed:
            raise SnapshotClosedError(self.collection)


def _stored(row: ChangedRow) -> StoredRow:
    return row[:4]  # type: ignore[return-value] # only a tombstone has no vector
