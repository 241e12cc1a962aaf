"""An embedding cache as a reader serves it."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from indexrelay.components.closing import Closable
from indexrelay.components.errors import DamagedFileError
from indexrelay.components.layered_ids import Found, LayeredIds
from indexrelay.components.mapped_array import mapped_array
from indexrelay.components.string_table import Rows
from indexrelay.storage.entries import Vectors

MATRIX: Final = "matrix.npy"
DELTA: Final = "delta.npy"
BLOCK_ROWS: Final = 8192
"""4 MB at 128 dimensions: stays in a processor's cache while it is computed with."""


class Embeddings(Closable):
    """Vectors by id; immutable, and safe to use from many threads."""

    _closed_by = frozenset({"_base", "_delta"})

    def __init__(self, files: Mapping[str, Path]) -> None:
        """Map the files of a version.

        Raises:
            DamagedFileError: one of them is not what was written.
            OSError: one of them cannot be opened.
        """
        self._ids = LayeredIds(files)
        self._base = _rows(files[MATRIX], len(self._ids.base), None)
        self._delta = self._base[:0]
        if self._ids.delta is not None:
            self._delta = _rows(files[DELTA], len(self._ids.delta), self.dimension)

    @property
    def ids(self) -> LayeredIds:
        """Every id, in the order of their UTF-8 bytes: a mapped sequence, not a list."""
        return self._ids

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        return int(self._base.shape[1])

    def __len__(self) -> int:
        return len(self._ids)

    def __bool__(self) -> bool:
        """A cache is there, even one without entries; ask for its ``len``."""
        return True

    def __contains__(self, entry_id: object) -> bool:
        return entry_id in self._ids

    def get(self, entry_id: str) -> Vectors:
        """A read-only view of one vector, shape ``(dimension,)``.

        Raises:
            UnknownEntryError: it is not in here.
        """
        return self._view(self._ids.locate(entry_id))

    def get_many(self, entry_ids: Iterable[str]) -> Vectors:
        """A copy of some vectors in the order asked for, shape ``(n, dimension)``.

        Raises:
            UnknownEntryError: one is not in here; the error names the first.
        """
        found = [self._view(self._ids.locate(entry_id)) for entry_id in entry_ids]
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
        for first in range(0, len(self), rows):
            yield first, self.block(first, min(first + rows, len(self)))

    def block(self, first: int, end: int) -> Vectors:
        """The vectors of the rows ``first`` to ``end`` (left out), as `blocks` gives them."""
        in_delta, rows = self._ids.layers.locate(np.arange(first, end))
        if not in_delta.any() and _side_by_side(rows):
            return self._base[rows[0] : rows[-1] + 1]
        block = np.empty((len(rows), self.dimension), dtype=np.float32)
        block[in_delta] = self._delta[rows[in_delta]]
        block[~in_delta] = self._base[rows[~in_delta]]
        block.flags.writeable = False
        return block

    def to_numpy(self) -> Vectors:
        """All vectors as one read-only array, shape ``(len, dimension)``, in the order of `ids`.

        Without a copy where the version was written in one piece; else a new array of
        ``4 * len * dimension`` bytes that belongs to this process alone: `blocks` needs none.
        """
        if self._ids.layers.plain:
            return self._base
        return self.block(0, len(self))

    @property
    def delta(self) -> Vectors:
        """The vectors that came or changed since the base was written, shape ``(m, dimension)``."""
        return self._delta

    def warm(self) -> None:
        """Touch what a first look-up would have to fetch from disk."""
        if len(self):
            self.block(0, 1).sum()

    def close(self) -> None:
        """Let go of the maps; a view that was handed out keeps its own hold on them."""
        del self._base, self._delta
        self._ids.close()

    def _view(self, found: Found) -> Vectors:
        layer = self._delta if found.in_delta else self._base
        vector: Vectors = layer[found.row]
        return vector


def _side_by_side(rows: Rows) -> bool:
    return len(rows) > 0 and int(rows[-1] - rows[0]) == len(rows) - 1


def _rows(path: Path, count: int, dimension: int | None) -> Vectors:
    array: Vectors = mapped_array(path, (None, dimension), np.float32)
    if len(array) != count:
        raise DamagedFileError(path, f"it has {len(array)} rows for {count} ids")
    return array
