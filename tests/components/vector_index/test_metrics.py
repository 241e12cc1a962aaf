"""Exact search, block by block, and without the entry that is searched for."""

import numpy as np
import pytest

from indexrelay.components.vector_index.metrics import (
    NearestRows,
    as_scores,
    l2_scores,
    without_itself,
)
from indexrelay.schemas.settings import Metric


@pytest.mark.parametrize("metric", Metric)
def test_the_nearest_are_the_same_however_the_rows_are_cut(metric: Metric) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((500, 6)).astype(np.float32)
    queries = vectors[:30]
    whole = NearestRows(queries, k=12, metric=metric)
    whole.add(vectors)
    for size in (1, 7, 499):
        pieces = NearestRows(queries, k=12, metric=metric)
        for start in range(0, 500, size):
            pieces.add(vectors[start : start + size])
        np.testing.assert_array_equal(pieces.rows, whole.rows)
    scores = vectors[:30] @ vectors.T
    if metric is Metric.L2:
        scores = -((vectors[:30, None] - vectors[None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(whole.rows, np.argsort(-scores, axis=1)[:, :12])


def test_an_entry_is_left_out_of_its_own_answer() -> None:
    found = np.array([[4, 1, 2], [1, 5, 2], [7, 8, 9], [6, 6, 1]])
    rest = without_itself(found, np.array([4, 5, 3, 6]))
    np.testing.assert_array_equal(rest, [[1, 2], [1, 2], [7, 8], [6, 1]])


def test_the_distances_of_one_query_are_those_of_many_to_the_last_bit() -> None:
    squares = np.sort(np.random.default_rng(5).exponential(size=2000).astype(np.float32))
    squares = np.concatenate([np.array([-1e-7, -0.0], dtype=np.float32), squares * 1e3])
    assert l2_scores(squares.tolist()) == as_scores(squares, Metric.L2).tolist()
    assert l2_scores([]) == []
