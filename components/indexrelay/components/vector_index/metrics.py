"""What a metric means in numbers, and exact search by it.

Inside this package everything is a *distance*: smaller is nearer, whatever the metric. Under cosine
vectors are stored at unit length and compared by inner product, so the distance of both is the
inner product with its sign turned; under L2 it is the squared distance, as FAISS computes it. A
`Hit` shows the score that people expect: the similarity, or the distance itself.

Exact nearest neighbours are searched block by block; memory does not grow with the rows.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.formats.string_table import Rows
from indexrelay.components.layered import refuse_entries
from indexrelay.components.vector_index.mapped_index import require_faiss
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Entries, Vectors

Distances = NDArray[np.float64]

_RELATIVE: Final = 1e-5
_ROUNDING: Final = 1e-6
"""Two float32 computations of one distance may differ by a share of the distance, and by a share of
the squared length of the vectors: a small distance is the difference of large products, and float32
keeps 1.2e-7 of each."""


def faiss_metric(metric: Metric) -> int:
    """FAISS's constant for it."""
    faiss = require_faiss()
    l2 = metric is Metric.L2
    return int(faiss.METRIC_L2 if l2 else faiss.METRIC_INNER_PRODUCT)


def prepared(vectors: Vectors, metric: Metric) -> Vectors:
    """Vectors as they are indexed: at unit length under cosine. The length must not be zero."""
    if metric is not Metric.COSINE:
        return vectors
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / lengths, dtype=np.float32)


def indexable(chunk: Entries, metric: Metric) -> Vectors:
    """`prepared` vectors of finite entries, shape ``(n, dimension)``.

    Raises:
        UnusableInputError: one has no direction for cosine.
    """
    if metric is Metric.COSINE:
        with np.errstate(over="ignore"):
            lengths = np.linalg.norm(chunk.vectors, axis=1)
        no_direction = (lengths == 0) | ~np.isfinite(lengths)
        refuse_entries(chunk, no_direction, "is zero or too long, and has no direction for cosine")
    return prepared(chunk.vectors, metric)


def distances(queries: Vectors, candidates: Vectors, metric: Metric) -> Distances:
    """The distance of each query to its own candidates, in float64.

    ``queries`` has the shape ``(q, d)``, ``candidates`` ``(q, k, d)``; the result ``(q, k)``.
    """
    wide = candidates.astype(np.float64)
    if metric is Metric.L2:
        wide -= queries[:, None, :]
        return np.asarray(np.einsum("qkd,qkd->qk", wide, wide))
    return np.asarray(-np.einsum("qd,qkd->qk", queries.astype(np.float64), wide))


def distances_of_found(
    queries: Vectors, rows: NDArray[np.int64], vectors: Vectors, metric: Metric
) -> Distances:
    """`distances` to what FAISS found: infinity where it found nothing (row -1).

    ``rows`` has the shape ``(q, k)``; ``vectors`` are theirs, ``(q, k, d)``, anything at row -1.
    """
    true = distances(queries, vectors, metric)
    true[rows < 0] = np.inf
    return true


def as_distances(found: NDArray[Any], metric: Metric) -> NDArray[Any]:
    """What FAISS returned, as distances."""
    return found if metric is Metric.L2 else -found


