"""How the least effort is found."""

from dataclasses import dataclass, field

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexrelay.components.vector_index.sample import Dataset, draw_sample
from indexrelay.components.vector_index.spec import Effort, IndexSpec, VectorIndexParameters
from indexrelay.components.vector_index.tuner import Trial, Tuner, least
from indexrelay.schemas.settings import Metric


@given(most=st.integers(1, 5000), answer=st.integers(1, 6000))
def test_the_least_sufficient_value_is_found_within_a_sixteenth(most: int, answer: int) -> None:
    asked: list[int] = []

    def enough(value: int) -> bool:
        asked.append(value)
        return value >= answer

    found = least(most, enough)
    if answer > most:
        assert found is None
    else:
        assert found is not None
        assert answer <= found <= min(most, answer + answer // 16)
    assert len(asked) <= 2 + 2 * 13


@dataclass
class Curve(Tuner):
    """A graph that misses one of a hundred with an effort of 100, and less by a power of more."""

    power: float = field(kw_only=True)

    def _try(self, effort: Effort) -> Trial:
        assert effort.ef_search is not None
        missed = 0.01 * (100 / effort.ef_search) ** self.power
        trial = Trial(effort, max(1 - missed, 0.0), effort.ef_search / 1000)
        self.trials.append(trial)
        return trial


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """What is only asked for its recall, and for how sure that is."""
    vectors = np.random.default_rng(3).standard_normal((2000, 8), dtype=np.float32)
    parameters = VectorIndexParameters(index="HNSW32", min_recall=0.99)
    spec = IndexSpec(parameters=parameters, metric=Metric.L2, dimension=8, count=2000)
    sample = draw_sample(vectors, Metric.L2, seed=0, progress=lambda _share: None)
    return Dataset(spec=spec, vectors=vectors, sample=sample)


def tuned(dataset: Dataset, *, power: float) -> int:
    index = faiss.index_factory(8, "HNSW32")
    index.add(dataset.vectors)
    best = Curve(index=index, dataset=dataset, power=power).tune(refined=False)
    assert best is not None
    assert best.effort.ef_search is not None
    return best.effort.ef_search


def test_what_a_sample_may_be_wrong_by_costs_at_most_twice_the_effort_asked_for(
    dataset: Dataset,
) -> None:
    # The target, 0.9956, would take about 1,540.
    assert 200 <= tuned(dataset, power=0.3) <= 225


def test_what_a_sample_may_be_wrong_by_is_added_where_that_costs_little(dataset: Dataset) -> None:
    # The target takes about 173.
    assert 165 <= tuned(dataset, power=1.5) <= 195
