"""Fusing rankings, limiting groups and choosing what differs, each held against a slower way."""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexrelay.components.ranking import (
    fusion_depth,
    gather,
    marginal_relevance,
    reciprocal_rank_fusion,
    scaled,
    scaled_scores,
    score_fusion,
    within_groups,
)

POOL = [f"e{number}" for number in range(40)]
rankings = st.lists(st.lists(st.sampled_from(POOL), unique=True), min_size=1, max_size=4)
weights = st.sampled_from([0.25, 0.5, 1.0, 2.0, 7.0])


def by_hand(rankings: Sequence[Sequence[str]], weights: Sequence[float], rrf_k: float) -> list[str]:
    """The fusion as the paper writes it, in exact numbers."""

    def score(entry_id: str) -> Fraction:
        return sum(
            (
                Fraction(weight) / (Fraction(rrf_k) + ranking.index(entry_id) + 1)
                for ranking, weight in zip(rankings, weights, strict=True)
                if entry_id in ranking
            ),
            Fraction(0),
        )

    def best(entry_id: str) -> int:
        return min(ranking.index(entry_id) for ranking in rankings if entry_id in ranking)

    found = {entry_id for ranking in rankings for entry_id in ranking}
    return sorted(found, key=lambda entry_id: (-score(entry_id), best(entry_id), entry_id))


def test_two_rankings_are_fused_as_computed_by_hand() -> None:
    fused = reciprocal_rank_fusion([["a", "b", "c"], ["c", "a", "d"]], weights=[1, 1])
    assert [name for name, _ in fused] == ["a", "c", "b", "d"]
    by_sum = [1 / 61 + 1 / 62, 1 / 63 + 1 / 61, 1 / 62, 1 / 63]
    assert [score for _, score in fused] == pytest.approx(by_sum)


def test_a_weight_moves_an_entry_up() -> None:
    one, other = ["a", "b"], ["b", "a"]
    assert [name for name, _ in reciprocal_rank_fusion([one, other], weights=[2, 1])] == ["a", "b"]
    assert [name for name, _ in reciprocal_rank_fusion([one, other], weights=[1, 2])] == ["b", "a"]


@given(rankings=rankings, data=st.data(), rrf_k=st.sampled_from([0.0, 1.0, 60.0]))
def test_any_rankings_are_fused_as_computed_by_hand(
    rankings: list[list[str]], data: st.DataObject, rrf_k: float
) -> None:
    given_weights = data.draw(st.tuples(*(weights for _ in rankings)))
    fused = reciprocal_rank_fusion(rankings, weights=given_weights, rrf_k=rrf_k)
    exact = by_hand(rankings, given_weights, rrf_k)
    scores = dict(fused)
    assert sorted(scores) == sorted(exact)
    # Sums of floats may differ in their last digit from exact ones that are equal.
    assert [scores[name] for name in exact] == pytest.approx([score for _, score in fused])


def test_scores_are_scaled_and_their_weighted_mean_is_taken() -> None:
    fused = score_fusion(
        [{"a": 10.0, "b": 7.5, "c": 2.0}, {"c": -0.2, "d": -0.3, "a": -0.6}],
        weights=[3, 1],
        worst=[0.0, None],
    )
    assert [name for name, _ in fused] == ["a", "b", "c", "d"]
    by_mean = [0.75 * 1 + 0.25 * 0, 0.75 * 0.75, 0.75 * 0.2 + 0.25 * 1, 0.25 * 0.75]
    assert [score for _, score in fused] == pytest.approx(by_mean)


@pytest.mark.parametrize(("scores", "worst"), [([], None), ([2.0, 2.0], None), ([-1.0], -1.0)])
def test_scores_of_which_none_is_above_the_worst_are_all_the_best(
    scores: list[float], worst: float | None
) -> None:
    given = {str(place): score for place, score in enumerate(scores)}
    assert scaled_scores(given, worst=worst) == dict.fromkeys(given, 1.0)


@pytest.mark.parametrize("scores", [[], [2.0], [2.0, 2.0]])
def test_scores_without_a_difference_are_all_the_best(scores: list[float]) -> None:
    assert scaled(scores).tolist() == [1.0] * len(scores)


