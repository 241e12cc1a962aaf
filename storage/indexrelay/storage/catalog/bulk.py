"""What both drivers are asked to do with many entries at once.

SQLAlchemy builds every other statement of the catalog; these few go to the driver's own cursor,
because a row that passes through SQLAlchemy costs about twice as much (0.54 of the driver's speed
when writing, 0.65 when reading).
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from sqlalchemy import Connection

from indexrelay.storage.entries import Entries, Vectors

StoredRow = tuple[str, bytes, str | None, str | None]
"""id, vector, text, payload."""

ChangedRow = tuple[str, bytes | None, str | None, str | None, bool]
"""The same, and whether it is a tombstone."""

STORED = np.dtype("<f4")
"""How vectors are kept, whatever the machine's byte order."""


class BulkRows(Protocol):
    """Many entries of one collection, by its ``key``, inside a transaction that is the caller's."""

    def upsert(self, connection: Connection, key: int, generation: int, chunk: Entries) -> None:
        """Write ``chunk``, whose ids differ, as it stands at ``generation``."""
        ...

    def delete(self, connection: Connection, key: int, generation: int, ids: Sequence[str]) -> int:
        """Turn the live ones among ``ids`` into tombstones; say how many there were."""
        ...

    def count_live(self, connection: Connection, key: int, ids: Sequence[str]) -> int:
        """How many of ``ids``, which differ, are live."""
        ...

    def live(self, connection: Connection, key: int, rows: int) -> Iterator[list[StoredRow]]:
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


def entries_of(rows: Sequence[StoredRow], dimension: int) -> Entries:
    """Stored rows as columns; the vectors are one array, made in one go."""
    if not rows:
        return Entries(ids=[], vectors=np.empty((0, dimension), np.float32), texts=[], payloads=[])
    columns: tuple[Any, ...] = tuple(zip(*rows, strict=True))
    ids, vectors, texts, payloads = columns
    # A bytearray rather than bytes: numpy leaves the array writable.
    stored = np.frombuffer(bytearray().join(vectors), dtype=STORED)
    return Entries(
        ids=list(ids),
        vectors=stored.reshape(len(rows), dimension).astype(np.float32, copy=False),
        texts=list(texts),
        payloads=list(payloads),
    )
