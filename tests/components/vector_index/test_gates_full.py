"""The gates of a full build: each fails on its own fault, and on no other."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexrelay.components.errors import (
    CorruptFileError,
    MemoryLimitError,
    UnbuildableIndexError,
    UnusableInputError,
)
from indexrelay.components.kind import Built, ComponentInput, Job
from indexrelay.components.vector_index import VectorIndex, VectorIndexParameters
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors
from tests.components.jobs import (
    MemorySnapshot,
    Row,
    clustered,
    make_job,
    make_snapshot,
    run,
)

GATES = [
    "reads_back",
    "count",
    "dimension",
    "metric",
    "ids_unique",
    "entries_match_source",
    "vectors_finite",
    "vectors_match_source",
    "sample_is_exact",
    "own_distance",
    "recall_at_10",
    "recall_at_10_lower",
    "latency_ms",
    "latency_p99_ms",
]


def kind(**keys: Any) -> VectorIndex:
    return VectorIndex(VectorIndexParameters.model_validate(keys))


def snapshot(vectors: Vectors, metric: Metric = Metric.COSINE, **keys: Any) -> MemorySnapshot:
    payloads = [json.dumps(row) for row in range(len(vectors))]
    return make_snapshot(vectors, metric=metric, payloads=payloads, **keys)


@pytest.fixture
def source() -> MemorySnapshot:
    return snapshot(clustered(700, 8))


@pytest.fixture
def job(tmp_path: Path, source: MemorySnapshot) -> Job:
    return make_job(tmp_path, source)


def files_of(built: Built) -> dict[str, Path]:
    return {name: file for name, file in built.files.items() if isinstance(file, Path)}


def failed(index: VectorIndex, job: Job, built: Built) -> list[str]:
    checks = index.verify(job, built, files_of(built))
    return [check.name for check in checks if not check.passed]


@pytest.mark.parametrize("metric", Metric)
def test_every_gate_runs_and_has_what_it_measured(tmp_path: Path, metric: Metric) -> None:
    done = run(kind(), make_job(tmp_path, snapshot(clustered(700, 8), metric)))
    expected = [g for g in GATES if g != "own_distance" or metric is not Metric.INNER_PRODUCT]
    assert [check.name for check in done.checks] == expected
    assert done.failed == []
    assert done.check("count").measured == 700
    recall = done.check("recall_at_10")
    assert (recall.measured, recall.limit) == (1.0, 0.95)
    latency = done.check("latency_ms")
    assert latency.measured is not None
    assert 0 < latency.measured < latency.limit == 100  # type: ignore[operator] # it has a limit


def test_recall_fails_where_too_few_lists_are_searched(tmp_path: Path) -> None:
    # Without clusters the neighbours of a vector lie in many lists.
    rng = np.random.default_rng(5)
    source = snapshot(rng.standard_normal((1300, 24)).astype(np.float32))
    index, job = kind(index="IVF32,Flat", nprobe=1), make_job(tmp_path, source)
    built = index.build(job)
    assert built.details["effort"] == {"nprobe": 1}
    assert failed(index, job, built) == ["recall_at_10"]


def test_a_slow_index_fails(job: Job) -> None:
    index = kind(max_latency_ms=1e-6)
    assert failed(index, job, index.build(job)) == ["latency_ms"]


def test_a_hit_with_another_id_and_an_equal_vector_counts(tmp_path: Path) -> None:
    vectors = np.repeat(clustered(12, 8), 100, axis=0)
    done = run(kind(index="IVF16,Flat"), make_job(tmp_path, snapshot(vectors)))
    assert done.failed == []
    assert done.check("recall_at_10").measured == 1.0


@pytest.mark.parametrize("name", ["base.faiss", "ids.table", "payloads.table", "sample.npz"])
@pytest.mark.parametrize("keep", [0, 10, 0.5, -1])
def test_a_file_that_was_cut_short_does_not_read_back_and_is_not_served(
    job: Job, name: str, keep: float
) -> None:
    index = kind()
    built = index.build(job)
    raw = (job.workdir / name).read_bytes()
    cut = int(len(raw) * keep) if isinstance(keep, float) else keep
    (job.workdir / name).write_bytes(raw[:cut])
    assert failed(index, job, built) == ["reads_back"]
    if name != "sample.npz":  # readers have no use for the sample
        with pytest.raises(CorruptFileError):
            index.load(files_of(built))


def swap_ids(folder: Path) -> None:
    raw = (folder / "ids.table").read_bytes()
    swapped = raw.replace(b"e000003", b"e00000X").replace(b"e000004", b"e000003")
    (folder / "ids.table").write_bytes(swapped.replace(b"e00000X", b"e000004"))


def repeat_an_id(folder: Path) -> None:
    raw = (folder / "ids.table").read_bytes()
    (folder / "ids.table").write_bytes(raw.replace(b"e000003", b"e000004"))


def change_a_payload(folder: Path) -> None:
    raw = (folder / "payloads.table").read_bytes()
    (folder / "payloads.table").write_bytes(raw.replace(b"123124", b"123125"))


def promise_nearer_neighbours(folder: Path) -> None:
    change_sample(folder, distances=lambda distances: distances - 0.1)


def be_content_with_farther_neighbours(folder: Path) -> None:
    change_sample(folder, distances=lambda distances: distances + 0.1)


def ask_with_other_vectors(folder: Path) -> None:
    change_sample(folder, vectors=lambda vectors: vectors[::-1])


def point_outside(folder: Path) -> None:
    change_sample(folder, rows=lambda rows: rows + 10_000)


def change_sample(folder: Path, **changes: Callable[[Any], Any]) -> None:
    with np.load(folder / "sample.npz") as file:
        columns = {name: changes.get(name, lambda c: c)(file[name]) for name in file.files}
    np.savez(folder / "sample.npz", **columns)


@pytest.mark.parametrize(
    ("corrupt", "gates"),
    [
        # The table of ids is sorted: another order is corruption, as far as it can tell.
        (swap_ids, ["ids_unique", "entries_match_source"]),
        (repeat_an_id, ["ids_unique", "entries_match_source"]),
        (change_a_payload, ["entries_match_source"]),
        (promise_nearer_neighbours, ["sample_is_exact", "recall_at_10"]),
        (be_content_with_farther_neighbours, ["sample_is_exact"]),
        (ask_with_other_vectors, ["vectors_match_source"]),
        (point_outside, ["reads_back"]),
    ],
)
def test_a_file_that_was_changed_on_disk_fails(
    job: Job, corrupt: Callable[[Path], None], gates: list[str]
) -> None:
    index = kind()
    built = index.build(job)
    corrupt(job.workdir)
    assert set(gates) <= set(failed(index, job, built))


def test_vectors_in_other_rows_fail(tmp_path: Path, source: MemorySnapshot) -> None:
    index, job = kind(), make_job(tmp_path / "a", source)
    built = index.build(job)
    backwards = snapshot(source.matrix[::-1])
    other = kind().build(make_job(tmp_path / "b", backwards))
    mixed = Built(
        files={**built.files, "base.faiss": other.files["base.faiss"]}, entries=built.entries
    )
    assert {"vectors_match_source", "recall_at_10"} <= set(failed(index, job, mixed))


def test_places_of_other_rows_fail(tmp_path: Path, source: MemorySnapshot) -> None:
    index, job = kind(index="IVF16,Flat"), make_job(tmp_path, source)
    built = index.build(job)
    places = np.load(tmp_path / "places.npy")
    np.save(tmp_path / "places.npy", places[::-1])
    assert failed(index, job, built) == ["vectors_match_source"]
    np.save(tmp_path / "places.npy", places + 2**40)
    assert "vectors_match_source" in failed(index, job, built)
    np.save(tmp_path / "places.npy", places[1:])
    assert failed(index, job, built) == ["reads_back"]


OTHER_IDS = [f"x{row:06d}" for row in range(700)]


@pytest.mark.parametrize(
    ("other", "gate"),
    [
        (lambda s: s.commit({"new": Row(vector=s.matrix[0])}), "count"),
        (lambda s: s.commit(deletes=["e000000"]), "count"),
        (lambda s: snapshot(s.matrix, Metric.L2), "metric"),
        (lambda s: snapshot(s.matrix[:, :7]), "dimension"),
        (
            lambda s: snapshot(s.matrix, ids=[f"x{r:06d}" for r in range(700)]),
            "entries_match_source",
        ),
        (lambda s: snapshot(s.matrix + 0.5), "vectors_match_source"),
        (lambda s: s.commit({"e000350": Row(vector=s.matrix[0] * np.nan)}), "vectors_finite"),
    ],
)
def test_an_index_of_another_collection_fails(
    tmp_path: Path,
    source: MemorySnapshot,
    other: Callable[[MemorySnapshot], MemorySnapshot],
    gate: str,
) -> None:
    index = kind()
    built = index.build(make_job(tmp_path, source))
    assert gate in failed(index, make_job(tmp_path, other(source)), built)


@pytest.mark.parametrize(("value", "reason"), [(np.nan, "NaN"), (np.inf, "NaN"), (0.0, "is zero")])
def test_vectors_that_cannot_be_indexed_are_named(
    tmp_path: Path, source: MemorySnapshot, value: float, reason: str
) -> None:
    bad = {f"e00000{row}": Row(vector=np.full(8, value, dtype=np.float32)) for row in range(7)}
    job = make_job(tmp_path, source.commit(bad))
    with pytest.raises(UnusableInputError, match=f"'e000000', .* and 2 more .*{reason}"):
        kind().build(job)


def test_zero_is_a_vector_like_any_other_under_l2(tmp_path: Path) -> None:
    vectors = clustered(50, 4)
    vectors[7] = 0
    assert run(kind(), make_job(tmp_path, snapshot(vectors, Metric.L2))).failed == []


class Liar(MemorySnapshot):
    said = 0

    @property
    def count(self) -> int:
        return self.said


@pytest.mark.parametrize(("said", "reason"), [(699, "gives more"), (701, "gives only 700")])
def test_a_source_that_gives_another_number_of_entries_than_it_says_is_refused(
    tmp_path: Path, source: MemorySnapshot, said: int, reason: str
) -> None:
    liar = Liar(source.rows, dimension=8)
    liar.said = said
    with pytest.raises(UnusableInputError, match=reason):
        kind().build(make_job(tmp_path, liar))


def test_an_index_is_made_from_exactly_one_collection(
    tmp_path: Path, source: MemorySnapshot
) -> None:
    artists = make_snapshot(source.matrix, collection="artists")
    with pytest.raises(UnusableInputError, match=r"components\.component\.from .* tracks, artists"):
        kind().build(make_job(tmp_path, source, artists))
    parent = ComponentInput(manifest=None, value=None)  # type: ignore[arg-type] # never looked at
    with pytest.raises(UnusableInputError, match="not: map"):
        kind().build(make_job(tmp_path, components={"map": parent}))


def test_an_error_of_faiss_names_the_index_that_it_refused(tmp_path: Path) -> None:
    job = make_job(tmp_path, snapshot(clustered(700, 8)))
    with pytest.raises(UnbuildableIndexError, match="cannot make PQ3x4 of vectors of length 8"):
        kind(index="PQ3x4").build(job)


def test_a_memory_limit_that_nothing_meets_is_refused(job: Job) -> None:
    with pytest.raises(MemoryLimitError, match="raise max_bytes"):
        kind(max_bytes=1000).build(job)


def test_progress_grows_to_one(tmp_path: Path, source: MemorySnapshot) -> None:
    seen: list[float] = []
    kind(index="IVF16,Flat").build(make_job(tmp_path, source, progress=seen))
    assert seen == sorted(seen)
    assert 0 < seen[0] <= seen[-1] == 1.0


def test_only_the_files_of_the_version_are_left_in_the_work_folder(
    tmp_path: Path, source: MemorySnapshot
) -> None:
    for name, factory in (("a", "Flat"), ("b", "IVF16,Flat"), ("c", "SQ8")):
        built = kind(index=factory, min_recall=0.5).build(make_job(tmp_path / name, source))
        assert {file.name for file in (tmp_path / name).iterdir()} == set(built.files)


def test_rounding_between_almost_orthogonal_vectors_costs_no_recall(tmp_path: Path) -> None:
    # Texts without a common word: every similarity is rounding, and any neighbour is right.
    generator = np.random.default_rng(3)
    basis, _ = np.linalg.qr(generator.normal(size=(64, 64)))
    vectors = (basis[:40] + generator.normal(scale=1e-9, size=(40, 64))).astype(np.float32)
    job = make_job(tmp_path, make_snapshot(vectors))
    assert run(VectorIndex(VectorIndexParameters(index="Flat")), job).failed == []
