"""What both drivers are asked to do with many entries at once.

SQLAlchemy builds every other statement of the catalog; these few go to the driver's own cursor,
because a row that passes through SQLAlchemy costs about twice as much (0.54 of the driver's speed
when writing, 0.65 when reading).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from sqlalchemy import Connection

from indexrelay.storage.entries import Entries, Vectors


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
