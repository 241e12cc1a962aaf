"""An embedding cache that continues another: the same answers, at the cost of the batch."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from indexrelay.components.embedding_cache import EmbeddingCache, EmbeddingCacheParameters
from indexrelay.components.kind import Job, PreviousVersion
from indexrelay.schemas.versions import BlobRef
from tests.components.changing_collection import POOL, ChangingCollection
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

KIND = EmbeddingCache(EmbeddingCacheParameters())
CHANGED = Row(vector=np.full(5, 7, dtype=np.float32))


@pytest.fixture
def source() -> MemorySnapshot:
    return make_snapshot(clustered(300, 5))


def next_of(kind: EmbeddingCache, folder: Path, job: Job, after: MemorySnapshot) -> tuple[Job, Run]:
    """Build ``job``, then the version of ``after`` that follows it."""
    following = make_job(folder, after, previous=as_previous(job, run(kind, job)))
    return following, run(kind, following)


class CacheMachine(ChangingCollection):
    """Whatever happened, a cache holds what the collection holds, in the collection's order."""

    kind = EmbeddingCache(EmbeddingCacheParameters(max_delta=0.6, max_tombstones=0.6))

    def compare(self, done: Run) -> None:
        expected = self.snapshot
        with closing(self.kind.load(done.files)) as cache:
            assert list(cache.ids) == expected.ids
            np.testing.assert_array_equal(cache.to_numpy(), expected.matrix)
            assert len(cache) == len(expected.ids)
            for position, name in enumerate(expected.ids):
                assert cache.ids[position] == name
                np.testing.assert_array_equal(cache.get(name), expected.rows[name].vector)
            for rows in (1, 3, 1000):
                seen = np.full(expected.matrix.shape, np.nan, dtype=np.float32)
                for first, block in cache.blocks(rows):
                    seen[first : first + len(block)] = block
                np.testing.assert_array_equal(seen, expected.matrix)
            assert [name in cache for name in POOL] == [name in expected.rows for name in POOL]


CacheMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=15, deadline=None, print_blob=True
)
test_any_sequence_of_changes_and_builds_gives_what_the_collection_holds = CacheMachine.TestCase


def test_a_small_batch_names_the_base_again_and_writes_what_changed(
    tmp_path: Path, source: MemorySnapshot
) -> None:
    after = source.commit({"e000007": CHANGED, "new": CHANGED}, ["e000009"])
    job = make_job(tmp_path / "1", source)
    following, done = next_of(KIND, tmp_path / "2", job, after)
    assert done.failed == []
    assert done.built.extends
    assert following.previous is not None
    for name in ("matrix.npy", "ids.table"):
        assert done.built.files[name] == following.previous.manifest.files[name]
    assert np.load(done.files["delta.npy"]).shape == (2, 5)
    assert done.built.details == {
        "build": {
            "mode": "incremental",
            "reason": "few entries changed since the last version",
        },
        "revision": 1,
        "base": 300,
        "delta": 2,
        "tombstones": 2,
    }


def test_what_is_given_again_as_it_was_changes_no_file(
    tmp_path: Path, source: MemorySnapshot
) -> None:
    """A job that hands over everything each time costs no more than looking."""
    job = make_job(tmp_path / "1", source)
    following, done = next_of(KIND, tmp_path / "2", job, source.commit(source.rows))
    assert done.failed == []
    assert following.previous is not None
    assert done.built.files == following.previous.manifest.files
    assert all(isinstance(file, BlobRef) for file in done.built.files.values())
    assert done.built.details["build"]["reason"] == "nothing changed"


@pytest.mark.parametrize(
    ("upserts", "deletes", "reason"),
    [
        (31, 0, "the delta would be 31, more than 10% of the base (max_delta)"),
        (0, 31, "tombstones would be 31, more than 10% of the base (max_tombstones)"),
    ],
)
def test_beyond_its_limit_a_cache_is_written_from_scratch_with_the_reason(
    tmp_path: Path, source: MemorySnapshot, upserts: int, deletes: int, reason: str
) -> None:
    names = source.ids
    job = make_job(tmp_path / "1", source)
    for count, mode in ((1, "full"), (0, "incremental")):
        changed = dict.fromkeys(names[: max(0, upserts - 1 + count)], CHANGED)
        gone = names[: max(0, deletes - 1 + count)]
        after = source.commit(changed, gone)
        _, done = next_of(KIND, tmp_path / mode, job, after)
        assert done.failed == []
        assert done.built.details["build"]["mode"] == mode
        assert done.built.extends is (mode == "incremental")
        if mode == "full":
            assert done.built.details["build"]["reason"] == reason


