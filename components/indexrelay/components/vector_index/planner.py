"""Decides how a query that may not find everything is answered, and answers it.

Few matches are compared one by one, which is exact. Of more, where the base has `sketches`, these
are compared, and then the vectors of those that are nearest by them. Among many the index is
searched around what does not match. A graph or inverted lists then meet fewer matches on their way,
so the effort rises with what the filter leaves out (`raised`), and is doubled while fewer hits come
back than there are matches. Where that is not enough, or the index takes no selector, matches are
compared after all. The way that costs least is taken, counted in rows that could be compared in the
same time (`compared`); docs/decisions/028 and 031 have what was measured.
"""

import math
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.formats.string_table import Rows
from indexrelay.components.layered import row_set_of
from indexrelay.components.matches import LayerMatches, Matches
from indexrelay.components.query import Explanation, Layer, Stopwatch
from indexrelay.components.vector_index.index_search import (
    Found,
    IndexSearch,
    efforts_beyond,
    knob_of,
    missing,
    selector_of,
)
from indexrelay.components.vector_index.lookups import MatrixOf, nearest_among
from indexrelay.components.vector_index.mapped_index import require_faiss
from indexrelay.components.vector_index.sketches import Sketches, nearest_sketches
from indexrelay.components.vector_index.spec import Effort, parse_factory
from indexrelay.components.vector_index.version import Contents
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors

_NO_ROWS: Final = np.empty(0, dtype=np.int64)
_KEPT: Final = 8
"""Numbers of hits for which a search around the others is kept prepared."""
_FEW_TO_LEAVE_OUT: Final = 100
"""Rows to leave out for which more are asked for; more are taken out of the matches."""


@dataclass(slots=True, kw_only=True)
class Answers:
    """What was found, and how; columns of the shape ``(n, k)``, the nearest first.

    Not frozen: each query makes its own, and a frozen one takes three times as long.
    """

    found: NDArray[np.float32]
    """What FAISS measured."""
    rows: Rows
    """Of base and delta (see `Contents`); -1 where fewer were found, which comes last."""
    plan: str
    """See `Explanation.plan`."""
    effort: Effort | None = None
    """``None``: every match was compared."""
    rounds: int = 1
    matches: int | None = None
    candidates: int | None = None


class Unfiltered(Protocol):
    """Searches all entries of a version."""

    def nearest(self, queries: Vectors, k: int) -> Found:
        """As `IndexSearch.nearest`."""
        ...


