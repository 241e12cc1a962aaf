"""A vector index and a text index, as a reader serves them: searched by either, or by both at once.

Each half ranks the entries on its own, and a fusion makes one ranking of the two (`fusion`): of
their scores, where each half is asked for the score of what only the other one found; or of their
ranks, where what stands beyond the depth that was searched in one half gets nothing from that one.
For ranks both halves are asked as deep as it takes for the best hits to be among their answers.

After the fusion a function of the user's may score the best hits again; groups and diversity come
last (`arrangement`).
"""

import math
import numbers
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import (
    Any,
    ClassVar,
    Final,
    Literal,
    Unpack,
    cast,
    get_args,
)

import numpy as np
from numpy.typing import ArrayLike, NDArray

from indexrelay.components.arrangement import Arrangement
from indexrelay.components.errors import InvalidQueryError
from indexrelay.components.query import (
    Entry,
    Explanation,
    FilterObject,
    Hits,
    ManyHits,
    Page,
    QueryOptions,
    Stopwatch,
    VectorKeywords,
)
from indexrelay.components.search.fusion import (
    RRF_K,
    fusion_depth,
    reciprocal_rank_fusion,
    scaled_scores,
    score_fusion,
)
from indexrelay.components.search.hits import ArmHit, HybridHit, HybridHits, HybridQuery
from indexrelay.components.search.rerank import Rerank, Reranker, Reranking
from indexrelay.components.served import Closable, Hit, check_bytes_of_hits
from indexrelay.components.text_index.search import TextSearch
from indexrelay.components.vector_index.examples import ExampleList
from indexrelay.components.vector_index.search import VectorSearch
from indexrelay.schemas.filters import Fields
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors

ARMS: Final = ("vector", "text")
_SHALLOWEST: Final = 100
"""Hits that each half is asked for at least, so that ``k`` up to 20 all give the same order."""


Fusion = Literal["ranks", "scores"]
"""What of the two rankings is added."""


class HybridKeywords(VectorKeywords, total=False):
    """What a search by vector, by text or by both takes by name, beside ``k``."""

    weights: Mapping[str, float] | None
    """Of ``vector`` and ``text`` in the fusion, 1 where one is not named; a half of weight 0 is not
    asked. ``None``: those of the component (`HybridSearch.weights`) for scores, and 1 for ranks."""
    fusion: Fusion | None
    """``scores``: the weighted mean of the cosine and of BM25 in units of a word that one text has
    (`HybridSearch`); ``ranks``: the sum of ``weight / (rrf_k + rank)``. ``None``: ranks where
    ``rrf_k`` is given, else scores."""
    rrf_k: float | None
    """How flat the fusion of ranks is: the larger, the less the first ranks count for. ``None``:
    60."""
    rerank: Rerank | bool | None
    """Scores or orders the best hits again. ``None``: the component's function, where it has one;
    ``False``: none; or a function of the caller's own."""


HYBRID_KEYWORDS: Final = tuple(HybridKeywords.__annotations__)


def _checked_weights(weights: Any) -> dict[str, float] | None:
    if weights is None:
        return None
    if not isinstance(weights, Mapping):
        raise InvalidQueryError('weights are a dict, such as {"vector": 1, "text": 0.5}')
    unknown = [name for name in weights if name not in ARMS]
    if unknown:
        raise InvalidQueryError(f"weights has {unknown[0]!r:.100}; there are vector and text")
    return {name: _checked_number(f"weights[{name!r}]", weights.get(name, 1.0)) for name in ARMS}


def _checked_fusion(fusion: Any) -> Fusion | None:
    if fusion is not None and fusion not in get_args(Fusion):
        raise InvalidQueryError(f"fusion is ranks or scores, not {fusion!r:.100}")
    return cast("Fusion | None", fusion)


def _checked_rerank(rerank: Any) -> Rerank | bool | None:
    if rerank is None or isinstance(rerank, bool) or callable(rerank):
        return cast("Rerank | bool | None", rerank)
    raise InvalidQueryError(f"rerank is a function, or False, not {rerank!r:.100}")


