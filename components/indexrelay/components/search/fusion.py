"""One ranking of several of the same entries.

By reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009), which needs no common scale of
scores, or by adding the scores on one scale (the convex combination that Bruch, Gai and Ingber
compare with it, TOIS 2023). All of it works on ranks and scores alone,
whatever was searched.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Final

RRF_K: Final = 60.0
"""How flat the fusion is: the constant of the paper, which found little difference around it."""


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
    shares: Sequence[Mapping[str, float]], *, weights: Sequence[float]
) -> list[tuple[str, float]]:
    """One ranking of all ids, with their scores: the weighted mean of what each ranking gives them.

    An id that a ranking gives nothing gets 0 from it. Equal ones are ordered as in
    `reciprocal_rank_fusion`.

    Args:
        shares: of each ranking, higher for better, on one scale.
        weights: one for each ranking, at least one of them above 0.
    """
    total = sum(weights)
    rankings = []
    for each, weight in zip(shares, weights, strict=True):
        best_first = sorted(each, key=lambda entry_id: (-each[entry_id], entry_id))
        rankings.append([(entry_id, weight / total * each[entry_id]) for entry_id in best_first])
    return _added(rankings)


def scaled_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores, higher for better, from 1 for the best to 0 for the lowest; all 1 where all are
    equal."""
    if not scores:
        return {}
    best, lowest = max(scores.values()), min(scores.values())
    if best <= lowest:
        return dict.fromkeys(scores, 1.0)
    return {entry_id: (score - lowest) / (best - lowest) for entry_id, score in scores.items()}


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