class Planner:
    """Answers queries over one version; immutable, and safe to use from many threads."""

    def __init__(self, contents: Contents, everything: Unfiltered) -> None:
        facts = contents.facts
        self._contents = contents
        self._everything = everything
        self._facts = facts
        factory = parse_factory(facts.factory)
        self._flat = knob_of(contents.base.index) is None and factory.text == "Flat"
        self._other_distances = factory.transformed and not factory.refined

    def answer(
        self, queries: Vectors, k: int, matches: Matches | None, *, without: Rows = _NO_ROWS
    ) -> Answers:
        """The ``k`` nearest of what may be found.

        Args:
            queries: as `IndexSearch.nearest` takes them.
            k: how many, at least 1.
            matches: what may be found; ``None``: every entry.
            without: rows that may not, in any order.

        Raises:
            CorruptFileError: a file is not what was written.
        """
        if matches is None:
            if len(without) <= _FEW_TO_LEAVE_OUT:
                return self._of_all(queries, k, without)
            matches = self._contents.columns.everything()
        if len(without):
            first, gone = self._contents.first_of_delta, row_set_of(without)
            matches = matches.without(gone[gone < first], gone[gone >= first] - first)
        return self.nearest(queries, k, matches)

    def explanation(self, answers: Answers, watch: Stopwatch) -> Explanation:
        """How they were found."""
        contents, facts = self._contents, self._facts
        dead = 0 if facts.delta is None else facts.delta.dead
        layers = [Layer("base", facts.count - dead, facts.factory)]
        if contents.delta is not None and len(contents.delta):
            how = "scan" if contents.delta.index is None else facts.factory
            layers.append(Layer("delta", len(contents.delta), how))
        effort = answers.effort or Effort()
        return Explanation(
            plan=answers.plan,
            layers=tuple(layers),
            effort=effort.model_dump(exclude_none=True),
            rounds=answers.rounds,
            matches=answers.matches,
            candidates=answers.candidates,
            stages=watch.stages,
        )

    def _of_all(self, queries: Vectors, k: int, without: Rows) -> Answers:
        """Of every entry but a few, for which as many more are asked for."""
        entries = self._facts.entries
        most = min(k + len(without), entries)
        if not most or not len(queries):
            return _nothing(len(queries), None)
        found, rows = self._everything.nearest(queries, most)
        if len(without):
            found, rows = _left_out(found, rows, without)
        effort = None if self._flat else self._facts.effort
        candidates = entries if self._flat else None
        return Answers(
            found=found[:, :k],
            rows=rows[:, :k],
            plan="unfiltered",
            effort=effort,
            candidates=candidates,
        )

    def nearest(self, queries: Vectors, k: int, matches: Matches) -> Answers:
        """The ``k`` nearest matches of each query, or all of them where there are fewer."""
        k = min(k, len(matches))
        if not k or not len(queries):
            return _nothing(len(queries), len(matches))
        base = self._in_base(queries, min(k, matches.base.count), matches.base)
        delta = self._in_delta(queries, min(k, matches.delta.count), matches.delta)
        exact = base.effort is None and delta.effort is None
        sketched = base.candidates is not None
        if not exact and self._other_distances and len(matches.delta):
            base = self._measured_again(queries, base)
            delta = self._measured_again(queries, delta)
        found, rows = _merged(base, delta, k, smaller_is_nearer=self._facts.metric is Metric.L2)
        return Answers(
            found=found,
            rows=rows,
            plan="selector" if not exact else "sketches" if sketched else "exact",
            effort=base.effort or delta.effort,
            rounds=max(base.rounds, delta.rounds),
            matches=len(matches),
            candidates=_compared_rows(base, matches) if exact else None,
        )

    def _in_base(self, queries: Vectors, k: int, matches: LayerMatches) -> "_Searched":
        if not k:
            return _searched_nothing(len(queries))
        base = self._contents.base
        all_of_them = matches.count * base.lookup.row_cost
        candidates, by_sketches = self._candidates(k, matches.count)
        searched = None
        if not self._facts.refusal:
            least = min(all_of_them, by_sketches)
            searched = self._around(base.index, queries, k, matches, otherwise=least)
        if searched is not None:
            return searched
        if base.sketches is not None and by_sketches < all_of_them:
            return self._by_sketches(base.sketches, queries, k, matches, candidates)
        return _Searched(*base.lookup.nearest(queries, matches.rows, k, self._facts.metric))

    def _in_delta(self, queries: Vectors, k: int, matches: LayerMatches) -> "_Searched":
        delta = self._contents.delta
        if not k or delta is None:
            return _searched_nothing(len(queries))
        searched = None
        if delta.index is not None:
            searched = self._around(delta.index, queries, k, matches, otherwise=matches.count)
        if searched is None:
            searched = _Searched(*delta.nearest_among(queries, matches.rows, k))
        searched.rows[searched.rows >= 0] += self._contents.first_of_delta
        return searched

    def _candidates(self, k: int, matches: int) -> tuple[int, float]:
        """How many rows with the nearest sketches are compared, and what that costs with finding
        them; infinite where there are no sketches."""
        if self._facts.sketched is None:
            return 0, math.inf
        candidates = math.ceil(self._facts.sketched * max(k / _SKETCHED_HITS, 1))
        return candidates, _SKETCHING + matches * _SKETCH + candidates * _CANDIDATE

    def _by_sketches(
        self, sketches: Sketches, queries: Vectors, k: int, matches: LayerMatches, candidates: int
    ) -> "_Searched":
        """Compare the rows whose sketches are nearest: ``candidates``, from ``k`` to all."""
        rows, of_queries = matches.rows, sketches.of(queries)
        found = np.empty((len(queries), k), dtype=np.float32)
        nearest = np.empty((len(queries), k), dtype=np.int64)
        lookup, metric = self._contents.base.lookup, self._facts.metric
        most = 0
        with sketches.among(matches) as bits:
            for number in range(len(queries)):
                one = slice(number, number + 1)
                places = nearest_sketches(of_queries[one], bits, candidates)
                most = max(most, len(places))
                found[one], nearest[one] = lookup.nearest(queries[one], rows[places], k, metric)
        return _Searched(found, nearest, candidates=most)

    def _around(
        self, index: Any, queries: Vectors, k: int, matches: LayerMatches, *, otherwise: float
    ) -> "_Searched | None":
        """Search the index for matches only; ``None``: to compare them costs less (``otherwise``),
        or it does not find as many as there are."""
        try:
            first = matches.prepared[k]
        except KeyError:  # a thread that is as fast prepares the same
            first = self._prepared(index, k, matches, otherwise)
            if len(matches.prepared) >= _KEPT:
                matches.prepared.clear()
            matches.prepared[k] = first
        if first is None:
            return None
        found, rows = first.search.nearest_at_effort(queries, k)
        if not missing(rows):
            return _Searched(found, rows, first.effort)
        share = matches.count / matches.of
        for rounds, effort in enumerate(efforts_beyond(index, first.effort), start=2):
            if otherwise <= compared(index, effort, share):
                break
            found, rows = IndexSearch(index, effort, first.selector).nearest_at_effort(queries, k)
            if not missing(rows):
                return _Searched(found, rows, effort, rounds)
        return None

    def _prepared(
        self, index: Any, k: int, matches: LayerMatches, otherwise: float
    ) -> "_Around | None":
        share = matches.count / matches.of
        effort = raised(index, self._facts.effort, k, share)
        if otherwise <= compared(index, effort, share):
            return None
        selector = selector_of(matches.bits)
        return _Around(IndexSearch(index, effort, selector), effort, selector)

    def _measured_again(self, queries: Vectors, searched: "_Searched") -> "_Searched":
        """The same rows with the distances of their true vectors: an index behind a transform
        reports others, which cannot be compared with those of another layer."""
        contents, metric = self._contents, self._facts.metric
        found, rows = searched.found.copy(), searched.rows.copy()
        for number, query in enumerate(queries):
            there = rows[number][rows[number] >= 0]
            if not len(there):
                continue
            vectors = MatrixOf.array(np.ascontiguousarray(contents.vectors(there)))
            every = np.arange(len(there))
            again = nearest_among(vectors, query[None, :], every, len(there), metric)
            found[number, : len(there)], rows[number, : len(there)] = again[0], there[again[1][0]]
        return _Searched(found, rows, searched.effort, searched.rounds)


