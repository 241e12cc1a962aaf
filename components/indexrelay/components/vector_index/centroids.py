"""The centroids of inverted lists: learned by k-means, and the nearest one for each vector.

This is most of the work of a full build, and nearly all of it is a product of matrices. The library
for that which comes in FAISS's wheel takes three times as long as NumPy's: where a million vectors
of 384 dimensions get 4096 lists that is a minute of one processor for each pass. So the passes are
made here, and FAISS is given the centroids.

K-means is as FAISS does it: Lloyd's rounds, from rows that are drawn by a seed. A centroid that no
row is nearest to is put beside one that has many. Under an inner product all have unit length.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.vector_index.metrics import squares
from indexrelay.components.vector_index.products import side_by_side
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors

SCORES_BYTES: Final = 8 * 1024 * 1024
"""Products that one thread holds at once: they stay in the processor's cache."""
_BLOCK_BYTES: Final = 4 * 1024 * 1024
"""Rows of one list that are added up at once."""
_APART: Final = 1 / 1024
"""How far, as a share of each value, the halves of a split centroid are moved."""


class Centroids:
    """Says which of some vectors is the nearest to each of many others."""

    def __init__(self, centroids: Vectors, metric: Metric, *, threads: int = 1) -> None:
        """``centroids``: shape ``(c, dimension)``, one at least; ``threads``: that compare."""
        count, dimension = centroids.shape
        # A last column of ones takes the squares in: what is least is |c|² - 2 x·c, or -x·c.
        self._weights = np.zeros((dimension + 1, count), dtype=np.float32)
        self._weights[:-1] = -centroids.T
        if metric is Metric.L2:
            self._weights[:-1] *= 2
            self._weights[-1] = squares(centroids)
        self._step = step = max(SCORES_BYTES // (4 * max(count, dimension + 1)), 1)
        # Kept, and not each thread's own: the allocator keeps what a thread gave back.
        self._rooms = [
            _Room(
                rows=np.ones((step, dimension + 1), dtype=np.float32),
                scores=np.empty((step, count), dtype=np.float32),
            )
            for _ in range(threads)
        ]

    def nearest(self, vectors: Vectors) -> NDArray[np.int32]:
        """The number of the nearest for each of ``vectors``, shape ``(n, dimension)``."""
        found = np.empty(len(vectors), dtype=np.int32)

        def work(room: _Room, starts: Iterator[int]) -> None:
            for start in starts:
                block = vectors[start : start + self._step]
                rows, scores = room.rows[: len(block)], room.scores[: len(block)]
                rows[:, :-1] = block
                np.matmul(rows, self._weights, out=scores)
                found[start : start + self._step] = scores.argmin(axis=1)

        side_by_side(work, self._rooms, range(0, len(vectors), self._step))
        return found


@dataclass(frozen=True, slots=True)
class _Room:
    """What one thread computes in."""

    rows: Vectors
    """Vectors, each with a one behind it."""
    scores: Vectors


def k_means(
    rows: Vectors, count: int, metric: Metric, *, rounds: int, seed: int, threads: int = 1
) -> Vectors:
    """Learn ``count`` centroids of ``rows``, shape ``(n, dimension)``; n ≥ ``count`` ≥ 1.

    Returns:
        Shape ``(count, dimension)``, float32; the same for the same rows and seed.
    """
    rng = np.random.default_rng(seed)
    centroids = rows[np.sort(rng.choice(len(rows), size=count, replace=False))]
    for _ in range(rounds):
        within = Centroids(centroids, metric, threads=threads).nearest(rows)
        sizes = np.bincount(within, minlength=count)
        filled = sizes > 0
        sums = _sums(rows, within, sizes)
        centroids[filled] = sums[filled] / sizes[filled, None]
        _split(centroids, sizes, rng)
        if metric is not Metric.L2:
            lengths = np.linalg.norm(centroids, axis=1, keepdims=True)
            centroids /= np.maximum(lengths, np.finfo(np.float32).tiny)
    return centroids


def _sums(rows: Vectors, within: NDArray[np.int32], sizes: NDArray[np.int64]) -> Vectors:
    """The sum of the rows of each list, shape ``(count, dimension)``."""
    sums = np.zeros((len(sizes), rows.shape[1]), dtype=np.float32)
    order = np.argsort(within, kind="stable")
    step = max(_BLOCK_BYTES // (4 * rows.shape[1]), 1)
    for number, end in enumerate(np.cumsum(sizes).tolist()):
        for start in range(end - int(sizes[number]), end, step):
            sums[number] += rows[order[start : min(start + step, end)]].sum(axis=0)
    return sums


def _split(centroids: Vectors, sizes: NDArray[np.int64], rng: "np.random.Generator") -> None:
    """Put each centroid that has no rows beside one that has many, and share its rows."""
    sign = np.where(np.arange(centroids.shape[1]) % 2, np.float32(-1), np.float32(1))
    for empty in np.flatnonzero(sizes == 0):
        spare = np.maximum(sizes - 1, 0).astype(np.float64)
        if not spare.any():
            return  # every row is alone with its centroid
        full = rng.choice(len(sizes), p=spare / spare.sum())
        centroids[empty] = centroids[full] * (1 + _APART * sign)
        centroids[full] *= 1 - _APART * sign
        sizes[empty] = sizes[full] // 2
        sizes[full] -= sizes[empty]