def _checked_number(what: str, value: Any) -> float:
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and number >= 0:
            return number
    raise InvalidQueryError(f"{what} is a finite number from 0, not {value!r:.100}")


@dataclass(frozen=True, kw_only=True)
class HybridOptions(QueryOptions):
    """What one search of both halves is asked for; see `HybridKeywords`."""

    weights: Mapping[str, float] | None = None
    """One for each of `ARMS`."""
    fusion: Fusion | None = None
    rrf_k: float | None = None
    rerank: Rerank | bool | None = None

    checks: ClassVar[Mapping[str, Callable[[Any], Any]]] = {
        **QueryOptions.checks,
        "weights": _checked_weights,
        "fusion": _checked_fusion,
        "rrf_k": lambda given: None if given is None else _checked_number("rrf_k", given),
        "rerank": _checked_rerank,
    }


class HybridSearch(Closable):
    """Searches by a vector, by a text, or by both; immutable, and safe to use from many threads.

    A fusion of scores adds a cosine, from 1 to -1, and BM25 in units of what one word is worth that
    a single text has (`TextSearch.word_score`). Distances and products are scaled first, from 1 for
    the nearest candidate to 0 for the farthest.
    """

    _closed_by = frozenset({"by_vector", "by_text"})

    def __init__(
        self,
        *,
        by_vector: VectorSearch,
        by_text: TextSearch,
        fields: Fields,
        rerank: Rerank | None = None,
        rerank_hits: int = 50,
        rerank_seconds: float | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        """Serve two halves of one version, which are closed with it.

        Args:
            by_vector: one half.
            by_text: the other.
            fields: of both.
            rerank: judges the best hits again; ``None``: the fusion decides.
            rerank_hits: so many, at least.
            rerank_seconds: how long that may take; ``None``: as long as it does.
            weights: of a fusion of scores where a search gives none; ``None``: equal.
        """
        self.by_vector: VectorSearch = by_vector
        """The half that is searched by vector."""
        self.by_text: TextSearch = by_text
        """The half that is searched by text."""
        self.fields: Fields = fields
        """The fields that it can be filtered and grouped by."""
        self._rerank = rerank
        self._rerank_hits = rerank_hits
        self._reranker = Reranker(rerank_seconds)
        self.weights: Mapping[str, float] = dict.fromkeys(ARMS, 1.0) if weights is None else weights
        """Of ``vector`` and ``text`` in a fusion of scores, where a search gives none."""

    def __len__(self) -> int:
        """How many entries it holds."""
        return len(self.by_vector)

    def __bool__(self) -> bool:
        """True, even without entries; ``len`` is their number."""
        return True

    def __contains__(self, entry_id: object) -> bool:
        return entry_id in self.by_vector

    def search(
        self,
        vector: ArrayLike | None = None,
        text: str | None = None,
        *,
        k: int = 10,
        **options: Unpack[HybridKeywords],
    ) -> HybridHits:
        """The ``k`` entries that fit best, or all of them where there are fewer.

        Args:
            vector: of the shape ``(dimension,)``, as `VectorSearch.search` takes it.
            text: plain words, as `TextSearch.search` takes them. With both, their rankings are
                fused; one of the two is enough.
            k: how many.
            options: see `HybridKeywords`. With ``explain`` the hits carry that of each half, too.

        Raises:
            InvalidFilterError: the filter cannot be answered, or ``group_by`` is no such field.
            InvalidQueryError: there is neither a vector nor a text, or an option is not what it has
                to be.
            RerankFunctionError: the function raised something, or gave neither a number for each
                hit nor ids of them; ``rerank=False`` answers without it.
        """
        asked = HybridOptions.of(k, options, HYBRID_KEYWORDS)
        fusing = self._fusing(vector, text, asked)
        arrangement = Arrangement.of(asked, self.fields)
        query = HybridQuery(vector=None if vector is None else _as_vector(vector), text=text)
        function = self._function(asked.rerank)
        reranking = None if function is None else self._reranker.of_search(function, query)

        def find(number: int, beyond: FilterObject | None = None) -> HybridHits:
            hits = self._fused(query, fusing, number, lambda n: asked.candidates(n, beyond))
            return hits if reranking is None else self._reranked(reranking, hits)

        narrows = len(fusing.arms) == 1 and function is None
        first = asked.k if function is None else max(asked.k, self._rerank_hits)
        if arrangement is not None:
            arranged = arrangement.search(
                find,
                k=asked.k,
                entries=len(self),
                vectors=self.by_vector.vectors_of,
                narrows=narrows,
                first=first,
                max_payload_bytes=asked.max_payload_bytes,
            )
            if narrows and asked.group_by is not None:  # each round has ranks of its own
                return _of_one(fusing.arms[0], arranged)
            return _answer(
                cast("list[HybridHit]", arranged), arranged.explanation, arranged.degraded
            )
        hits = find(first)
        del hits[asked.k :]
        check_bytes_of_hits(hits, asked.max_payload_bytes)
        return hits

    def search_by_id(
        self, entry_id: str, *, k: int = 10, **options: Unpack[VectorKeywords]
    ) -> HybridHits:
        """The entries whose vectors are nearest to that of one; see `VectorSearch.search_by_id`."""
        return _of_one("vector", self.by_vector.search_by_id(entry_id, k=k, **options))

    def search_like(
        self,
        like: ExampleList,
        unlike: ExampleList = (),
        *,
        k: int = 10,
        **options: Unpack[VectorKeywords],
    ) -> HybridHits:
        """The entries whose vectors are like some examples and unlike others; see
        `VectorSearch.search_like`."""
        return _of_one("vector", self.by_vector.search_like(like, unlike, k=k, **options))

    def search_many(
        self,
        vectors: ArrayLike,
        *,
        k: int = 10,
        filter: FilterObject | None = None,  # noqa: A002 - its name
        max_payload_bytes: int | None = None,
    ) -> ManyHits[HybridHits]:
        """The nearest entries to each of ``vectors``; see `VectorSearch.search_many`."""
        found = self.by_vector.search_many(
            vectors, k=k, filter=filter, max_payload_bytes=max_payload_bytes
        )
        return ManyHits(len(found), lambda query: _of_one("vector", found[query]))

    def search_arrays(
        self, vectors: ArrayLike, *, k: int = 10
    ) -> tuple[NDArray[np.object_], NDArray[np.float32]]:
        """Ids and scores of the nearest entries in arrays; see `VectorSearch.search_arrays`."""
        return self.by_vector.search_arrays(vectors, k=k)

    def neighbours(
        self,
        ids: Collection[str],
        *,
        k: int = 10,
        filter: FilterObject | None = None,  # noqa: A002 - its name
        max_payload_bytes: int | None = None,
    ) -> dict[str, HybridHits]:
        """`search_by_id` for each of ``ids``; see `VectorSearch.neighbours`."""
        found = self.by_vector.neighbours(
            ids, k=k, filter=filter, max_payload_bytes=max_payload_bytes
        )
        return {entry_id: _of_one("vector", hits) for entry_id, hits in found.items()}

    def count(self, filter: FilterObject | None = None) -> int:  # noqa: A002 - its name
        """How many entries match ``filter``; see `VectorSearch.count`."""
        return self.by_vector.count(filter)

    def get(
        self,
        ids: Collection[str],
        *,
        filter: FilterObject | None = None,  # noqa: A002 - its name
        max_payload_bytes: int | None = None,
    ) -> list[Entry | None]:
        """The entries with these ids, with their texts; see `TextSearch.get`."""
        return self.by_text.get(ids, filter=filter, max_payload_bytes=max_payload_bytes)

    def scroll(
        self,
        filter: FilterObject | None = None,  # noqa: A002 - its name
        *,
        after: str | None = None,
        limit: int = 100,
        max_payload_bytes: int | None = None,
    ) -> Page:
        """Entries in the order of their ids, with their texts; see `TextSearch.scroll`."""
        return self.by_text.scroll(
            filter, after=after, limit=limit, max_payload_bytes=max_payload_bytes
        )

    def close(self) -> None:
        """Close both halves; nothing may be searched afterwards."""
        self._reranker.close()
        self.by_vector.close()
        self.by_text.close()
        del self.by_vector, self.by_text

    def _fusing(self, vector: object, text: object, options: HybridOptions) -> "_Fusing":
        """The halves that are to be asked, and how their rankings become one."""
        if isinstance(vector, str):
            raise InvalidQueryError("a text is given by name: search(text=…)")
        fusion = options.fusion or ("scores" if options.rrf_k is None else "ranks")
        weights = options.weights
        if weights is None:
            weights = self.weights if fusion == "scores" else dict.fromkeys(ARMS, 1.0)
        given = {"vector": vector, "text": text}
        asked = {name: weights[name] for name in ARMS if given[name] is not None}
        if not asked:
            raise InvalidQueryError("give a vector, a text, or both")
        if len(asked) == 1 and weights is self.weights:  # they are about both
            asked = dict.fromkeys(asked, 1.0)
        heavy = {name: weight for name, weight in asked.items() if weight}
        if not heavy:
            raise InvalidQueryError(f"the weight of {' and of '.join(asked)} is 0: nothing is left")
        rrf_k = RRF_K if options.rrf_k is None else options.rrf_k
        return _Fusing(tuple(heavy), tuple(heavy.values()), fusion, rrf_k)

    def _fused(
        self,
        query: HybridQuery,
        fusing: "_Fusing",
        number: int,
        options: Callable[[int], QueryOptions],
    ) -> HybridHits:
        """The best ``number`` of what the halves find; ``options`` are those of so many hits."""
        if len(fusing.arms) == 1:
            (arm,) = fusing.arms
            return _of_one(arm, self._ask(arm, query, options(number)))
        watch = Stopwatch()
        found = {}
        asked = options(fusing.window(number))
        for arm in fusing.arms:
            found[arm] = self._ask(arm, query, asked)
            watch.stage(arm)
        found_by = _arm_hits(found)
        if fusing.fusion == "scores":
            for arm, scores in self._scores_of_others(query, found_by).items():
                found_by[arm] |= {each: ArmHit(None, score) for each, score in scores.items()}
            watch.stage("scores")
            shares = [self._shares(arm, found_by[arm]) for arm in fusing.arms]
            fused = score_fusion(shares, weights=fusing.weights)
        else:
            fused = fusing.ranks(found.values())
        first = {hit.id: hit for hits in reversed(found.values()) for hit in hits}
        hits = HybridHits(
            HybridHit(
                first[entry_id],
                score,
                {arm: of[entry_id] for arm, of in found_by.items() if entry_id in of},
                score,
            )
            for entry_id, score in fused[:number]
        )
        watch.stage("fusion")
        arms = {arm: each.explanation for arm, each in found.items()}
        explained = {arm: each for arm, each in arms.items() if each is not None}
        if explained:
            hits.explanation = Explanation(
                plan="hybrid", candidates=len(fused), stages=watch.stages, arms=explained
            )
        return hits

    def shares(self, vector: Vectors, text: str) -> dict[str, dict[str, float]]:
        """What the fusion of scores adds for a query: ``vector`` and ``text``, by id.

        Of the best entries of each half.
        """
        query = HybridQuery(vector=vector, text=text)
        found = {
            "vector": self.by_vector.search(vector, k=_SHALLOWEST),
            "text": self.by_text.search(text, k=_SHALLOWEST),
        }
        found_by = _arm_hits(found)
        others = self._scores_of_others(query, found_by)
        shares = {}
        for arm, of in found_by.items():
            of |= {each: ArmHit(None, score) for each, score in others[arm].items()}
            shares[arm] = self._shares(arm, of)
        return shares

    def _scores_of_others(
        self, query: HybridQuery, found_by: Mapping[str, Mapping[str, ArmHit]]
    ) -> dict[str, dict[str, float]]:
        """Each half's scores of what only the other one found."""
        by_vector, by_text = found_by["vector"], found_by["text"]
        vector, text = cast("Vectors", query.vector), cast("str", query.text)
        return {
            "vector": self.by_vector.scores_of(
                vector, [each for each in by_text if each not in by_vector]
            ),
            "text": self.by_text.scores_of(
                text, [each for each in by_vector if each not in by_text]
            ),
        }

    def _shares(self, arm: str, found: Mapping[str, ArmHit]) -> dict[str, float]:
        """What a half gives each entry in a fusion of scores.

        Both are measures that mean the same in every query: a cosine, and BM25 in units of what one
        word is worth that a single text has. So a half that has little to say of a query says
        little. Distances and products have no such measure, and are scaled among the candidates.
        """
        scores = {entry_id: hit.score for entry_id, hit in found.items()}
        if arm == "text":
            unit = self.by_text.word_score
            return {entry_id: score / unit for entry_id, score in scores.items()}
        if self.by_vector.metric is Metric.COSINE:
            return scores
        if self.by_vector.metric is Metric.L2:
            scores = {entry_id: -score for entry_id, score in scores.items()}
        return scaled_scores(scores)

    def _ask(self, arm: str, query: HybridQuery, options: QueryOptions) -> Hits:
        if arm == "vector":
            return self.by_vector.ask(cast("Vectors", query.vector), options)
        return self.by_text.ask(cast("str", query.text), options)

    def _reranked(self, reranking: Reranking, hits: HybridHits) -> HybridHits:
        """The hits as a function orders or scores them, each with its text."""
        hits.degraded = reranking.degraded
        if not hits or hits.degraded is not None:
            return hits
        watch = Stopwatch()
        found = cast("list[HybridHit]", list(hits))
        for hit, entry in zip(found, self.by_text.get([hit.id for hit in found]), strict=True):
            hit.text = None if entry is None else entry.text
        watch.stage("texts")
        judged = reranking.judged(found)
        watch.stage("rerank")
        explanation = hits.explanation
        if explanation is not None:
            explanation = replace(explanation, stages=(*explanation.stages, *watch.stages))
        return _answer(judged, explanation, reranking.degraded)

    def _function(self, rerank: Rerank | bool | None) -> Rerank | None:
        if callable(rerank):
            return rerank
        return None if rerank is False else self._rerank


@dataclass(frozen=True, slots=True)
class _Fusing:
    """Which halves are asked, and how one ranking is made of theirs."""

    arms: tuple[str, ...]
    weights: tuple[float, ...]
    """One for each, above 0."""
    fusion: Fusion
    rrf_k: float

    def window(self, depth: int) -> int:
        """How many hits of each half the best ``depth`` are made of."""
        if self.fusion == "scores":  # what is deeper in both has no score at all
            return max(_SHALLOWEST, depth)
        return max(_SHALLOWEST, fusion_depth(depth, weights=self.weights, rrf_k=self.rrf_k))

    def ranks(self, rankings: Iterable[Sequence[Hit]]) -> list[tuple[str, float]]:
        """All ids with their fused scores, the best first."""
        ids = [[hit.id for hit in hits] for hits in rankings]
        return reciprocal_rank_fusion(ids, weights=self.weights, rrf_k=self.rrf_k)


def _arm_hits(found: Mapping[str, Hits]) -> dict[str, dict[str, ArmHit]]:
    """By half and id, where the halves found the entries."""
    return {
        arm: {hit.id: ArmHit(rank, hit.score) for rank, hit in enumerate(hits, 1)}
        for arm, hits in found.items()
    }


def _as_vector(vector: ArrayLike) -> Vectors:
    try:
        return np.asarray(vector, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise InvalidQueryError(f"a query is an array of numbers: {error}") from error


def _of_one(arm: str, found: Hits) -> HybridHits:
    """What one half found."""
    return _answer(
        (
            HybridHit(hit, hit.score, {arm: ArmHit(rank, hit.score)})
            for rank, hit in enumerate(found, 1)
        ),
        found.explanation,
    )


def _answer(
    hits: Iterable[HybridHit], explanation: Explanation | None, degraded: str | None = None
) -> HybridHits:
    answer = HybridHits(hits)
    answer.explanation, answer.degraded = explanation, degraded
    return answer
