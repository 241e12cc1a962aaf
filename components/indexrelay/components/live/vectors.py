"""A released vector index and the changes since it, searched as one.

The scores of live rows are exact, whether they are compared one by one or found by codes
(`live.codes`); the index answers as ever. `LiveVectorSearch` is one such pair, made for a view and
kept until the next one. What is the same for every view of one version, such as which of its rows
are replaced, is kept beside it in a `ReleasedVectors`.

A query that asks for nothing but the nearest takes the short way (`LiveVectorSearch._nearest_of`):
no hit is made before it is known which ones there are. All others go by `LiveQuestion`.
"""

from collections.abc import Collection, Sequence
from functools import cached_property
from itertools import chain, compress
from math import ceil, sqrt
from typing import Any, Final, Unpack
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray

from indexrelay.components.live.codes import (
    CodeSizes,
    LiveCodes,
    LiveNeighbours,
    ScoredRow,
    grow_codes,
)
from indexrelay.components.live.comparison import Comparison
from indexrelay.components.live.entries import (
    STEP,
    FindLive,
    LiveEntries,
    LiveQuestion,
    merged_ids,
)
from indexrelay.components.live.rows import LiveRows, LiveView, Mask, Rows
from indexrelay.components.query import (
    FilterObject,
    Hits,
    QueryOptions,
    VectorKeywords,
    checked_ids,
    of_candidates,
)
from indexrelay.components.served import Hit, check_bytes_of_hits, checked_k
from indexrelay.components.vector_index.examples import ExampleList, examples_of
from indexrelay.components.vector_index.index_search import knob_of
from indexrelay.components.vector_index.search import Queries, VectorSearch
from indexrelay.components.vector_index.spec import VectorIndexParameters
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors

_SPREADS: Final = 3
"""Of the number of replaced rows among so many, as chance alone would have it."""
MIN_RECALL: Final = float(VectorIndexParameters.model_fields["min_recall"].default)


class ReleasedVectors:
    """One version of a vector index as changes are laid over it; safe to use from many threads."""

    def __init__(
        self,
        index: VectorSearch,
        covers: int,
        *,
        min_recall: float = MIN_RECALL,
        sizes: CodeSizes | None = None,
    ) -> None:
        """Take what is the same for all views.

        Args:
            index: what answers for the version.
            covers: the generation that it contains of its collection.
            min_recall: what an approximate index has to find of the nearest ten, and so codes of
                live rows.
            sizes: of such codes; ``None``: those that pay.
        """
        self.index = index
        self.covers = covers
        self.min_recall = min_recall
        self.queries = Queries(dimension=index.dimension, metric=index.metric)
        self.comparison = Comparison(index.dimension, index.metric)
        self._sizes = sizes or CodeSizes.of(index.dimension)
        exact = knob_of(index.contents.base.index) is None or min_recall >= 1
        self.with_codes = not exact
        """Whether live rows may be found by codes: where the index compares all, they are."""
        self._hidden: WeakKeyDictionary[LiveRows, tuple[int, dict[int, int]]]
        self._hidden = WeakKeyDictionary()

    def with_changes(self, view: LiveView) -> "LiveVectorSearch":
        """What answers for the version and a view."""
        return LiveVectorSearch(self, view)

    def prepare(self, view: LiveView) -> None:
        """Find the rows of the version that are replaced."""
        self.hidden(view)

    def index_rows(self, view: LiveView) -> bool:
        """Have codes of more of the rows, if that is due."""
        return self.with_codes and grow_codes(view.rows, view.placed, self._sizes)

    def hidden(self, view: LiveView) -> dict[int, int]:
        """By row of the version that is replaced or deleted: the first live row that says so.

        A view hides those alone whose first row it has; there may be others.
        """
        rows = view.rows
        count, hidden = self._hidden.get(rows, (0, {}))
        if count < view.count:
            find, ids, covers = self.index.contents.find, rows.ids, self.covers
            for row in (count + np.flatnonzero(rows.born[count : view.count] > covers)).tolist():
                # Another thread may be here, too: it finds the same.
                if not rows.born_before(row, above=covers):
                    own = find(ids[row])
                    if own is not None:
                        hidden.setdefault(own, row)
            self._hidden[rows] = (view.count, hidden)
        return hidden


