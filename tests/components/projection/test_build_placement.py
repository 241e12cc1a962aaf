"""A map into which entries are placed: nothing else moves, and what is new lies among its like."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import invariant

from indexrelay.components.errors import UnusableInputError
from indexrelay.components.kind import Job
from indexrelay.components.projection import Projection, ProjectionParameters
from indexrelay.components.projection.build import fingerprints
from indexrelay.components.projection.guide import trust_among
from indexrelay.schemas.settings import Metric
from tests.components.changing_collection import ChangingCollection
from tests.components.jobs import (
    MemorySnapshot,
    Row,
    Run,
    as_previous,
    clustered,
    make_job,
    make_snapshot,
    run,
)

METHODS = ["pca", "tsne"]
METRICS = list(Metric)


def projection(method: str = "pca", **keys: Any) -> Projection:
    return Projection(
        ProjectionParameters.model_validate({"method": method, "iterations": 300, **keys})
    )


def next_of(
    kind: Projection, folder: Path, job: Job, done: Run, *after: MemorySnapshot
) -> tuple[Job, Run]:
    following = make_job(folder, *after, previous=as_previous(job, done))
    return following, run(kind, following)


def places(kind: Projection, done: Run) -> dict[str, tuple[float, ...]]:
    with closing(kind.load(done.files)) as chart:
        return dict(zip(chart.ids, map(tuple, chart.coordinates.tolist()), strict=True))


def given(vectors: Any, name: str = "new") -> dict[str, Row]:
    return {f"{name}{row:03d}": Row(vector=vector) for row, vector in enumerate(vectors)}


class MapMachine(ChangingCollection):
    """Whatever happened, a map shows the collection, and only a new layout moves what is on it."""

    kind = projection(max_placed=0.5)

    def __init__(self) -> None:
        self.shown: dict[str, tuple[float, ...]] = {}
        self.vectors: dict[str, bytes] = {}
        super().__init__()

    def compare(self, done: Run) -> None:
        there = places(self.kind, done)
        assert list(there) == self.snapshot.ids
        vectors = {name: row.vector.tobytes() for name, row in self.snapshot.rows.items()}
        if done.built.extends:
            same = [name for name in there if vectors[name] == self.vectors.get(name)]
            assert {name: there[name] for name in same} == {name: self.shown[name] for name in same}
        with closing(self.kind.load(done.files)) as chart:
            for position, name in enumerate(self.snapshot.ids):
                assert chart.ids[position] == name
                assert tuple(chart.get(name).tolist()) == there[name]
        self.shown, self.vectors = there, vectors

    @invariant()
    def what_was_built_can_be_built_on(self) -> None:
        if self.job is not None and self.done is not None:
            rows = self.done.built.details["inputs"]
            delta = (
                len(np.load(self.done.files["delta_places.npy"]))
                if ("delta_places.npy" in self.done.files)
                else 0
            )
            assert sum(rows["delta"]) == delta


MapMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=15, deadline=None, print_blob=True
)
test_any_sequence_of_changes_and_builds_moves_only_what_changed = MapMachine.TestCase


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("metric", METRICS)
def test_new_entries_are_placed_and_nothing_else_moves_at_all(
    tmp_path: Path, method: str, metric: Metric
) -> None:
    vectors = clustered(330, 16, clusters=6)
    before = make_snapshot(vectors[:300], metric=metric)
    kind = projection(method)
    job = make_job(tmp_path / "1", before)
    done = run(kind, job)
    changed = {"e000004": Row(vector=vectors[329])}
    after = before.commit({**given(vectors[300:315]), **changed}, ["e000009"])
    _, placed = next_of(kind, tmp_path / "2", job, done, after)
    assert placed.failed == []
    assert placed.built.extends
    assert "placed_well" in [check.name for check in placed.checks]
    assert placed.built.details["placed"] == 16
    assert placed.built.details["drift"] == {"shared": 298, "median": 0.0, "maximum": 0.0}
    old, new = places(kind, done), places(kind, placed)
    assert list(new) == after.ids
    assert {name: new[name] for name in old if name not in ("e000004", "e000009")} == {
        name: place for name, place in old.items() if name not in ("e000004", "e000009")
    }


@pytest.mark.parametrize("metric", METRICS)
def test_a_linear_map_places_an_entry_where_it_would_have_laid_it_out(
    tmp_path: Path, metric: Metric
) -> None:
    vectors = clustered(300, 16)
    before = make_snapshot(vectors, metric=metric)
    kind = projection()
    job = make_job(tmp_path / "1", before)
    done = run(kind, job)
    twins = before.commit(given(vectors[:20]))
    old, new = places(kind, done), places(kind, next_of(kind, tmp_path / "2", job, done, twins)[1])
    for row in range(20):
        np.testing.assert_allclose(new[f"new{row:03d}"], old[f"e{row:06d}"], atol=1e-5)


def test_a_twin_is_placed_beside_its_entry_where_the_map_is_not_linear(tmp_path: Path) -> None:
    vectors = clustered(300, 16)
    before, kind = make_snapshot(vectors), projection("tsne")
    job = make_job(tmp_path / "1", before)
    done = run(kind, job)
    twins = before.commit(given(vectors[:20]))
    old, new = places(kind, done), places(kind, next_of(kind, tmp_path / "2", job, done, twins)[1])
    for row in range(20):
        np.testing.assert_allclose(new[f"new{row:03d}"], old[f"e{row:06d}"], atol=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_an_entry_that_is_given_again_with_another_payload_does_not_move(
    tmp_path: Path, method: str
) -> None:
    before, kind = make_snapshot(clustered(100, 8)), projection(method)
    job = make_job(tmp_path / "1", before)
    done = run(kind, job)
    again = {
        name: Row(vector=row.vector, payload='{"new": 1}') for name, row in before.rows.items()
    }
    following, same = next_of(kind, tmp_path / "2", job, done, before.commit(again))
    assert same.failed == []
    assert following.previous is not None
    assert same.built.files == following.previous.manifest.files


@pytest.mark.parametrize(("changed", "mode"), [(10, "incremental"), (11, "full")])
@pytest.mark.parametrize("gone", [False, True])
def test_a_map_is_laid_out_from_scratch_when_a_tenth_has_changed(
    tmp_path: Path, changed: int, mode: str, *, gone: bool
) -> None:
    vectors = clustered(111, 8, clusters=3)
    before, kind = make_snapshot(vectors[:100]), projection()
    job = make_job(tmp_path / "0", before)
    done = run(kind, job)
    # In two steps: what counts is what came together since the map was laid out.
    for step, rows in enumerate((range(5), range(5, changed)), start=1):
        before = (
            before.commit(deletes=[f"e{row:06d}" for row in rows])
            if gone
            else before.commit({f"new{row}": Row(vector=vectors[100 + row]) for row in rows})
        )
        job, done = next_of(kind, tmp_path / f"{step}", job, done, before)
        assert done.failed == []
    assert done.built.details["build"]["mode"] == mode
    assert ("max_placed" in done.built.details["build"]["reason"]) is (mode == "full")


def test_a_map_is_laid_out_from_scratch_for_entries_like_no_other(tmp_path: Path) -> None:
    """Two clusters far apart, and a batch that lies between them in every other direction."""
    rng = np.random.default_rng(0)
    left, right = (rng.normal(mean, 1, (200, 32)).astype(np.float32) for mean in (-20, 20))
    before = make_snapshot(np.vstack([left, right]), metric=Metric.L2)
    kind = projection("tsne")
    job = make_job(tmp_path / "1", before)
    done = run(kind, job)
    like = given(rng.normal(20, 1, (30, 32)).astype(np.float32))
    _, placed = next_of(kind, tmp_path / "2", job, done, before.commit(like))
    assert placed.built.extends
    between = given(rng.normal(0, 1, (30, 32)).astype(np.float32))
    _, anew = next_of(kind, tmp_path / "3", job, done, before.commit(between))
    assert anew.failed == []
    assert not anew.built.extends
    assert "resemble nothing" in anew.built.details["build"]["reason"]


def test_a_map_is_scaled_again_for_an_entry_beyond_the_edge(tmp_path: Path) -> None:
    vectors = clustered(200, 8)
    before, kind = make_snapshot(vectors, metric=Metric.L2), projection()
    job = make_job(tmp_path / "1", before)
    done = run(kind, job)
    far = before.commit({"far": Row(vector=vectors[0] * 50)})
    _, anew = next_of(kind, tmp_path / "2", job, done, far)
    assert anew.failed == []
    assert anew.built.details["rescaled"]
    assert "beyond the edge" in anew.built.details["build"]["reason"]


def test_trust_falls_where_entries_lie_among_strangers() -> None:
    vectors = clustered(300, 16, clusters=6)
    flat = vectors[:, :2].copy()
    rows = np.arange(300)
    whole = trust_among(vectors, vectors, vectors, vectors, selves=rows)
    np.testing.assert_array_equal(whole, 1)
    shuffled = np.random.default_rng(0).permutation(flat)
    chance = trust_among(vectors, shuffled, vectors, shuffled, selves=rows).mean()
    some = trust_among(vectors, flat, vectors, flat, selves=rows).mean()
    assert 0.4 < chance < 0.6 < some < 1


def test_trust_is_that_of_scikit_learn() -> None:
    manifold = pytest.importorskip("sklearn.manifold")
    vectors = clustered(200, 16)
    flat = np.ascontiguousarray(vectors[:, :2])
    ours = trust_among(vectors, flat, vectors, flat, selves=np.arange(200)).mean()
    assert ours == pytest.approx(manifold.trustworthiness(vectors, flat, n_neighbors=5), abs=1e-6)


def test_equal_vectors_are_equally_near_however_many_there_are() -> None:
    vectors = np.repeat(clustered(4, 32), 100, axis=0)
    flat = np.repeat(np.eye(4, 2, dtype=np.float32), 100, axis=0)
    flat[200:] -= 3
    flat[300:] -= 3
    np.testing.assert_array_equal(
        trust_among(vectors, flat, vectors, flat, selves=np.arange(400)), 1
    )


def test_fingerprints_differ_with_every_bit_of_a_vector() -> None:
    vectors = np.zeros((65, 2), dtype=np.float32)
    bits = vectors.view(np.uint64)[:, 0]
    bits[1:] = np.uint64(1) << np.arange(64, dtype=np.uint64)
    assert len(set(fingerprints(vectors).tolist())) == 65
    assert fingerprints(vectors[::2]).tolist() == fingerprints(vectors).tolist()[::2]
    assert len(fingerprints(vectors[:0])) == 0


class TestSeveralCollections:
    """Songs and artists on one map."""

    kind = projection(max_placed=0.4)

    @pytest.fixture
    def songs(self) -> MemorySnapshot:
        return make_snapshot(clustered(60, 8, clusters=3), collection="songs")

    @pytest.fixture
    def artists(self) -> MemorySnapshot:
        ids = [f"a{row:02d}" for row in range(20)]
        return make_snapshot(clustered(20, 8, clusters=3), ids=ids, collection="artists")

    @pytest.fixture
    def job(self, tmp_path: Path, songs: MemorySnapshot, artists: MemorySnapshot) -> Job:
        return make_job(tmp_path / "1", songs, artists)

    def test_entries_are_placed_among_those_of_their_own_collection(
        self, tmp_path: Path, job: Job, songs: MemorySnapshot, artists: MemorySnapshot
    ) -> None:
        kind, done = self.kind, run(self.kind, job)
        vectors = clustered(9, 8, clusters=3)
        for step in range(3):
            one, two, three = (Row(vector=vectors[3 * step + part]) for part in range(3))
            songs = songs.commit({f"a{step}": one, f"zz{step}": two}, [f"e{step:06d}"])
            artists = artists.commit({f"e9{step}": three}, [f"a1{step}"])
            job, done = next_of(kind, tmp_path / f"s{step}", job, done, songs, artists)
            assert done.failed == []
            assert done.built.extends
            with closing(kind.load(done.files)) as chart:
                assert list(chart.ids) == [*songs.ids, *artists.ids]

    def test_an_entry_may_go_over_to_the_other_collection(
        self, tmp_path: Path, job: Job, songs: MemorySnapshot, artists: MemorySnapshot
    ) -> None:
        kind, done = self.kind, run(self.kind, job)
        songs_, artists_ = (
            songs.commit(deletes=["e000007"]),
            artists.commit({"e000007": songs.rows["e000007"]}),
        )
        job, done = next_of(kind, tmp_path / "2", job, done, songs_, artists_)
        assert (done.failed, done.built.extends) == ([], True)
        with closing(kind.load(done.files)) as chart:
            assert list(chart.ids) == [*songs_.ids, *artists_.ids]

    def test_an_entry_in_both_is_refused_as_in_a_full_build(
        self, tmp_path: Path, job: Job, songs: MemorySnapshot, artists: MemorySnapshot
    ) -> None:
        previous = as_previous(job, run(self.kind, job))
        both = artists.commit({"e000007": Row(vector=songs.matrix[9])})
        with pytest.raises(UnusableInputError, match="'e000007'"):
            self.kind.build(make_job(tmp_path / "2", songs, both, previous=previous))
        new = {"new": Row(vector=songs.matrix[9])}
        twice = make_job(tmp_path / "3", songs.commit(new), artists.commit(new), previous=previous)
        with pytest.raises(UnusableInputError, match="'new'"):
            self.kind.build(twice)


def moved(done: Run) -> None:
    coordinates = np.load(done.files["coordinates.npy"])
    coordinates[50] += 0.01
    np.save(done.files["coordinates.npy"], coordinates)


def strewn(done: Run) -> None:
    coordinates = np.load(done.files["coordinates.npy"])
    coordinates[-20:] *= -0.9
    np.save(done.files["coordinates.npy"], coordinates)


def outside(done: Run) -> None:
    coordinates = np.load(done.files["coordinates.npy"])
    coordinates[-1] = 1.5
    np.save(done.files["coordinates.npy"], coordinates)


def broken(done: Run) -> None:
    coordinates = np.load(done.files["coordinates.npy"])
    coordinates[-1] = np.nan
    np.save(done.files["coordinates.npy"], coordinates)


def other_vector(done: Run) -> None:
    marks = np.load(done.files["delta_fingerprints.npy"])
    np.save(done.files["delta_fingerprints.npy"], marks + np.uint64(1))


def other_dead(done: Run) -> None:
    np.save(done.files["tombstones.npy"], np.array([10]))


@pytest.mark.parametrize(
    ("corrupt", "gates"),
    [
        (moved, {"unchanged_kept"}),
        (strewn, {"placed_well"}),
        (outside, {"range"}),
        (broken, {"finite"}),
        (other_vector, {"ids_match_source"}),
        (other_dead, {"ids_match_source", "unchanged_kept"}),
    ],
)
def test_each_gate_of_a_placed_map_fails_on_what_it_is_there_for(
    tmp_path: Path, corrupt: Callable[[Run], None], gates: set[str]
) -> None:
    vectors = clustered(320, 16, clusters=6)
    before, kind = make_snapshot(vectors[:300]), projection()
    job = make_job(tmp_path / "1", before)
    after = before.commit(given(vectors[300:]), ["e000009"])
    following, done = next_of(kind, tmp_path / "2", job, run(kind, job), after)
    assert done.failed == []
    corrupt(done)
    checks = list(kind.verify(following, done.built, done.files))
    assert {check.name for check in checks if not check.passed} == gates, checks
