"""The exact vector of a row, whatever the index keeps of it.

Most indexes do not keep the vectors that were added, or cannot find them by row. A `Lookup` gives
the exact vector of a row, from what the version holds for it:

* the index itself keeps every vector by row (a scan, a graph over full vectors, a flat refinement);
* inverted lists keep it in full, but by list: ``places.npy`` names list and position of each row,
  as ``list << 32 | position``. FAISS's own direct map would be memory of every process's own;
* anything compressed or transformed: ``vectors.npy`` keeps the vectors beside it. It is mapped,
  and only a look-up touches it.
"""

import ctypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.formats.mapped_array import mapped_array, save_array
from indexrelay.components.formats.string_table import Rows
from indexrelay.components.vector_index.index_search import Found
from indexrelay.components.vector_index.mapped_index import require_faiss, rows_by_list
from indexrelay.components.vector_index.metrics import BLOCK_ROWS
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors

PLACES: Final = "places.npy"
VECTORS: Final = "vectors.npy"
"""Of this and `PLACES` a version has one, or none: what its index needs for a look-up."""

_POSITION_BITS: Final = 32


class Lookup(Protocol):
    """Exact vectors by row; safe to use from many threads."""

    row_cost: ClassVar[float]
    """What `nearest` takes for a row, beside one that lies in a matrix."""

    def vector(self, row: int) -> Vectors:
        """A fresh array of shape ``(dimension,)``; 0 ≤ ``row`` < count."""
        ...

    def blocks(self) -> Iterator[tuple[Rows, Vectors]]:
        """Every row once, in the cheapest order: row numbers and their vectors."""
        ...

    def nearest(self, queries: Vectors, rows: Rows, k: int, metric: Metric) -> Found:
        """The ``k`` nearest among ``rows``, each compared; raises as `vector` does.

        ``queries`` are as in `IndexSearch.nearest`; ``rows`` are rows that there are, each once.
        """
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


@dataclass(frozen=True)
class _ByIndex:
    row_cost: ClassVar[float] = 1.0
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

    def nearest(self, queries: Vectors, rows: Rows, k: int, metric: Metric) -> Found:
        """See `Lookup.nearest`."""
        return nearest_among(self._matrix, queries, rows, k, metric)

    @cached_property
    def _matrix(self) -> "MatrixOf":
        flat = _flat_in(require_faiss(), self.index)
        return MatrixOf(flat.get_xb(), flat.ntotal, flat)


@dataclass(frozen=True, slots=True)
class _ByMatrix:
    row_cost: ClassVar[float] = 1.0
    matrix: Vectors

    def vector(self, row: int) -> Vectors:
        return np.array(self.matrix[row])

    def blocks(self) -> Iterator[tuple[Rows, Vectors]]:
        for start in range(0, len(self.matrix), BLOCK_ROWS):
            vectors = self.matrix[start : start + BLOCK_ROWS]
            yield np.arange(start, start + len(vectors)), vectors

    def nearest(self, queries: Vectors, rows: Rows, k: int, metric: Metric) -> Found:
        """See `Lookup.nearest`."""
        return nearest_among(MatrixOf.array(self.matrix), queries, rows, k, metric)


@dataclass(frozen=True)
class _ByPlace:
    row_cost: ClassVar[float] = 2.0
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

    def nearest(self, queries: Vectors, rows: Rows, k: int, metric: Metric) -> Found:
        """See `Lookup.nearest`."""
        vectors = MatrixOf.array(self._gathered(rows))
        found, at = nearest_among(vectors, queries, np.arange(len(rows)), k, metric)
        return found, np.where(at < 0, -1, rows[at])

    def _gathered(self, rows: Rows) -> Vectors:
        """Their vectors, copied out of the lists all at once."""
        places = self.places[rows]
        numbers, positions = places >> _POSITION_BITS, places & (2**_POSITION_BITS - 1)
        lists = self._lists
        outside = (numbers < 0) | (numbers >= len(lists.sizes))
        if outside.any() or (positions >= lists.sizes[numbers]).any():
            raise CorruptFileError(Path(PLACES), "a row is in no list")
        return lists.vectors(numbers, positions)

    @cached_property
    def _lists(self) -> "_ListsInMemory":
        return _ListsInMemory(self.index)


class _ListsInMemory:
    """Where the vectors of each inverted list begin in memory, or in a mapped file."""

    def __init__(self, index: Any) -> None:
        lists, self._dimension = index.invlists, index.d
        self._row_bytes = lists.code_size
        self.sizes = np.array([lists.list_size(each) for each in range(lists.nlist)])
        """How many vectors each list has."""
        filled = np.flatnonzero(self.sizes)
        starts = np.array([int(lists.get_codes(each)) for each in filled.tolist()], dtype=np.int64)
        first = int(starts.min(initial=2**62)) if len(filled) else 0
        self._offsets = np.zeros(lists.nlist, dtype=np.int64)
        self._offsets[filled] = starts - first
        ends = self._offsets[filled] + self.sizes[filled] * self._row_bytes
        length = int(ends.max(initial=0))
        # Every stretch of one vector's bytes from the first list to the end of the last. Between
        # the lists there may be anything, and it is not touched.
        memory = (ctypes.c_uint8 * length).from_address(first)
        self._stretches = np.lib.stride_tricks.as_strided(
            np.ctypeslib.as_array(memory) if length else np.empty(0, np.uint8),
            (length - self._row_bytes + 1 if length else 0, self._row_bytes),
            (1, 1),
            writeable=False,
        )

    def vectors(self, numbers: Rows, positions: Rows) -> Vectors:
        """Those at ``positions`` of the lists ``numbers``, of the shape ``(n, dimension)``."""
        at = self._offsets[numbers] + positions * self._row_bytes
        gathered: Vectors = self._stretches[at].view(np.float32)
        return gathered.reshape(len(at), self._dimension)


@dataclass(frozen=True, slots=True)
class MatrixOf:
    """Vectors in memory, as FAISS's functions take them."""

    pointer: Any
    count: int
    owner: Any
    """What the memory belongs to: FAISS's pointers keep nothing alive."""

    @classmethod
    def array(cls, vectors: Vectors) -> "MatrixOf":
        """Those of a contiguous array."""
        return cls(require_faiss().swig_ptr(vectors), len(vectors), vectors)


def nearest_among(matrix: MatrixOf, queries: Vectors, rows: Rows, k: int, metric: Metric) -> Found:
    """The ``k`` nearest to each query among ``rows`` of a matrix; see `Lookup.nearest`.

    Rows are missing (-1) where there are fewer than ``k``.
    """
    faiss = require_faiss()
    found = np.empty((len(queries), k), dtype=np.float32)
    nearest = np.empty((len(queries), k), dtype=np.int64)
    compare = faiss.knn_L2sqr_by_idx if metric is Metric.L2 else faiss.knn_inner_products_by_idx
    pointer = faiss.swig_ptr
    rows = np.ascontiguousarray(rows, dtype=np.int64)
    compare(
        pointer(queries),
        matrix.pointer,
        pointer(rows),
        queries.shape[1],
        len(queries),
        matrix.count,
        len(rows),
        k,
        pointer(found),
        pointer(nearest),
        0,  # the same rows for all queries
    )
    return found, nearest


def _flat_in(faiss: Any, index: Any) -> Any:
    """The flat index inside of one for which `_keeps_rows` holds."""
    match index:
        case faiss.IndexRefineFlat():
            return faiss.downcast_index(index.refine_index)
        case faiss.IndexHNSWFlat() | faiss.IndexNSGFlat():
            return faiss.downcast_index(index.storage)
        case _:
            return index


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