@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    k=st.integers(1, 12),
    rrf_k=st.sampled_from([0.0, 1.0, 5.0]),
    data=st.data(),
)
def test_no_entry_beyond_the_depth_of_all_rankings_is_among_the_best(
    lengths: list[int], k: int, rrf_k: float, data: st.DataObject
) -> None:
    whole = [data.draw(st.permutations(POOL))[:length] for length in lengths]
    given_weights = data.draw(st.tuples(*(weights for _ in lengths)))
    depth = fusion_depth(k, weights=given_weights, rrf_k=rrf_k)
    seen = {entry_id for ranking in whole for entry_id in ranking[:depth]}
    best = by_hand(whole, given_weights, rrf_k)[:k]
    assert set(best) <= seen


def test_a_weight_of_zero_asks_for_no_depth() -> None:
    assert fusion_depth(10, weights=[1, 0]) == 10
    assert fusion_depth(10, weights=[1, 1]) == 80


@given(
    groups=st.lists(st.none() | st.sampled_from("abc"), max_size=30), per_group=st.integers(1, 4)
)
def test_each_group_keeps_its_first(groups: list[str | None], per_group: int) -> None:
    kept = within_groups(groups, per_group)
    assert kept == [
        place
        for place, group in enumerate(groups)
        if group is None or groups[:place].count(group) < per_group
    ]
    counts = Counter(groups[place] for place in kept if groups[place] is not None)
    assert all(count <= per_group for count in counts.values())


def chosen_slowly(
    relevance: list[float], similarity: list[list[float]], diversity: float, k: int
) -> list[int]:
    """Carbonell and Goldstein's selection, one sum after the other."""
    chosen: list[int] = []
    while len(chosen) < min(k, len(relevance)):

        def marginal(place: int) -> float:
            if not chosen:
                return relevance[place]
            nearest = max(similarity[place][other] for other in chosen)
            return (1 - diversity) * relevance[place] - diversity * nearest

        left = [place for place in range(len(relevance)) if place not in chosen]
        chosen.append(max(left, key=lambda place: (marginal(place), -place)))
    return chosen


# Quarters and eighths: sums of them are exact, so that ties are ties.
_eighths = st.integers(-8, 8).map(lambda number: number / 8)


@given(size=st.integers(0, 7), k=st.integers(1, 9), quarter=st.integers(0, 4), data=st.data())
def test_marginal_relevance_chooses_as_the_slow_way_does(
    size: int, k: int, quarter: int, data: st.DataObject
) -> None:
    relevance = data.draw(st.lists(_eighths, min_size=size, max_size=size))
    row = st.lists(_eighths, min_size=size, max_size=size)
    similarity = data.draw(st.lists(row, min_size=size, max_size=size))
    matrix = np.array(similarity, dtype=np.float32).reshape(size, size)
    chosen = marginal_relevance(
        np.array(relevance, dtype=np.float64),
        lambda place: matrix[:, place],
        diversity=quarter / 4,
        k=k,
    )
    assert chosen.tolist() == chosen_slowly(relevance, similarity, quarter / 4, k)


def test_without_diversity_the_order_stays() -> None:
    relevance = np.array([0.9, 0.8, 0.7])
    alike = np.ones((3, 3), dtype=np.float32)
    order = marginal_relevance(relevance, lambda place: alike[place], diversity=0.0, k=3)
    assert order.tolist() == [0, 1, 2]


def test_an_entry_like_one_above_it_gives_way_to_one_that_differs() -> None:
    relevance = np.array([0.90, 0.89, 0.60])
    similar = np.array([[1, 0.99, 0.1], [0.99, 1, 0.1], [0.1, 0.1, 1]], dtype=np.float32)
    order = marginal_relevance(relevance, lambda place: similar[place], diversity=0.5, k=2)
    assert order.tolist() == [0, 2]


@given(
    groups=st.lists(st.sampled_from("abcdef"), max_size=60),
    k=st.integers(1, 10),
    first=st.integers(1, 10),
)
def test_an_answer_is_full_or_nothing_is_left_to_ask(groups: list[str], k: int, first: int) -> None:
    asked: list[int] = []

    def find(depth: int) -> list[str]:
        asked.append(depth)
        return groups[:depth]

    def arrange(found: list[str]) -> list[str]:
        return [found[place] for place in within_groups(found, 1)][:k]

    answer = gather(find, arrange, k=k, first=first, most=len(groups))
    assert answer == [groups[place] for place in within_groups(groups, 1)][:k]
    assert asked == sorted(set(asked)), "each time more than before"


def test_no_order_of_three_entries_changes_what_a_fusion_with_itself_gives() -> None:
    for order in permutations(["a", "b", "c"]):
        fused = reciprocal_rank_fusion([order, order], weights=[1, 1])
        assert [name for name, _ in fused] == list(order)
