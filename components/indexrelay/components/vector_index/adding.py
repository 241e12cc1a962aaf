"""Adds all rows to a trained index, so that it weighs what it holds and no more.

FAISS grows its arrays by doubling, and for a moment holds the old one and the new: up to three
times the index. Here the room is made first. Inverted lists are told how many rows each will get:
every row is assigned before any is added, which costs 4 bytes a row, and no time, since adding
assigns anyway.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.optional import require_faiss
from indexrelay.storage.entries import Vectors

Lists = NDArray[np.signedinteger]
"""The inverted list of each row."""
_BLOCK_BYTES: Final = 16 * 1024 * 1024
"""What is looked at in one call: far beyond its overhead, and small beside an index."""
_FEWEST_ROWS: Final = 1024


def add_all(index: Any, vectors: Vectors, progress: Callable[[float], None]) -> None:
    """Add ``vectors``, shape ``(n, dimension)``, with their row numbers as ids.

    Blocks of a mapped array are handed to FAISS as they lie. ``progress`` hears shares up to 1.
    """
    faiss = require_faiss()
    index = faiss.downcast_index(index)
    base = faiss.downcast_index(index.base_index) if _refines(faiss, index) else index
    if _has_plain_lists(faiss, base):
        within = _assigned(base, vectors, lambda share: progress(0.7 * share))
        add_to_lists(base, vectors, within, lambda share: progress(0.7 + 0.3 * share))
        if base is not index:
            _reserve_codes(faiss, index.refine_index, len(vectors))
            for rows in blocks(vectors):
                index.refine_index.add(np.ascontiguousarray(vectors[rows]))
            index.ntotal = base.ntotal
    elif isinstance(base, faiss.IndexHNSW | faiss.IndexNSG):
        # In one go: links are laid once, at their full length, and NSG cannot be added to twice.
        index.add(np.ascontiguousarray(vectors))
    else:
        for part in {base, getattr(index, "refine_index", base)}:
            _reserve_codes(faiss, part, len(vectors))
        for rows in blocks(vectors):
            index.add(np.ascontiguousarray(vectors[rows]))
            progress(rows.stop / len(vectors))
    progress(1.0)


def blocks(vectors: Vectors) -> Iterator[slice]:
    """Slices that cover all rows, of a bounded number of bytes each."""
    count, dimension = vectors.shape
    step = max(_BLOCK_BYTES // (4 * dimension), _FEWEST_ROWS)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def add_to_lists(
    index: Any,
    vectors: Vectors,
    within: Lists,
    progress: Callable[[float], None] = lambda _share: None,
) -> None:
    """Add ``vectors`` to an index of plain lists, each to the list of which ``within`` says so."""
    faiss = require_faiss()
    lists = index.invlists
    for place, size in enumerate(np.bincount(within, minlength=index.nlist).tolist()):
        lists.resize(place, size)
        lists.resize(place, 0)  # the room stays
    for rows in blocks(vectors):
        block = np.ascontiguousarray(vectors[rows])
        numbers = np.arange(rows.start, rows.stop, dtype=np.int64)
        places = within[rows].astype(np.int64)
        index.add_core(len(block), *map(faiss.swig_ptr, (block, numbers, places)))
        progress(rows.stop / len(vectors))


def _assigned(index: Any, vectors: Vectors, progress: Callable[[float], None]) -> Lists:
    """The list of each row."""
    within = np.empty(len(vectors), dtype=np.int32)
    for rows in blocks(vectors):
        _, nearest = index.quantizer.search(np.ascontiguousarray(vectors[rows]), 1)
        within[rows] = nearest[:, 0]
        progress(rows.stop / len(vectors))
    return within


def _reserve_codes(faiss: Any, part: Any, count: int) -> None:
    """Make room for ``count`` rows in an index that keeps one code after another."""
    part = faiss.downcast_index(part)
    if isinstance(part, faiss.IndexFlatCodes):
        part.codes.resize(count * part.code_size)
        part.codes.resize(0)


def _refines(faiss: Any, index: Any) -> bool:
    return isinstance(index, faiss.IndexRefine)


def _has_plain_lists(faiss: Any, index: Any) -> bool:
    """Lists of one code after another; fast-scan codes are packed in another way."""
    return isinstance(index, faiss.IndexIVF) and isinstance(
        faiss.downcast_InvertedLists(index.invlists), faiss.ArrayInvertedLists
    )
