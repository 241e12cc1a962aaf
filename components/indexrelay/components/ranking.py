"""From candidates to an answer: fuse rankings, limit groups, and prefer what differs.

All of it works on ranks, scores and similarities alone, whatever was searched. Several rankings of
the same entries become one by reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009),
which needs no common scale of scores, or by adding the scores, each ranking's brought to one scale
(the convex combination that Bruch, Gai and Ingber compare with it, TOIS 2023). `within_groups` lets
each group fill only some places. `marginal_relevance` is the greedy selection of Carbonell and
Goldstein (SIGIR 1998): each place goes to what fits the query and is least like what stands above.

What limits groups drops candidates, so how many are enough is not known before: `gather` asks for
more until the answer is full or there are no more.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from math import ceil
from typing import Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.formats.string_table import Rows

RRF_K: Final = 60.0
"""How flat the fusion is: the constant of the paper, which found little difference around it."""
MORE: Final = 4
"""Each time that too few candidates are left, so many times as many are asked for."""


def reciprocal_rank_fusion(
    rankings: Sequence[Sequence[str]], *, weights: Sequence[float], rrf_k: float = RRF_K
) -> list[tuple[str, float]]:
    """One ranking of all ids, with their scores: the sum of ``weight / (rrf_k + rank)``.

    Ranks count from 1. An id gets nothing from a ranking that lacks it. Of equal scores the id with
    the better rank in any of the rankings comes first, then the smaller id.

    Args:
        rankings: ids, the best first, none twice.
        weights: one for each ranking.
        rrf_k: 0 or more.
    """
    return _added(
        [
            [(entry_id, weight / (rrf_k + rank)) for rank, entry_id in enumerate(ranking, 1)]
            for ranking, weight in zip(rankings, weights, strict=True)
        ]
    )


def score_fusion(
    scores: Sequence[Mapping[str, float]],
    *,
    weights: Sequence[float],
    worst: Sequence[float | None],
) -> list[tuple[str, float]]:
    """One ranking of all ids, with their scores: the weighted mean of the scaled scores.

    See `scaled_scores`. An id that is among none of a ranking's scores gets nothing from it. Equal
    ones are ordered as in `reciprocal_rank_fusion`.

    Args:
        scores: of each ranking, higher for better.
        weights: one for each ranking, at least one of them above 0.
        worst: for each ranking what no score can be below, as `scaled_scores` takes it.
    """
    total = sum(weights)
    rankings = []
    for each, weight, lowest in zip(scores, weights, worst, strict=True):
        shares = scaled_scores(each, worst=lowest)
        best_first = sorted(shares, key=lambda entry_id: (-shares[entry_id], entry_id))
        rankings.append([(entry_id, weight / total * shares[entry_id]) for entry_id in best_first])
    return _added(rankings)


def scaled_scores(scores: Mapping[str, float], *, worst: float | None) -> dict[str, float]:
    """Scores from 1 for the best to 0 for ``worst``; where none is better than that, all are 1.

    Args:
        scores: higher for better.
        worst: the lowest that a score can be (the theoretical minimum of Bruch, Gai and Ingber:
            what a query finds does not move it); ``None``: the lowest of ``scores``.
    """
    if not scores:
        return {}
    best = max(scores.values())
    lowest = min(scores.values()) if worst is None else worst
    if best <= lowest:
        return dict.fromkeys(scores, 1.0)
    return {entry_id: (score - lowest) / (best - lowest) for entry_id, score in scores.items()}


def scaled(scores: Sequence[float]) -> NDArray[np.float64]:
    """Scores, the best first, as numbers from 1 to 0, whichever way they go; shape ``(n,)``."""
    given = np.array(scores, dtype=np.float64)
    if not len(given) or given[0] == given[-1]:
        return np.ones(len(given))
    shares: NDArray[np.float64] = (given - given[-1]) / (given[0] - given[-1])
    return shares


def _added(rankings: Sequence[Sequence[tuple[str, float]]]) -> list[tuple[str, float]]:
    """The sum of what each ranking gives an id, the greatest first."""
    sums: dict[str, float] = {}
    best: dict[str, int] = {}
    for ranking in rankings:
        for rank, (entry_id, score) in enumerate(ranking):
            sums[entry_id] = sums.get(entry_id, 0.0) + score
            best[entry_id] = min(best.get(entry_id, rank), rank)
    return sorted(sums.items(), key=lambda item: (-item[1], best[item[0]], item[0]))


def fusion_depth(k: int, *, weights: Sequence[float], rrf_k: float = RRF_K) -> int:
    """How deep each ranking must be known for the ``k`` best of their fusion.

    An id that is deeper than this in all of them has a smaller score than ``k`` others: at most
    the sum of ``weight / (rrf_k + depth + 1)`` over the rankings that go on, while the heaviest of
    these gives each of its first ``k`` at least ``weight / (rrf_k + k)``. Rankings that end before
    do not count for either side, so the bound is the worst over all that may be left.

    Args:
        k: at least 1.
        weights: one for each ranking, at least one of them above 0.
        rrf_k: 0 or more.
    """
    falling = sorted((weight for weight in weights if weight > 0), reverse=True)
    most = max(sum(falling[place:]) / weight for place, weight in enumerate(falling))
    return max(k, ceil(most * (rrf_k + k) - rrf_k))


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
        depth = min(MORE * depth, most)