@dataclass(frozen=True, slots=True)
class _Around:
    """An index that is searched around what does not match."""

    search: IndexSearch
    effort: Effort
    selector: Any


@dataclass(slots=True)
class _Searched:
    """What one layer gave; columns of shape ``(n, k)``, the nearest first."""

    found: NDArray[np.float32]
    rows: Rows
    effort: Effort | None = None
    """``None``: matches were compared."""
    rounds: int = 1
    candidates: int | None = None
    """How many of the matches were compared; ``None``: all, or the index was searched."""


def _compared_rows(base: _Searched, matches: Matches) -> int:
    """How many entries were compared with each query."""
    of_base = matches.base.count if base.candidates is None else base.candidates
    return of_base + matches.delta.count


def _left_out(found: NDArray[np.float32], rows: Rows, without: Rows) -> Found:
    """The same without some rows: what is missing then comes last."""
    if len(rows) == 1:  # a tenth of the time of the general way
        few = set(without.tolist())
        kept = [place for place, row in enumerate(rows[0].tolist()) if row not in few]
        return found[:, kept], rows[:, kept]
    gone = np.isin(rows, without)
    order = np.argsort(gone, axis=1, kind="stable")
    rows = np.where(gone, -1, rows)
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(rows, order, axis=1)


def _searched_nothing(queries: int) -> _Searched:
    return _Searched(
        np.empty((queries, 0), dtype=np.float32), np.empty((queries, 0), dtype=np.int64)
    )


