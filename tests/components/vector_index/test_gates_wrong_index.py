"""The recall gate is fed wrong indexes, of which it refuses each, and good ones."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from indexrelay.components.kind import Built
from indexrelay.components.vector_index import VectorIndex, VectorIndexParameters
from indexrelay.components.vector_index.gates import Answers, wilson_lower
from indexrelay.components.vector_index.metrics import prepared
from indexrelay.components.vector_index.sample import SAMPLE, QuerySample
from indexrelay.components.vector_index.search import VectorSearch
from indexrelay.schemas.gates import RECALL, RECALL_LOWER, GateSettings
from indexrelay.schemas.settings import Metric
from indexrelay.schemas.versions import Check
from indexrelay.storage.entries import Vectors
from tests.components.jobs import Run, clustered, make_job, make_snapshot, run

ROWS, DIMENSION = 400, 12


@dataclass(frozen=True)
class Truth:
    """A collection, and what was rightly made of it."""

    vectors: Vectors
    metric: Metric
    built: Run

    def checks(self, wrong: Path, asked: GateSettings | None = None) -> dict[str, Check]:
        """What the gates of quality say of the index in a folder, by the true vectors."""
        files = {name: wrong / name for name in self.built.files}
        sample = QuerySample.load(self.built.files[SAMPLE], rows=ROWS, dimension=DIMENSION)
        true = prepared(self.vectors, self.metric)
        with closing(VectorSearch(files)) as index:
            answers = Answers(
                index=index,
                sample=sample,
                found=index.nearest_rows(sample.vectors, k=sample.depth + 1),
                gather=lambda rows: true[rows],
                parameters=VectorIndexParameters(),
                asked=asked or GateSettings(),
            )
            return {check.name: check for check in answers.gates()}


def build(folder: Path, vectors: Vectors, metric: Metric = Metric.L2, index: str = "Flat") -> Run:
    parameters = VectorIndexParameters.model_validate({"index": index})
    return run(VectorIndex(parameters), make_job(folder, make_snapshot(vectors, metric=metric)))


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    vectors = clustered(ROWS, DIMENSION)
    done = build(tmp_path_factory.mktemp("truth"), vectors)
    assert done.failed == []
    return Truth(vectors, Metric.L2, done)


def shuffled(vectors: Vectors) -> Vectors:
    return np.random.default_rng(1).permutation(vectors)


def without_the_last_tenth(vectors: Vectors) -> Vectors:
    return vectors[: len(vectors) * 9 // 10]


def the_first_half(vectors: Vectors) -> Vectors:
    return vectors[: len(vectors) // 2]


def constant(vectors: Vectors) -> Vectors:
    return np.ones_like(vectors)


def of_another_model(vectors: Vectors) -> Vectors:
    """The same entries, as a model with other weights sees them: no distance is kept."""
    rng = np.random.default_rng(2)
    weights = rng.standard_normal((vectors.shape[1], vectors.shape[1])).astype(np.float32)
    return np.asarray(np.tanh(vectors @ weights), dtype=np.float32)


@pytest.mark.parametrize(
    "wrong", [shuffled, without_the_last_tenth, the_first_half, constant, of_another_model]
)
def test_the_recall_gate_refuses_an_index_of_other_vectors(
    tmp_path: Path, truth: Truth, wrong: Callable[[Vectors], Vectors]
) -> None:
    build(tmp_path, wrong(truth.vectors))
    recall = truth.checks(tmp_path)[RECALL]
    assert not recall.passed
    assert recall.measured is not None
    assert recall.measured < 0.95


def test_the_recall_gate_refuses_an_index_of_another_metric(tmp_path: Path) -> None:
    # Of different lengths, or the order by inner product would be that by distance.
    vectors = clustered(ROWS, DIMENSION) * np.linspace(0.1, 3, ROWS, dtype=np.float32)[:, None]
    right = build(tmp_path / "right", vectors)
    assert right.failed == []
    build(tmp_path / "wrong", vectors, Metric.INNER_PRODUCT)
    found = Truth(vectors, Metric.L2, right)
    wrong = {name: tmp_path / "wrong" / name for name in right.files}
    true = right.files[SAMPLE]
    sample = QuerySample.load(true, rows=ROWS, dimension=DIMENSION)
    with closing(VectorSearch(wrong)) as by_product, closing(VectorSearch(right.files)) as index:
        answers = Answers(
            index=index,  # which says how distances are meant
            sample=sample,
            found=by_product.nearest_rows(sample.vectors, k=sample.depth + 1),
            gather=lambda rows: found.vectors[rows],
            parameters=VectorIndexParameters(),
            asked=GateSettings(),
        )
        refused = {check.name for check in answers.gates() if not check.passed}
    assert RECALL in refused


def test_an_index_whose_base_was_cut_short_is_refused(tmp_path: Path, truth: Truth) -> None:
    job = make_job(tmp_path, make_snapshot(truth.vectors, metric=Metric.L2))
    kind = VectorIndex(VectorIndexParameters())
    built = kind.build(job)
    base = tmp_path / "base.faiss"
    base.write_bytes(base.read_bytes()[:-4096])
    files = {name: file for name, file in built.files.items() if isinstance(file, Path)}
    failed = [check.name for check in kind.verify(job, built, files) if not check.passed]
    assert failed == ["reads_back"]


@pytest.mark.parametrize(
    "wrong", [shuffled, without_the_last_tenth, the_first_half, constant, of_another_model]
)
def test_no_wrong_index_passes_all_gates(
    tmp_path: Path, truth: Truth, wrong: Callable[[Vectors], Vectors]
) -> None:
    kind = VectorIndex(VectorIndexParameters())
    job = make_job(tmp_path, make_snapshot(truth.vectors, metric=Metric.L2))
    other = make_snapshot(wrong(truth.vectors), metric=Metric.L2)
    built = kind.build(make_job(tmp_path, other))
    files = {name: file for name, file in built.files.items() if isinstance(file, Path)}
    claimed = Built(files=built.files, entries=ROWS)
    assert [check for check in kind.verify(job, claimed, files) if not check.passed]


INDEXES = ("Flat", "IVF8,Flat", "HNSW8", "SQ8", "auto")
METRICS = (Metric.COSINE, Metric.L2)


def test_fifty_good_indexes_are_all_taken(tmp_path: Path) -> None:
    refused = {}
    for number in range(50):
        index, metric = INDEXES[number % 5], METRICS[number // 5 % 2]
        vectors = clustered(300 + 7 * number, 8 + number % 7, seed=number)
        done = build(tmp_path / str(number), vectors, metric, index)
        if done.failed:
            refused[number, index, str(metric)] = done.failed
    assert refused == {}


def test_the_lower_end_of_recall_is_recorded_and_refuses_where_a_confidence_is_asked_for(
    tmp_path: Path, truth: Truth
) -> None:
    build(tmp_path, truth.vectors)
    recorded = truth.checks(tmp_path)[RECALL_LOWER]
    assert recorded.passed
    assert recorded.limit is None
    assert recorded.measured == pytest.approx(wilson_lower(1.0, trials=200, confidence=0.95))
    sure = truth.checks(tmp_path, GateSettings(recall_confidence=0.95))[RECALL_LOWER]
    assert (sure.passed, sure.limit) == (True, 0.95)
    surer = truth.checks(tmp_path, GateSettings(recall_confidence=0.9999))[RECALL_LOWER]
    assert not surer.passed
    assert "gates.recall_confidence" in surer.detail


@pytest.mark.parametrize(("share", "trials"), [(0.95, 200), (0.5, 10), (1.0, 30)])
def test_the_lower_end_solves_wilsons_equation(share: float, trials: int) -> None:
    lower = wilson_lower(share, trials=trials, confidence=0.95)
    z = 1.959964  # 97.5 % of a normal distribution lie below
    assert lower < share
    assert (share - lower) ** 2 == pytest.approx(z**2 * lower * (1 - lower) / trials, rel=1e-4)


def test_the_lower_end_of_nothing_is_zero() -> None:
    assert wilson_lower(1.0, trials=0, confidence=0.95) == 0.0
