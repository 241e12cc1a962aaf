"""A map: built, judged, served, and kept still from one build to the next."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexrelay.components.errors import CorruptFileError, UnknownEntryError, UnusableInputError
from indexrelay.components.kind import ComponentInput, Job
from indexrelay.components.projection import Projection, ProjectionParameters
from indexrelay.schemas.settings import Metric
from tests.components.jobs import (
    MemorySnapshot,
    Row,
    Run,
    as_previous,
    clustered,
    make_job,
    make_manifest,
    make_snapshot,
    run,
)

METHODS = ["pca", "tsne"]
THREE = list(enumerate(clustered(3, 8, seed=1)))


def projection(method: str = "pca", **keys: Any) -> Projection:
    return Projection(ProjectionParameters.model_validate({"method": method, **keys}))


def rebuilt(kind: Projection, before: Job, done: Run, after: MemorySnapshot, folder: Path) -> Run:
    """Build the next version from the last one."""
    return run(kind, make_job(folder, after, previous=as_previous(before, done)))


def coordinates(kind: Projection, done: Run) -> dict[str, Any]:
    chart = kind.load(done.files)
    return {entry_id: chart.get(entry_id) for entry_id in chart.ids}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("metric", list(Metric))
def test_a_map_shows_every_entry_and_passes_its_gates(
    method: str, metric: Metric, tmp_path: Path
) -> None:
    kind = projection(method)
    tracks = make_snapshot(clustered(120, 16, clusters=4), metric=metric)
    done = run(kind, make_job(tmp_path / "work", tracks))
    assert done.failed == []
    assert done.built.entries == 120
    trust = done.check("trustworthiness").measured
    assert trust is not None
    assert trust > 0.7
    chart = kind.load(done.files)
    assert list(chart.ids) == tracks.ids
    assert len(chart) == 120
    assert chart.coordinates.shape == (120, 2)
    assert chart.coordinates.dtype == np.float32
    np.testing.assert_array_equal(chart.get("e000007"), chart.coordinates[7])
    assert "e000007" in chart
    assert "e999999" not in chart
    with pytest.raises(UnknownEntryError):
        chart.get("e999999")
    with pytest.raises(ValueError, match="read-only"):
        chart.coordinates[0, 0] = 1.0
    chart.close()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6])
def test_few_entries_make_a_map_too(method: str, count: int, tmp_path: Path) -> None:
    kind = projection(method, iterations=250)
    before = make_snapshot(clustered(count, 8))
    job = make_job(tmp_path / "1", before)
    done = run(kind, job)
    assert done.failed == []
    assert len(kind.load(done.files)) == count
    grown = before.commit({f"new{row}": Row(vector=vector) for row, vector in THREE})
    assert rebuilt(kind, job, done, grown, tmp_path / "2").failed == []


@pytest.mark.parametrize("method", METHODS)
def test_equal_vectors_share_one_place(method: str, tmp_path: Path) -> None:
    kind = projection(method)
    same = make_snapshot(np.ones((9, 4), np.float32))
    job = make_job(tmp_path / "1", same)
    done = run(kind, job)
    assert done.failed == []
    # ... and a map that was one point does not hold back the next one.
    parted = same.commit({f"e{row:06d}": Row(vector=v) for row, v in enumerate(clustered(30, 4))})
    assert rebuilt(kind, job, done, parted, tmp_path / "2").failed == []


@pytest.mark.parametrize("method", METHODS)
def test_one_dimension_is_enough(method: str, tmp_path: Path) -> None:
    line = np.arange(1, 31, dtype=np.float32)[:, None]
    tracks = make_snapshot(line, metric=Metric.L2)
    assert run(projection(method), make_job(tmp_path / "work", tracks)).failed == []


@pytest.mark.parametrize("method", METHODS)
def test_the_same_entries_and_seed_make_the_same_bytes(method: str, tmp_path: Path) -> None:
    files = []
    for build in ("1", "2"):
        job = make_job(tmp_path / build, make_snapshot(clustered(200, 16)))
        files.append(run(projection(method, seed=5, iterations=300), job).files)
    for name in files[0]:
        assert files[0][name].read_bytes() == files[1][name].read_bytes()


def test_a_pca_map_does_not_flip_when_the_data_does(tmp_path: Path) -> None:
    kind = projection()
    vectors = clustered(100, 8)
    before = make_snapshot(vectors, metric=Metric.L2)
    job = make_job(tmp_path / "1", before)
    done = run(kind, job)
    rows = {f"e{row:06d}": Row(vector=-vector) for row, vector in enumerate(vectors)}
    flipped = before.commit(rows)
    after = rebuilt(kind, job, done, flipped, tmp_path / "2")
    assert after.built.details["drift"]["maximum"] < 1e-4
    assert after.built.details["drift"]["shared"] == 100


@pytest.mark.parametrize("method", METHODS)
def test_entries_stay_about_where_they_are_when_all_are_laid_out_again(
    method: str, tmp_path: Path
) -> None:
    kind = projection(method, perplexity=15, max_placed=0)
    vectors = clustered(210, 16, clusters=5)
    before = make_snapshot(vectors[:200])
    job = make_job(tmp_path / "1", before)
    done = run(kind, job)
    new = {f"new{row}": Row(vector=vectors[row]) for row in range(200, 210)}
    after = rebuilt(kind, job, done, before.commit(new, ["e000003"]), tmp_path / "2")
    assert after.failed == []
    drift = after.built.details["drift"]
    assert drift["shared"] == 199
    assert drift["median"] < 0.1  # the map is about 1.6 wide
    assert not after.built.details["rescaled"]


def test_a_t_sne_map_that_starts_from_scratch_jumps_and_one_from_the_last_does_not(
    tmp_path: Path,
) -> None:
    """The promise, with its counter-proof: the same change without the last map."""
    vectors = clustered(210, 16, clusters=5)
    before, kind = make_snapshot(vectors[:200]), projection("tsne", perplexity=15, max_placed=0)
    job = make_job(tmp_path / "1", before)
    done = run(kind, job)
    new = {f"new{row}": Row(vector=vectors[row]) for row in range(200, 210)}
    changed = before.commit(new)
    warm = rebuilt(kind, job, done, changed, tmp_path / "2")
    cold = run(kind, make_job(tmp_path / "3", changed))
    there = coordinates(kind, done)

    def moved(run_: Run) -> float:
        here = coordinates(kind, run_)
        return float(np.median([np.linalg.norm(here[i] - there[i]) for i in there]))

    assert moved(warm) < moved(cold) / 2


def test_several_collections_share_one_map(tmp_path: Path) -> None:
    songs = make_snapshot(clustered(20, 8), collection="songs")
    artists = make_snapshot(clustered(5, 8, seed=2), ids=[*"vwxyz"], collection="artists")
    kind = projection()
    done = run(kind, make_job(tmp_path / "work", songs, artists))
    assert done.failed == []
    assert list(kind.load(done.files).ids) == [*songs.ids, *artists.ids]


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (make_snapshot(clustered(5, 9), collection="other", ids=[*"abcde"]), "dimension"),
        (
            make_snapshot(clustered(5, 8), collection="other", ids=[*"abcde"], metric=Metric.L2),
            "metric",
        ),
        (make_snapshot(clustered(5, 8), collection="other"), "5 id.s. .*'e000000'"),
    ],
)
def test_collections_that_do_not_go_together_are_refused(
    other: MemorySnapshot, sentence: str, tmp_path: Path
) -> None:
    job = make_job(tmp_path / "work", make_snapshot(clustered(20, 8)), other)
    with pytest.raises(UnusableInputError, match=sentence):
        projection().build(job)


def test_a_component_as_input_is_refused(tmp_path: Path) -> None:
    kind, tracks = projection(), make_snapshot(clustered(5, 8))
    job = make_job(tmp_path / "1", tracks)
    parent = ComponentInput(manifest=make_manifest(job, run(kind, job)), value=None)
    with pytest.raises(UnusableInputError, match="main_map"):
        kind.build(make_job(tmp_path / "2", tracks, components={"main_map": parent}))


def test_the_least_trustworthiness_is_a_gate_where_it_is_asked_for(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(300, 64)).astype(np.float32)
    done = run(projection(min_trustworthiness=0.95), make_job(tmp_path / "w", make_snapshot(noise)))
    assert done.failed == ["trustworthiness"]


@pytest.mark.parametrize(
    ("corrupt", "gates"),
    [
        (lambda places: places * np.float32(np.nan), {"finite"}),
        (lambda places: places * 0, {"not_collapsed"}),
        (lambda places: places * 3, {"range"}),
    ],
)
def test_a_broken_map_fails_its_gate(corrupt: Any, gates: set[str], tmp_path: Path) -> None:
    kind, job = projection(), make_job(tmp_path / "work", make_snapshot(clustered(50, 8)))
    done = run(kind, job)
    path = done.files["coordinates.npy"]
    np.save(path, corrupt(np.load(path)))
    failed = {check.name for check in kind.verify(job, done.built, done.files) if not check.passed}
    assert failed == gates


def test_a_map_of_another_generation_fails_its_gates(tmp_path: Path) -> None:
    kind, tracks = projection(), make_snapshot(clustered(50, 8))
    done = run(kind, make_job(tmp_path / "work", tracks))
    newer = tracks.commit(deletes=["e000004"])
    job = make_job(tmp_path / "work", newer)
    failed = {check.name: check for check in kind.verify(job, done.built, done.files)}
    assert not failed["count"].passed
    assert not failed["ids_match_source"].passed
    assert failed["ids_match_source"].detail.endswith("in row 4")


def test_a_file_cut_short_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    kind, job = projection(), make_job(tmp_path / "work", make_snapshot(clustered(50, 8)))
    files = run(kind, job).files
    path = files["coordinates.npy"]
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CorruptFileError, match="coordinates"):
        kind.load(files)


def test_fewer_coordinates_than_ids_are_refused_when_opened(tmp_path: Path) -> None:
    kind, job = projection(), make_job(tmp_path / "work", make_snapshot(clustered(50, 8)))
    files = run(kind, job).files
    np.save(files["coordinates.npy"], np.load(files["coordinates.npy"])[:-1])
    with pytest.raises(CorruptFileError, match="49"):
        kind.load(files)


@pytest.mark.parametrize("wrong", [[np.nan], [np.inf], [np.inf, -np.inf]], ids=str)
def test_a_coordinate_that_is_no_number_is_refused_when_opened(
    tmp_path: Path, wrong: list[float]
) -> None:
    kind, job = projection(), make_job(tmp_path / "work", make_snapshot(clustered(50, 8)))
    files = run(kind, job).files
    coordinates = np.load(files["coordinates.npy"])
    coordinates[: len(wrong), 0] = wrong
    np.save(files["coordinates.npy"], coordinates)
    with pytest.raises(CorruptFileError, match="no number"):  # and no warning, which is an error
        kind.load(files)
