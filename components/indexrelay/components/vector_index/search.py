"""A vector index as a reader serves it.

Everything is mapped and nothing ever changes, so queries of any number of threads run side by side
without a lock; FAISS releases the interpreter's lock while it searches. One query takes one thread.

A query is checked before FAISS sees it: its length is computed by FAISS as well, which takes a
third of the time that NumPy takes for one query. Base and delta are each searched with the effort
that was tuned, and their answers merged. Where the base finds fewer rows than were asked for, both
are searched with more effort: otherwise rows of the delta would fill the gap, however far they are,
and nearer ones of the base would be left out.
"""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, islice
from operator import itemgetter
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from indexrelay.components.arrangement import Arrangement
from indexrelay.components.errors import CorruptFileError, InvalidQueryError, of_faiss
from indexrelay.components.formats.string_table import Rows
from indexrelay.components.matches import Matches
from indexrelay.components.query import (
    FilterObject,
    Hits,
    ManyHits,
    QueryOptions,
    Stopwatch,
    VectorKeywords,
    checked_ids,
)
from indexrelay.components.served import (
    Closable,
    check_payload_bytes,
    checked_k,
    stored_hits,
)
from indexrelay.components.vector_index.entries import VectorEntries
from indexrelay.components.vector_index.examples import ExampleList, examples_of
from indexrelay.components.vector_index.index_search import (
    Found,
    FoundByOne,
    IndexSearch,
    SharedLists,
    by_one,
    missing,
    openmp_threads,
    selector_around,
    share_lists,
)
from indexrelay.components.vector_index.mapped_index import is_mapped, prefault, require_faiss
from indexrelay.components.vector_index.metrics import as_scores, l2_scores
from indexrelay.components.vector_index.planner import Answers, Planner
from indexrelay.components.vector_index.spec import IndexFacts
from indexrelay.components.vector_index.version import BASE, Contents, Delta
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors
from indexrelay.storage.validation import MAX_LENGTH, MIN_LENGTH

_MIN_SQUARE: Final = MIN_LENGTH**2
_MAX_SQUARE: Final = MAX_LENGTH**2


class Queries:
    """Checks queries for one index, and brings them to unit length under cosine."""

    __slots__ = ("_cosine", "_dimension", "_lengths", "_normalize", "_pointer", "_square")

    def __init__(self, *, dimension: int, metric: Metric) -> None:
        faiss = require_faiss()
        self._dimension = dimension
        self._cosine = metric is Metric.COSINE
        self._pointer = faiss.swig_ptr
        self._square = faiss.fvec_norm_L2sqr
        self._lengths = faiss.fvec_norms_L2sqr
        self._normalize = faiss.fvec_renorm_L2

    def one(self, given: ArrayLike) -> Vectors:
        """One query as an array of its own, of the shape ``(dimension,)``.

        Raises:
            InvalidQueryError: it has another shape, holds a NaN or an infinity, is longer than
                `MAX_LENGTH`, or shorter than `MIN_LENGTH` under cosine.
        """
        vector = as_array(given)
        if vector.shape != (self._dimension,):
            raise InvalidQueryError(
                f"the vector of a query has the shape ({self._dimension},), not {vector.shape}"
            )
        # A copy: the caller's may change meanwhile, and the last ones are kept.
        vector = vector.copy()
        pointer = self._pointer(vector)
        square = self._square(pointer, self._dimension)
        if not _MIN_SQUARE <= square <= _MAX_SQUARE:  # a NaN or an infinity makes it one, too
            self._refuse(vector[None, :], np.array([square], dtype=np.float32))
        if self._cosine:
            self._normalize(self._dimension, 1, pointer)
        return vector

    def many(self, given: ArrayLike) -> Vectors:
        """Several queries, of the shape ``(n, dimension)``; raises as `one` does."""
        vectors = as_array(given)
        if vectors.ndim != 2 or vectors.shape[1] != self._dimension:
            raise InvalidQueryError(
                f"the vectors of queries have the shape (n, {self._dimension}), not {vectors.shape}"
            )
        if not self._cosine:
            # One number for all: only where it is too great, or none, each is looked at.
            if self._square(self._pointer(vectors), vectors.size) <= _MAX_SQUARE:
                return vectors
        elif not len(vectors):
            return vectors
        squares = np.empty(len(vectors), dtype=np.float32)
        pointer = self._pointer
        self._lengths(pointer(squares), pointer(vectors), self._dimension, len(vectors))
        if not (squares.min() >= _MIN_SQUARE and squares.max() <= _MAX_SQUARE):
            self._refuse(vectors, squares)
        if self._cosine:
            vectors = vectors.copy()
            self._normalize(self._dimension, len(vectors), pointer(vectors))
        return vectors

    def _refuse(self, queries: Vectors, squares: NDArray[np.float32]) -> None:
        """Say what is wrong; a zero is, only under cosine."""
        if not np.isfinite(queries).all():
            raise InvalidQueryError("a query must not hold a NaN or an infinity")
        if not (squares <= _MAX_SQUARE).all():
            raise InvalidQueryError(
                f"a query is at most {MAX_LENGTH:g} long: its distances have no float32 beyond"
            )
        if self._cosine:
            raise InvalidQueryError(
                f"a query of length zero, or below {MIN_LENGTH:g}, has no direction"
            )


