"""What `auto` builds, what a factory string says, and how the least effort is found."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexrelay.components.errors import MemoryLimitError
from indexrelay.components.vector_index.factory import parse_factory
from indexrelay.components.vector_index.metrics import NearestRows, without_itself
from indexrelay.components.vector_index.parameters import VectorIndexParameters
from indexrelay.components.vector_index.selection import choose
from indexrelay.components.vector_index.tuner import least
from indexrelay.schemas.settings import Metric


def chosen(count: int, dimension: int, **keys: object) -> str:
    parameters = VectorIndexParameters.model_validate(keys)
    return choose(parameters, count=count, dimension=dimension).factory.text


@pytest.mark.parametrize(
    ("count", "dimension", "index"),
    [
        (0, 128, "Flat"),
        (10_000, 1536, "Flat"),
        (20_000, 128, "Flat"),
        (20_001, 128, "IVF512,Flat"),
        (160_000, 16, "Flat"),
        (200_000, 128, "IVF1024,Flat"),
        (1_000_000, 128, "IVF4096,Flat"),
        (100_000_000, 128, "IVF16384,Flat"),
    ],
)
def test_auto_goes_by_count_and_dimension(count: int, dimension: int, index: str) -> None:
    assert chosen(count, dimension) == index


@pytest.mark.parametrize(
    ("megabytes", "index"),
    [
        (600, "IVF4096,Flat"),
        (300, "IVF4096,SQfp16"),
        (150, "IVF4096,SQ8"),
        (80, "IVF4096,SQ4,RFlat"),
        (45, "IVF4096,PQ32,RFlat"),
        (30, "IVF4096,PQ16,RFlat"),
        (20, "IVF4096,PQ8,RFlat"),
    ],
)
def test_auto_keeps_as_much_of_each_vector_as_fits(megabytes: int, index: str) -> None:
    assert chosen(1_000_000, 128, max_bytes=megabytes * 1_000_000) == index


def test_auto_says_when_nothing_fits() -> None:
    with pytest.raises(MemoryLimitError, match=r"need 18097152 bytes even in the smallest"):
        chosen(1_000_000, 128, max_bytes=10_000_000)


@given(count=st.integers(0, 10**9), dimension=st.integers(1, 4096))
def test_auto_never_chooses_what_cannot_be_trained(count: int, dimension: int) -> None:
    choice = choose(VectorIndexParameters(), count=count, dimension=dimension)
    assert choice.factory.needed_rows <= count


@pytest.mark.parametrize(
    ("text", "lists", "needed", "graph", "refined"),
    [
        ("Flat", 0, 0, "", False),
        ("IVF64,Flat", 64, 2496, "", False),
        ("IVF64_HNSW32,SQ8", 64, 2496, "", False),
        ("IVF64,PQ8", 64, 9984, "", False),
        ("IVF1024,PQ8x4fsr,RFlat", 1024, 39936, "", True),
        ("OPQ16_64,IVF64,PQ16x4", 64, 2496, "", False),
        ("OPQ16,PQ16", 0, 9984, "", False),
        ("PCA16,IVF16,Flat", 16, 1000, "", False),
        ("PCAR16,Flat", 0, 1000, "", False),
        ("HNSW32", 0, 0, "HNSW", False),
        ("HNSW32,SQ8", 0, 0, "HNSW", False),
        ("HNSW32,PQ16", 0, 9984, "HNSW", False),
        ("NSG32", 0, 1000, "NSG", False),
        ("RQ4x6", 0, 2496, "", False),
        ("IVF64,SQ4,Refine(SQ8)", 64, 2496, "", True),
    ],
)
def test_a_factory_string_is_taken_apart(
    text: str, lists: int, needed: int, graph: str, refined: bool
) -> None:
    factory = parse_factory(text)
    assert (factory.lists, factory.needed_rows) == (lists, needed)
    assert (factory.graph, factory.refined) == (graph, refined)


@given(most=st.integers(1, 5000), answer=st.integers(1, 6000))
def test_the_least_sufficient_value_is_found_within_an_eighth(most: int, answer: int) -> None:
    asked: list[int] = []

    def enough(value: int) -> bool:
        asked.append(value)
        return value >= answer

    found = least(most, enough)
    if answer > most:
        assert found is None
    else:
        assert found is not None
        assert answer <= found <= min(most, answer + answer // 8)
    assert len(asked) <= 2 + 2 * 13


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
