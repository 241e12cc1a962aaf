"""From a row number back to the exact vector, for "more like this" and for whoever asks.

Most indexes do not keep what was put in, or cannot find it by row. Three ways lead back, and the
version holds whatever its index needs:

* the index itself keeps every vector by row (a scan, a graph over full vectors, a flat refinement);
* inverted lists keep it in full, but by list: ``places.npy`` names list and position of each row,
  as ``list << 32 | position``. FAISS's own direct map would be memory of every process's own;
* anything compressed or transformed: ``vectors.npy`` keeps the vectors beside it. It is mapped,
  and nobody but a look-up touches it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.errors import DamagedFileError
from indexrelay.components.mapped_array import mapped_array, save_array
from indexrelay.components.optional import require_faiss
from indexrelay.components.string_table import Rows
from indexrelay.components.vector_index.nearest import BLOCK_ROWS
from indexrelay.components.vector_index.reading import VECTORS
from indexrelay.storage.entries import Vectors

PLACES: Final = "places.npy"
LOOKUP_FILES: Final = (PLACES, VECTORS)
"""Of which a version holds one, or none."""
_POSITION_BITS: Final = 32


class Lookup(Protocol):
    """Exact vectors by row; safe to use from many threads."""

    def vector(self, row: int) -> Vectors:
        """A fresh array of shape ``(dimension,)``; 0 ≤ ``row`` < count."""
        ...

    def blocks(self) -> Iterator[tuple[Rows, Vectors]]:
        """Every row once, in whatever order is cheapest: row numbers and their vectors."""
        ...


def write_lookup(index: Any, folder: Path, matrix: Path) -> dict[str, Path]:
    """Write the file that a look-up in ``index`` needs; ``matrix`` is the ``.npy`` of vectors."""
    faiss = require_faiss()
    index = faiss.downcast_index(index)
    if _keeps_rows(faiss, index):
        return {}
    if type(index) is faiss.IndexIVFFlat:
        save_array(folder / PLACES, _places(faiss, index))
        return {PLACES: folder / PLACES}
    return {VECTORS: matrix}


def open_lookup(index: Any, files: Mapping[str, Path], *, base: str) -> Lookup:
    """The look-up that `write_lookup` prepared; ``base``: the name of the index's own file.

    Raises:
        DamagedFileError: its file is not what was written.
    """
    faiss = require_faiss()
    index = faiss.downcast_index(index)
    if PLACES in files:
        return _ByPlace(faiss, index, mapped_array(files[PLACES], (index.ntotal,), np.int64))
    if VECTORS in files:
        return _ByMatrix(mapped_array(files[VECTORS], (index.ntotal, index.d), np.float32))
    return _ByIndex(index, files[base])


@dataclass(frozen=True, slots=True)
class _ByIndex:
    index: Any
    path: Path

    def vector(self, row: int) -> Vectors:
        try:
            return np.asarray(self.index.reconstruct(row), dtype=np.float32)
        except RuntimeError as error:  # what every FAISS exception becomes
            raise DamagedFileError(self.path, f"row {row} cannot be read: {error}") from error

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
        within, position = place >> _POSITION_BITS, place & (2**_POSITION_BITS - 1)
        lists = self.index.invlists
        if not (0 <= within < lists.nlist and position < lists.list_size(within)):
            raise DamagedFileError(Path(PLACES), f"row {row} lies in no list")
        vector = np.empty(self.index.d, dtype=np.float32)
        self.index.reconstruct_from_offset(within, position, self.faiss.swig_ptr(vector))
        return vector

    def blocks(self) -> Iterator[tuple[Rows, Vectors]]:
        lists = self.index.invlists
        for within in range(lists.nlist):
            size = lists.list_size(within)
            if size:
                rows = self.faiss.rev_swig_ptr(lists.get_ids(within), size)
                codes = self.faiss.rev_swig_ptr(lists.get_codes(within), size * lists.code_size)
                yield rows, codes.view(np.float32).reshape(size, self.index.d)


def _keeps_rows(faiss: Any, index: Any) -> bool:
    """Whether the index keeps each vector in full, by its row."""
    match index:
        case faiss.IndexRefineFlat() | faiss.IndexHNSWFlat() | faiss.IndexNSGFlat():
            return True
        case _:
            return isinstance(index, faiss.IndexFlat)


def _places(faiss: Any, index: Any) -> NDArray[np.int64]:
    places = np.full(index.ntotal, -1, dtype=np.int64)
    lists = index.invlists
    for within in range(index.nlist):
        size = lists.list_size(within)
        if size:
            rows = faiss.rev_swig_ptr(lists.get_ids(within), size)
            places[rows] = (within << _POSITION_BITS) | np.arange(size)
    return places
