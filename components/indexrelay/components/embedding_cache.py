"""The vectors themselves, by id: matrices and a table of ids, all mapped.

For services that compute with embeddings rather than search them. It holds what the collection
holds, bit for bit: nothing is normalised. All processes of a host share its pages.

A version that follows a small batch names the base of the one before it again, and writes a delta
and tombstones beside it: its cost follows the batch (`indexrelay.components.layered.LayeredKind`).
An upsert that gives an entry again bit for bit is no change.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from indexrelay.components.kind import Verdict, equal, judge
from indexrelay.components.layered.columns import BLOCK_ROWS, ArrayColumn, LayeredTable
from indexrelay.components.layered.kind import LayeredKind, LayeredParameters
from indexrelay.components.layered.layers import LayeredIds
from indexrelay.components.served import Closable
from indexrelay.schemas.versions import Check
from indexrelay.storage.entries import Entries, SourceSnapshot, Vectors

MATRIX: Final = ArrayColumn("matrix", np.float32, delta_file="delta.npy")


class EmbeddingCacheParameters(LayeredParameters):
    """The keys of a ``kind = "embedding_cache"`` table."""


class Embeddings(Closable):
    """Vectors by id; immutable, and safe to use from many threads."""

    _closed_by = frozenset({"_table", "_vectors"})

    def __init__(self, files: Mapping[str, Path]) -> None:
        """Map the files of a version.

        Raises:
            CorruptFileError: one of them is not what was written.
            OSError: one of them cannot be opened.
        """
        self._table = LayeredTable(files, (MATRIX,))
        self._vectors = self._table[MATRIX]

    @property
    def ids(self) -> LayeredIds:
        """Every id, in the order of their UTF-8 bytes: a mapped sequence, not a list."""
        return self._table.ids

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        return self._vectors.row_shape[0]

    def __len__(self) -> int:
        return len(self.ids)

    def __bool__(self) -> bool:
        """A cache is there, even one without entries; ask for its ``len``."""
        return True

    def __contains__(self, entry_id: object) -> bool:
        return entry_id in self.ids

    def get(self, entry_id: str) -> Vectors:
        """A read-only view of one vector, shape ``(dimension,)``.

        Raises:
            UnknownEntryError: it is not in here.
        """
        return self._vectors.row(entry_id)

    def get_many(self, entry_ids: Iterable[str]) -> Vectors:
        """A copy of some vectors in the order asked for, shape ``(n, dimension)``.

        Raises:
            UnknownEntryError: one is not in here; the error names the first.
        """
        found = [self.get(entry_id) for entry_id in entry_ids]
        return np.array(found, dtype=np.float32).reshape(len(found), self.dimension)

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[tuple[int, Vectors]]:
        """All vectors in the order of `ids`, at most ``rows`` at a time, to compute with.

        Each block comes with the number of its first row, has the shape ``(m, dimension)``, and is
        read-only: a view of the mapped file where the rows lie there side by side, which after
        small batches most do, else a copy of these rows alone::

            scores = np.empty(len(cache), np.float32)
            for first, vectors in cache.blocks():
                scores[first : first + len(vectors)] = vectors @ query
        """
        return self._vectors.blocks(rows)

    def to_numpy(self) -> Vectors:
        """All vectors as one read-only array, shape ``(len, dimension)``, in the order of `ids`.

        Without a copy where the version was written in one piece; else a new array of
        ``4 * len * dimension`` bytes that belongs to this process alone: `blocks` needs none.
        """
        return self._vectors.whole()

    def warm(self) -> None:
        """Touch what a first look-up would have to fetch from disk."""
        if len(self):
            self._vectors.block(0, 1).copy()  # no sum: of what a file may hold NumPy warns

    def close(self) -> None:
        """Let go of the maps; a view that was handed out keeps its own hold on them."""
        self._table.close()
        del self._table, self._vectors


class EmbeddingCache(LayeredKind[EmbeddingCacheParameters, Embeddings]):
    """The vectors of one collection, as they are."""

    columns = (MATRIX,)
    preload = ("numpy",)

    def rows_of(self, entries: Entries) -> Sequence[Vectors]:
        """The vectors."""
        return [entries.vectors]

    def checks(
        self, table: LayeredTable, source: SourceSnapshot, *, whole: bool
    ) -> Iterator[Check]:
        """Every vector has the collection's dimension, and is finite."""
        vectors = table[MATRIX]
        yield judge(
            "dimension",
            lambda: equal(vectors.row_shape[0], source.dimension, "vectors have another length"),
        )
        blocks = (block for _, block in vectors.blocks()) if whole else iter([vectors.delta])
        yield judge("vectors_finite", lambda: _finite(blocks))

    def load(self, files: Mapping[str, Path]) -> Embeddings:
        """Map a version for serving.

        Raises:
            CorruptFileError: one of its files is not what was written.
        """
        served = Embeddings(files)
        served.warm()
        return served


def _finite(blocks: Iterable[Vectors]) -> Verdict:
    wrong = sum(int(np.count_nonzero(~np.isfinite(block).all(axis=1))) for block in blocks)
    return equal(wrong, 0, "vectors hold a NaN or an infinity")
