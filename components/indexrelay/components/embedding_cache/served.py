"""An embedding cache as a reader serves it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from indexrelay.components.closing import Closable
from indexrelay.components.errors import DamagedFileError
from indexrelay.components.id_table import IdTable
from indexrelay.components.mapped_array import mapped_array
from indexrelay.storage.entries import Vectors

MATRIX: Final = "matrix.npy"
IDS: Final = "ids.table"


class Embeddings(Closable):
    """Vectors by id; immutable, and safe to use from many threads."""

    _closed_by = frozenset({"_matrix"})

    def __init__(self, files: Mapping[str, Path]) -> None:
        """Map the files of a version.

        Raises:
            DamagedFileError: one of them is not what was written.
            OSError: one of them cannot be opened.
        """
        self._ids = IdTable(files[IDS])
        self._matrix: Vectors = mapped_array(files[MATRIX], (None, None), np.float32)
        if len(self._matrix) != len(self._ids):
            raise DamagedFileError(
                files[MATRIX], f"it has {len(self._matrix)} rows for {len(self._ids)} ids"
            )

    @property
    def ids(self) -> Sequence[str]:
        """The id of every row: a mapped sequence, not a list."""
        return self._ids

    @property
    def matrix(self) -> Vectors:
        """All vectors, read-only, of shape ``(len, dimension)``; mapped: usable until `close`."""
        return self._matrix

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        return int(self._matrix.shape[1])

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
        vector: Vectors = self._matrix[self._ids.row(entry_id)]
        return vector

    def get_many(self, entry_ids: Iterable[str]) -> Vectors:
        """A copy of some vectors in the order asked for, shape ``(n, dimension)``.

        Raises:
            UnknownEntryError: one is not in here; the error names the first.
        """
        rows = [self._ids.row(entry_id) for entry_id in entry_ids]
        return np.asarray(self._matrix[np.array(rows, dtype=np.int64)])

    def warm(self) -> None:
        """Touch what a first look-up would have to fetch from disk."""
        if len(self):
            self.get(self._ids[0]).sum()

    def close(self) -> None:
        """Let go of the maps; a view that was handed out keeps its own hold on them."""
        del self._matrix
        self._ids.close()
