"""A vector index and a text index, as a reader serves them: searched by either, or by both at once.

Each half ranks the entries on its own, and a fusion makes one ranking of the two: of their ranks,
or of their scores (`ranking`). Both halves are asked as deep as it takes for the best hits to be
among their answers: an entry that is beyond that depth in both has a smaller fused score than every
hit. What stands beyond it in one of them gets nothing from that one.

After the fusion a function of the user's may score the best hits again; groups and diversity come
last (`arrangement`).
"""

import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self, get_args

import numpy as np
from numpy.typing import ArrayLike

from indexrelay.components.arrangement import Arrangement, payload_groups
from indexrelay.components.errors import InvalidQueryError, RerankFunctionError
from indexrelay.components.ranking import RRF_K, fusion_depth, reciprocal_rank_fusion, score_fusion
from indexrelay.components.served import Closable, Hit, checked_k
from indexrelay.components.text_index.search import TextSearch
from indexrelay.components.vector_index.search import VectorSearch
from indexrelay.schemas.diagnostics import describe_error
from indexrelay.storage.entries import Vectors

ARMS: Final = ("vector", "text")
_SHALLOWEST: Final = 100
"""Hits that each half is asked for at least, so that ``k`` up to 20 all give the same order."""


@dataclass(frozen=True, slots=True)
class ArmHit:
    """Where one half found an entry."""

    rank: int
    """Among the half's own hits, from 1."""
    score: float
    """As the half has it: see `VectorSearch` and `TextSearch`."""


