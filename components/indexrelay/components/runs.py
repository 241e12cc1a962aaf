"""Rows that follow each other without a gap, so that a column of them is taken in one piece.

A batch touches a thousand rows of a delta of ninety thousand: what lies between stays as it was,
and is copied and compared as bytes instead of row by row.
"""

from itertools import pairwise

import numpy as np

from indexrelay.components.string_table import Rows


def runs(*columns: Rows) -> list[tuple[int, int]]:
    """The pieces, each from ``start`` to ``stop``, in which every one of the columns grows by one.

    The columns are row numbers (int64) of one length; the pieces cover all of it, in order.
    """
    length = len(columns[0])
    if not length:
        return []
    gaps = np.zeros(length - 1, dtype=bool)
    for rows in columns:
        gaps |= np.diff(rows) != 1
    return list(pairwise([0, *(np.flatnonzero(gaps) + 1).tolist(), length]))
