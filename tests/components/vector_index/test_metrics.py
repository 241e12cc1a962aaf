"""Exact search, block by block, and without the entry that is searched for."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexrelay.components.vector_index import metrics
from indexrelay.components.vector_index.metrics import (
    Distances,
    NearestRows,
    as_scores,
    l2_scores,
    without_itself,
)
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors
from tests.components.jobs import clustered


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
    assert l2_scores(squares.copy()).tolist() == as_scores(squares, Metric.L2).tolist()
    assert not len(l2_scores(squares[:0]))


def by_subtraction(queries: Vectors, vectors: Vectors, metric: Metric) -> Distances:
    wide = vectors.astype(np.float64)
    if metric is Metric.L2:
        return np.asarray(((queries[:, None].astype(np.float64) - wide[None]) ** 2).sum(axis=2))
    return np.asarray(-(queries.astype(np.float64) @ wide.T))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    count=st.integers(1, 300),
    queries=st.integers(1, 40),
    k=st.integers(1, 60),
    cut=st.integers(1, 300),
    metric=st.sampled_from(Metric),
    spread=st.sampled_from([0.0, 1e-3, 1.0, 1e6]),
)
def test_the_nearest_are_as_near_as_those_of_a_plain_subtraction(
    seed: int, count: int, queries: int, k: int, cut: int, metric: Metric, spread: float
) -> None:
    """Few queries and many, more neighbours than rows, and rows that are all alike."""
    rng = np.random.default_rng(seed)
    vectors = (1 + spread * rng.standard_normal((count, 5))).astype(np.float32)
    asked = (1 + spread * rng.standard_normal((queries, 5))).astype(np.float32)
    nearest = NearestRows(asked, k=k, metric=metric)
    for start in range(0, count, cut):
        nearest.add(vectors[start : start + cut])
    true = by_subtraction(asked, vectors, metric)
    kept = min(k, count)
    assert nearest.rows.shape == (queries, kept)
    assert all(len(set(row)) == kept for row in nearest.rows.tolist())
    found = np.take_along_axis(true, nearest.rows, axis=1)
    # Float32 products of vectors of this length; a distance is a difference of them.
    error = 1e-5 * float(
        max(np.square(vectors).sum(axis=1).max(), np.square(asked).sum(axis=1).max())
    )
    assert np.abs(nearest.distances - found).max() <= error
    assert np.abs(np.sort(found, axis=1) - np.sort(true, axis=1)[:, :kept]).max() <= 2 * error


def test_a_mapped_file_of_more_rows_than_are_compared_at_once_is_searched_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_SCORES_BYTES", 4 * 64 * 100)
    vectors = clustered(2_000, 16)
    np.save(tmp_path / "vectors.npy", vectors)
    nearest = NearestRows(vectors[:64], k=20, metric=Metric.L2)
    nearest.add(np.load(tmp_path / "vectors.npy", mmap_mode="r"))
    true = by_subtraction(vectors[:64], vectors, Metric.L2)
    np.testing.assert_array_equal(nearest.rows, np.argsort(true, axis=1, kind="stable")[:, :20])
