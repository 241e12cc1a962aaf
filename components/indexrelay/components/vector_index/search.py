"""A vector index as a reader serves it.

Everything is mapped and nothing ever changes, so queries of any number of threads run side by side
without a lock; FAISS lets go of the interpreter while it searches. One query takes one thread.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from indexrelay.components.closing import Closable
from indexrelay.components.errors import DamagedFileError, InvalidQueryError
from indexrelay.components.hits import Hit
from indexrelay.components.id_table import IdTable
from indexrelay.components.payload_table import PayloadTable
from indexrelay.components.vector_index.effort import efforts_beyond, search_parameters
from indexrelay.components.vector_index.facts import IndexFacts
from indexrelay.components.vector_index.lookup import open_lookup
from indexrelay.components.vector_index.metrics import as_scores
from indexrelay.components.vector_index.opening import is_mapped, open_index
from indexrelay.components.vector_index.reading import IDS, PAYLOADS
from indexrelay.components.vector_index.threads import openmp_threads
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors

BASE: Final = "base.faiss"
FACTS: Final = "index.json"


class VectorSearch(Closable):
    """Searches by vector and by entry; immutable, and safe to use from many threads.

    The score of a `Hit` is the cosine or the inner product, where higher is nearer, or under L2 the
    Euclidean distance, where lower is nearer; `metric` says which. Hits come nearest first.
    """

    _closed_by = frozenset({"_index", "_lookup", "_parameters"})

    def __init__(self, files: Mapping[str, Path]) -> None:
        """Map the files of a version.

        Raises:
            DamagedFileError: one of them is not what was written.
            MissingExtraError: FAISS is not installed.
            OSError: one of them cannot be opened.
        """
        self.facts = facts = IndexFacts.load(files[FACTS])
        size = files[BASE].stat().st_size
        if size != facts.base_bytes:
            raise DamagedFileError(files[BASE], f"it has {size} bytes, not {facts.base_bytes}")
        self._index = open_index(files[BASE])
        if self._index.d != facts.dimension or self._index.ntotal != facts.count:
            raise DamagedFileError(
                files[BASE], f"it holds {self._index.ntotal} vectors of length {self._index.d}"
            )
        self.metric: Metric = facts.metric
        """What the score of a hit is."""
        self.dimension: int = facts.dimension
        """Length of every vector."""
        self.ids: Sequence[str]
        """The id of every row: a mapped sequence, not a list."""
        self.ids = self._ids = IdTable(files[IDS])
        self._payloads = PayloadTable(files[PAYLOADS])
        for table, name in ((self._ids, IDS), (self._payloads, PAYLOADS)):
            if len(table) != facts.count:
                raise DamagedFileError(files[name], f"it has {len(table)} rows, not {facts.count}")
        self._lookup = open_lookup(self._index, files)
        self._parameters = search_parameters(self._index, facts.effort)

    def __len__(self) -> int:
        """How many entries it holds."""
        return self.facts.count

    def __bool__(self) -> bool:
        """An index is there, even one without entries; ask for its ``len``."""
        return True

    def __contains__(self, entry_id: object) -> bool:
        return entry_id in self._ids

    @property
    def mapped(self) -> bool:
        """Whether its bulk lies in pages that all processes of the host share."""
        return is_mapped(self._index)

    def search(self, vector: ArrayLike, *, k: int = 10) -> list[Hit]:
        """The ``k`` nearest entries, or all of them where there are fewer.

        ``vector`` has the shape ``(dimension,)`` and any length but zero: under cosine it is
        brought to unit length.

        Raises:
            InvalidQueryError: it has another shape, holds a NaN or an infinity, is zero under
                cosine, or ``k`` is less than 1.
        """
        rows, scores = self._nearest(self._prepared(self._checked(vector, ndim=1)[None, :]), k)
        return self._hits(rows[0], scores[0])

    def search_many(self, vectors: ArrayLike, *, k: int = 10) -> list[list[Hit]]:
        """`search` for each row of ``vectors``, of shape ``(n, dimension)``."""
        rows, scores = self._nearest(self._prepared(self._checked(vectors, ndim=2)), k)
        return [self._hits(*answer) for answer in zip(rows, scores, strict=True)]

    def search_by_id(self, entry_id: str, *, k: int = 10) -> list[Hit]:
        """The ``k`` entries nearest to one that is in here, which itself is left out.

        Raises:
            UnknownEntryError: it is not in here.
            InvalidQueryError: ``k`` is less than 1.
        """
        _check_k(k)
        row = self._ids.row(entry_id)
        rows, scores = self._nearest(self._lookup.vector(row)[None, :], k + 1)
        others = rows[0] != row
        return self._hits(rows[0][others][:k], scores[0][others][:k])

    def vector(self, entry_id: str) -> Vectors:
        """The vector of one entry, as it is indexed: at unit length under cosine.

        Raises:
            UnknownEntryError: it is not in here.
        """
        return self._lookup.vector(self._ids.row(entry_id))

    def vector_at(self, row: int) -> Vectors:
        """The vector of ``ids[row]``."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return self._lookup.vector(row)

    def payload(self, entry_id: str) -> Any:
        """The parsed payload of one entry, or ``None``.

        Raises:
            UnknownEntryError: it is not in here.
        """
        return self._payloads.many(np.array([self._ids.row(entry_id)]))[0]

    def nearest_rows(self, queries: Vectors, *, k: int) -> NDArray[np.int64]:
        """The rows of the ``k`` nearest of each query; -1 where there are fewer.

        ``queries``, of shape ``(n, dimension)``, are taken as they are: float32, contiguous,
        finite, and at unit length under cosine. The result has the shape ``(n, k)``.
        """
        rows, _ = self._nearest(queries, k)
        missing = np.full((len(rows), k - rows.shape[1]), -1, dtype=np.int64)
        return np.hstack([rows, missing])

    def warm(self) -> None:
        """Touch what a first query would have to fetch from disk."""
        if len(self):
            self.search_by_id(self._ids[0])

    def close(self) -> None:
        """Let go of the maps; nothing may be searched afterwards."""
        del self._index, self._lookup, self._parameters
        self._ids.close()
        self._payloads.close()

    def _nearest(self, queries: Vectors, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        _check_k(k)
        k = min(k, len(self))
        if not k or not len(queries):
            shape = (len(queries), 0)
            return np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.float32)
        with openmp_threads(1):
            found, rows = self._index.search(queries, k, params=self._parameters)
            # Tuned for ten hits, what is looked into may hold fewer than a larger k: look wider.
            more = efforts_beyond(self._index, self.facts.effort)
            while rows[:, -1].min() < 0 and (effort := next(more, None)) is not None:
                parameters = search_parameters(self._index, effort)
                found, rows = self._index.search(queries, k, params=parameters)
        return rows, as_scores(found, self.metric)

    def _hits(self, rows: NDArray[np.int64], scores: NDArray[np.float32]) -> list[Hit]:
        if len(rows) and rows[-1] < 0:  # FAISS found fewer; what is missing comes last
            rows, scores = rows[rows >= 0], scores[rows >= 0]
        return list(map(Hit, self._ids.many(rows), scores.tolist(), self._payloads.many(rows)))

    def _checked(self, given: ArrayLike, *, ndim: int) -> Vectors:
        try:
            vectors = np.ascontiguousarray(given, dtype=np.float32)
        except (ValueError, TypeError) as error:
            raise InvalidQueryError(f"a query is an array of numbers: {error}") from error
        if vectors.ndim != ndim or vectors.shape[-1] != self.dimension:
            shape = f"({self.dimension},)" if ndim == 1 else f"(n, {self.dimension})"
            raise InvalidQueryError(f"a query has the shape {shape}, not {vectors.shape}")
        return vectors

    def _prepared(self, queries: Vectors) -> Vectors:
        """`metrics.prepared`, which refuses what has no answer; one pass where all is well."""
        squares = np.einsum("nd,nd->n", queries, queries)
        cosine = self.metric is Metric.COSINE
        if np.isfinite(squares).all() and (squares.all() or not cosine):
            return queries / np.sqrt(squares)[:, None] if cosine else queries
        if not np.isfinite(queries).all():
            raise InvalidQueryError("a query must not hold a NaN or an infinity")
        if cosine:
            raise InvalidQueryError("a query of length zero or infinity has no direction")
        return queries


def _check_k(k: int) -> None:
    if k < 1:
        raise InvalidQueryError(f"k is at least 1, not {k}")
