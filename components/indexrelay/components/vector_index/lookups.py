"""The exact vector of a row, whatever the index keeps of it.

Most indexes do not keep the vectors that were added, or cannot find them by row. A `Lookup` gives
the exact vector of a row, from what the version holds for it:

* the index itself keeps every vector by row (a scan, a graph over full vectors, a flat refinement);
* inverted lists keep it in full, but by list: ``places.npy`` names list and position of each row,
  as ``list << 32 | position``. FAISS's own direct map would be memory of every process's own;
* anything compressed or transformed: ``vectors.npy`` keeps the vectors beside it. It is mapped,
  and only a look-up touches it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.formats.mapped_array import mapped_array, save_array
from indexrelay.components.formats.string_table import Rows
from indexrelay.components.vector_index.mapped_index import require_faiss, rows_by_list
from indexrelay.components.vector_index.metrics import BLOCK_ROWS
from indexrelay.storage.entries import Vectors

PLACES: Final = "places.npy"
VECTORS: Final = "vectors.npy"
"""Of this and `PLACES` a version has one, or none: what its index needs for a look-up."""

_POSITION_BITS: Final = 32


class Lookup(Protocol):
    """Exact vectors by row; safe to use from many threads."""

    def vector(self, row: int) -> Vectors:
        """A fresh array of shape ``(dimension,)``; 0 ≤ ``row`` < count."""
        ...

    def blocks(self) -> Iterator[tuple[Rows, Vectors]]:
        """Every row once, in the cheapest order: row numbers and their vectors."""
        ...


def write_lookup(index: Any, folder: Path, matrix: Path) -> dict[str, Path]:
    """Write the file that a look-up in ``index`` needs; ``matrix`` is the ``.npy`` of vectors."""
    faiss = require_faiss()
    index = faiss.downcast_index(index)
    if _keeps_rows(faiss, index):
        return {}
    if type(index) is faiss.IndexIVFFlat:
        save_array(folder / PLACES, _places(index))
        return {PLACES: folder / PLACES}
    return {VECTORS: matrix}


def open_lookup(index: Any, path: Path, files: Mapping[str, Path]) -> Lookup:
    """Open the look-up that `write_lookup` prepared; ``path`` is the file of the index.

    Raises:
        CorruptFileError: its file is not what was written.
    """
    faiss = require_faiss()
    index = faiss.downcast_index(index)
    if PLACES in files:
        return _ByPlace(faiss, index, mapped_array(files[PLACES], (index.ntotal,), np.int64))
    if VECTORS in files:
        return _ByMatrix(mapped_array(files[VECTORS], (index.ntotal, index.d), np.float32))
    return _ByIndex(index, path)


@dataclass(frozen=True, slots=True)
class _ByIndex:
    index: Any
    path: Path

    def vector(self, row: int) -> Vectors:
        try:
            return np.asarray(self.index.reconstruct(row), dtype=np.float32)
        except RuntimeError as error:  # what every FAISS exception becomes
            raise CorruptFileError(self.path, f"row {row} cannot be read: {error}") from error

    def blocks(self) -> Iterator[tuple[Rows, Vectors]]:
        for start in range(0, self.index.ntotal, BLOCK_ROWS):
            rows = np.arange(start, min(start + BLOCK_ROWS, self.index.ntotal))
            yield rows, self.index.reconstruct_n(start, len(rows))


@dataclass(frozen=True, slots=True)
class _ByMatrix:
    matrix: Vectors

    def vector(self, row: int) -> Vectors:
        return np.array(self.matrix[row])

    def blocks(self) -> Iterator[tuple[Rows, Vectors]]:
        for start in range(0, len(self.matrix), BLOCK_ROWS):
            vectors = self.matrix[start : start + BLOCK_ROWS]
            yield np.arange(start, start + len(vectors)), vectors


@dataclass(frozen=True, slots=True)
class _ByPlace:
    faiss: Any
    index: Any
    places: NDArray[np.int64]

    def vector(self, row: int) -> Vectors:
        place = int(self.places[row])
        number, position = place >> _POSITION_BITS, place & (2**_POSITION_BITS - 1)
        lists = self.index.invlists
        if not (0 <= number < lists.nlist and position < lists.list_size(number)):
            raise CorruptFileError(Path(PLACES), f"row {row} is in no list")
        vector = np.empty(self.index.d, dtype=np.float32)
        self.index.reconstruct_from_offset(number, position, self.faiss.swig_ptr(vector))
        return vector

    def blocks(self) -> Iterator[tuple[Rows, Vectors]]:
        lists = self.index.invlists
        for number, rows in rows_by_list(lists):
            size = len(rows) * lists.code_size
            codes = self.faiss.rev_swig_ptr(lists.get_codes(number), size)
            yield rows, codes.view(np.float32).reshape(len(rows), self.index.d)


def _keeps_rows(faiss: Any, index: Any) -> bool:
    """Whether the index keeps each vector in full, by its row."""
    match index:
        case faiss.IndexRefineFlat() | faiss.IndexHNSWFlat() | faiss.IndexNSGFlat():
            return True
        case _:
            return isinstance(index, faiss.IndexFlat)


def _places(index: Any) -> NDArray[np.int64]:
    places = np.full(index.ntotal, -1, dtype=np.int64)
    for number, rows in rows_by_list(index.invlists):
        places[rows] = (number << _POSITION_BITS) | np.arange(len(rows))
    return places
