"""Centroids: learned by k-means, and the nearest one for each vector."""

import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from indexrelay.components.kind import BuildMemory
from indexrelay.components.vector_index import centroids as module
from indexrelay.components.vector_index import index_build
from indexrelay.components.vector_index.centroids import Centroids, k_means
from indexrelay.components.vector_index.index_build import IndexFiles, build_index
from indexrelay.components.vector_index.spec import IndexSpec, VectorIndexParameters, parse_factory
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors
from tests.components.jobs import clustered


def distances(vectors: Vectors, centroids: Vectors, metric: Metric) -> NDArray[np.float64]:
    wide = centroids.astype(np.float64)
    if metric is Metric.L2:
        return np.asarray(((vectors[:, None].astype(np.float64) - wide[None]) ** 2).sum(axis=2))
    return np.asarray(-(vectors.astype(np.float64) @ wide.T))


def spread(vectors: Vectors, centroids: Vectors) -> float:
    """The mean squared distance to the nearest centroid."""
    return float(distances(vectors, centroids, Metric.L2).min(axis=1).mean())


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("at_once", [1, 7, 5_000])
def test_each_vector_has_its_nearest_centroid_however_many_are_compared_at_once(
    metric: Metric, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SCORES_BYTES", 4 * 50 * at_once)
    vectors, centroids = clustered(3_000, 12), clustered(50, 12, seed=9)
    found = Centroids(centroids, metric).nearest(vectors)
    true = distances(vectors, centroids, metric)
    np.testing.assert_allclose(
        np.take_along_axis(true, found[:, None], axis=1)[:, 0], true.min(axis=1), atol=1e-3
    )
    assert len(Centroids(centroids, metric).nearest(vectors[:0])) == 0


def test_k_means_is_as_good_as_that_of_faiss() -> None:
    vectors = clustered(6_000, 16, clusters=100)
    theirs = faiss.Kmeans(16, 64, niter=6, seed=1)
    theirs.train(vectors)
    assert theirs.centroids is not None
    ours = [
        spread(vectors, k_means(vectors, 64, Metric.L2, rounds=6, seed=seed)) for seed in range(3)
    ]
    assert max(ours) <= 1.1 * spread(vectors, theirs.centroids)


def test_more_rounds_bring_centroids_nearer() -> None:
    vectors = clustered(4_000, 8, clusters=60)
    course = [
        spread(vectors, k_means(vectors, 32, Metric.L2, rounds=rounds, seed=5))
        for rounds in range(6)
    ]
    assert all(later <= 1.001 * before for before, later in pairwise(course))
    assert course[-1] < 0.8 * course[0]


def test_sums_of_many_blocks_are_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clustered(2_000, 8)
    whole = k_means(vectors, 20, Metric.L2, rounds=4, seed=2)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 4 * 8 * 17)
    np.testing.assert_allclose(
        k_means(vectors, 20, Metric.L2, rounds=4, seed=2), whole, rtol=1e-4, atol=1e-5
    )


def test_the_same_seed_gives_the_same_centroids_and_another_others() -> None:
    vectors = clustered(1_000, 8)
    first = k_means(vectors, 10, Metric.L2, rounds=3, seed=1)
    np.testing.assert_array_equal(k_means(vectors, 10, Metric.L2, rounds=3, seed=1), first)
    assert not np.array_equal(k_means(vectors, 10, Metric.L2, rounds=3, seed=2), first)


def test_centroids_without_rows_are_put_beside_those_that_have_many() -> None:
    few = clustered(8, 4, clusters=8)
    vectors = np.repeat(few, 50, axis=0)
    centroids = k_means(vectors, 12, Metric.L2, rounds=8, seed=3)
    assert np.isfinite(centroids).all()
    assert spread(vectors, centroids) < 0.05 * spread(vectors, vectors[:1])