def test_a_source_whose_changes_are_not_known_is_read_whole(
    tmp_path: Path, source: MemorySnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = source.commit({"new": CHANGED})
    monkeypatch.setattr(after, "changes", lambda _: None)
    _, done = next_of(KIND, tmp_path / "2", make_job(tmp_path / "1", source), after)
    assert done.failed == []
    assert done.built.details["build"] == {
        "mode": "full",
        "reason": "what changed in tracks since generation 1 is not known",
    }


def test_an_array_of_everything_is_mapped_as_long_as_there_is_no_delta(
    tmp_path: Path, source: MemorySnapshot
) -> None:
    job = make_job(tmp_path / "1", source)
    with closing(KIND.load(run(KIND, job).files)) as whole:
        assert np.shares_memory(whole.to_numpy(), whole.get("e000003"))
    _, done = next_of(KIND, tmp_path / "2", job, source.commit({"new": CHANGED}))
    with closing(KIND.load(done.files)) as layered:
        assert not np.shares_memory(layered.to_numpy(), layered.get("e000003"))
        with pytest.raises(ValueError, match="read-only"):
            layered.to_numpy()[0, 0] = 1
        # ... while a block that the batch did not touch still is a view.
        first, block = next(layered.blocks(100))
        assert first == 0
        assert np.shares_memory(block, layered.get("e000003"))


def corrupt_delta(done: Run) -> None:
    delta = np.load(done.files["delta.npy"])
    delta[0, 0] += 1
    np.save(done.files["delta.npy"], delta)


def infinite_delta(done: Run) -> None:
    delta = np.load(done.files["delta.npy"])
    delta[0, 0] = np.inf
    np.save(done.files["delta.npy"], delta)


def missing_tombstone(done: Run) -> None:
    np.save(done.files["tombstones.npy"], np.load(done.files["tombstones.npy"])[1:])


def another_tombstone(done: Run) -> None:
    dead = np.load(done.files["tombstones.npy"])
    dead[dead == 9] = 10
    np.save(done.files["tombstones.npy"], dead)


def moved_place(done: Run) -> None:
    np.save(done.files["delta_places.npy"], np.load(done.files["delta_places.npy"]) * 0)


def shuffled_tombstones(done: Run) -> None:
    np.save(done.files["tombstones.npy"], np.load(done.files["tombstones.npy"])[::-1])


def missing_place(done: Run) -> None:
    np.save(done.files["delta_places.npy"], np.load(done.files["delta_places.npy"])[1:])


@pytest.mark.parametrize(
    ("corrupt", "gates"),
    [
        (corrupt_delta, {"rows_match_source"}),
        (infinite_delta, {"rows_match_source", "vectors_finite"}),
        (missing_tombstone, {"count", "ids_unique", "ids_in_order"}),
        (another_tombstone, {"rows_match_source", "unchanged_kept"}),
        (moved_place, {"ids_in_order"}),
        (shuffled_tombstones, {"reads_back"}),
        (missing_place, {"reads_back"}),
    ],
)
def test_each_gate_of_a_continued_cache_fails_on_what_it_is_there_for(
    tmp_path: Path, source: MemorySnapshot, corrupt: object, gates: set[str]
) -> None:
    after = source.commit({"e000007": CHANGED, "e000008": CHANGED}, ["e000009"])
    following, done = next_of(KIND, tmp_path / "2", make_job(tmp_path / "1", source), after)
    assert callable(corrupt)
    corrupt(done)
    checks = KIND.verify(following, done.built, done.files)
    assert {check.name for check in checks if not check.passed} == gates


def test_what_the_last_delta_held_is_looked_at_again(
    tmp_path: Path, source: MemorySnapshot
) -> None:
    middle = source.commit({"e000007": CHANGED})
    job, done = next_of(KIND, tmp_path / "2", make_job(tmp_path / "1", source), middle)
    last = make_job(
        tmp_path / "3", middle.commit({"new": CHANGED}), previous=as_previous(job, done)
    )
    after = run(KIND, last)
    assert after.failed == []
    delta = np.load(after.files["delta.npy"])
    delta[0, 0] += 1  # of e000007, which is not in this batch
    np.save(after.files["delta.npy"], delta)
    failed = [c.name for c in KIND.verify(last, after.built, after.files) if not c.passed]
    assert failed == ["unchanged_kept"]


def test_a_version_of_the_time_before_deltas_is_continued(
    tmp_path: Path, source: MemorySnapshot
) -> None:
    job = make_job(tmp_path / "1", source)
    before = as_previous(job, run(KIND, job))
    old = PreviousVersion(
        manifest=before.manifest.model_copy(update={"details": {}}), files=before.files
    )
    following = make_job(tmp_path / "2", source.commit({"new": CHANGED}), previous=old)
    done = run(KIND, following)
    assert (done.failed, done.built.extends) == ([], True)


def test_a_previous_version_that_is_corrupt_is_not_continued(
    tmp_path: Path, source: MemorySnapshot
) -> None:
    job = make_job(tmp_path / "1", source)
    done = run(KIND, job)
    done.files["matrix.npy"].write_bytes(b"")
    after = source.commit({"new": CHANGED})
    done = run(KIND, make_job(tmp_path / "2", after, previous=as_previous(job, done)))
    assert (done.failed, done.built.extends) == ([], False)
    assert "matrix.npy is corrupt" in done.built.details["build"]["reason"]
