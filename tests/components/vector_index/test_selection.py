"""What `auto` builds first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexrelay.components.errors import MemoryLimitError
from indexrelay.components.vector_index.factory import Factory
from indexrelay.components.vector_index.selection import candidates
from indexrelay.components.vector_index.spec import IndexSpec, VectorIndexParameters
from indexrelay.schemas.settings import Metric


def first(count: int, dimension: int, **keys: object) -> Factory:
    parameters = VectorIndexParameters.model_validate(keys)
    spec = IndexSpec(parameters=parameters, metric=Metric.COSINE, dimension=dimension, count=count)
    return candidates(spec)[0].factory


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
    assert first(count, dimension).text == index


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
    assert first(1_000_000, 128, max_bytes=megabytes * 1_000_000).text == index


def test_auto_says_when_nothing_fits() -> None:
    with pytest.raises(MemoryLimitError, match=r"need 18097152 bytes even in the smallest"):
        first(1_000_000, 128, max_bytes=10_000_000)


@given(count=st.integers(0, 10**9), dimension=st.integers(1, 4096))
def test_auto_never_chooses_what_cannot_be_trained(count: int, dimension: int) -> None:
    assert first(count, dimension).needed_rows <= count