@dataclass(slots=True)
class HybridHit(Hit):
    """An entry that was found, and by which half.

    ``score`` is what ``rerank`` gave it, where there is such a function; else the fused score,
    where both halves were asked; else that of the one half.
    """

    arms: Mapping[str, ArmHit] = field(default_factory=dict)
    """``vector`` and ``text``, as far as they found it within the depth that was searched."""
    fused: float | None = None
    """What the fusion gave it; ``None``: only one half was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HybridQuery:
    """What was asked for, as ``rerank`` is given it."""

    vector: Vectors | None
    """Shape ``(dimension,)``; ``None``: only a text was given."""
    text: str | None
    """``None``: only a vector was given."""


Rerank = Callable[[HybridQuery, list[HybridHit]], Sequence[float]]
"""Gives a number for each hit, in their order; higher is better."""


Fusion = Literal["ranks", "scores"]
"""What of the two rankings is added."""


class HybridSearch(Closable):
    """Searches by a vector, by a text, or by both; immutable, and safe to use from many threads."""

    _closed_by = frozenset({"by_vector", "by_text"})

    def __init__(
        self,
        *,
        by_vector: VectorSearch,
        by_text: TextSearch,
        rerank: Rerank | None = None,
        rerank_hits: int = 50,
    ) -> None:
        """Serve two halves of one version, which are closed with it."""
        self.by_vector: VectorSearch = by_vector
        """The half that is searched by vector."""
        self.by_text: TextSearch = by_text
        """The half that is searched by text."""
        self._rerank = rerank
        self._rerank_hits = rerank_hits

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
        weights: Mapping[str, float] | None = None,
        fusion: Fusion = "ranks",
        rrf_k: float = RRF_K,
        rerank: Rerank | bool | None = None,
        group_by: str | None = None,
        per_group: int = 1,
        diversity: float | None = None,
    ) -> list[HybridHit]:
        """The ``k`` entries that fit best, or all of them where there are fewer.

        Args:
            vector: of the shape ``(dimension,)``, as `VectorSearch.search` takes it.
            text: plain words, as `TextSearch.search` takes them. With both, their rankings are
                fused; one of the two is enough.
            k: how many.
            weights: of ``vector`` and ``text`` in the fusion, 1 where one is not named; a half of
                weight 0 is not asked.
            fusion: ``ranks``: the sum of ``weight / (rrf_k + rank)``; ``scores``: the weighted mean
                of the scores, each half's scaled from 1 for its best to 0 for its last.
            rrf_k: how flat the fusion of ranks is: the larger, the less the first ranks count for.
            rerank: scores the best hits again. ``None``: the component's function, where it has
                one; ``False``: none; or a function of its own.
            group_by: a field of the payload; of entries with the same value only the first
                ``per_group`` are given. Entries that lack it are not limited.
            per_group: see ``group_by``.
            diversity: from 0 to 1; how much being unlike the hits above counts, beside fitting.

        Raises:
            InvalidQueryError: there is neither a vector nor a text, or an argument is not what it
                has to be.
            RerankFunctionError: the function raised something, or did not give a number for each
                hit.
        """
        most = checked_k(k)
        asked = self._asked(vector, text, _checked_weights(weights))
        fuse = _Fuse.of(fusion, rrf_k, list(asked.values()))
        arrangement = Arrangement.of(group_by=group_by, per_group=per_group, diversity=diversity)
        function = self._function(rerank)
        query = HybridQuery(vector=None if vector is None else _as_vector(vector), text=text)

        def find(depth: int) -> list[HybridHit]:
            hits = self._fused(query, asked, fuse, depth)
            return hits if function is None else _reranked(function, query, hits)

        first = most if function is None else max(most, self._rerank_hits)
        if arrangement is None:
            return find(first)[:most]
        return arrangement.search(
            find,
            k=most,
            entries=len(self),
            groups=payload_groups,
            vectors=self._vectors,
            first=first,
        )

    def search_by_id(self, entry_id: str, *, k: int = 10) -> list[HybridHit]:
        """The ``k`` entries whose vectors are nearest to that of an entry, without itself.

        Raises:
            UnknownEntryError: it is not in here.
            InvalidQueryError: ``k`` is no whole number from 1.
        """
        return _of_one("vector", self.by_vector.search_by_id(entry_id, k=k))

    def close(self) -> None:
        """Close both halves; nothing may be searched afterwards."""
        self.by_vector.close()
        self.by_text.close()
        del self.by_vector, self.by_text

    def _asked(
        self, vector: object, text: object, weights: Mapping[str, float]
    ) -> dict[str, float]:
        """The halves that are to be asked, with their weights."""
        if isinstance(vector, str):
            raise InvalidQueryError("a text is given by name: search(text=…)")
        given = {"vector": vector, "text": text}
        asked = {name: weights[name] for name in ARMS if given[name] is not None}
        if not asked:
            raise InvalidQueryError("give a vector, a text, or both")
        heavy = {name: weight for name, weight in asked.items() if weight}
        if not heavy:
            raise InvalidQueryError(f"the weight of {' and of '.join(asked)} is 0: nothing is left")
        return heavy

    def _fused(
        self, query: HybridQuery, asked: Mapping[str, float], fuse: "_Fuse", depth: int
    ) -> list[HybridHit]:
        """The best ``depth`` of what the halves find."""
        if len(asked) == 1:
            (arm,) = asked
            return _of_one(arm, self._ask(arm, query, depth))
        found = {arm: self._ask(arm, query, fuse.window(depth)) for arm in asked}
        ranked = {
            arm: {hit.id: (rank, hit) for rank, hit in enumerate(hits, 1)}
            for arm, hits in found.items()
        }
        return [
            _hit({arm: of[entry_id] for arm, of in ranked.items() if entry_id in of}, fused=score)
            for entry_id, score in fuse(found.values())[:depth]
        ]

    def _ask(self, arm: str, query: HybridQuery, k: int) -> list[Hit]:
        if arm == "vector":
            return self.by_vector.search(query.vector, k=k)  # type: ignore[arg-type]
        return self.by_text.search(query.text, k=k)  # type: ignore[arg-type]

    def _vectors(self, hits: Sequence[Hit]) -> Vectors:
        contents = self.by_vector.contents
        return contents.vectors(np.array([contents.row(hit.id) for hit in hits], dtype=np.int64))

    def _function(self, rerank: Any) -> Rerank | None:
        if rerank is None or rerank is True:
            return self._rerank
        if rerank is False:
            return None
        if not callable(rerank):
            raise InvalidQueryError(f"rerank is a function, or False, not {rerank!r:.100}")
        return rerank  # type: ignore[no-any-return] # callable() narrows to an unknown signature


@dataclass(frozen=True, slots=True)
class _Fuse:
    """One way to make one ranking of several."""

    fusion: Fusion
    rrf_k: float
    weights: Sequence[float]
    """One for each ranking, above 0."""

    @classmethod
    def of(cls, fusion: Any, rrf_k: Any, weights: Sequence[float]) -> Self:
        """From the arguments of a search, which are checked."""
        if fusion not in get_args(Fusion):
            raise InvalidQueryError(f"fusion is ranks or scores, not {fusion!r:.100}")
        return cls(fusion, _checked_number("rrf_k", rrf_k), weights)

    def window(self, depth: int) -> int:
        """How many hits of each half the best ``depth`` are made of."""
        if self.fusion == "scores":  # what is deeper in both has no score at all
            return max(_SHALLOWEST, depth)
        return max(_SHALLOWEST, fusion_depth(depth, weights=self.weights, rrf_k=self.rrf_k))

    def __call__(self, rankings: Iterable[Sequence[Hit]]) -> list[tuple[str, float]]:
        """All ids with their fused scores, the best first."""
        if self.fusion == "scores":
            scored = [[(hit.id, hit.score) for hit in hits] for hits in rankings]
            return score_fusion(scored, weights=self.weights)
        ids = [[hit.id for hit in hits] for hits in rankings]
        return reciprocal_rank_fusion(ids, weights=self.weights, rrf_k=self.rrf_k)


def _as_vector(vector: ArrayLike) -> Vectors:
    try:
        return np.asarray(vector, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise InvalidQueryError(f"a query is an array of numbers: {error}") from error


def _hit(found: Mapping[str, tuple[int, Hit]], *, fused: float | None = None) -> HybridHit:
    """One entry, from what the halves found of it."""
    first = next(iter(found.values()))[1]
    return HybridHit(
        first.id,
        first.score if fused is None else fused,
        first.payload,
        arms={arm: ArmHit(rank, hit.score) for arm, (rank, hit) in found.items()},
        fused=fused,
    )


def _of_one(arm: str, hits: Sequence[Hit]) -> list[HybridHit]:
    return [_hit({arm: (rank, hit)}) for rank, hit in enumerate(hits, 1)]


def _reranked(function: Rerank, query: HybridQuery, hits: list[HybridHit]) -> list[HybridHit]:
    """The hits in the order of the scores that ``function`` gives them."""
    if not hits:
        return hits
    name = getattr(function, "__qualname__", type(function).__name__)
    try:
        scores = np.asarray(function(query, list(hits)), dtype=np.float64)
    except Exception as error:
        raise RerankFunctionError(name, f"it raised {describe_error(error)}") from error
    if scores.shape != (len(hits),):
        raise RerankFunctionError(
            name, f"it gave scores of the shape {scores.shape} for {len(hits)} hits"
        )
    if not np.isfinite(scores).all():
        raise RerankFunctionError(name, "it gave a score that is no finite number")
    for hit, score in zip(hits, scores.tolist(), strict=True):
        hit.score = score
    order = np.argsort(-scores, kind="stable")
    return [hits[place] for place in order.tolist()]


def _checked_weights(weights: Any) -> dict[str, float]:
    """A weight for each half."""
    given = {} if weights is None else weights
    if not isinstance(given, Mapping):
        raise InvalidQueryError('weights are a dict, such as {"vector": 1, "text": 0.5}')
    unknown = [name for name in given if name not in ARMS]
    if unknown:
        raise InvalidQueryError(f"weights has {unknown[0]!r:.100}; there are vector and text")
    return {name: _checked_number(f"weights[{name!r}]", given.get(name, 1.0)) for name in ARMS}


def _checked_number(what: str, value: Any) -> float:
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and number >= 0:
            return number
    raise InvalidQueryError(f"{what} is a finite number from 0, not {value!r:.100}")
