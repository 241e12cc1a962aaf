"""Search by the signs of vectors, one bit for each number: an incremental kind."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from indexrelay.components import (
    Check,
    Closable,
    Entries,
    Files,
    Hit,
    InvalidQueryError,
    SourceSnapshot,
    Vectors,
    checked_k,
)
from indexrelay.components.layered import (
    ArrayColumn,
    LayeredKind,
    LayeredParameters,
    LayeredTable,
    TextColumn,
)

SIGNS = ArrayColumn("signs", np.uint8)
PAYLOADS = TextColumn("payloads")


class SignParameters(LayeredParameters):
    """The keys of a ``kind = "signs:SignIndex"`` table."""

    threshold: float = 0.0
    """A number above it is a 1."""


def signs_of(vectors: Vectors, threshold: float) -> NDArray[np.uint8]:
    """Eight signs to a byte, shape ``(n, bytes)``."""
    return np.packbits(vectors > threshold, axis=1)


class SignSearch(Closable):
    """What a reader serves. Immutable, so any number of threads may search at once."""

    _closed_by = frozenset({"_table"})

    def __init__(self, files: Files, threshold: float) -> None:
        self._table = LayeredTable(files, (SIGNS, PAYLOADS))
        self._threshold = threshold

    def __len__(self) -> int:
        return len(self._table)

    def search(self, vector: ArrayLike, *, k: int = 10) -> list[Hit]:
        """The ``k`` entries with the most equal signs; the score is minus the number of others."""
        signs = signs_of(np.asarray(vector, dtype=np.float32).reshape(1, -1), self._threshold)
        if signs.shape[1:] != self._table[SIGNS].row_shape:
            raise InvalidQueryError("the query has another dimension than the collection")
        return self._nearest(signs, checked_k(k))

    def search_by_id(self, entry_id: str, *, k: int = 10) -> list[Hit]:
        """The ``k`` entries most like one that is in here, without itself."""
        hits = self._nearest(self._table[SIGNS].row(entry_id), checked_k(k) + 1)
        return [hit for hit in hits if hit.id != entry_id][:k]

    def _nearest(self, signs: NDArray[np.uint8], k: int) -> list[Hit]:
        others = np.empty(len(self), dtype=np.int64)
        for first, block in self._table[SIGNS].blocks():
            others[first : first + len(block)] = np.unpackbits(block ^ signs, axis=1).sum(axis=1)
        rows = np.argsort(others, kind="stable")[:k]
        found = zip(self._table.ids.many(rows), rows, self._table[PAYLOADS].at(rows), strict=True)
        return [
            Hit(entry_id, float(-others[row]), None if payload is None else json.loads(payload))
            for entry_id, row, payload in found
        ]

    def close(self) -> None:
        self._table.close()
        del self._table


class SignIndex(LayeredKind[SignParameters, SignSearch]):
    """One bit for each number of a vector: a 32nd of the bytes."""

    columns = (SIGNS, PAYLOADS)

    def rows_of(self, entries: Entries) -> Sequence[Any]:
        return signs_of(entries.vectors, self.parameters.threshold), entries.payloads

    def checks(
        self, table: LayeredTable, source: SourceSnapshot, *, whole: bool
    ) -> Iterator[Check]:
        bits = 8 * table[SIGNS].row_shape[0]
        yield Check(name="dimension", passed=bits - 8 < source.dimension <= bits, measured=bits)

    def load(self, files: Files) -> SignSearch:
        return SignSearch(files, self.parameters.threshold)
