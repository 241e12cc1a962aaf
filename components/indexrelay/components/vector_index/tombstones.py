"""Base rows that no longer count, told to FAISS in the one way that every search takes: a selector.

On disk they are row numbers. FAISS wants one bit for each row of the base, which is made when a
version is opened: 125 kB for a million rows. Not every index can be searched around them, and some
say nothing and return them all the same; so it is tried once, when a base is built.
"""

from typing import Any

import numpy as np

from indexrelay.components.optional import require_faiss
from indexrelay.components.string_table import Rows
from indexrelay.components.vector_index.facts import Effort
from indexrelay.components.vector_index.index_search import IndexSearch
from indexrelay.storage.entries import Vectors


def selector_around(tombstones: Rows, *, rows: int) -> Any:
    """A ``faiss.IDSelector`` of all of ``rows`` rows but these; ``None`` where there are none."""
    if not len(tombstones):
        return None
    faiss = require_faiss()
    dead = np.zeros(-(-rows // 8), dtype=np.uint8)
    np.bitwise_or.at(dead, tombstones >> 3, (1 << (tombstones & 7)).astype(np.uint8))
    return faiss.IDSelectorNot(faiss.IDSelectorBitmap(dead))


def refusal(index: Any, effort: Effort, query: Vectors) -> str:
    """Why ``index`` cannot be searched around tombstones; empty: it can.

    ``query`` has the shape ``(1, dimension)``. What it finds is called dead, and asked for again.
    """
    if index.ntotal < 2:
        return "there are too few rows to try"
    _, first = IndexSearch(index, effort).nearest(query, 1)
    try:
        around = selector_around(first[0], rows=index.ntotal)
        _, second = IndexSearch(index, effort, around).nearest(query, 1)
    except RuntimeError as error:  # what every FAISS exception becomes
        return f"FAISS refuses to leave rows out: {str(error).splitlines()[-1].strip()}"
    return "it returns rows that it was told to leave out" if first[0, 0] == second[0, 0] else ""