def as_scores(found: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
    """What FAISS returned, as scores: a similarity, or under L2 the distance itself."""
    return np.sqrt(np.maximum(found, 0)) if metric is Metric.L2 else found


def l2_scores(found: NDArray[np.float32]) -> NDArray[np.float32]:
    """`as_scores` under L2 for one query, the nearest first, in its own array; the same numbers."""
    if len(found) and found.item(0) < 0:  # rounding made it one
        np.maximum(found, 0, out=found)
    return np.sqrt(found, out=found)


def tolerance(limit: Distances, queries: Vectors) -> Distances:
    """How much farther than ``limit`` is still as far, within rounding.

    ``queries`` has the shape ``(q, d)``; ``limit``, of the shape ``(q, k)``, holds distances from
    them.
    """
    squared = np.einsum("qd,qd->q", queries, queries, dtype=np.float64)
    return np.asarray(_RELATIVE * np.abs(limit) + _ROUNDING * squared[:, None])


BLOCK_ROWS: Final = 65_536
"""Rows compared in one call: far beyond its overhead, and 32 MB at 128 dimensions."""
_SCORES_BYTES: Final = 16 * 1024 * 1024
"""Products that are held at once: they stay in the processor's cache."""
_MANY: Final = 20
"""From so many queries on a product of matrices is the shorter way, for FAISS as well. Its wheel
brings a library for that which takes three to ten times as long as NumPy's. For fewer queries FAISS
subtracts, which is more exact."""


class NearestRows:
    """The best ``k`` rows seen so far for each of some queries."""

    def __init__(self, queries: Vectors, *, k: int, metric: Metric) -> None:
        self._queries = np.ascontiguousarray(queries)
        self._squares = squares(self._queries)
        self._k = k
        self._metric = metric
        self.rows: Rows = np.empty((len(queries), 0), dtype=np.int64)
        """Shape ``(q, min(k, rows seen))``, the nearest first."""
        self.distances = np.empty((len(queries), 0), dtype=np.float32)
        """Theirs, in float32 as FAISS computes them."""
        self._seen = 0

    def add(self, block: Vectors) -> None:
        """Compare the next rows, of shape ``(n, dimension)``."""
        if not len(block) or not len(self._queries):
            return
        if len(self._queries) < _MANY:
            found, places = require_faiss().knn(
                self._queries,
                np.ascontiguousarray(block),
                min(self._k, len(block)),
                metric=faiss_metric(self._metric),
            )
            self._take(as_distances(found, self._metric), places + self._seen)
        else:
            step = max(_SCORES_BYTES // (4 * len(self._queries)), 1)
            for start in range(0, len(block), step):
                self._compare(np.asarray(block[start : start + step]), self._seen + start)
        self._seen += len(block)

    def _compare(self, block: Vectors, first: int) -> None:
        """Take what is nearer in ``block``, whose first row has the number ``first``."""
        far = np.matmul(self._queries, block.T)
        if self._metric is Metric.L2:
            far *= -2
            far += squares(block)
            far += self._squares[:, None]
            np.maximum(far, 0, out=far)  # what rounding left of a distance of 0
        else:
            np.negative(far, out=far)
        if self.distances.shape[1] < self._k:
            best = min(self._k, len(block))
            near = np.argpartition(far, best - 1, axis=1)[:, :best]
            self._take(np.take_along_axis(far, near, axis=1), near + first)
            return
        asker, place = np.nonzero(far < self.distances[:, -1:])
        if not len(asker):
            return
        counts = np.bincount(asker, minlength=len(far))
        nth = np.arange(len(asker)) - (np.cumsum(counts) - counts)[asker]
        distances = np.full((len(far), counts.max()), np.inf, dtype=np.float32)
        rows = np.full(distances.shape, -1, dtype=np.int64)
        distances[asker, nth] = far[asker, place]
        rows[asker, nth] = place + first
        self._take(distances, rows)

    def _take(self, distances: NDArray[np.float32], rows: Rows) -> None:
        """Keep the best of what is there and of these, both of shape ``(q, any)``."""
        distances = np.hstack([self.distances, distances])
        rows = np.hstack([self.rows, rows])
        best = np.argsort(distances, axis=1, kind="stable")[:, : self._k]
        self.distances = np.take_along_axis(distances, best, axis=1)
        self.rows = np.take_along_axis(rows, best, axis=1)


def squares(vectors: Vectors) -> NDArray[np.float32]:
    """The squared length of each vector, shape ``(n,)``."""
    return np.asarray(np.einsum("nd,nd->n", vectors, vectors))


def others(found: Rows, askers: Rows) -> NDArray[np.bool_]:
    """Which answers to keep for queries that are entries themselves: all but the entry itself.

    ``found`` has the shape ``(q, k + 1)``; ``askers``, the rows of the queries, ``(q,)``; each line
    of the mask keeps ``k``. Where the entry is not found (others may be just as near) the last
    answer is dropped instead.
    """
    itself = found == askers[:, None]
    itself[~itself.any(axis=1), -1:] = True
    # Only the first: where a search returns one row twice, the second is a miss.
    first = itself & (np.cumsum(itself, axis=1) == 1)
    return np.asarray(~first)


def without_itself(found: Rows, askers: Rows) -> Rows:
    """What `others` keeps, shape ``(q, k)``."""
    return found[others(found, askers)].reshape(len(found), max(found.shape[1] - 1, 0))
