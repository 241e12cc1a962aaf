"""Exact nearest neighbours over rows that come block by block; memory does not grow with them."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.optional import require_faiss
from indexrelay.components.string_table import Rows
from indexrelay.components.vector_index.metrics import as_distances, faiss_metric
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors

BLOCK_ROWS: Final = 65_536
"""Rows looked at in one call: far beyond its overhead, and 32 MB at 128 dimensions."""


class NearestRows:
    """The best ``k`` rows seen so far for each of some queries."""

    def __init__(self, queries: Vectors, *, k: int, metric: Metric) -> None:
        self._queries = np.ascontiguousarray(queries)
        self._k = k
        self._metric = metric
        self.rows: Rows = np.empty((len(queries), 0), dtype=np.int64)
        """Shape ``(q, min(k, rows seen))``, the nearest first."""
        self.distances = np.empty((len(queries), 0), dtype=np.float32)
        """Theirs, as FAISS computes them in float32."""
        self._seen = 0

    def add(self, block: Vectors) -> None:
        """Look at the next rows, of shape ``(n, dimension)``."""
        if not len(block) or not len(self._queries):
            return
        found, places = require_faiss().knn(
            self._queries,
            np.ascontiguousarray(block),
            min(self._k, len(block)),
            metric=faiss_metric(self._metric),
        )
        distances = np.hstack([self.distances, as_distances(found, self._metric)])
        rows = np.hstack([self.rows, places + self._seen])
        best = np.argsort(distances, axis=1, kind="stable")[:, : self._k]
        self.distances = np.take_along_axis(distances, best, axis=1)
        self.rows = np.take_along_axis(rows, best, axis=1)
        self._seen += len(block)


def others(found: Rows, askers: Rows) -> NDArray[np.bool_]:
    """Which answers to keep for queries that are entries themselves: all but the one that asked.

    ``found`` has the shape ``(q, k + 1)``, ``askers`` ``(q,)``; each line of the mask keeps ``k``.
    Where the asker is not found (others may be just as near) the last answer goes instead.
    """
    itself = found == askers[:, None]
    itself[~itself.any(axis=1), -1:] = True
    # Only the first: a search that answers one row twice has earned a miss.
    first = itself & (np.cumsum(itself, axis=1) == 1)
    return np.asarray(~first)


def without_itself(found: Rows, askers: Rows) -> Rows:
    """What `others` keeps, shape ``(q, k)``."""
    return found[others(found, askers)].reshape(len(found), max(found.shape[1] - 1, 0))
