"""How the hits of any search are arranged: so many of each group, and hits that differ.

A group is the value of a filterable field. Hits of a group that has no place left are dropped, so
more are searched for, until there are enough: beyond the groups that are full, where the search can
leave them out by a filter, else among more and more candidates, up to `MOST_CANDIDATES`.

What differs is chosen by marginal relevance, the greedy selection of Carbonell and Goldstein (SIGIR
1998): each place goes to what fits the query and is least like what stands above. Relevance is the
score, scaled so that the best candidate has 1 and the last one 0; similarity is the cosine of two
candidates' vectors, scaled so that equal ones have 1 and those that are least alike 0. So
``diversity`` means the same whatever the metric is, whatever the scores are of, and however close
together all candidates lie.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.errors import InvalidQueryError
from indexrelay.components.formats.string_table import Rows
from indexrelay.components.query import Explanation, FilterObject, Hits, QueryOptions, Stopwatch
from indexrelay.components.served import Hit, check_bytes_of_hits
from indexrelay.schemas.filters import Fields, FieldType, InvalidFilterError, Value, values_of
from indexrelay.storage.entries import Vectors

MOST_CANDIDATES: Final = 10_000
"""Among so many the places of groups are looked for where no filter can leave full groups out."""
_POOL: Final = 5
"""Candidates for each hit that is wanted, to choose different ones from."""
_SMALLEST_POOL: Final = 50
_COMPARED: Final = 500
"""Candidates among which those that are least alike are looked for: the others are like them."""
_SAME: Final = 1e-6
"""Cosines in float32 differ by so much where vectors are equal."""
_GROUPED: Final = 2
"""Candidates for each hit at first, where groups may drop some …"""
_MORE: Final = 4
"""… and each time that too few are left, so many times as many."""

HitT = TypeVar("HitT", bound=Hit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """What was asked for besides the best hits; `of` checks it."""

    group_by: str | None
    field_type: FieldType | None
    """Of ``group_by``."""
    per_group: int
    diversity: float

    @classmethod
    def of(cls, options: QueryOptions, fields: Fields) -> Self | None:
        """As a search was asked for it; ``None``: nothing is to be arranged.

        Args:
            options: of the search.
            fields: the filterable fields.

        Raises:
            InvalidFilterError: ``group_by`` is no field that hits can be grouped by.
            InvalidQueryError: there is a ``per_group`` without it.
        """
        group_by = options.group_by
        if group_by is None and options.diversity is None:
            if options.per_group != 1:
                raise InvalidQueryError("per_group goes with group_by")
            return None
        return cls(
            group_by=group_by,
            field_type=None if group_by is None else _field_type(group_by, fields),
            per_group=options.per_group,
            diversity=options.diversity or 0.0,
        )

    def search(
        self,
        find: Callable[[int, FilterObject | None], Sequence[HitT]],
        *,
        k: int,
        entries: int,
        vectors: Callable[[Sequence[HitT]], Vectors] | None = None,
        narrows: bool = True,
        first: int = 0,
        max_payload_bytes: int | None = None,
    ) -> Hits:
        """The ``k`` hits, or as many as there are; explained where what is found is.

        Args:
            find: the best so many hits, the best first, of what a filter matches besides; fewer
                only where there are no more.
            k: at least 1.
            entries: how many entries there are.
            vectors: of the hits, shape ``(n, dimension)``; ``None``: for no diversity.
            narrows: whether a filter leaves the order of the other hits as it is. Where it does
                not, as in a fusion of ranks, ``find`` is asked for more instead, and for no filter.
            first: so many candidates at least.
            max_payload_bytes: of the hits that are given; ``None``: any number.

        Raises:
            InvalidQueryError: their payloads have more.
        """
        rounds: _Rounds[HitT] = _Rounds(find)
        watch = Stopwatch()
        chosen: list[HitT] = self._chosen(
            rounds, k=k, entries=entries, vectors=vectors, narrows=narrows, first=first
        )
        hits = Hits(chosen)
        hits.degraded = rounds.degraded
        watch.stage("all rounds")
        check_bytes_of_hits(hits, max_payload_bytes)
        if rounds.explanation is not None:
            hits.explanation = replace(
                rounds.explanation,
                rounds=rounds.count,
                stages=(*rounds.explanation.stages, *watch.stages),
            )
        return hits

    def _chosen(
        self,
        find: Callable[[int, FilterObject | None], Sequence[HitT]],
        *,
        k: int,
        entries: int,
        vectors: Callable[[Sequence[HitT]], Vectors] | None,
        narrows: bool,
        first: int,
    ) -> list[HitT]:
        pool = max(_POOL * k, _SMALLEST_POOL) if self.diversity else k
        first = max(first, pool)
        if self.group_by is None:
            hits = list(find(first, None))
        elif narrows:
            hits = self._beyond_full_groups(find, pool, first)
        else:
            hits = gather(
                lambda depth: find(depth, None),
                self._within_groups,
                k=k,
                first=_GROUPED * first,
                most=min(entries, MOST_CANDIDATES),
            )
        if not self.diversity or not hits or vectors is None:
            return hits[:k]
        order = marginal_relevance(
            scaled([hit.score for hit in hits]),
            _similarity(vectors(hits)),
            diversity=self.diversity,
            k=k,
        )
        return [hits[place] for place in order.tolist()]

    def _within_groups(self, found: Sequence[HitT]) -> list[HitT]:
        places = within_groups([self._group(hit)[0] for hit in found], self.per_group)
        return [found[place] for place in places]

    def _beyond_full_groups(
        self,
        find: Callable[[int, FilterObject | None], Sequence[HitT]],
        wanted: int,
        first: int,
    ) -> list[HitT]:
        """Search again and again, each time without the groups that are full by now.

        What was found and is of no full group is found again: so half of what is asked for is new.
        Where the filter of the query leaves no room for the groups, more is asked for instead, up
        to `MOST_CANDIDATES`.
        """
        kept: dict[str, HitT] = {}
        taken: Counter[Value] = Counter()
        full: list[Any] = []
        depth = max(first, _GROUPED * wanted)
        most = max(depth, MOST_CANDIDATES)
        narrows = True
        while True:
            beyond = {str(self.group_by): {"$nin": list(full)}} if full and narrows else None
            try:
                found = find(depth, beyond)
            except InvalidFilterError:
                if beyond is None:
                    raise
                narrows = False
                depth = min(_MORE * depth, most)
                continue
            for hit in found:
                if hit.id not in kept and self._takes_place(hit, taken, full):
                    kept[hit.id] = hit
            if len(kept) >= wanted or len(found) < depth or (depth == most and not narrows):
                return _best_first(list(kept.values()))[:wanted]
            if not narrows:
                depth = min(_MORE * depth, most)

    def _takes_place(self, hit: Hit, taken: Counter[Value], full: list[Any]) -> bool:
        """Whether the group of a hit has a place left, which it has taken then."""
        group, given = self._group(hit)
        if group is None:
            return True
        if taken[group] == self.per_group:
            return False
        taken[group] += 1
        if taken[group] == self.per_group:
            full.append(given)
        return True

    def _group(self, hit: Hit) -> tuple[Value | None, Any]:
        """The group of a hit as it is compared, and as its payload gives it; ``None``: none."""
        try:
            values = values_of(
                hit.payload, str(self.group_by), self.field_type or FieldType.KEYWORD
            )
        except ValueError:  # of another type, which counts as missing
            return None, None
        if not values:
            return None, None
        if self.field_type is FieldType.DATETIME:
            return values[0], _given(hit.payload, str(self.group_by))
        return values[0], values[0]


class _Rounds(Generic[HitT]):
    """Searches, and remembers how often, how the last answer was found, and what any lacks."""

    def __init__(self, find: Callable[[int, FilterObject | None], Sequence[HitT]]) -> None:
        self._find = find
        self.count = 0
        self.explanation: Explanation | None = None
        self.degraded: str | None = None

    def __call__(self, depth: int, beyond: FilterObject | None) -> Sequence[HitT]:
        found = self._find(depth, beyond)
        self.count += 1
        if isinstance(found, Hits):
            self.explanation = found.explanation
            self.degraded = found.degraded or self.degraded
        return found


def _field_type(group_by: Any, fields: Fields) -> FieldType:
    """The type of a field that hits can be grouped by."""
    there = ", ".join(sorted(fields)) or "none: declare filterable fields of the collection"
    if not isinstance(group_by, str) or group_by not in fields:
        reason = f"{group_by!r:.100} is no filterable field; there are {there}"
        raise InvalidFilterError("group_by", reason, fields)
    if fields[group_by] is FieldType.KEYWORDS:
        reason = f"{group_by} holds lists of keywords, and a hit can only be of one group"
        raise InvalidFilterError("group_by", reason, fields)
    return fields[group_by]


def _given(payload: Any, field: str) -> Any:
    for part in field.split("."):
        payload = payload[part]
    return payload


def _best_first(hits: list[HitT]) -> list[HitT]:
    """In the order of their scores; the first hit is one of the best, so it says which way."""
    mean = sum(hit.score for hit in hits) / max(len(hits), 1)
    return sorted(hits, key=lambda hit: hit.score, reverse=bool(hits) and hits[0].score > mean)


def _similarity(vectors: Vectors) -> Callable[[int], NDArray[np.float32]]:
    """How alike all of ``vectors`` are to one of them, from 0 to 1; without a length: unlike."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    some = unit[:_COMPARED]
    least = min(float((some @ some.T).min()), 1 - _SAME)

    def similar_to(place: int) -> NDArray[np.float32]:
        similar: NDArray[np.float32] = np.maximum((unit @ unit[place] - least) / (1 - least), 0)
        return similar

    return similar_to


