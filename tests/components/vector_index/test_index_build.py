"""Rows are added as FAISS adds them, into reserved room; sizes are estimated."""

import numpy as np
import pytest

from indexrelay.components.kind import BuildMemory
from indexrelay.components.vector_index import index_build
from indexrelay.components.vector_index.index_build import add_all, index_bytes, trainable_rows
from tests.components.jobs import clustered

ROWS, DIMENSION = 3000, 16
FACTORIES = [
    "Flat",
    "SQ8",
    "SQ8,RFlat",
    "IVF16,Flat",
    "IVF16_HNSW8,Flat",
    "IVF16,SQ8",
    "IVF16,SQ4,RFlat",
    "IVF16,PQ8x4",
    "IVF16,PQ8x4,RFlat",
    "IVF16,PQ8x4fs",
    "IVF16,RaBitQ",
    "PCA8,IVF16,Flat",
    "HNSW8",
    "HNSW8,SQ8,RFlat",
]


@pytest.fixture(autouse=True)
def _many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_build, "_BLOCK_BYTES", 4 * DIMENSION * 700)
    monkeypatch.setattr(index_build, "_FEWEST_ROWS", 1)


@pytest.mark.parametrize("factory", FACTORIES)
def test_an_index_filled_block_by_block_answers_like_one_that_faiss_filled(factory: str) -> None:
    import faiss

    faiss.omp_set_num_threads(1)  # a graph is laid in the order in which its threads come
    vectors = clustered(ROWS, DIMENSION, spread=0.8)
    ours = faiss.index_factory(DIMENSION, factory)
    ours.train(vectors)
    plain = faiss.clone_index(ours)
    shares: list[float] = []
    add_all(ours, vectors, shares.append)
    plain.add(vectors)
    assert ours.ntotal == plain.ntotal == ROWS
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    expected, rows = plain.search(vectors[:200], 5)
    found, ours_rows = ours.search(vectors[:200], 5)
    # A transform rounds otherwise in another block, and so may swap two that are equally near.
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.mean(ours_rows == rows) > 0.99


def test_an_empty_index_stays_empty() -> None:
    import faiss

    index = faiss.index_factory(DIMENSION, "Flat")
    add_all(index, np.empty((0, DIMENSION), dtype=np.float32), lambda _share: None)
    assert index.ntotal == 0


@pytest.mark.parametrize("factory", [f for f in FACTORIES if "PQ" not in f])
def test_the_estimated_size_is_that_of_the_file(factory: str) -> None:
    import faiss

    vectors = clustered(ROWS, DIMENSION)
    index = faiss.index_factory(DIMENSION, factory)
    index.train(vectors)
    told = index_bytes(index, ROWS)
    index.add(vectors)
    written = faiss.serialize_index(index).nbytes
    assert 0.95 * written <= told <= 1.1 * written + 4096


def test_no_more_rows_are_trained_on_than_a_quarter_of_the_working_memory_holds() -> None:
    held: list[int] = []
    memory = BuildMemory(working_bytes=4_000_000, raise_limit=held.append)
    assert trainable_rows(100, memory) == 2500
    memory.hold(7)
    assert held == [7]
    assert trainable_rows(128, BuildMemory()) == 1024 * 1024
