"""How the least effort is found."""

from dataclasses import dataclass, field
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexrelay.components.vector_index.index_search import search_parameters
from indexrelay.components.vector_index.mapped_index import led_around, open_index
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
    never: float = 0.0
    """What is missed with any effort."""

    def _try(self, effort: Effort) -> Trial:
        assert effort.ef_search is not None
        missed = max(0.01 * (100 / effort.ef_search) ** self.power, self.never)
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


def tuned(dataset: Dataset, *, power: float, never: float = 0.0, at_most: float = 10.0) -> int:
    index = faiss.index_factory(8, "HNSW32")
    index.add(dataset.vectors)
    curve = Curve(index=index, dataset=dataset, power=power, never=never, max_latency_ms=at_most)
    best = curve.tune(refined=False)
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


def test_more_effort_is_spent_where_it_finds_more_though_the_target_is_out_of_reach(
    dataset: Dataset,
) -> None:
    assert 195 <= tuned(dataset, power=0.8, never=0.005) <= 215


def test_no_effort_is_spent_that_finds_no_more(dataset: Dataset) -> None:
    assert tuned(dataset, power=0.8, never=0.0095) <= 108


def test_no_effort_is_spent_that_takes_longer_than_a_query_may(dataset: Dataset) -> None:
    assert tuned(dataset, power=0.8, never=0.005, at_most=0.15) <= 108


@pytest.mark.parametrize("queries_wanted", [60, 200])  # one in fifty entries, and too many
@pytest.mark.parametrize("factory", ["HNSW16", "HNSW16,SQ8,RFlat"])
def test_a_graph_is_tuned_as_though_its_queries_were_no_entries(
    tmp_path: Path, factory: str, queries_wanted: int
) -> None:
    path = tmp_path / "index.faiss"
    vectors = np.random.default_rng(5).standard_normal((3000, 16), dtype=np.float32)
    index = faiss.index_factory(16, factory)
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(path))
    written = path.read_bytes()
    mapped = open_index(path)
    parameters = VectorIndexParameters(index=factory, min_recall=0.95)
    spec = IndexSpec(parameters=parameters, metric=Metric.L2, dimension=16, count=3000)
    sample = draw_sample(
        vectors, Metric.L2, seed=0, progress=lambda _share: None, queries_wanted=queries_wanted
    )
    dataset = Dataset(spec=spec, vectors=vectors, sample=sample)

    def itself(effort: int) -> int:
        parameters = search_parameters(mapped, Effort(ef_search=effort, k_factor=1))
        _, found = mapped.search(sample.vectors, 10, params=parameters)
        return int((found == sample.rows[:, None]).any(axis=1).sum())

    def fails_meanwhile() -> None:
        with led_around(mapped, path, sample.rows) as led:
            assert led
            assert path.read_bytes() != written
            assert itself(100) <= queries_wanted // 60  # where a search begins is found in any case
            raise ZeroDivisionError

    assert itself(100) >= 0.98 * queries_wanted
    with pytest.raises(ZeroDivisionError):
        fails_meanwhile()
    assert path.read_bytes() == written
    as_entries = Tuner(index=mapped, dataset=dataset).tune(refined=False)
    as_others = Tuner(index=mapped, dataset=dataset, path=path).tune(refined=False)
    assert as_entries is not None
    assert as_others is not None
    assert path.read_bytes() == written
    queries = np.random.default_rng(6).standard_normal((500, 16), dtype=np.float32)
    _, exact = faiss.knn(queries, vectors, 10)
    _, found = mapped.search(queries, 10, params=search_parameters(mapped, as_others.effort))
    hits = sum(len(set(a) & set(b)) for a, b in zip(exact.tolist(), found.tolist(), strict=True))
    assert hits >= 0.95 * exact.size


@pytest.mark.parametrize("count", [2, 12, 700])
def test_a_graph_over_few_entries_is_tuned_as_it_is(tmp_path: Path, count: int) -> None:
    path = tmp_path / "index.faiss"
    vectors = np.random.default_rng(5).standard_normal((count, 8), dtype=np.float32)
    index = faiss.index_factory(8, "HNSW16")
    index.add(vectors)
    faiss.write_index(index, str(path))
    parameters = VectorIndexParameters(index="HNSW16", min_recall=0.95)
    spec = IndexSpec(parameters=parameters, metric=Metric.L2, dimension=8, count=count)
    sample = draw_sample(vectors, Metric.L2, seed=0, progress=lambda _share: None)
    given = Dataset(spec=spec, vectors=vectors, sample=sample)
    mapped = open_index(path)
    found = Tuner(index=mapped, dataset=given, path=path).tune(refined=False)
    as_it_is = Tuner(index=mapped, dataset=given).tune(refined=False)
    assert found is not None
    assert as_it_is is not None
    assert (found.effort, found.recall) == (as_it_is.effort, as_it_is.recall)


def test_what_is_no_graph_is_tuned_as_it_is(tmp_path: Path, dataset: Dataset) -> None:
    path = tmp_path / "index.faiss"
    index = faiss.index_factory(8, "IVF16,Flat")
    index.train(dataset.vectors)
    index.add(dataset.vectors)
    faiss.write_index(index, str(path))
    with led_around(open_index(path), path, dataset.sample.rows) as led:
        assert not led
