"""The nearest live rows of a query: by a graph over the first ones, and a comparison of the rest.

To compare ten thousand vectors takes several times as long as a graph of the version takes to
answer, so the first live vectors get a graph of their own (HNSW). It is grown off the path of
queries and of the writer: a copy of its links gets the vectors that came since, and takes its
place. Queries that hold the old one finish on it; a view that is older than a graph keeps the one
that it had. Neither is locked. The graph has links alone; the vectors that it compares are those of
`LiveRows`, which FAISS reads where they lie. So scores are exact, and ten thousand vectors of 128
dimensions take 1.4 MB more.

How hard to search is measured each time: the vectors that come next ask the graph, which does not
hold them yet, and the least effort counts that finds what `min_recall` asks for. Where none does,
and where fewer than half of its vectors are those of entries as a view has them, all are compared.

Most queries have few hits among live rows: those that are nearer than what the version found. So
the graph is searched with less effort first, enough for the nearest three, and again where more
than three are.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.live.rows import LiveRows, LiveView, Mask, Rows
from indexrelay.components.vector_index.index_search import (
    IndexSearch,
    openmp_threads,
    selector_of,
)
from indexrelay.components.vector_index.mapped_index import require_faiss
from indexrelay.components.vector_index.metrics import (
    as_distances,
    as_scores,
    faiss_metric,
    l2_scores,
    tolerance,
)
from indexrelay.components.vector_index.spec import Effort
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors

_LINKS: Final = 16
"""Of a vector on the upper levels; on the lowest it has twice as many, of four bytes."""
_BUILT_WITH: Final = 64
"""Candidates that are kept for a new vector's links."""
_FIRST_VALUES: Final = 1024 * 128
"""Numbers of float32 that are compared in the time that a graph takes."""
_FIRST_ROWS: Final = (128, 2048)
"""At least and at most so many rows, however long they are."""
_STEP: Final = 128
_STEP_SHARE: Final = 1 / 64
"""A graph is grown by so many rows, and by such a share of its own: each time its links are copied,
and each query compares what is not in it yet."""
_EFFORTS: Final = (12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_ASKED_FIRST: Final = 100
_ASKED: Final = 32
_REMEMBERED: Final = 0.75
"""How much what was measured before counts: with so few rows each time one batch would decide."""
_FEW, _HITS = 3, 10
"""Of how many hits the recall is measured."""
_MISSES: Final = 0.8
"""Of what ``min_recall`` allows: other queries than those that were asked miss a few more."""
_MOST_K: Final = 1 / 8
"""Of a graph's vectors; where more hits are wanted all are compared."""
_LEAST_ALIVE: Final = 1 / 2

ScoredRow = tuple[float, int]
"""The score of a live row, and the row."""


@dataclass(frozen=True, kw_only=True)
class GraphSizes:
    """From how many vectors on there is a graph, and how many more it takes at a time."""

    first: int
    step: int
    share: float = _STEP_SHARE

    @classmethod
    def of(cls, dimension: int) -> "GraphSizes":
        """Those that pay for vectors of this dimension."""
        fewest, most = _FIRST_ROWS
        return cls(first=min(most, max(fewest, _FIRST_VALUES // dimension)), step=_STEP)

    def is_due(self, known: int, count: int) -> bool:
        """Whether ``count`` vectors ask for a larger graph than one over the first ``known``."""
        if not known:
            return count >= self.first
        return count - known >= max(self.step, self.share * known)


@dataclass(frozen=True)
class Trials:
    """How much of the nearest a graph found, by effort."""

    asked: float = 0.0
    """How many queries."""
    found: tuple[float, ...] = (0.0,) * len(_EFFORTS)
    """Of the nearest ten of each."""
    few: tuple[float, ...] = (0.0,) * len(_EFFORTS)
    """Of the nearest three of each."""

    def least(self, min_recall: float, hits: int) -> int | None:
        """The least effort that finds enough of so many hits; ``None``: none does."""
        counts = self.few if hits <= _FEW else self.found
        wanted = self.asked * (_FEW if hits <= _FEW else _HITS)
        wanted *= 1 - (1 - min_recall) * _MISSES
        for effort, found in zip(_EFFORTS, counts, strict=True):
            if self.asked and found >= wanted:
                return effort
        return None


class LiveGraph:
    """A graph over the vectors at the first ``count`` places; safe to search from many threads."""

    def __init__(self, like: Any, vectors: Vectors, *, count: int, trials: Trials) -> None:
        """Copy the links of a FAISS index, and have them read the vectors where they lie."""
        self.count = count
        self.trials = trials
        """What it found of what it was asked."""
        self.index: Any = _empty(vectors.shape[1], like.metric_type)
        """As FAISS has it; not to be changed."""
        self.index.hnsw, self.index.ntotal = like.hnsw, count
        self.index.referenced_objects = [vectors]  # for whoever searches it without this
        own = self.index.storage
        self.index.storage = _lent(vectors[:count], like.metric_type)  # and owns it, as it did this
        own.this.own(True)

    @classmethod
    def grown(
        cls, before: "LiveGraph | None", vectors: Vectors, count: int, metric: Metric
    ) -> "LiveGraph":
        """A graph over the first ``count`` vectors, from one over fewer of them, or none.

        Takes some 0.2 ms for each vector that is new, most of it without the interpreter's lock.
        """
        known = 0 if before is None else before.count
        trials = Trials() if before is None else before.trials
        index = _empty(vectors.shape[1], faiss_metric(metric))
        with openmp_threads(1):
            if before is not None:
                # Room for all: a vector of C++ that grows takes twice as much.
                index.storage.add(vectors[:count])
                index.storage.reset()
                index.storage.add(vectors[:known])
                index.hnsw, index.ntotal = before.index.hnsw, known
            elif count > 1:
                known = count - max(1, min(_ASKED_FIRST, count // 4))
                index.add(vectors[:known])
            if known:
                queries = vectors[known:count]
                most = _ASKED_FIRST if before is None else _ASKED
                queries = queries[:: -(-len(queries) // most)]
                trials = _tried(index, np.ascontiguousarray(queries), metric, trials)
            index.add(vectors[known:count])
        return cls(index, vectors, count=count, trials=trials)

    def over(self, vectors: Vectors) -> "LiveGraph":
        """The same graph over the same vectors in another array."""
        return LiveGraph(self.index, vectors, count=self.count, trials=self.trials)

    def effort(self, min_recall: float, hits: int = _HITS) -> int | None:
        """The least effort that reaches this recall of so many hits; ``None``: none does."""
        return self.trials.least(min_recall, hits)

    def search(self, effort: int, alive: Mask | None) -> IndexSearch:
        """Searches it.

        Args:
            effort: candidates that are kept.
            alive: which of its vectors may be found, shape ``(count,)``; ``None``: all.
        """
        selector = None
        if alive is not None:
            selector = selector_of(np.packbits(alive, bitorder="little"))
        return IndexSearch(self.index, Effort(ef_search=effort), selector)


def _empty(dimension: int, metric: int) -> Any:
    index = require_faiss().IndexHNSWFlat(dimension, _LINKS, metric)
    index.hnsw.efConstruction = _BUILT_WITH
    return index


def _lent(vectors: Vectors, metric: int) -> Any:
    """An index that compares vectors where they lie; they have to stay for as long."""
    faiss = require_faiss()
    count, dimension = vectors.shape
    index = faiss.IndexFlat(dimension, metric)
    owner = _no_owner().codes.owner
    pointer, view = faiss.swig_ptr(vectors), faiss.MaybeOwnedVectorUInt8.create_view
    index.codes, index.ntotal = view(pointer, vectors.nbytes, owner), count
    return index


@cache
def _no_owner() -> Any:
    """An index that borrows what it holds of nobody: Python cannot make FAISS such an owner."""
    faiss = require_faiss()
    written = faiss.serialize_index(faiss.IndexFlat(1))
    reader = faiss.ZeroCopyIOReader(faiss.swig_ptr(written), written.size)
    return faiss.read_index(reader)


def _tried(index: Any, queries: Vectors, metric: Metric, before: Trials) -> Trials:
    """What ``index`` finds of the nearest of each of ``queries``, which it does not hold."""
    k = min(_HITS, index.ntotal)
    exact = as_distances(IndexSearch(index.storage, Effort()).nearest(queries, k)[0], metric)
    shares = {}
    for hits in (_FEW, _HITS):
        limit = exact[:, min(hits, k) - 1][:, None].astype(np.float64)
        shares[hits] = limit + tolerance(limit, queries)
    counts: dict[int, list[float]] = {_FEW: [], _HITS: []}
    for effort in _EFFORTS:
        found, rows = IndexSearch(index, Effort(ef_search=effort)).nearest_at_effort(queries, k)
        far = np.where(rows < 0, np.inf, as_distances(found, metric))
        for hits, limit in shares.items():
            # Fewer rows than hits: each that is there counts as so many more.
            counts[hits].append(float((far[:, :hits] <= limit).mean()) * hits * len(queries))
    return Trials(
        asked=_REMEMBERED * before.asked + len(queries),
        found=_remembered(before.found, counts[_HITS]),
        few=_remembered(before.few, counts[_FEW]),
    )


def _remembered(before: tuple[float, ...], counts: list[float]) -> tuple[float, ...]:
    return tuple(_REMEMBERED * old + new for old, new in zip(before, counts, strict=True))


def grow_graph(rows: LiveRows, placed: int, sizes: GraphSizes) -> bool:
    """Let the graph of ``rows`` hold the first ``placed`` vectors, if that is due; whether it was.

    Called by one thread at a time.
    """
    known = rows.graph
    if not sizes.is_due(0 if known is None else known.count, placed):
        return False
    rows.graph = LiveGraph.grown(known, rows.vectors, placed, rows.metric)
    return True


class Comparison:
    """Compares one vector with many, by FAISS's functions for one thread.

    NumPy's product takes threads, which spin while they wait for each other.
    """

    def __init__(self, dimension: int, metric: Metric) -> None:
        faiss = require_faiss()
        self.metric = metric
        self.is_l2 = metric is Metric.L2
        self.pointer = faiss.swig_ptr
        self._dimension = dimension
        self._all = faiss.fvec_L2sqr_ny if self.is_l2 else faiss.fvec_inner_products_ny
        by_place = faiss.fvec_L2sqr_by_idx if self.is_l2 else faiss.fvec_inner_products_by_idx
        self._by_place = by_place

    def with_all(self, query: Vectors, vectors: Any, count: int) -> NDArray[np.float32]:
        """What FAISS measures for each of ``count`` vectors: a product, or a squared distance.

        ``vectors`` is what `pointer` makes of them.
        """
        found = np.empty(count, dtype=np.float32)
        pointer = self.pointer
        self._all(pointer(found), pointer(query), vectors, self._dimension, count)
        return found

    def with_some(self, query: Vectors, rows: LiveRows, some: Rows) -> NDArray[np.float32]:
        """The score of each of some rows that are entries."""
        places = rows.places[some].astype(np.int64)
        found = np.empty(len(places), dtype=np.float32)
        pointer = self.pointer
        self._by_place(
            pointer(found),
            pointer(query),
            pointer(rows.vectors),
            pointer(places),
            self._dimension,
            1,
            len(places),
        )
        return as_scores(found, self.metric)


class LiveNeighbours:
    """The nearest of all rows of a view that are entries; immutable, for any number of threads."""

    def __init__(
        self,
        view: LiveView,
        comparison: Comparison,
        *,
        alive: Mask | None,
        graph: LiveGraph | None = None,
        min_recall: float = 1.0,
    ) -> None:
        """Take what is the same for all queries.

        Args:
            view: which rows there are.
            comparison: compares vectors.
            alive: by place, whether the vector is that of an entry; ``None``: all are.
            graph: over some of the vectors of the view, if it is to be searched.
            min_recall: what a graph has to find of the nearest ten.
        """
        self._rows_at = view.rows.rows_at
        self._comparison = comparison
        self._is_l2 = comparison.is_l2
        self._alive = alive
        self._dead = None if alive is None else ~alive
        self._placed = view.placed
        self._vectors = view.rows.vectors
        self._first = 0
        self._most_k = 0
        self._search: IndexSearch | None = None
        self._shallow: IndexSearch | None = None
        if graph is not None:
            self._search_by(graph, min_recall)
        self._behind = comparison.pointer(self._vectors[self._first :])

    @property
    def how(self) -> str:
        """By what it finds them, as `Layer.how`."""
        return "scan" if self._search is None else f"HNSW{_LINKS} and scan"

    def nearest(self, query: Vectors, k: int, worst: float | None = None) -> list[ScoredRow]:
        """The ``k`` nearest rows whose score is better than ``worst``, the best first.

        ``query``, of the shape ``(dimension,)``, is prepared; ``worst`` of ``None``: any score.
        """
        found = self._in_graph(query, k, worst) if k <= self._most_k else None
        if found is None:
            whole = self._comparison.pointer(self._vectors)
            return self._compared(query, k, worst, 0, whole)
        behind = self._compared(query, k, worst, self._first, self._behind)
        if not behind:
            return found
        return sorted([*found, *behind], reverse=not self._is_l2)[:k]

    def _search_by(self, graph: LiveGraph, min_recall: float) -> None:
        count, alive = graph.count, self._alive
        left = count if alive is None else int(np.count_nonzero(alive[:count]))
        effort = graph.effort(min_recall)
        least = graph.effort(min_recall, _FEW)
        if effort is None or left < _LEAST_ALIVE * count:
            return
        if left == count:
            alive = None
        else:
            effort = effort * count // left  # those that may not be found are candidates, too
            least = least and least * count // left
        mask = None if alive is None else alive[:count]
        self._search = graph.search(effort, mask)
        if least is not None and least < effort:
            self._shallow = graph.search(least, mask)
        self._first = count
        self._most_k = max(1, int(_MOST_K * left))

    def _in_graph(self, query: Vectors, k: int, worst: float | None) -> list[ScoredRow] | None:
        """Those of the graph; ``None``: it found fewer than there are."""
        if worst is not None and self._shallow is not None:
            found = self._found_by(self._shallow, query, k, worst)
            if found is not None and len(found) <= _FEW:
                return found
        return None if self._search is None else self._found_by(self._search, query, k, worst)

    def _found_by(
        self, search: IndexSearch, query: Vectors, k: int, worst: float | None
    ) -> list[ScoredRow] | None:
        measured, places = search.one_at_effort(query, k)
        if places.item(-1) < 0:
            return None
        scores = (l2_scores(measured) if self._is_l2 else measured).tolist()
        if worst is not None:
            best = scores[0]
            if best >= worst if self._is_l2 else best <= worst:
                return []  # many queries, as most entries are in the version
            scores = [each for each in scores if (each < worst if self._is_l2 else each > worst)]
        rows = self._rows_at[places[: len(scores)]].tolist()
        return list(zip(scores, rows, strict=True))

    def _compared(
        self, query: Vectors, k: int, worst: float | None, first: int, vectors: Any
    ) -> list[ScoredRow]:
        """Those of the places from ``first`` on."""
        count = self._placed - first
        if not count:
            return []
        far = self._comparison.with_all(query, vectors, count)
        if not self._is_l2:
            np.negative(far, out=far)
        if self._dead is not None:
            far[self._dead[first:]] = np.inf
        if worst is None:
            limit = np.inf
        else:
            limit = worst * worst if self._is_l2 else -worst
            if far.item(far.argmin()) >= limit:
                return []  # most queries; a minimum alone takes NumPy three times as long
        near = np.flatnonzero(far < limit)
        if len(near) > k:
            near = near[np.argpartition(far[near], k)[:k]]
        near = near[np.argsort(far[near], kind="stable")]
        scores = as_scores(far[near] if self._is_l2 else -far[near], self._comparison.metric)
        found = list(zip(scores.tolist(), self._rows_at[first + near].tolist(), strict=True))
        if worst is not None and self._is_l2:  # the square of a root is not quite what it was
            return [each for each in found if each[0] < worst]
        return found
