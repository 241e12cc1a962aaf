"""Sets of rows: int64 arrays that grow, so that no row is in one twice.

numpy's own operations on sets hash or sort what they are given, each time: 60 ms for a set of
ninety thousand rows, more than everything else that a batch does to it. What stands in order
already is searched instead. A set that does not grow gives wrong answers: `row_set_of` makes one.
"""

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.string_table import Rows


def among(rows: Rows, row_set: Rows) -> NDArray[np.bool_]:
    """For each of ``rows``, of any shape and in any order: is it in ``row_set``?"""
    if not len(row_set):
        return np.zeros(rows.shape, dtype=bool)
    at = np.minimum(np.searchsorted(row_set, rows), len(row_set) - 1)
    found: NDArray[np.bool_] = row_set[at] == rows
    return found


def without(rows: Rows, row_set: Rows) -> Rows:
    """Those of ``rows`` that are not in ``row_set``, in their order."""
    return rows[~among(rows, row_set)]


def row_set_of(*rows: Rows) -> Rows:
    """All of them as one set, however they stand; cheap where most are in order."""
    # Timsort, which only merges what is in order.
    together = np.sort(np.concatenate(rows), kind="stable")
    return together[np.diff(together, prepend=together[:1] - 1) > 0]
