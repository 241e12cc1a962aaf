"""One FAISS index and how hard to search it, behind the shortest way into FAISS.

FAISS's own Python wrapper checks and converts what it is given; a query that was checked already
goes past it, which saves a tenth of a query of 150 microseconds. Any number of threads may search
side by side: nothing here changes, and FAISS lets go of the interpreter while it searches.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.optional import require_faiss
from indexrelay.components.string_table import Rows
from indexrelay.components.vector_index.effort import efforts_beyond, search_parameters
from indexrelay.components.vector_index.facts import Effort
from indexrelay.storage.entries import Vectors

Found = tuple[NDArray[np.float32], Rows]
"""What FAISS measured and the rows it means, both of the shape ``(n, k)``, the nearest first; row
-1 where it found fewer."""


class IndexSearch:
    """Searches one index; immutable, and safe to use from many threads."""

    __slots__ = ("_effort", "_index", "_parameters", "_search", "_selector", "_swig_ptr")

    def __init__(self, index: Any, effort: Effort, selector: Any = None) -> None:
        self._index = index
        self._effort = effort
        self._selector = selector
        self._parameters = search_parameters(index, effort, selector)
        self._search = index.search_c
        self._swig_ptr = require_faiss().swig_ptr

    def nearest(self, queries: Vectors, k: int) -> Found:
        """The ``k`` nearest rows to each query, however wide it has to look for so many.

        ``queries``, of the shape ``(n, dimension)``, are float32, contiguous, finite and prepared;
        ``k`` is at least 1 and no more than there are rows to find.
        """
        found, rows = self.near(queries, k)
        if not missing(rows):
            return found, rows
        # Tuned for ten hits, what is looked into may hold fewer than a larger k: look wider.
        for effort in efforts_beyond(self._index, self._effort):
            parameters = search_parameters(self._index, effort, self._selector)
            found, rows = self._searched(queries, k, parameters)
            if not missing(rows):
                break
        return found, rows

    def near(self, queries: Vectors, k: int) -> Found:
        """As `nearest`, with the effort that was tuned and no more: rows may be missing."""
        return self._searched(queries, k, self._parameters)

    def _searched(self, queries: Vectors, k: int, parameters: Any) -> Found:
        count = len(queries)
        found = np.empty((count, k), dtype=np.float32)
        rows = np.empty((count, k), dtype=np.int64)
        pointer = self._swig_ptr
        self._search(count, pointer(queries), k, pointer(found), pointer(rows), parameters)
        return found, rows


def missing(rows: Rows) -> bool:
    """Whether any query got fewer than it asked for; what is missing comes last."""
    last = rows[:, -1]
    return bool(last[0] < 0 if len(last) == 1 else last.min() < 0)
