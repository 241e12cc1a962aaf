"""A vector index as a reader serves it.

Everything is mapped and nothing ever changes, so queries of any number of threads run side by side
without a lock; FAISS releases the interpreter's lock while it searches. One query takes one thread.

A query is checked before FAISS sees it. Base and delta are each searched with the effort that was
tuned, and their answers merged. Where the base finds fewer rows than were asked for, both are
searched with more effort: otherwise rows of the delta would fill the gap, however far they are, and
nearer ones of the base would be left out.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from indexrelay.components.errors import CorruptFileError, InvalidQueryError, of_faiss
from indexrelay.components.formats.string_table import Rows
from indexrelay.components.served import (
    MAX_PAYLOAD_VALUES,
    Closable,
    Hit,
    check_payload_bytes,
    check_payload_values,
    checked_k,
)
from indexrelay.components.vector_index.index_search import (
    Found,
    IndexSearch,
    SharedLists,
    missing,
    openmp_threads,
    selector_around,
    share_lists,
)
from indexrelay.components.vector_index.mapped_index import is_mapped, prefault, require_faiss
from indexrelay.components.vector_index.metrics import as_scores
from indexrelay.components.vector_index.spec import IndexFacts
from indexrelay.components.vector_index.version import BASE, Contents, Delta
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors
from indexrelay.storage.validation import MAX_LENGTH, MIN_LENGTH

_REMEMBERED: Final = 32
"""Recent queries that warm the next version: enough to read the pages that are in demand."""
_PREFAULT_SECONDS: Final = 0.2
"""Enough to prefault a base that is in memory: 20 ms for 256 MB."""
_WARM_SECONDS: Final = 1.0
"""For all of a warm-up: beyond it the disk is too slow, and a release would wait for it."""


class VectorSearch(Closable):
    """Searches by vector and by entry; immutable, and safe to use from many threads.

    The score of a `Hit` is the cosine or the inner product, where higher is nearer, or under L2 the
    Euclidean distance, where lower is nearer; `metric` says which. Hits come nearest first.
    """

    _closed_by = frozenset({"contents", "_search"})

    def __init__(self, files: Mapping[str, Path], previous: "VectorSearch | None" = None) -> None:
        """Map the files of a version; a base that ``previous`` has open is shared.

        Raises:
            CorruptFileError: one of them is not what was written.
            MissingExtraError: FAISS is not installed.
            OSError: one of them cannot be opened.
        """
        self.contents: Contents = Contents(files, None if previous is None else previous.contents)
        """What it holds, by row: for gates and the next build."""
        self.facts = facts = self.contents.facts
        self.ids: Sequence[str] = self.contents.ids
        """Every id, in the order of the collection: mapped, not a list."""
        self.metric: Metric = facts.metric
        """What the score of a hit is."""
        self.dimension: int = facts.dimension
        """Length of every vector."""
        self._entries = facts.entries
        tombstones = self.contents.ids.layers.tombstones
        base, delta = self.contents.base.index, self.contents.delta
        self._search: IndexSearch | BothLayers
        if delta is None:
            self._search = IndexSearch(base, facts.effort)
        else:
            self._search = BothLayers(
                base,
                delta,
                facts,
                alive=facts.count - len(tombstones),
                selector=selector_around(tombstones, rows=facts.count),
            )
        self._queries = _Queries(dimension=facts.dimension, metric=facts.metric)
        self._asked: deque[Vectors] = deque(maxlen=_REMEMBERED)
        self.warm_up_seconds = 0.0
        """How long `warm` took, as a part of the load."""

    def __len__(self) -> int:
        """How many entries it holds."""
        return self._entries

    def __bool__(self) -> bool:
        """True, even without entries; ``len`` is their number."""
        return True

    def __contains__(self, entry_id: object) -> bool:
        return entry_id in self.contents.ids

    @property
    def mapped(self) -> bool:
        """Whether its bulk is in pages that all processes of the host share."""
        return is_mapped(self.contents.base.index)

    @property
    def recent_queries(self) -> list[Vectors]:
        """The last few queries of `search`, each of the shape ``(1, dimension)``, prepared."""
        return list(self._asked)

    def search(
        self, vector: ArrayLike, *, k: int = 10, max_payload_bytes: int | None = None
    ) -> list[Hit]:
        """The ``k`` nearest entries, or all of them where there are fewer.

        ``vector`` has the shape ``(dimension,)`` and any length but zero: under cosine it is
        brought to unit length. No payload is read where all of them have more bytes of JSON than
        ``max_payload_bytes``; ``None``: any number.

        Raises:
            InvalidQueryError: it has another shape, holds a NaN or an infinity, is zero under
                cosine, ``k`` is no whole number from 1, or the payloads have too many bytes.
        """
        query = self._queries.one(vector)
        self._asked.append(query)
        rows, scores = self._nearest(query, k)
        return self._hits(rows[0], scores[0], max_payload_bytes)

    def search_many(self, vectors: ArrayLike, *, k: int = 10) -> list[list[Hit]]:
        """`search` for each row of ``vectors``, of shape ``(n, dimension)``."""
        rows, scores = self._nearest(self._queries.many(vectors), k)
        return [self._hits(*answer) for answer in zip(rows, scores, strict=True)]

    def search_by_id(
        self, entry_id: str, *, k: int = 10, max_payload_bytes: int | None = None
    ) -> list[Hit]:
        """The ``k`` entries nearest to one that is in here, which itself is left out.

        Raises:
            UnknownEntryError: it is not in here.
            InvalidQueryError: ``k`` is no whole number from 1, or the payloads have more bytes than
                ``max_payload_bytes``.
        """
        k = checked_k(k)
        row = self.contents.row(entry_id)
        rows, scores = self._nearest(self.contents.vector(row)[None, :], k + 1)
        others = rows[0] != row
        return self._hits(rows[0][others][:k], scores[0][others][:k], max_payload_bytes)

    def vector(self, entry_id: str) -> Vectors:
        """The vector of one entry, as it is indexed: at unit length under cosine.

        Raises:
            UnknownEntryError: it is not in here.
        """
        return self.contents.vector(self.contents.row(entry_id))

    def vector_at(self, position: int) -> Vectors:
        """The vector of ``ids[position]``; raises `IndexError` where there is none."""
        return self.contents.vector(self.contents.row_at(position))

    def payload(self, entry_id: str) -> Any:
        """The parsed payload of one entry, or ``None``.

        Raises:
            UnknownEntryError: it is not in here.
        """
        return self.contents.payloads_of(np.array([self.contents.row(entry_id)]))[0]

    def nearest_rows(self, queries: Vectors, *, k: int) -> Rows:
        """The rows (see `Contents`) of the ``k`` nearest of each query; -1 where there are fewer.

        ``queries``, of shape ``(n, dimension)``, are taken as they are: float32, contiguous,
        finite, and at unit length under cosine. The result has the shape ``(n, k)``.
        """
        rows, _ = self._nearest(queries, k)
        missing = np.full((len(rows), k - rows.shape[1]), -1, dtype=np.int64)
        return np.hstack([rows, missing])

    def warm(self, like: "VectorSearch | None" = None) -> None:
        """Read what the first queries would have to fetch.

        A new base is prefaulted. Where that takes long, because it is on disk, the pages in demand
        go first: the recent queries of ``like``, which is served until now, are searched. Otherwise
        one query is enough, as it is where a query reads everything, or where only the delta is
        new.
        """
        if not len(self):
            return
        started = perf_counter()
        if like is not None and like.dimension == self.dimension:
            self._asked.extend(like.recent_queries)
        base = self.contents.base
        known = like is not None and base is like.contents.base
        known = known or self._prefault(until=started + _PREFAULT_SECONDS)
        known = known or isinstance(base.index, require_faiss().IndexFlat)
        queries = self.recent_queries or [self.vector_at(0)[None, :]]
        for query in queries[:1] if known else queries:
            rows, scores = self._nearest(query, 10)
            self._hits(rows[0], scores[0])
            if perf_counter() - started > _WARM_SECONDS:
                break
        if not known:
            self._prefault(until=started + _WARM_SECONDS)
        self.warm_up_seconds = perf_counter() - started

    def close(self) -> None:
        """Let go of the maps; nothing may be searched afterwards."""
        self.contents.close()
        del self.contents, self._search

    def _prefault(self, *, until: float) -> bool:
        """Prefault the base; whether all of it was in time."""
        path = self.contents.base.paths[BASE]
        return prefault(path, go_on=lambda: perf_counter() < until) >= self.facts.base_bytes

    def _nearest(self, queries: Vectors, k: int) -> tuple[Rows, NDArray[np.float32]]:
        k = min(checked_k(k), self._entries)
        if not k or not len(queries):
            shape = (len(queries), 0)
            return np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.float32)
        try:
            with openmp_threads(1):
                found, rows = self._search.nearest(queries, k)
        except RuntimeError as error:  # what every FAISS exception becomes
            raise of_faiss(self.contents.base.paths[BASE], error) from error
        return rows, as_scores(found, self.metric)

    def _hits(
        self, rows: Rows, scores: NDArray[np.float32], max_payload_bytes: int | None = None
    ) -> list[Hit]:
        if len(rows) and rows[-1] < 0:  # FAISS found fewer; what is missing comes last
            rows, scores = rows[rows >= 0], scores[rows >= 0]
        contents = self.contents
        try:
            if max_payload_bytes is not None:
                size = contents.payload_bytes_of(rows)
                check_payload_bytes(size, max_payload_bytes)
                if size > MAX_PAYLOAD_VALUES:
                    check_payload_values(contents.payload_texts_of(rows), size)
            ids, payloads = contents.ids_of(rows), contents.payloads_of(rows)
        except IndexError as error:
            path = contents.base.paths[BASE]
            raise CorruptFileError(path, "it finds rows that do not exist") from error
        return list(map(Hit, ids, scores.tolist(), payloads))


_MIN_SQUARE: Final = MIN_LENGTH**2
_MAX_SQUARE: Final = MAX_LENGTH**2


@dataclass(frozen=True, slots=True)
class _Queries:
    """Checks queries for one index, and brings them to unit length under cosine."""

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
        # A NaN or an infinity makes it one, too; `dot` would warn where it overflows.
        squares = float(np.vdot(vector, vector))
        if _MIN_SQUARE <= squares <= _MAX_SQUARE:
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
        if not (squares <= _MAX_SQUARE).all():
            raise InvalidQueryError(
                f"a query is at most {MAX_LENGTH:g} long: its distances have no float32 beyond"
            )
        if not cosine:
            return queries
        if not (squares >= _MIN_SQUARE).all():
            raise InvalidQueryError(
                f"a query of length zero, or below {MIN_LENGTH:g}, has no direction"
            )
        unit: Vectors = queries / np.sqrt(squares)[:, None]
        return unit


def _array(given: ArrayLike) -> Vectors:
    if isinstance(given, np.ndarray) and given.dtype == np.float32:
        return np.ascontiguousarray(given)  # most queries: `errstate` would cost them 1.5 µs
    try:
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused
            return np.ascontiguousarray(given, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise InvalidQueryError(f"a query is an array of numbers: {error}") from error


class BothLayers:
    """Searches base and delta, and merges; immutable, and safe to use from many threads."""

    def __init__(
        self, base: Any, delta: Delta, facts: IndexFacts, *, alive: int, selector: Any
    ) -> None:
        """Search ``base``, a FAISS index with ``alive`` rows that ``selector`` lets through."""
        self._in_base = IndexSearch(base, facts.effort, selector)
        self._delta = delta
        self._shared: SharedLists | None = None
        if delta.index is not None and share_lists(base, delta.index):
            self._shared = SharedLists(base, delta.index, facts.effort, selector)
        self._alive = alive
        self._first_of_delta = facts.count
        self._smaller_is_nearer = facts.metric is Metric.L2

    def nearest(self, queries: Vectors, k: int) -> Found:
        """As `IndexSearch.nearest`; rows of the delta are counted on from the base's last."""
        in_base, in_delta = min(k, self._alive), min(k, len(self._delta))
        if not in_delta:
            return self._in_base.nearest(queries, in_base)
        if not in_base:
            return self._moved(self._delta.nearest(queries, in_delta))
        if self._shared is not None:
            of_base, of_delta = self._shared.nearest(queries, in_base, in_delta)
        else:
            of_base = self._in_base.nearest_at_effort(queries, in_base)
            of_delta = self._delta.nearest_at_effort(queries, in_delta)
        answer = self._merged(of_base, of_delta, k)
        if missing(of_base[1]) or missing(answer[1]):
            of_base = self._in_base.nearest(queries, in_base)
            of_delta = self._delta.nearest(queries, in_delta)
            answer = self._merged(of_base, of_delta, k)
        return answer

    def _merged(self, of_base: Found, of_delta: Found, k: int) -> Found:
        of_delta = self._moved(of_delta)
        found = np.concatenate([of_base[0], of_delta[0]], axis=1)
        rows = np.concatenate([of_base[1], of_delta[1]], axis=1)
        # FAISS gives a missing row the largest distance, so it comes last.
        near = found if self._smaller_is_nearer else -found
        best = near.argsort(axis=1, kind="stable")[:, :k]
        if len(best) == 1:  # half the time of the general way
            return found[:, best[0]], rows[:, best[0]]
        return np.take_along_axis(found, best, axis=1), np.take_along_axis(rows, best, axis=1)

    def _moved(self, of_delta: Found) -> Found:
        found, rows = of_delta
        rows[rows >= 0] += self._first_of_delta
        return found, rows