def test_few_centroids_are_compared_in_as_little_memory_as_many() -> None:
    for count in (1, 16, 4_096):
        tracemalloc.start()
        Centroids(clustered(count, 128), Metric.L2, threads=2)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < 2 * 2 * module.SCORES_BYTES + 3 * 4 * 129 * count, count


@pytest.mark.parametrize("count", [1, 40])
def test_there_may_be_one_centroid_or_as_many_as_rows(count: int) -> None:
    vectors = clustered(40, 6)
    centroids = k_means(vectors, count, Metric.L2, rounds=4, seed=0)
    assert centroids.shape == (count, 6)
    if count == 1:
        np.testing.assert_allclose(centroids[0], vectors.mean(axis=0), atol=1e-5)
    else:
        assert spread(vectors, centroids) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("metric", [Metric.COSINE, Metric.INNER_PRODUCT])
def test_under_an_inner_product_centroids_have_unit_length(metric: Metric) -> None:
    centroids = k_means(clustered(900, 8), 16, metric, rounds=3, seed=0)
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "metric"),
    [
        ("IVF16,Flat", Metric.L2),
        ("IVF16,Flat", Metric.COSINE),
        ("IVF16,Flat", Metric.INNER_PRODUCT),
        ("IVF16,SQ8", Metric.L2),
        ("IVF16,PQ8x4,RFlat", Metric.L2),
    ],
)
def test_faiss_takes_the_centroids_and_trains_the_rest(
    text: str, metric: Metric, tmp_path: Path
) -> None:
    vectors = clustered(4_000, 8)
    if metric is Metric.COSINE:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    files = IndexFiles(index=tmp_path / "index", trained=tmp_path / "trained")
    spec = IndexSpec(
        parameters=VectorIndexParameters(index=text), metric=metric, dimension=8, count=len(vectors)
    )
    build_index(files, vectors, parse_factory(text), spec, lambda _share: None)
    index = faiss.read_index(str(files.index))
    lists = faiss.extract_index_ivf(index)
    kept = lists.quantizer.reconstruct_n(0, 16)
    assert lists.quantizer.ntotal == 16
    np.testing.assert_allclose(
        spread(vectors, kept),
        spread(vectors, k_means(vectors, 16, metric, rounds=6, seed=0)),
        rtol=0.15,
    )
    assert sum(lists.get_list_size(number) for number in range(16)) == len(vectors)
    assert faiss.read_index(str(files.trained)).is_trained
    lists.nprobe = 16
    _, found = index.search(vectors[:50], 10)
    nearest = np.argsort(distances(vectors[:50], vectors, metric), axis=1)[:, :10]
    shared = np.mean([len(set(a) & set(b)) for a, b in zip(found, nearest, strict=True)]) / 10
    assert shared > (0.95 if "Flat" in text and "PQ" not in text else 0.4)


@pytest.mark.parametrize(("mebibytes", "learned"), [(None, 1), (256, 1), (64, 0)])
def test_a_build_that_may_hold_little_leaves_the_centroids_to_faiss(
    mebibytes: int | None, learned: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def counting(rows: Vectors, count: int, *args: Any, **keys: Any) -> Vectors:
        calls.append(count)
        return k_means(rows, count, *args, **keys)

    monkeypatch.setattr(index_build, "k_means", counting)
    vectors = clustered(2_000, 8)
    files = IndexFiles(index=tmp_path / "index", trained=tmp_path / "trained")
    spec = IndexSpec(
        parameters=VectorIndexParameters(index="IVF16,Flat"),
        metric=Metric.L2,
        dimension=8,
        count=len(vectors),
        memory=BuildMemory(working_bytes=None if mebibytes is None else mebibytes << 20),
    )
    build_index(files, vectors, parse_factory("IVF16,Flat"), spec, lambda _share: None)
    assert calls == [16] * learned
    index: Any = faiss.read_index(str(files.index))
    assert (index.ntotal, index.quantizer.ntotal) == (2_000, 16)
