"""One vector compared with many, on the caller's thread alone.

What is measured are distances as in `vector_index.metrics`: smaller is nearer, whatever the metric.
Under L2 they are squared; otherwise they are inner products with their sign turned.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.formats.string_table import Rows
from indexrelay.components.vector_index.mapped_index import require_faiss
from indexrelay.components.vector_index.metrics import as_scores
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors


class Measured:
    """Places of vectors and their distances, with the addresses where FAISS finds both."""

    __slots__ = ("distances", "distances_at", "places", "places_at")

    def __init__(self, places: Rows, pointer: Any) -> None:
        """Take contiguous int64; distances are there once something is compared."""
        self.places = places
        self.distances = np.empty(len(places), dtype=np.float32)
        self.places_at, self.distances_at = pointer(places), pointer(self.distances)


class Comparison:
    """Compares one vector with many; safe to use from many threads.

    NumPy's product takes threads, which spin while they wait for each other. So do FAISS's
    functions that take places, even for one query, where OpenMP may have more than one.
    """

    def __init__(self, dimension: int, metric: Metric) -> None:
        faiss = require_faiss()
        self.metric = metric
        self.is_l2 = metric is Metric.L2
        self.dimension = dimension
        self.pointer = faiss.swig_ptr
        """Makes of an array what FAISS takes; it keeps nothing alive."""
        self._all = faiss.fvec_L2sqr_ny if self.is_l2 else faiss.fvec_inner_products_ny
        by_place = faiss.fvec_L2sqr_by_idx if self.is_l2 else faiss.fvec_inner_products_by_idx
        self._by_place = by_place
        self._threads = faiss.omp_get_max_threads
        self._set_threads = faiss.omp_set_num_threads

    def with_all(self, query: Vectors, vectors: Any, count: int) -> NDArray[np.float32]:
        """The distance of each of ``count`` vectors; ``vectors`` is what `pointer` makes of them.

        ``query``, of the shape ``(dimension,)``, is float32 and contiguous.
        """
        found = np.empty(count, dtype=np.float32)
        pointer = self.pointer
        self._all(pointer(found), pointer(query), vectors, self.dimension, count)
        return found if self.is_l2 else np.negative(found, out=found)

    def with_places(self, query: Vectors, vectors: Any, measured: Measured) -> NDArray[np.float32]:
        """As `with_all`, for the vectors at some places; gives the distances of ``measured``."""
        found, query_at = measured.distances, self.pointer(query)
        # As `openmp_threads` does; its context would cost more than the shortest comparisons.
        threads = self._threads()
        if threads != 1:
            self._set_threads(1)
        try:
            self._by_place(
                measured.distances_at,
                query_at,
                vectors,
                measured.places_at,
                self.dimension,
                1,
                len(found),
            )
        finally:
            if threads != 1:
                self._set_threads(threads)
        return found if self.is_l2 else np.negative(found, out=found)

    def scores_of(
        self, query: Vectors, vectors: Vectors, places: NDArray[np.signedinteger]
    ) -> NDArray[np.float32]:
        """The scores of the vectors at some places."""
        measured = Measured(places.astype(np.int64), self.pointer)
        return self.scores(self.with_places(query, self.pointer(vectors), measured))

    def scores(self, distances: NDArray[np.float32]) -> NDArray[np.float32]:
        """The scores of such distances."""
        return as_scores(distances if self.is_l2 else -distances, self.metric)

    def distance(self, score: float) -> float:
        """The distance of what has this score."""
        return score * score if self.is_l2 else -score