def scaled(scores: Sequence[float]) -> NDArray[np.float64]:
    """Scores, the best first, as numbers from 1 to 0, whichever way they go; shape ``(n,)``."""
    given = np.array(scores, dtype=np.float64)
    if not len(given) or given[0] == given[-1]:
        return np.ones(len(given))
    shares: NDArray[np.float64] = (given - given[-1]) / (given[0] - given[-1])
    return shares


def within_groups(groups: Sequence[Hashable | None], per_group: int) -> list[int]:
    """The places that stay when each group keeps its first ``per_group``, in increasing order.

    What belongs to no group (``None``) stays.
    """
    kept: list[int] = []
    taken: Counter[Hashable] = Counter()
    for place, group in enumerate(groups):
        if group is not None:
            taken[group] += 1
            if taken[group] > per_group:
                continue
        kept.append(place)
    return kept


def marginal_relevance(
    relevance: NDArray[np.float64],
    similar_to: Callable[[int], NDArray[np.float32]],
    *,
    diversity: float,
    k: int,
) -> Rows:
    """The places of the ``k`` that are chosen, in the order in which they are.

    Each is the one with the greatest ``(1 - diversity) * relevance - diversity * similarity``,
    where the similarity is that to the nearest of those chosen before; the first is the most
    relevant. Of equal ones the first given is taken. ``diversity`` is one minus the paper's λ.

    Args:
        relevance: of each candidate, shape ``(n,)``; higher is better.
        similar_to: gives for one place how similar each candidate is to it, shape ``(n,)``, on the
            scale of ``relevance``.
        diversity: from 0 (by relevance alone) to 1 (by difference alone).
        k: at least 1.
    """
    count = min(k, len(relevance))
    chosen = np.empty(count, dtype=np.int64)
    if not count:
        return chosen
    left = np.ones(len(relevance), dtype=bool)
    nearest = np.full(len(relevance), -np.inf, dtype=np.float64)
    chosen[0] = int(np.argmax(relevance))
    wanted = (1 - diversity) * relevance
    for place in range(1, count):
        left[chosen[place - 1]] = False
        np.maximum(nearest, similar_to(int(chosen[place - 1])), out=nearest)
        marginal = wanted - diversity * nearest
        chosen[place] = int(np.argmax(np.where(left, marginal, -np.inf)))
    return chosen


class Sized(Protocol):
    """Whatever has a length."""

    def __len__(self) -> int: ...


FoundT = TypeVar("FoundT", bound=Sized)
AnswerT = TypeVar("AnswerT", bound=Sized)


def gather(
    find: Callable[[int], FoundT],
    arrange: Callable[[FoundT], AnswerT],
    *,
    k: int,
    first: int,
    most: int,
) -> AnswerT:
    """An answer of ``k``, or of all there are, from as many candidates as that takes.

    Args:
        find: the best so many candidates; fewer only where there are no more.
        arrange: makes an answer of candidates, and may drop some.
        k: how many are wanted.
        first: how many candidates to begin with.
        most: how many entries there are.
    """
    depth = min(max(first, k), max(most, 1))
    while True:
        found = find(depth)
        answer = arrange(found)
        if len(answer) >= k or len(found) < depth or depth >= most:
            return answer
        depth = min(_MORE * depth, most)