def _nothing(queries: int, matches: int | None) -> Answers:
    none = _searched_nothing(queries)
    plan = "unfiltered" if matches is None else "nothing"
    return Answers(found=none.found, rows=none.rows, plan=plan, matches=matches, candidates=0)


def _merged(base: _Searched, delta: _Searched, k: int, *, smaller_is_nearer: bool) -> Found:
    if not delta.rows.shape[1]:
        return base.found[:, :k], base.rows[:, :k]
    if not base.rows.shape[1]:
        return delta.found[:, :k], delta.rows[:, :k]
    found = np.concatenate([base.found, delta.found], axis=1)
    rows = np.concatenate([base.rows, delta.rows], axis=1)
    best = (found if smaller_is_nearer else -found).argsort(axis=1, kind="stable")[:, :k]
    return np.take_along_axis(found, best, axis=1), np.take_along_axis(rows, best, axis=1)


def raised(index: Any, effort: Effort, k: int, share: float) -> Effort:
    """The effort for a search of which only ``share`` of what it meets may be found.

    The ``k`` nearest matches are among about ``k ÷ share`` nearest rows, so more of those have to
    be met than the effort was tuned for.
    """
    knob = knob_of(index)
    if knob is None:
        return effort
    value = getattr(effort, knob.name) or 1
    if knob.name == "ef_search":
        more = value + math.ceil(k * (1 / share - 1))
    else:
        more = math.ceil(value * (1 / share) ** _LISTS)
    return effort.model_copy(update={knob.name: min(max(more, value), knob.most)})


def compared(index: Any, effort: Effort, share: float) -> float:
    """About as many rows could be compared in the time that a search around others takes."""
    faiss = require_faiss()
    index = faiss.downcast_index(index)
    match index:
        case faiss.IndexPreTransform():
            return compared(index.index, effort, share)
        case faiss.IndexRefine():
            return compared(index.base_index, effort, share)
        case faiss.IndexIVF():
            met = index.ntotal * (effort.nprobe or 1) / index.nlist
            return float(met * (share + _PASSED_BY) + index.nlist * _CENTROID)
        case faiss.IndexHNSW():
            return float((effort.ef_search or 1) * index.hnsw.nb_neighbors(0) * _NEIGHBOURS)
        case _:
            return math.inf


# Measured on 30,000 embeddings of sentences (256 dimensions), HNSW32 and IVF256, random filters of
# 50 to 1 %: what keeps recall@10 at the 0.95 that the effort without a filter was tuned for.
_LISTS: Final = 0.4
_PASSED_BY: Final = 0.03
"""A row of a list that does not match, beside one that is compared."""
_CENTROID: Final = 0.25
_NEIGHBOURS: Final = 0.8
"""Of the links of each candidate of a graph: those that it has not met before, each of them
somewhere else in memory. Over 30,000 entries it was 0.42, over 100,000 it is 0.9."""

# Measured on 100,000 embeddings of sentences (256 dimensions), in rows that are compared.
_SKETCHED_HITS: Final = 10
"""For so many hits the candidates were measured; more hits need as many times more."""
_SKETCHING: Final = 500.0
"""Whatever the number of rows is."""
_SKETCH: Final = 0.07
"""To read and compare one."""
_CANDIDATE: Final = 2.0
"""A row that lies anywhere, and takes a line of its own in the list of candidates."""
