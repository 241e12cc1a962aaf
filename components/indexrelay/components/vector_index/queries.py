"""What a query must be, checked before FAISS sees it: that would read past it, or answer it."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike

from indexrelay.components.errors import InvalidQueryError
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors
from indexrelay.storage.validation import MAX_LENGTH, MIN_LENGTH


@dataclass(frozen=True, slots=True)
class Queries:
    """Takes queries for one index, and makes them what is indexed: at unit length under cosine."""

    dimension: int
    metric: Metric

    def one(self, given: ArrayLike) -> Vectors:
        """One query as an array of the shape ``(1, dimension)``.

        Raises:
            InvalidQueryError: it has another shape, holds a NaN or an infinity, is longer than
                `MAX_LENGTH`, or shorter than `MIN_LENGTH` under cosine.
        """
        vector = _array(given)
        if vector.shape != (self.dimension,):
            raise InvalidQueryError(
                f"a query has the shape ({self.dimension},), not {vector.shape}"
            )
        # NaN and infinity show in it; `dot` would warn of an overflow, which only means the latter.
        squares = float(np.einsum("d,d->", vector, vector))
        if MIN_LENGTH**2 <= squares <= MAX_LENGTH**2:
            if self.metric is Metric.COSINE:
                vector = vector / np.float32(sqrt(squares))
            return vector[None, :]
        return self._prepared(vector[None, :])

    def many(self, given: ArrayLike) -> Vectors:
        """Several queries, of the shape ``(n, dimension)``; raises as `one` does."""
        vectors = _array(given)
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise InvalidQueryError(
                f"a query has the shape (n, {self.dimension}), not {vectors.shape}"
            )
        return self._prepared(vectors)

    def _prepared(self, queries: Vectors) -> Vectors:
        squares = np.einsum("nd,nd->n", queries, queries)
        cosine = self.metric is Metric.COSINE
        if not np.isfinite(queries).all():
            raise InvalidQueryError("a query must not hold a NaN or an infinity")
        if not (squares <= MAX_LENGTH**2).all():
            raise InvalidQueryError(
                f"a query is at most {MAX_LENGTH:g} long: its distances have no float32 beyond"
            )
        if not cosine:
            return queries
        if not (squares >= MIN_LENGTH**2).all():
            raise InvalidQueryError(
                f"a query of length zero, or below {MIN_LENGTH:g}, has no direction"
            )
        unit: Vectors = queries / np.sqrt(squares)[:, None]
        return unit


def _array(given: ArrayLike) -> Vectors:
    try:
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused
            return np.ascontiguousarray(given, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise InvalidQueryError(f"a query is an array of numbers: {error}") from error