_FLOAT32: Final = np.dtype(np.float32)


def as_array(given: ArrayLike) -> Vectors:
    """Anything as float32, contiguous, of whatever shape.

    Raises:
        InvalidQueryError: it is no array of numbers.
    """
    if type(given) is np.ndarray and given.dtype is _FLOAT32:
        return np.ascontiguousarray(given)  # most queries: `errstate` would cost them 1.5 µs
    try:
        with np.errstate(over="ignore"):  # what overflows is infinite, and refused
            return np.ascontiguousarray(given, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise InvalidQueryError(f"a query is an array of numbers: {error}") from error


_NO_ROWS: Final = np.empty(0, dtype=np.int64)
_REMEMBERED: Final = 32
"""Recent queries that warm the next version: enough to read the pages that are in demand."""
_PREFAULT_SECONDS: Final = 0.2
"""Enough to prefault a base that is in memory: 20 ms for 256 MB."""
_WARM_SECONDS: Final = 1.0
"""For all of a warm-up: beyond it the disk is too slow, and a release would wait for it."""


class VectorSearch(VectorEntries, Closable):
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
        self._faiss = require_faiss()
        self._is_l2 = facts.metric is Metric.L2
        self._without_payloads = self.contents.without_payloads
        self._queries = Queries(dimension=facts.dimension, metric=facts.metric)
        self._recent: deque[Vectors] = deque(maxlen=_REMEMBERED)
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
        return [query[None, :] for query in tuple(self._recent)]  # others ask meanwhile

    def search(self, vector: ArrayLike, *, k: int = 10, **options: Unpack[VectorKeywords]) -> Hits:
        """The ``k`` nearest entries, or all of them where there are fewer.

        Args:
            vector: what is looked for, of the shape ``(dimension,)`` and any length but zero: under
                cosine it is brought to unit length.
            k: how many entries.
            options: see `VectorKeywords`.

        Raises:
            InvalidFilterError: the filter cannot be answered, or ``group_by`` is no such field.
            InvalidQueryError: it has another shape, holds a NaN or an infinity, is zero under
                cosine, ``k`` is no whole number from 1, an option is not what it has to be, or the
                payloads have too many bytes, of which none is read then.
        """
        query = self._queries.one(vector)
        self._recent.append(query)
        if options:
            return self._answer(query, QueryOptions.of(k, options))
        scores, rows = self._nearest_to_one(query, k)
        return self._hits(scores, rows)

    def ask(self, vector: ArrayLike, options: QueryOptions) -> Hits:
        """`search`, with options that were checked before."""
        query = self._queries.one(vector)
        self._recent.append(query)
        return self._answer(query, options)

    def search_many(
        self,
        vectors: ArrayLike,
        *,
        k: int = 10,
        filter: FilterObject | None = None,  # noqa: A002 - its name
        max_payload_bytes: int | None = None,
    ) -> ManyHits[Hits]:
        """`search` for each row of ``vectors``, of shape ``(n, dimension)``, in much less time.

        ``max_payload_bytes`` is for all answers together. The hits of each are made when they are
        first read.
        """
        found, rows = self._nearest_of_all(self._queries.many(vectors), k, filter)
        wanted = rows >= 0 if rows.size and missing(rows) else None
        return self._hits_of_many(found, rows, wanted, max_payload_bytes)

    def neighbours(
        self,
        ids: Collection[str],
        *,
        k: int = 10,
        filter: FilterObject | None = None,  # noqa: A002 - its name
        max_payload_bytes: int | None = None,
    ) -> dict[str, Hits]:
        """`search_by_id` for each of ``ids``, by id, in much less time; see `search_many`.

        Raises:
            UnknownEntryError: one of them is not in here.
            InvalidFilterError: the filter cannot be answered.
            InvalidQueryError: ``ids`` is no list of ids, or as `search_by_id` does.
        """
        wanted = list(dict.fromkeys(checked_ids(ids)))
        own = np.array([self.contents.row(each) for each in wanted], dtype=np.int64)
        k = checked_k(k)
        found, rows = self._nearest_of_all(self.contents.vectors(own), k + 1, filter)
        others = (rows >= 0) & (rows != own[:, None])
        others &= others.cumsum(axis=1) <= k
        answers = self._hits_of_many(found, rows, others, max_payload_bytes)
        return dict(zip(wanted, answers, strict=True))

    def search_arrays(
        self, vectors: ArrayLike, *, k: int = 10
    ) -> tuple[NDArray[np.object_], NDArray[np.float32]]:
        """The ids and the scores of the ``k`` entries nearest to each of ``vectors``, in arrays.

        ``vectors`` are of shape ``(n, dimension)``. Both results are of shape ``(n, k)``, or
        ``(n, entries)`` where there are fewer: ids (str, dtype object) and scores (float32), the
        nearest first. Where an index finds fewer, the id is ``None`` and the score NaN. It reads
        no payload and makes no `Hit`.

        Raises:
            InvalidQueryError: as `search` does.
        """
        scores, rows = self._nearest(self._queries.many(vectors), k)
        try:
            if not (rows.size and missing(rows)):
                given = self.contents.ids_of(rows.ravel())
                return np.fromiter(given, object, rows.size).reshape(rows.shape), scores
            there = rows >= 0
            ids = np.empty(rows.shape, dtype=object)
            ids[there] = self.contents.ids_of(rows[there])
        except IndexError as error:
            raise self._no_such_row() from error
        return ids, np.where(there, scores, np.float32(np.nan))

    def search_by_id(
        self, entry_id: str, *, k: int = 10, **options: Unpack[VectorKeywords]
    ) -> Hits:
        """The ``k`` entries nearest to one that is in here, which itself is left out.

        Raises:
            UnknownEntryError: it is not in here.
            InvalidFilterError: the filter cannot be answered, or ``group_by`` is no such field.
            InvalidQueryError: an option is not what it has to be, or as `search` does.
        """
        checked, row = QueryOptions.of(k, options), self.contents.row(entry_id)
        return self._answer(self.contents.vector(row), checked, row)

    def search_like(
        self,
        like: ExampleList,
        unlike: ExampleList = (),
        *,
        k: int = 10,
        **options: Unpack[VectorKeywords],
    ) -> Hits:
        """The entries that are like some examples and unlike others, which are left out.

        ``like`` and ``unlike`` are ids of entries, and vectors; at least one is wanted. The query
        is the mean of ``like`` minus half the mean of ``unlike`` (`vector_index.examples`).

        Raises:
            UnknownEntryError: an id is not in here.
            InvalidQueryError: the examples make no query; and as `search` does.
        """
        examples = examples_of(like, unlike, entry=self.vector, vector=self._queries.one)
        return self.ask(examples.query, QueryOptions.of(k, options).leaving_out(examples.ids))

    def nearest_rows(self, queries: Vectors, *, k: int) -> Rows:
        """The rows (see `Contents`) of the ``k`` nearest of each query; -1 where there are fewer.

        ``queries``, of shape ``(n, dimension)``, are taken as they are: float32, contiguous,
        finite, and at unit length under cosine. The result has the shape ``(n, k)``.
        """
        _, rows = self._nearest(queries, k)
        missing = np.full((len(rows), k - rows.shape[1]), -1, dtype=np.int64)
        return np.hstack([rows, missing])

    def nearest_to_one(self, query: Vectors, k: int) -> tuple[list[float], list[int]]:
        """The scores and the rows of the ``k`` nearest to a query, or of all that there are.

        ``query``, of shape ``(dimension,)``, is taken as it is; see `nearest_rows`.
        """
        self._recent.append(query)
        scores, rows = self._nearest_to_one(query, k)
        return scores, rows.tolist()

    def hits(self, scores: list[float], rows: Sequence[int], max_payload_bytes: int | None) -> Hits:
        """The hits with these scores, of these rows; raises as `search` does."""
        return self._hits(scores, rows, max_payload_bytes)

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
            self._recent.extend(query[0] for query in like.recent_queries)
        base = self.contents.base
        known = like is not None and base is like.contents.base
        known = known or self._prefault(until=started + _PREFAULT_SECONDS)
        known = known or isinstance(base.index, require_faiss().IndexFlat)
        queries = self.recent_queries or [self.contents.vector(self.contents.row_at(0))[None, :]]
        for query in queries[:1] if known else queries:
            scores, rows = self._nearest_to_one(query[0], 10)
            self._hits(scores, rows)
            if perf_counter() - started > _WARM_SECONDS:
                break
        if not known:
            self._prefault(until=started + _WARM_SECONDS)
        self.warm_up_seconds = perf_counter() - started

    def close(self) -> None:
        """Let go of the maps; nothing may be searched afterwards."""
        self.contents.close()
        self.__dict__.pop("_planner", None)
        del self.contents, self._search

    @cached_property
    def _planner(self) -> Planner:
        """Answers what is not just the nearest of all entries."""
        return Planner(self.contents, self._search)

    def _prefault(self, *, until: float) -> bool:
        """Prefault the base; whether all of it was in time."""
        path = self.contents.base.paths[BASE]
        return prefault(path, go_on=lambda: perf_counter() < until) >= self.facts.base_bytes

    def _nearest(self, queries: Vectors, k: int) -> Found:
        """The scores and the rows of the ``k`` nearest to each of ``queries``."""
        found, rows = self._found(queries, k)
        return as_scores(found, self.metric), rows

    def _found(self, queries: Vectors, k: int) -> Found:
        """What FAISS measured of the ``k`` nearest to each of ``queries``, and their rows."""
        k = min(checked_k(k), self._entries)
        if not k or not len(queries):
            shape = (len(queries), 0)
            return np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.int64)
        try:
            with openmp_threads(1):
                return self._search.nearest(queries, k)
        except RuntimeError as error:  # what every FAISS exception becomes
            raise of_faiss(self.contents.base.paths[BASE], error) from error

    def _nearest_to_one(self, query: Vectors, k: int) -> tuple[list[float], Rows]:
        """The scores and the rows of the ``k`` nearest to ``query``, of shape ``(dimension,)``."""
        k = min(checked_k(k), self._entries)
        if not k:
            return [], _NO_ROWS
        # As `openmp_threads` does; its context would cost 2 µs.
        threads = self._faiss.omp_get_max_threads()
        if threads != 1:
            self._faiss.omp_set_num_threads(1)
        try:
            found, rows = self._search.one(query, k)
        except RuntimeError as error:  # what every FAISS exception becomes
            raise of_faiss(self.contents.base.paths[BASE], error) from error
        finally:
            if threads != 1:
                self._faiss.omp_set_num_threads(threads)
        if rows.item(-1) < 0:  # FAISS found fewer; what is missing comes last
            count = np.count_nonzero(rows >= 0)
            found, rows = found[:count], rows[:count]
        return (l2_scores(found) if self._is_l2 else found).tolist(), rows

    def _nearest_of_all(self, queries: Vectors, k: int, filter_: FilterObject | None) -> Found:
        """`_found` of what a filter matches; ``None``: of everything."""
        if filter_ is None:
            return self._found(queries, k)
        answers = self._answers(queries, k, self.contents.columns.matching(filter_))
        return answers.found, answers.rows

    def _answer(self, query: Vectors, options: QueryOptions, own: int | None = None) -> Hits:
        """The hits of a query, of the shape ``(dimension,)``, without the row ``own``."""
        arrangement = Arrangement.of(options, self.fields)
        if arrangement is not None:
            return arrangement.search(
                lambda number, beyond: self._planned(
                    query, options.candidates(number, beyond), own
                ),
                k=options.k,
                entries=self._entries,
                vectors=self.vectors_of,
                max_payload_bytes=options.max_payload_bytes,
            )
        if not options.is_plain:
            return self._planned(query, options, own)
        if own is None:
            scores, rows = self._nearest_to_one(query, options.k)
        else:
            scores, rows = self._nearest_to_one(query, options.k + 1)
            others = np.flatnonzero(rows != own)[: options.k]
            scores, rows = [scores[place] for place in others.tolist()], rows[others]
        return self._hits(scores, rows, options.max_payload_bytes)

    def _planned(self, query: Vectors, options: QueryOptions, own: int | None) -> Hits:
        """`_answer`, in no arrangement, of some of the entries, or explained."""
        watch = Stopwatch()
        matches = self.contents.columns.matching(options.filter)
        gone = [self.contents.find(each) for each in options.without]
        left_out = [row for row in (own, *gone) if row is not None]
        without = np.array(left_out, dtype=np.int64) if left_out else _NO_ROWS
        watch.stage("filter")
        answers = self._answers(query[None, :], options.k, matches, without)
        watch.stage("search")
        rows = answers.rows[0].tolist()
        if rows and rows[-1] < 0:  # FAISS found fewer; what is missing comes last
            del rows[rows.index(-1) :]
        scores = as_scores(answers.found[0], self.metric).tolist()[: len(rows)]
        hits = self._hits(scores, rows, options.max_payload_bytes)
        watch.stage("payloads")
        if options.explain:
            hits.explanation = self._planner.explanation(answers, watch)
        return hits

    def _answers(
        self, queries: Vectors, k: int, matches: Matches | None, without: Rows = _NO_ROWS
    ) -> Answers:
        try:
            with openmp_threads(1):
                return self._planner.answer(queries, checked_k(k), matches, without=without)
        except RuntimeError as error:  # what every FAISS exception becomes
            raise of_faiss(self.contents.base.paths[BASE], error) from error

    def _hits(
        self,
        scores: list[float],
        rows: Rows | Sequence[int],
        max_payload_bytes: int | None = None,
    ) -> Hits:
        contents = self.contents
        try:
            ids = contents.ids_of(rows)
            if self._without_payloads:
                return Hits(stored_hits(ids, scores))
            payloads = self._raw_payloads(rows, max_payload_bytes)
        except IndexError as error:
            raise self._no_such_row() from error
        return Hits(stored_hits(ids, scores, payloads, contents.payload_paths_of(rows)))

    def _hits_of_many(
        self,
        found: NDArray[np.float32],
        rows: Rows,
        wanted: NDArray[np.bool_] | None,
        max_payload_bytes: int | None,
    ) -> ManyHits[Hits]:
        """The ``wanted`` hits of each query, ``None``: all; the arrays are of the shape ``(n, k)``,
        and ``found`` is what FAISS measured."""
        queries, k = rows.shape
        ends: Sequence[int]
        if wanted is None:
            ends = range(0, rows.size + 1, k) if k else [0] * (queries + 1)
            found, rows = found.ravel(), rows.ravel()
        else:
            ends = [0, *accumulate(wanted.sum(axis=1).tolist())]
            found, rows = found[wanted], rows[wanted]
        payloads: list[bytes | None] | None = None
        paths: list[Path] = []
        try:
            ids = self.contents.ids_taken(rows)
            if not self._without_payloads:
                payloads = self._raw_payloads(rows, max_payload_bytes)
                paths = [*islice(self.contents.payload_paths_of(rows), len(rows))]
        except IndexError as error:
            raise self._no_such_row() from error

        metric = self.metric

        def make(query: int) -> Hits:
            part = slice(ends[query], ends[query + 1])
            of_query = None if payloads is None else payloads[part]
            scores = as_scores(found[part], metric).tolist()
            return Hits(stored_hits(ids[part], scores, of_query, paths[part]))

        return ManyHits(queries, make)

    def _raw_payloads(
        self, rows: Rows | Sequence[int], max_payload_bytes: int | None
    ) -> list[bytes | None]:
        if max_payload_bytes is not None:
            check_payload_bytes(self.contents.payload_bytes_of(rows), max_payload_bytes)
        return self.contents.raw_payloads_of(rows)

    def _no_such_row(self) -> CorruptFileError:
        return CorruptFileError(self.contents.base.paths[BASE], "it finds rows that do not exist")


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

    def one(self, query: Vectors, k: int) -> FoundByOne:
        """`nearest`, to one query of the shape ``(dimension,)``."""
        in_base, in_delta = min(k, self._alive), min(k, len(self._delta))
        if not in_delta:
            return self._in_base.one(query, in_base)
        if not in_base:
            return by_one(self.nearest(query[None, :], k))
        if self._shared is not None:
            of_base, of_delta = map(by_one, self._shared.nearest(query[None, :], in_base, in_delta))
        else:
            of_base = self._in_base.one_at_effort(query, in_base)
            of_delta = self._delta.one_at_effort(query, in_delta)
        if of_base[1].item(-1) < 0:
            return by_one(self.nearest(query[None, :], k))
        answer = self._merged_by_one(of_base, of_delta, k)
        return answer if answer[1].item(-1) >= 0 else by_one(self.nearest(query[None, :], k))

    def _merged_by_one(self, of_base: FoundByOne, of_delta: FoundByOne, k: int) -> FoundByOne:
        farthest, nearest = of_base[0].item(-1), of_delta[0].item(0)
        none_nearer = farthest <= nearest if self._smaller_is_nearer else farthest >= nearest
        if none_nearer and len(of_base[0]) == k:  # most queries, as most entries are in the base
            return of_base
        first = self._first_of_delta
        both = [
            *zip(of_base[0].tolist(), of_base[1].tolist(), strict=True),
            *(
                (far, row + first if row >= 0 else row)
                for far, row in zip(of_delta[0].tolist(), of_delta[1].tolist(), strict=True)
            ),
        ]
        # FAISS gives a missing row the largest distance, so it comes last.
        both.sort(key=itemgetter(0), reverse=not self._smaller_is_nearer)
        del both[k:]
        found = np.array([far for far, _ in both], dtype=np.float32)
        return found, np.array([row for _, row in both], dtype=np.int64)

    def _merged(self, of_base: Found, of_delta: Found, k: int) -> Found:
        of_delta = self._moved(of_delta)
        found = np.concatenate([of_base[0], of_delta[0]], axis=1)
        rows = np.concatenate([of_base[1], of_delta[1]], axis=1)
        # FAISS gives a missing row the largest distance, so it comes last.
        near = found if self._smaller_is_nearer else -found
        best = near.argsort(axis=1, kind="stable")[:, :k]
        return np.take_along_axis(found, best, axis=1), np.take_along_axis(rows, best, axis=1)

    def _moved(self, of_delta: Found) -> Found:
        found, rows = of_delta
        rows[rows >= 0] += self._first_of_delta
        return found, rows