class LiveVectorSearch(LiveEntries):
    """Searches a version and the changes since it; immutable, and safe to use from many threads.

    It answers what a `VectorSearch` does, with the same arguments and the same errors.
    """

    _index: VectorSearch

    def __init__(self, released: ReleasedVectors, view: LiveView) -> None:
        """``view`` holds every change since the version, up to its generation."""
        super().__init__(released.index, released.covers, view)
        self._released = released
        self.metric: Metric = released.index.metric
        """What the score of a hit is."""
        self.dimension: int = released.index.dimension
        """Length of every vector."""
        self._is_l2 = self.metric is Metric.L2
        self._by_codes: tuple[LiveCodes | None, LiveNeighbours] | None = None

    @cached_property
    def ids(self) -> Sequence[str]:
        """Every id, in the order of the collection; a list that is made when it is first read."""
        return merged_ids(self._index.ids, self)

    def search(self, vector: ArrayLike, *, k: int = 10, **options: Unpack[VectorKeywords]) -> Hits:
        """As `VectorSearch.search`."""
        query = self._released.queries.one(vector)
        if not options:
            return self._nearest_of(query, checked_k(k))
        return self._answer(query, QueryOptions.of(k, options))

    def ask(self, vector: ArrayLike, options: QueryOptions) -> Hits:
        """As `VectorSearch.ask`."""
        return self._answer(self._released.queries.one(vector), options)

    def _answer(self, query: Vectors, options: QueryOptions) -> Hits:
        arranged = options.group_by is not None or options.diversity is not None
        if options.is_plain and not arranged and options.per_group == 1:
            return self._nearest_of(query, options.k, options.max_payload_bytes)
        return self._question(query).answer(options, self.vectors_of)

    def search_many(
        self,
        vectors: ArrayLike,
        *,
        k: int = 10,
        filter: FilterObject | None = None,  # noqa: A002 - its name
        max_payload_bytes: int | None = None,
    ) -> list[Hits]:
        """As `VectorSearch.search_many`."""
        queries = self._released.queries.many(vectors)
        k = checked_k(k)
        options = QueryOptions(k=k, filter=filter, max_payload_bytes=max_payload_bytes)
        questions = [self._question(query) for query in queries]
        depth = max((each.first_depth(k) for each in questions), default=k)
        found = self._index.search_many(
            queries,
            k=depth,
            filter=filter,
            max_payload_bytes=of_candidates(max_payload_bytes, depth, k),
        )
        answers = [
            question.merged(options, hits, depth)
            for question, hits in zip(questions, found, strict=True)
        ]
        check_bytes_of_hits(chain.from_iterable(answers), max_payload_bytes)
        return answers

    def neighbours(
        self,
        ids: Collection[str],
        *,
        k: int = 10,
        filter: FilterObject | None = None,  # noqa: A002 - its name
        max_payload_bytes: int | None = None,
    ) -> dict[str, Hits]:
        """As `VectorSearch.neighbours`."""
        wanted, k = list(dict.fromkeys(checked_ids(ids))), checked_k(k)
        if not wanted:
            return {}
        found = self.search_many(
            np.array([self.vector(each) for each in wanted], dtype=np.float32),
            k=k + 1,
            filter=filter,
            max_payload_bytes=of_candidates(max_payload_bytes, k + 1, k),
        )
        answers = {
            each: Hits([hit for hit in hits if hit.id != each][:k])
            for each, hits in zip(wanted, found, strict=True)
        }
        check_bytes_of_hits(chain.from_iterable(answers.values()), max_payload_bytes)
        return answers

    def search_arrays(
        self, vectors: ArrayLike, *, k: int = 10
    ) -> tuple[NDArray[np.object_], NDArray[np.float32]]:
        """As `VectorSearch.search_arrays`."""
        found = self.search_many(vectors, k=k)
        shape = (len(found), min(checked_k(k), len(self)))
        ids = np.full(shape, None, dtype=object)
        scores = np.full(shape, np.nan, dtype=np.float32)
        for place, hits in enumerate(found):
            ids[place, : len(hits)] = [hit.id for hit in hits]
            scores[place, : len(hits)] = [hit.score for hit in hits]
        return ids, scores

    def search_by_id(
        self, entry_id: str, *, k: int = 10, **options: Unpack[VectorKeywords]
    ) -> Hits:
        """As `VectorSearch.search_by_id`."""
        asked = QueryOptions.of(k, options)
        return self._question(self.vector(entry_id), own=entry_id).answer(asked, self.vectors_of)

    def search_like(
        self,
        like: ExampleList,
        unlike: ExampleList = (),
        *,
        k: int = 10,
        **options: Unpack[VectorKeywords],
    ) -> Hits:
        """As `VectorSearch.search_like`."""
        examples = examples_of(like, unlike, entry=self.vector, vector=self._released.queries.one)
        return self.ask(examples.query, QueryOptions.of(k, options).leaving_out(examples.ids))

    def vector(self, entry_id: str) -> Vectors:
        """As `VectorSearch.vector`."""
        row = self.live_row(entry_id)
        return self._index.vector(entry_id) if row is None else self.view.rows.vector(row).copy()

    def vectors_of(self, hits: Sequence[Hit]) -> Vectors:
        """As `VectorSearch.vectors_of`."""
        vectors = [self.vector(hit.id) for hit in hits]
        return np.array(vectors, dtype=np.float32).reshape(len(hits), self.dimension)

    def scores_of(self, vector: Vectors, ids: Sequence[str]) -> dict[str, float]:
        """As `VectorSearch.scores_of`."""
        rows = {each: self.find(each) for each in ids}
        found = self._index.scores_of(vector, [each for each in ids if rows[each] is None])
        present = self.view.rows.present
        live = {each: row for each, row in rows.items() if row is not None and present[row]}
        if live:
            query, among = self._released.queries.one(vector), np.array([*live.values()])
            scores = self._scores_of(query, among)
            found |= zip(live, scores.tolist(), strict=True)
        return found

    def _question(self, query: Vectors, *, own: str | None = None) -> LiveQuestion:
        return LiveQuestion(
            self,
            lambda options: self._index.ask(query, options),
            self._find_live(query),
            smaller_first=self._is_l2,
            own=own,
        )

    def _find_live(self, query: Vectors) -> FindLive:
        return lambda k, among, worst: self._nearest(query, k, among, worst)

    def _nearest(self, query: Vectors, k: int, among: Rows, worst: float | None) -> list[Hit]:
        """The ``k`` nearest live rows of ``among`` whose score is better than ``worst``."""
        if not len(among):
            return []
        if among is self._alive:
            return self.hits_of(self._neighbours.nearest(query, k, worst))
        scores = self._scores_of(query, among)
        if worst is not None:
            near = np.flatnonzero(scores < worst if self._is_l2 else scores > worst)
            scores, among = scores[near], among[near]
        far = scores if self._is_l2 else -scores
        best = np.argpartition(far, k)[:k] if len(far) > k else np.arange(len(far))
        best = best[np.argsort(far[best], kind="stable")]
        return self.hits_of([*zip(scores[best].tolist(), among[best].tolist(), strict=True)])

    def _scores_of(self, query: Vectors, among: Rows) -> NDArray[np.float32]:
        """The scores of some live rows that are entries."""
        rows = self.view.rows
        return self._released.comparison.scores_of(query, rows.vectors, rows.places[among])

    def _nearest_of(self, query: Vectors, k: int, max_payload_bytes: int | None = None) -> Hits:
        """The ``k`` nearest of the version and of all live rows."""
        index = self._index
        scores, rows = self._released_rows(query, k)
        live = self._neighbours.nearest(query, k, scores[-1] if len(rows) == k else None)
        if not live:
            return index.hits(scores, rows, max_payload_bytes)
        live, places = self._merged(scores, live, k)
        kept = min(len(rows), k - len(live))
        hits = index.hits(scores[:kept], rows[:kept], max_payload_bytes)
        for place, hit in zip(places, self.hits_of(live), strict=True):
            hits.insert(place, hit)
        check_bytes_of_hits(hits, max_payload_bytes)
        return hits

    def _merged(
        self, scores: Sequence[float], live: list[ScoredRow], k: int
    ) -> tuple[list[ScoredRow], list[int]]:
        """Which live rows are among the best ``k`` with some scores of the version, and where.

        Both are the best first; equal ones of the version come before.
        """
        is_l2, count, before, places = self._is_l2, len(scores), 0, list[int]()
        for score, _ in live:
            while before < count and (
                scores[before] <= score if is_l2 else scores[before] >= score
            ):
                before += 1
            place = before + len(places)
            if place >= k:
                break
            places.append(place)
        return live[: len(places)], places

    def _released_rows(self, query: Vectors, k: int) -> tuple[list[float], list[int]]:
        """The ``k`` nearest of the version that no live row replaces or deletes."""
        index, hidden = self._index, self._hidden
        most = min(k + len(hidden), len(index))
        depth = min(k + self._spare(k), most)
        while depth:
            scores, rows = index.nearest_to_one(query, depth)
            found = len(rows)
            if not hidden.keys().isdisjoint(rows):
                count = self.view.count
                kept = [hidden.get(row, count) >= count for row in rows]
                scores, rows = [*compress(scores, kept)], [*compress(rows, kept)]
            if len(rows) >= k or found < depth or depth == most:
                return scores[:k], rows[:k]
            depth = min(most, STEP * depth)
        return [], []

    def _spare(self, k: int) -> int:
        """How many more than ``k`` rows of the version nearly always leave ``k``."""
        hidden = len(self._hidden)
        if not hidden:
            return 0
        expected = k * hidden / len(self._index)
        return ceil(expected + _SPREADS * sqrt(expected))

    @property
    def _neighbours(self) -> LiveNeighbours:
        """Finds the nearest live rows, by codes once there are some that the view has all of."""
        codes, known = self.view.rows.codes, self._by_codes
        released = self._released
        usable = codes is not None and codes.count <= self.view.placed and released.with_codes
        if known is not None and (known[0] is codes or not usable):
            return known[1]
        found = LiveNeighbours(
            self.view,
            released.comparison,
            alive=self._alive_places,
            codes=codes if usable else None,
            min_recall=released.min_recall,
        )
        self._by_codes = (codes if usable else None, found)
        return found

    @cached_property
    def _hidden(self) -> dict[int, int]:
        return self._released.hidden(self.view)

    @cached_property
    def _alive_places(self) -> Mask | None:
        """By place, whether the vector is that of an entry; ``None``: all are."""
        view, rows = self.view, self.view.rows
        if not view.replaced and self._covers <= rows.floor:
            return None
        alive = np.zeros(view.placed, dtype=bool)
        alive[rows.places[self._alive]] = True
        return alive

    @property
    def searched_by(self) -> str:
        """As `LiveEntries.searched_by`."""
        return self._neighbours.how

    def _replaced(self, filter_: Any) -> int:
        count = self.view.count
        rows = [row for row, first in list(self._hidden.items()) if first < count]
        columns = self._index.contents.columns
        matches = None if filter_ is None else columns.matching(filter_)
        if matches is None:
            return len(rows)
        is_among = np.concatenate([matches.base.mask, matches.delta.mask])
        return int(is_among[rows].sum())
