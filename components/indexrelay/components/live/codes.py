"""The nearest live rows of a query: by short codes of the first ones, and a comparison of the rest.

To compare ten thousand vectors takes several times as long as a graph of the version takes to
answer, so the first live vectors get codes of four bits for each few numbers (product
quantization, which FAISS scans in blocks of 32 rows). A query looks through all codes, takes the
rows that look nearest, and compares those with itself. So scores are exact, and ten thousand
vectors of 128 dimensions take 0.3 MB more, which stay in the processor's cache.

Codes are made off the path of queries and of the writer: a copy gets the vectors that came since,
and takes their place. Queries that hold the old one finish on it; a view that is older than the
codes keeps those that it had. Neither is locked. What codes stand for is learned again whenever
there are twice as many rows.

How many rows to compare is measured each time: the vectors that come next are queries, before they
have codes, and the fewest candidates count that hold what `min_recall` asks for. Where that is a
quarter of all, and where fewer than half of the coded vectors are those of entries as a view has
them, all are compared.

Most queries have few hits among live rows: those that are nearer than what the version found. So
the candidates are at first as many as the nearest three need, and more where as many are found.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from operator import add
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.live.comparison import Comparison, Measured
from indexrelay.components.live.rows import LiveRows, LiveView, Mask, Rows
from indexrelay.components.vector_index.index_search import openmp_threads
from indexrelay.components.vector_index.mapped_index import require_faiss
from indexrelay.components.vector_index.metrics import faiss_metric
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors

_BITS: Final = 4
_CENTROIDS: Final = 2**_BITS
_FEWEST_NUMBERS: Final = 2
"""That one code stands for; of three so many candidates are needed that the scan is no shorter."""
_MOST_CODES: Final = 96
_FEWEST_CODES: Final = 32
_LEARNED_FROM: Final = 4096
"""Rows at most; twice as many make no better codes."""
_LEARNING_ROUNDS: Final = 10
_FIRST_VALUES: Final = 1024 * 128
"""Numbers of float32 that are compared in the time that codes take."""
_FIRST_ROWS: Final = (128, 2048)
"""At least and at most so many rows, however long they are."""
_STEP: Final = 64
_STEP_SHARE: Final = 1 / 128
"""Codes are made for so many rows, and for such a share of those that there are: each time they
are copied, and each query compares what has none yet."""
_CANDIDATES: Final = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_ASKED_FIRST: Final = 100
_ASKED: Final = 32
_REMEMBERED: Final = 0.75
"""How much what was measured before counts: with so few rows each time one batch would decide. It
counts less by as much as there are more rows now, since more candidates are needed among more."""
_FEW, _HITS = 3, 10
"""Of how many hits the recall is measured."""
_MISSES: Final = 0.8
"""Of what ``min_recall`` allows: other queries than those that were asked miss a few more."""
_MOST_CANDIDATES: Final = 1 / 4
"""Of the rows that have codes; where more are to be compared, all are."""
_LEAST_ALIVE: Final = 1 / 2
_FEW_MEASURED: Final = 256
"""From so many on NumPy finds the best of them sooner than Python."""

ScoredRow = tuple[float, int]
"""The score of a live row, and the row."""


@dataclass(frozen=True, kw_only=True)
class CodeSizes:
    """From how many vectors on there are codes, and for how many more at a time."""

    first: int
    step: int
    share: float = _STEP_SHARE

    @classmethod
    def of(cls, dimension: int) -> "CodeSizes":
        """Those that pay for vectors of this dimension."""
        fewest, most = _FIRST_ROWS
        return cls(first=min(most, max(fewest, _FIRST_VALUES // dimension)), step=_STEP)

    def is_due(self, known: int, count: int) -> bool:
        """Whether ``count`` vectors ask for more codes than those of the first ``known``."""
        if not known:
            return count >= self.first
        return count - known >= max(self.step, self.share * known)


@dataclass(frozen=True)
class Trials:
    """How much of the nearest is among the candidates, by their number."""

    asked: float = 0.0
    """How many queries."""
    found: tuple[float, ...] = (0.0,) * len(_CANDIDATES)
    """Of the nearest ten of each."""
    few: tuple[float, ...] = (0.0,) * len(_CANDIDATES)
    """Of the nearest three of each."""

    def least(self, min_recall: float, hits: int) -> int | None:
        """The fewest candidates that hold enough of so many hits; ``None``: no number does."""
        counts = self.few if hits <= _FEW else self.found
        wanted = self.asked * (1 - (1 - min_recall) * _MISSES)
        for candidates, found in zip(_CANDIDATES, counts, strict=True):
            if self.asked and found >= wanted:
                return candidates
        return None

    def fading(self, share: float) -> "Trials":
        """The same, counting for so much of what it was."""
        return Trials(
            asked=share * self.asked,
            found=tuple(share * each for each in self.found),
            few=tuple(share * each for each in self.few),
        )


class LiveCodes:
    """Codes of the vectors at the first ``count`` places; immutable, for any number of threads."""

    def __init__(self, index: Any, *, learned_from: int, trials: Trials) -> None:
        """Take an index of FAISS that nobody changes any more."""
        self.index: Any = index
        """As FAISS has it; its rows are places, its vectors may be longer, by zeros."""
        self.count: int = index.ntotal
        self.learned_from = learned_from
        """How many rows there were when what codes stand for was learned."""
        self.trials = trials
        """What was found of what was asked."""

    @classmethod
    def grown(
        cls, before: "LiveCodes | None", vectors: Vectors, count: int, metric: Metric
    ) -> "LiveCodes":
        """Codes of the first ``count`` vectors, from those of fewer, or none.

        Takes some milliseconds, and a tenth of a second where what they stand for is learned;
        most of that without the interpreter's lock.
        """
        with openmp_threads(1):
            if before is not None and count < 2 * before.learned_from:
                known, learned_from, trials = before.count, before.learned_from, before.trials
                index = require_faiss().clone_index(before.index)
                most = _ASKED
            else:
                known = count - max(1, min(_ASKED_FIRST, count // 4)) if count > 1 else 0
                learned_from, trials = count, Trials()
                index = _learned(vectors[: known or count], metric)
                index.add(_padded(vectors[:known], index.d))
                most = _ASKED_FIRST
            new = vectors[known:count]
            if known:
                trials = trials.fading(_REMEMBERED * known / count)
                trials = _tried(index, new[:: -(-len(new) // most)], vectors, metric, trials)
            index.add(_padded(new, index.d))
        return cls(index, learned_from=learned_from, trials=trials)

    @property
    def how(self) -> str:
        """As FAISS calls such codes."""
        return f"PQ{self.index.pq.M}x{_BITS}fs"

    def candidates(self, min_recall: float, hits: int = _HITS) -> int | None:
        """The fewest that reach this recall of so many hits; ``None``: no number does."""
        return self.trials.least(min_recall, hits)


def _learned(vectors: Vectors, metric: Metric) -> Any:
    """An index without rows that has learned what its codes stand for."""
    dimension = vectors.shape[1]
    length = _numbers_of_a_code(dimension)
    codes = -(-dimension // length)
    index = require_faiss().IndexPQFastScan(codes * length, codes, _BITS, faiss_metric(metric))
    index.pq.cp.niter = _LEARNING_ROUNDS
    index.pq.cp.min_points_per_centroid = 1  # it would print a warning
    some = vectors[:: -(-len(vectors) // _LEARNED_FROM)]
    if len(some) < _CENTROIDS:
        some = np.resize(some, (_CENTROIDS, dimension))
    index.train(_padded(some, index.d))
    return index


def _numbers_of_a_code(dimension: int) -> int:
    """How many numbers of a vector one code stands for: as few as keep codes short."""
    fewest = max(_FEWEST_NUMBERS, -(-dimension // _MOST_CODES))
    fitting = (
        each
        for each in range(fewest, max(fewest, dimension // _FEWEST_CODES) + 1)
        if dimension % each == 0
    )
    return next(fitting, fewest)


def _padded(vectors: Vectors, dimension: int) -> Vectors:
    """Vectors with zeros at the end, of the shape ``(n, dimension)``."""
    missing = dimension - vectors.shape[1]
    if not missing:
        return np.ascontiguousarray(vectors)
    return np.pad(vectors, ((0, 0), (0, missing)))


def _tried(
    index: Any, queries: Vectors, vectors: Vectors, metric: Metric, before: Trials
) -> Trials:
    """What ``index``, of the first ``vectors``, finds for ``queries``, which it does not hold."""
    known, (asked, dimension) = index.ntotal, queries.shape
    hits = min(_HITS, known)
    _, places = index.search(_padded(queries, index.d), min(_CANDIDATES[-1], known))
    ends = np.minimum(_CANDIDATES, places.shape[1]) - 1
    comparison = Comparison(dimension, metric)
    at = comparison.pointer(vectors)
    few, found = np.zeros(len(ends)), np.zeros(len(ends))
    for query, candidates in zip(np.ascontiguousarray(queries), places, strict=True):
        far = comparison.with_all(query, at, known)
        nearest = np.sort(np.partition(far, hits - 1)[:hits])
        near = far[candidates]
        for shares, wanted in ((few, min(_FEW, hits)), (found, hits)):
            among = np.cumsum(near <= nearest[wanted - 1])[ends]
            np.add(shares, np.minimum(among, wanted) / wanted, out=shares)
    return Trials(
        asked=before.asked + asked,
        found=tuple(map(add, before.found, found.tolist())),
        few=tuple(map(add, before.few, few.tolist())),
    )


def grow_codes(rows: LiveRows, placed: int, sizes: CodeSizes) -> bool:
    """Have codes of the first ``placed`` vectors of ``rows``, if that is due; whether it was.

    Called by one thread at a time.
    """
    known = rows.codes
    if not sizes.is_due(0 if known is None else known.count, placed):
        return False
    rows.codes = LiveCodes.grown(known, rows.vectors, placed, rows.metric)
    return True


class _Answer(Measured):
    """What FAISS writes the answer to one query into, with the addresses of its parts."""

    __slots__ = ("rough", "rough_at")

    def __init__(self, candidates: int, behind: Rows, pointer: Any) -> None:
        """Take places that are compared in any case, behind those of the candidates."""
        super().__init__(np.concatenate([np.zeros(candidates, dtype=np.int64), behind]), pointer)
        self.rough = np.empty(candidates, dtype=np.float32)
        """What codes say of the candidates."""
        self.rough_at = pointer(self.rough)


class LiveNeighbours:
    """The nearest of all rows of a view that are entries; immutable, for any number of threads."""

    def __init__(
        self,
        view: LiveView,
        comparison: Comparison,
        *,
        alive: Mask | None,
        codes: LiveCodes | None = None,
        min_recall: float = 1.0,
    ) -> None:
        """Take what is the same for all queries.

        Args:
            view: which rows there are.
            comparison: compares vectors.
            alive: by place, whether the vector is that of an entry; ``None``: all are.
            codes: of some of the vectors of the view, if they are to be used.
            min_recall: what they have to find of the nearest ten.
        """
        self._rows_at = view.rows.rows_at
        self._comparison = comparison
        self._dead = None if alive is None else ~alive
        self._placed = view.placed
        self._vectors = view.rows.vectors
        self._vectors_at = comparison.pointer(self._vectors)
        self._coded = 0
        self._stages: tuple[tuple[int, int], ...] = ()
        self._codes: LiveCodes | None = None
        self._all_for_alive = 1.0
        self._idle: dict[int, deque[_Answer]] = {}
        """By candidates. Whoever asks takes one out, and puts it back: no two threads ever have
        the same."""
        if codes is not None:
            self._search_by(codes, min_recall)
        self._behind = np.arange(self._coded, self._placed, dtype=np.int64)

    @property
    def how(self) -> str:
        """By what it finds them, as `Layer.how`."""
        return "scan" if self._codes is None else f"{self._codes.how} and scan"

    def nearest(self, query: Vectors, k: int, worst: float | None = None) -> list[ScoredRow]:
        """The ``k`` nearest rows whose score is better than ``worst``, the best first.

        ``query``, of the shape ``(dimension,)``, is prepared; ``worst`` of ``None``: any score.
        """
        for hits, candidates in self._stages_for(k, any_score=worst is None):
            found = self._by_codes(query, k, worst, candidates)
            if found is None:
                break
            if len(found) < hits or hits >= k:
                return found
        far = self._comparison.with_all(query, self._vectors_at, self._placed)
        if self._dead is not None:
            far[self._dead] = np.inf
        return self._best(far, k, worst)

    def _search_by(self, codes: LiveCodes, min_recall: float) -> None:
        count, dead = codes.count, self._dead
        left = count if dead is None else count - int(np.count_nonzero(dead[:count]))
        least = codes.candidates(min_recall, _FEW)
        enough = codes.candidates(min_recall)
        most = int(_MOST_CANDIDATES * left)
        if enough is None or least is None or left < _LEAST_ALIVE * count or enough > most:
            return
        self._codes, self._coded = codes, count
        self._stages = ((_FEW, min(least, enough)), (_HITS, enough))
        index = codes.index
        self._this, self._search = index.this, type(index).search_c
        self._length = index.d
        self._most = most
        # Rows that are no entries any more are candidates, too.
        self._all_for_alive = count / left
        for _, candidates in self._stages:
            self._idle[self._among_all(candidates)] = deque()

    def _stages_for(self, k: int, *, any_score: bool) -> Iterator[tuple[int, int]]:
        """Up to how many hits, and by how many candidates; until that is too many."""
        for hits, candidates in self._stages:
            if not any_score or hits >= k:
                yield hits, candidates
        if k > _HITS and self._stages:
            candidates = -(-self._stages[-1][1] * k // _HITS)
            if candidates <= self._most:
                yield k, candidates

    def _by_codes(
        self, query: Vectors, k: int, worst: float | None, wanted: int
    ) -> list[ScoredRow] | None:
        """The nearest of so many candidates, and of what has no codes; ``None``: compare all."""
        comparison, dead = self._comparison, self._dead
        pointer, dimension = comparison.pointer, comparison.dimension
        rough_query = query
        if self._length > dimension:
            rough_query = np.zeros(self._length, dtype=np.float32)
            rough_query[:dimension] = query
        candidates = self._among_all(wanted)
        while True:
            answer = self._taken(candidates)
            places = answer.places
            self._search(
                self._this,
                1,
                pointer(rough_query),
                candidates,
                answer.rough_at,
                answer.places_at,
                None,
            )
            gone = None if dead is None else dead[places]
            if gone is None or candidates - np.count_nonzero(gone[:candidates]) >= wanted:
                break
            # What was replaced often lies where it lay: many of those rows look alike.
            candidates *= 4
            if candidates > self._most:
                return None
        far = comparison.with_places(query, self._vectors_at, answer)
        if gone is not None:
            far[gone] = np.inf
        found = self._best(far, k, worst, places)
        if (idle := self._idle.get(candidates)) is not None:
            idle.append(answer)
        return found

    def _among_all(self, wanted: int) -> int:
        """How many candidates have so many among them that are entries, as a rule."""
        return int(wanted * self._all_for_alive)

    def _taken(self, candidates: int) -> _Answer:
        try:
            return self._idle[candidates].pop()
        except (IndexError, KeyError):
            return _Answer(candidates, self._behind, self._comparison.pointer)

    def _best(
        self, far: NDArray[np.float32], k: int, worst: float | None, places: Rows | None = None
    ) -> list[ScoredRow]:
        """The ``k`` best by their distances, which are those of some places; ``None``: of each."""
        comparison = self._comparison
        limit = np.inf if worst is None else comparison.distance(worst)
        # As for most queries, nothing is; a minimum alone takes NumPy three times as long.
        if not len(far) or far.item(far.argmin()) >= limit:
            return []
        if len(far) <= _FEW_MEASURED:
            near = [(each, at) for at, each in enumerate(far.tolist()) if each < limit]
        else:
            among = np.flatnonzero(far < limit)
            if len(among) > k:
                among = among[np.argpartition(far[among], k)[:k]]
            near = [*zip(far[among].tolist(), among.tolist(), strict=True)]
        near.sort()
        del near[k:]
        scores = comparison.scores(np.array([each for each, _ in near], dtype=np.float32)).tolist()
        row_of, place_of = self._rows_at.item, None if places is None else places.item
        rows = [row_of(at if place_of is None else place_of(at)) for _, at in near]
        found = [*zip(scores, rows, strict=True)]
        if worst is None or not comparison.is_l2:
            return found
        # The square of a root is not quite what it was.
        return [each for each in found if each[0] < worst]
