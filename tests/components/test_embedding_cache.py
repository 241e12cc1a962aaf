"""An embedding cache: built, judged, mapped, served."""

import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from indexrelay.components.embedding_cache import (
    EmbeddingCache,
    EmbeddingCacheParameters,
    Embeddings,
)
from indexrelay.components.errors import CorruptFileError, UnknownEntryError, UnusableInputError
from indexrelay.components.kind import Built, Job
from tests.components.jobs import MemorySnapshot, Row, clustered, make_job, make_snapshot, run

KIND = EmbeddingCache(EmbeddingCacheParameters())
GATES = ["reads_back", "count", "ids_unique", "dimension", "vectors_finite", "rows_match_source"]


@pytest.fixture
def source() -> MemorySnapshot:
    return make_snapshot(clustered(300, 5))


@pytest.fixture
def job(tmp_path: Path, source: MemorySnapshot) -> Job:
    return make_job(tmp_path, source)


@pytest.fixture
def cache(job: Job) -> Embeddings:
    return KIND.load(run(KIND, job).files)


def failed(job: Job, built: Built) -> list[str]:
    files = {name: job.workdir / name for name in built.files}
    return [check.name for check in KIND.verify(job, built, files) if not check.passed]


def test_every_gate_passes_on_what_was_built(job: Job) -> None:
    done = run(KIND, job)
    assert [check.name for check in done.checks] == GATES
    assert done.failed == []
    assert done.built.entries == 300


def test_vectors_are_those_of_the_collection_bit_for_bit(
    cache: Embeddings, source: MemorySnapshot
) -> None:
    np.testing.assert_array_equal(cache.to_numpy(), source.matrix)
    np.testing.assert_array_equal(cache.get("e000007"), source.matrix[7])
    np.testing.assert_array_equal(
        cache.get_many(["e000009", "e000001", "e000009"]), source.matrix[[9, 1, 9]]
    )
    assert cache.get_many([]).shape == (0, 5)
    assert list(cache.ids) == source.ids
    assert (len(cache), cache.dimension) == (300, 5)
    assert "e000299" in cache
    assert "e000300" not in cache


def test_an_unknown_entry_is_named(cache: Embeddings) -> None:
    with pytest.raises(UnknownEntryError, match="'nobody'"):
        cache.get("nobody")
    with pytest.raises(UnknownEntryError, match="'nobody'"):
        cache.get_many(["e000001", "nobody"])


def test_nobody_can_change_what_all_share(cache: Embeddings) -> None:
    with pytest.raises(ValueError, match="read-only"):
        cache.to_numpy()[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        cache.get("e000001")[0] = 1
    cache.get_many(["e000001"])[0] = 1  # a copy is the caller's own


def test_a_view_outlives_the_cache_and_then_gives_the_file_back(
    tmp_path: Path, cache: Embeddings, source: MemorySnapshot
) -> None:
    view = cache.get("e000003")
    cache.close()
    np.testing.assert_array_equal(view, source.matrix[3])
    del view
    gc.collect()
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_threads_read_side_by_side(cache: Embeddings, source: MemorySnapshot) -> None:
    names = source.ids * 5
    with ThreadPoolExecutor(4) as pool:
        rows = np.array(list(pool.map(cache.get, names)))
    np.testing.assert_array_equal(rows, np.tile(source.matrix, (5, 1)))


def test_an_empty_collection_is_an_empty_cache(tmp_path: Path) -> None:
    done = run(KIND, make_job(tmp_path, make_snapshot(np.empty((0, 5), dtype=np.float32))))
    cache = KIND.load(done.files)
    assert (done.failed, len(cache), bool(cache), cache.to_numpy().shape) == ([], 0, True, (0, 5))


def test_a_vector_that_is_not_finite_is_named(tmp_path: Path, source: MemorySnapshot) -> None:
    bad = source.commit({"e000004": Row(vector=source.matrix[4] * np.inf)})
    with pytest.raises(UnusableInputError, match="'e000004' holds a NaN or an infinity"):
        KIND.build(make_job(tmp_path, bad))


@pytest.mark.parametrize("name", ["matrix.npy", "ids.table"])
@pytest.mark.parametrize("keep", [0, 40, -1])
def test_a_file_that_was_cut_short_does_not_read_back_and_is_not_served(
    job: Job, name: str, keep: int
) -> None:
    built = KIND.build(job)
    path = job.workdir / name
    path.write_bytes(path.read_bytes()[:keep])
    assert failed(job, built) == ["reads_back"]
    with pytest.raises(CorruptFileError):
        KIND.load({file: job.workdir / file for file in built.files})


@pytest.mark.parametrize(
    ("value", "gates"),
    [(1.5, ["rows_match_source"]), (np.nan, ["vectors_finite", "rows_match_source"])],
)
def test_a_changed_value_is_found(job: Job, value: float, gates: list[str]) -> None:
    built = KIND.build(job)
    matrix = np.load(job.workdir / "matrix.npy")
    matrix[211, 2] = value
    np.save(job.workdir / "matrix.npy", matrix)
    assert failed(job, built) == gates


def test_a_matrix_of_another_type_is_refused(job: Job) -> None:
    built = KIND.build(job)
    np.save(job.workdir / "matrix.npy", np.load(job.workdir / "matrix.npy").astype(np.float64))
    assert failed(job, built) == ["reads_back"]


def test_swapped_ids_are_found(job: Job) -> None:
    built = KIND.build(job)
    path = job.workdir / "ids.table"
    raw = path.read_bytes().replace(b"e000003", b"swapped").replace(b"e000004", b"e000003")
    path.write_bytes(raw.replace(b"swapped", b"e000004"))
    assert "rows_match_source" in failed(job, built)


def test_a_cache_of_another_generation_is_found(tmp_path: Path, source: MemorySnapshot) -> None:
    built = KIND.build(make_job(tmp_path, source))
    later = make_job(tmp_path, source.commit(deletes=["e000000"]))
    assert failed(later, built) == ["count", "rows_match_source"]
