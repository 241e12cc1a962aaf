"""Looks into the indexes of a version for what would go wrong only in a query.

FAISS checks a graph when it reads it, but not the row numbers in inverted lists. One that is none
of the index would be answered as if it were an entry. For a sandbox: it takes time in proportion to
the rows, and FAISS may crash in it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from indexrelay.components.errors import DamagedFileError
from indexrelay.components.optional import require_faiss
from indexrelay.components.vector_index.base import BASE
from indexrelay.components.vector_index.search import VectorSearch

_QUERIES: Final = 16


def inspect(search: VectorSearch) -> None:
    """Look at every row of the inverted lists, and ask some queries.

    Raises:
        DamagedFileError: an index is not what a build writes.
    """
    contents = search.contents
    _check_rows(contents.base.index, contents.base.paths[BASE])
    if contents.delta is not None and contents.delta.index is not None:
        _check_rows(contents.delta.index, contents.delta.path)
    if not len(search):
        return
    at = np.unique(np.linspace(0, len(search) - 1, _QUERIES).astype(np.int64))
    for position in at.tolist():
        search.search(search.vector_at(position), k=10)
    search.search(search.vector_at(0), k=min(1000, len(search)))


def _check_rows(index: Any, path: Path) -> None:
    for lists, count in _inverted_lists(index):
        seen = np.zeros(count, dtype=bool)
        total = 0
        for place in range(lists.nlist):
            size = lists.list_size(place)
            if not size:
                continue
            total += size
            if total > count:
                break
            rows = require_faiss().rev_swig_ptr(lists.get_ids(place), size)
            if rows.min() < 0 or rows.max() >= count:
                raise DamagedFileError(path, "a list holds a row that does not exist")
            seen[rows] = True
        if total != count or not seen.all():
            raise DamagedFileError(path, "its lists do not hold each row once")


def _inverted_lists(index: Any) -> Iterator[tuple[Any, int]]:
    faiss = require_faiss()
    index = faiss.downcast_index(index)
    match index:
        case faiss.IndexPreTransform():
            yield from _inverted_lists(index.index)
        case faiss.IndexRefine():
            yield from _inverted_lists(index.base_index)
            yield from _inverted_lists(index.refine_index)
        case faiss.IndexIVF():
            yield index.invlists, index.ntotal
            yield from _inverted_lists(index.quantizer)
