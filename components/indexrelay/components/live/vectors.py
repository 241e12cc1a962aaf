"""A released vector index and the changes since it, searched as one.

Live rows are compared with the query one by one, so their scores are exact; the index answers as
ever. `LiveVectorSearch` is one such pair, made for a view and kept until the next one. What is the
same for every view of one version, such as which changed ids the version holds, is kept beside it
in a `ReleasedVectors`.
"""

from collections.abc import Collection, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from indexrelay.components.live.entries import (
    CATALOG,
    FindLive,
    LiveEntries,
    LiveQuestion,
    merged_ids,
)
from indexrelay.components.live.rows import LiveView, Rows
from indexrelay.components.query import (
    FilterObject,
    Hits,
    QueryOptions,
    VectorKeywords,
    checked_ids,
    of_candidates,
)
from indexrelay.components.served import Hit, check_bytes_of_hits, checked_k, stored_hits
from indexrelay.components.vector_index.examples import ExampleList, examples_of
from indexrelay.components.vector_index.mapped_index import require_faiss
from indexrelay.components.vector_index.metrics import as_scores
from indexrelay.components.vector_index.search import Queries, VectorSearch
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors


class ReleasedVectors:
    """One version of a vector index as changes are laid over it; safe to use from many threads."""

    def __init__(self, index: VectorSearch, covers: int) -> None:
        """``covers``: the generation that it contains of its collection."""
        self.index = index
        self.covers = covers
        self.queries = Queries(dimension=index.dimension, metric=index.metric)
        self._rows: dict[str, int | None] = {}
        faiss = require_faiss()
        self.pointer = faiss.swig_ptr
        is_l2 = index.metric is Metric.L2
        self.compare = faiss.fvec_L2sqr_ny if is_l2 else faiss.fvec_inner_products_ny
        """Compares one vector with many."""

    def with_changes(self, view: LiveView) -> "LiveVectorSearch":
        """What answers for the version and a view."""
        return LiveVectorSearch(self, view)

    def prepare(self, view: LiveView) -> None:
        """Nothing: rows are compared as they are."""

    def rows_of(self, ids: Collection[str]) -> Rows:
        """The rows of those ids that the version holds, in no order."""
        known, find = self._rows, self.index.contents.find
        found = []
        for each in ids:
            if each not in known:
                known[each] = find(each)
            row = known[each]
            if row is not None:
                found.append(row)
        return np.array(found, dtype=np.int64)


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

    @cached_property
    def ids(self) -> Sequence[str]:
        """Every id, in the order of the collection; a list that is made when it is first read."""
        return merged_ids(self._index.ids, self)

    def search(self, vector: ArrayLike, *, k: int = 10, **options: Unpack[VectorKeywords]) -> Hits:
        """As `VectorSearch.search`."""
        return self.ask(vector, QueryOptions.of(k, options))

    def ask(self, vector: ArrayLike, options: QueryOptions) -> Hits:
        """As `VectorSearch.ask`."""
        query = self._released.queries.one(vector)
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
        options = QueryOptions(k=checked_k(k), filter=filter)
        questions = [self._question(query) for query in queries]
        depth = max((each.first_depth(options.k) for each in questions), default=options.k)
        found = self._index.search_many(queries, k=depth, filter=filter)
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
        return self._index.vector(entry_id) if row is None else self.view.rows.vectors[row].copy()

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
            compared = self._compared(self._released.queries.one(vector))
            scores = as_scores(compared[list(live.values())], self.metric)
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
        rows = self.view.rows
        if not len(among):
            return []
        scores = as_scores(self._compared(query)[among], self.metric)
        if worst is not None:
            near = np.flatnonzero(scores < worst if self._is_l2 else scores > worst)
            if not len(near):
                return []
            scores, among = scores[near], among[near]
        far = scores if self._is_l2 else -scores
        best = np.argpartition(far, k)[:k] if len(far) > k else np.arange(len(far))
        best = best[np.argsort(far[best], kind="stable")]
        chosen = among[best].tolist()
        return stored_hits(
            [rows.ids[row] for row in chosen],
            scores[best].tolist(),
            [rows.payloads[row] for row in chosen],
            [CATALOG] * len(chosen),
        )

    def _compared(self, query: Vectors) -> NDArray[np.float32]:
        """The inner product, or under L2 the squared distance, of each row of the view.

        By FAISS's own function, on this thread: NumPy's product takes threads, which spin while
        they wait for each other. To gather some rows takes longer than to compare all.
        """
        found = np.empty(self.view.count, dtype=np.float32)
        pointer = self._released.pointer
        self._released.compare(
            pointer(found),
            pointer(query),
            pointer(self.view.rows.vectors),
            self.dimension,
            self.view.count,
        )
        return found

    @cached_property
    def _replaced_rows(self) -> Rows:
        """The rows of the version that live rows replace or delete."""
        return self._released.rows_of(self._changed_ids)

    def _replaced(self, filter_: Any) -> int:
        columns = self._index.contents.columns
        matches = None if filter_ is None else columns.matching(filter_)
        if matches is None:
            return len(self._replaced_rows)
        is_among = np.concatenate([matches.base.mask, matches.delta.mask])
        return int(is_among[self._replaced_rows].sum())
