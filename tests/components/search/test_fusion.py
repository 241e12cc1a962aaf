"""Fusing rankings, held against a slower way."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexrelay.components.search.fusion import (
    fusion_depth,
    reciprocal_rank_fusion,
    scaled_scores,
    score_fusion,
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


def test_the_weighted_mean_of_the_shares_is_taken() -> None:
    fused = score_fusion(
        [{"a": 1.0, "b": 0.75, "c": 0.2}, {"c": 1.5, "d": 0.75, "a": -0.25}], weights=[3, 1]
    )
    assert [name for name, _ in fused] == ["a", "b", "c", "d"]
    by_mean = [0.75 * 1 - 0.25 * 0.25, 0.75 * 0.75, 0.75 * 0.2 + 0.25 * 1.5, 0.25 * 0.75]
    assert [score for _, score in fused] == pytest.approx(by_mean)


def test_scores_are_scaled_from_the_best_to_the_lowest() -> None:
    assert scaled_scores({"a": -0.2, "b": -0.6, "c": -0.3}) == pytest.approx(
        {"a": 1.0, "b": 0.0, "c": 0.75}
    )


@pytest.mark.parametrize("scores", [[], [2.0, 2.0], [-1.0]])
def test_scores_that_are_equal_are_all_the_best(scores: list[float]) -> None:
    given = {str(place): score for place, score in enumerate(scores)}
    assert scaled_scores(given) == dict.fromkeys(given, 1.0)


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


def test_no_order_of_three_entries_changes_what_a_fusion_with_itself_gives() -> None:
    for order in permutations(["a", "b", "c"]):
        fused = reciprocal_rank_fusion([order, order], weights=[1, 1])
        assert [name for name, _ in fused] == list(order)
