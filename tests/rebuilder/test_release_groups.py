"""Groups move whole or not at all, whatever becomes of one of their members."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from indexrelay.components.kind import Job
from indexrelay.rebuilder import BuildSession, InlineRunner, Rebuilder
from indexrelay.rebuilder.publisher import Publisher
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.messages import RebuildStatus
from indexrelay.schemas.versions import Release
from indexrelay.storage.artifacts import ArtifactStore, StoreAccessError
from indexrelay.streams import Lease
from indexrelay.testing import MakePipeline, Pipeline
from tests.behaviour.member import Member
from tests.rebuilder.conftest import Bench, MakeBench, behaving

MEMBER = {"kind": "tests.behaviour.member:Member", "from": "tracks", "group": "maps"}
TABLES: dict[str, Any] = {
    "collections": {"tracks": {"dimension": 2}, "songs": {"dimension": 2}},
    "components": {
        "main_map": MEMBER,
        "map_cache": {**MEMBER, "from": "main_map"},
        "alone": {**MEMBER, "group": None},
    },
}


@pytest.fixture
def pipeline(indexrelay_pipeline: MakePipeline) -> Pipeline:
    """A group of two and a component beside it, all at generation 1."""
    pipeline = indexrelay_pipeline(**TABLES)
    commit(pipeline)
    pipeline.settle()
    return pipeline


def commit(pipeline: Pipeline, collection: str = "tracks") -> None:
    generation = pipeline.catalog.collections.get(collection).generation if _has(pipeline) else 0
    with pipeline.producer.batch(collection) as batch:
        batch.upsert([f"entry {generation + 1}"], [[1.0, 1.0]])


def _has(pipeline: Pipeline) -> bool:
    return any(each.name == "tracks" for each in pipeline.catalog.collections.all())


def release(pipeline: Pipeline) -> Release:
    newest = pipeline.store.newest_release()
    assert newest is not None
    return newest


def covered(pipeline: Pipeline) -> dict[str, int]:
    components = release(pipeline).components
    return {
        name: pipeline.store.version(name, version).covers["tracks"]
        for name, version in sorted(components.items())
    }


def builds(pipeline: Pipeline) -> int:
    return len(list((pipeline.store.root / "versions").glob("*/*.json")))


STAYS = {"alone": 2, "main_map": 1, "map_cache": 1}
MOVED = dict.fromkeys(STAYS, 2)


def test_a_member_that_fails_keeps_back_its_group_and_nothing_else(pipeline: Pipeline) -> None:
    pipeline.fail_build("map_cache", error="boom")
    commit(pipeline)
    pipeline.settle()
    result = pipeline.results[-1]
    assert covered(pipeline) == STAYS
    assert result.status is RebuildStatus.PARTIAL_SUCCESS
    said = "group maps waits for map_cache, which failed: "
    assert result.waiting["main_map"].startswith(said)
    assert "boom" in result.waiting["main_map"]
    assert said in result.message
    pipeline.heal_build("map_cache")
    pipeline.advance(3600)
    assert covered(pipeline) == MOVED


def test_what_waited_is_released_with_the_others_and_not_built_again(pipeline: Pipeline) -> None:
    pipeline.fail_build("map_cache")
    commit(pipeline)
    pipeline.settle()
    kept = builds(pipeline)
    pipeline.heal_build("map_cache")
    pipeline.advance(3600)
    assert covered(pipeline) == MOVED
    assert builds(pipeline) == kept + 1


def test_a_member_that_fails_for_ever_does_not_make_the_others_be_built_in_a_loop(
    pipeline: Pipeline,
) -> None:
    pipeline.fail_build("map_cache")
    commit(pipeline)
    pipeline.settle()
    kept = builds(pipeline)
    for _ in range(5):
        pipeline.advance(3600)
    assert builds(pipeline) == kept
    assert covered(pipeline) == STAYS


@pytest.mark.parametrize("kept_by", ["held", "paused"])
def test_nothing_is_built_in_vain_while_a_person_keeps_a_member(
    pipeline: Pipeline, kept_by: str
) -> None:
    if kept_by == "held":
        pipeline.store.hold("map_cache", reason="bad maps")
    else:
        pipeline.catalog.attempts.pause("map_cache", "bad maps")
    before = builds(pipeline)
    commit(pipeline)
    pipeline.settle()
    assert covered(pipeline) == STAYS
    assert builds(pipeline) == before + 1  # the one that is alone
    assert f"group maps waits for map_cache, which is {kept_by}" in pipeline.results[-1].message
    pipeline.producer.request_rebuild(["main_map"], reason="I want it")
    pipeline.settle()
    assert covered(pipeline) == STAYS
    assert "group maps waits for map_cache" in pipeline.results[-1].message
    if kept_by == "held":
        pipeline.store.lift("map_cache", reason="good again")
    else:
        pipeline.catalog.attempts.resume("map_cache")
    pipeline.settle()
    assert covered(pipeline) == MOVED


def test_a_group_waits_for_a_member_that_is_built_elsewhere(pipeline: Pipeline) -> None:
    key = f"{{{pipeline.settings.namespace}}}:lease:map_cache"
    lease = Lease(pipeline.connection, key, owner="elsewhere", ttl_seconds=60)
    assert lease.acquire()
    commit(pipeline)
    pipeline.rebuild()
    assert covered(pipeline) == STAYS
    lease.release()
    pipeline.settle()
    assert covered(pipeline) == MOVED


def test_a_member_whose_files_are_corrupt_is_built_at_the_state_of_its_group(
    pipeline: Pipeline,
) -> None:
    pipeline.corrupt("map_cache")
    pipeline.store.hold("main_map", reason="by hand")
    commit(pipeline)
    pipeline.settle()
    assert {name: covered(pipeline)[name] for name in ("main_map", "map_cache")} == {
        "main_map": 1,
        "map_cache": 1,
    }
    pipeline.store.lift("main_map", reason="by hand")
    pipeline.settle()
    assert covered(pipeline) == MOVED


def test_nothing_of_a_new_group_is_released_before_all_of_it_is_there(
    indexrelay_pipeline: MakePipeline,
) -> None:
    pipeline = indexrelay_pipeline(**TABLES)
    pipeline.fail_build("map_cache")
    commit(pipeline)
    pipeline.settle()
    assert set(release(pipeline).components) == {"alone"}
    pipeline.heal_build("map_cache")
    pipeline.advance(3600)
    assert set(release(pipeline).components) == set(STAYS)


def changed(pipeline: Pipeline, folder: Path, **components: Any) -> Pipeline:
    """The next life of the installation, with other components in its settings."""
    pipeline.clock.advance(1)
    declared = {**TABLES["components"], **components}
    tables = {
        **pipeline.settings.model_dump(by_alias=True),
        "components": {name: each for name, each in declared.items() if each is not None},
    }
    later = Pipeline(type(pipeline.settings).model_validate(tables), folder, clock=pipeline.clock)
    pipeline.clock.advance(1)
    return later


def test_a_new_member_comes_in_when_it_agrees_and_keeps_back_nothing_until_then(
    pipeline: Pipeline,
) -> None:
    later = changed(pipeline, pipeline.settings.data_dir, titles=MEMBER)
    try:
        later.fail_build("titles")
        commit(later)
        later.settle()
        assert covered(later) == MOVED
        later.heal_build("titles")
        later.advance(3600)
        assert covered(later) == {**MOVED, "titles": 2}
        assert release(later).groups == dict.fromkeys(("main_map", "map_cache", "titles"), "maps")
    finally:
        later.close()


def test_a_component_that_changes_its_group_joins_it_when_it_agrees(pipeline: Pipeline) -> None:
    pipeline.store.hold("main_map", reason="by hand")
    commit(pipeline)
    pipeline.settle()
    later = changed(pipeline, pipeline.settings.data_dir, alone=MEMBER)
    try:
        later.settle()
        assert covered(later) == STAYS
        assert set(release(later).groups) == {"main_map", "map_cache"}
        later.store.lift("main_map", reason="by hand")
        later.settle()
        assert covered(later) == MOVED
        assert set(release(later).groups) == set(STAYS)
    finally:
        later.close()


@pytest.mark.parametrize("held", [False, True], ids=["free", "held"])
def test_a_member_that_is_removed_or_renamed_leaves_its_group_whole(
    pipeline: Pipeline, held: bool
) -> None:
    if held:
        pipeline.store.hold("map_cache", reason="by hand")
    reader = pipeline.reader("a")
    later = changed(
        pipeline,
        pipeline.settings.data_dir,
        map_cache=None,
        cached_map={**MEMBER, "from": "main_map"},
    )
    try:
        later.settle()
        commit(later)
        later.settle()
        assert covered(later) == {"alone": 2, "cached_map": 2, "main_map": 2}
        with later.reader("new").acquire() as snapshot:
            assert set(snapshot) == {"alone", "cached_map", "main_map"}
        # One whose settings do not allow the new member's kind cannot load it: it keeps the group.
        reader.step()
        with reader.acquire() as snapshot:
            found = {name: covers["tracks"] for name, covers in snapshot.covers.items()}
            assert found == {"alone": 2, "main_map": 1, "map_cache": 1}
    finally:
        later.close()


def test_the_others_wait_for_a_member_whose_new_definition_fails(pipeline: Pipeline) -> None:
    later = changed(
        pipeline,
        pipeline.settings.data_dir,
        main_map={**MEMBER, "colour": "red"},
        map_cache={**MEMBER, "from": "main_map", "colour": "red"},
    )
    try:
        before = release(later).components
        later.fail_build("map_cache")
        later.settle()
        assert release(later).components == before
        later.heal_build("map_cache")
        later.advance(3600)
        after = release(later).components
        assert all(after[name] != before[name] for name in ("main_map", "map_cache"))
    finally:
        later.close()


def test_a_group_that_an_earlier_version_of_the_program_mixed_heals_with_the_next_release(
    pipeline: Pipeline,
) -> None:
    first = release(pipeline)
    commit(pipeline)
    pipeline.settle()
    second = release(pipeline)
    mixed = {**second.components, "map_cache": first.components["map_cache"]}
    pipeline.store.commit_release(
        second.model_copy(
            update={"number": second.number + 1, "previous": second.number, "components": mixed}
        )
    )
    assert covered(pipeline)["map_cache"] == 1
    pipeline.settle()
    assert covered(pipeline) == MOVED


def test_of_two_publishers_the_one_that_lost_leaves_a_group_whole(make_bench: MakeBench) -> None:
    bench = make_bench(one=behaving("tracks", group="pair"), other=behaving("tracks", group="pair"))
    bench.commit("a")
    bench.rebuild()
    late = Publisher(store=bench.store, clock=SystemClock())
    first = {name: bench.opened(name).manifest for name in ("one", "other")}
    bench.commit("b")
    bench.rebuild()
    newest = bench.release()
    # What it brings is newer of one of them, and as old as before of the other.
    mine = {
        "one": bench.opened("one").manifest.model_copy(update={"covers": {"tracks": 3}}),
        "other": first["other"],
    }
    for manifest in mine.values():
        bench.store.put_version(manifest)
    came = late.publish(mine, definitions=bench.settings.components, reason="late")
    assert came.release is None
    assert "group pair waits for other" in came.waiting["one"].sentence
    assert bench.release() == newest


def test_a_batch_that_comes_between_the_builds_of_a_group_keeps_none_of_it_back(
    pipeline: Pipeline,
) -> None:
    later = changed(pipeline, pipeline.settings.data_dir, titles=MEMBER)
    commit(later)
    Member.built = staticmethod(lambda _job: commit(later))
    try:
        for number in (2, 3, 4):
            later.rebuild()
            assert release(later).number == number
            at = {covered(later)[name] for name in ("main_map", "map_cache", "titles")}
            assert len(at) == 1
            assert min(at) >= number
    finally:
        Member.built = staticmethod(lambda _job: None)
        later.close()


class SideBySide(InlineRunner):
    """Two workers that build in threads; ``other`` begins when ``one`` was built."""

    parallel = True

    def __init__(self, bench: Bench) -> None:
        super().__init__(catalog=bench.catalog, store=bench.store, clock=SystemClock())
        self.built = threading.Event()
        self.sessions: list[tuple[str, ...]] = []

    @contextmanager
    def session(self, components: Sequence[str]) -> Iterator[BuildSession]:
        self.sessions.append(tuple(components))
        if components == ("other",):
            assert self.built.wait(10)
        with super().session(components) as session:
            yield session


def test_members_that_a_batch_came_between_are_built_together_the_next_time(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(one={**MEMBER, "group": "pair"}, other={**MEMBER, "group": "pair"})
    runner = SideBySide(bench)

    def built(job: Job) -> None:
        bench.commit(f"entry after {job.component}")
        if job.component == "one":
            runner.built.set()

    bench.commit("first")
    rebuilder = Rebuilder(
        bench.settings,
        catalog=bench.catalog,
        store=bench.store,
        connection=bench.connection,
        runner=runner,
    )
    monkeypatch.setattr(Member, "built", staticmethod(built))
    try:
        split = bench.rebuild(rebuilder)
        assert (split.release, set(split.waiting)) == (None, {"one", "other"})
        assert "group pair waits for one, which covers tracks up to 1" in split.message
        assert rebuilder._scheduler.look_soon
        whole = bench.rebuild(rebuilder)
        assert (whole.release, whole.components["one"].covers) == (1, {"tracks": 3})
        assert runner.sessions == [("one",), ("other",), ("one", "other")]
        bench.rebuild(rebuilder)
        assert runner.sessions[3:] == [("one",), ("other",)]  # side by side again
    finally:
        rebuilder.stop()


def test_a_kept_version_that_is_released_with_its_group_forgets_the_failed_build(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody builds it again, so nothing else would."""
    bench = make_bench(one={**MEMBER, "group": "pair"}, other={**MEMBER, "group": "pair"})
    bench.commit("first")
    rebuilder = bench.rebuilder
    order = rebuilder._scheduler.next_order(woken_at=None)
    assert order is not None

    def full(store: ArtifactStore, *_args: Any) -> None:
        raise StoreAccessError(store.root, "write", OSError(28, "No space left on device"))

    with monkeypatch.context() as patch:
        patch.setattr(ArtifactStore, "commit_release", full)
        built = rebuilder._run_pass(order)
    assert built is not None
    failed: dict[str, Any] = {
        "error": "boom",
        "inputs": "x",
        "targets": {"tracks": 1},
        "transient": False,
    }
    for name in ("one", "alone"):
        bench.catalog.attempts.failed(name, **failed)
    others = {"other": built.components["other"]}
    completed = rebuilder._completer.complete(order, others, last=True)
    assert (completed.release, completed.indexes_rebuilt) == (1, ("other",))
    assert set(bench.release().components) == {"one", "other"}
    assert set(bench.catalog.attempts.all()) == {"alone"}


def test_a_release_without_components_follows_settings_without_any(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"), other=behaving("tracks"))
    bench.commit("a")
    bench.rebuild()
    bench.store.hold("other", reason="removal is stronger than a hold")
    bench.rebuilder.stop()
    for left in ({"other": behaving("tracks")}, {}):
        rebuilder = bench.another(components=left)
        try:
            rebuilder.step()
        finally:
            rebuilder.stop()
        assert set(bench.release().components) == set(left)
        assert set(bench.release().holds) == set(left)


def test_an_empty_installation_makes_no_release_of_nothing(make_bench: MakeBench) -> None:
    bench: Bench = make_bench()
    bench.rebuilder.step()
    assert bench.store.newest_release() is None


def test_readers_drop_the_last_component_that_was_removed(pipeline: Pipeline) -> None:
    reader = pipeline.reader("a")
    with reader.acquire() as snapshot:
        assert len(snapshot) == 3
    later = changed(pipeline, pipeline.settings.data_dir, main_map=None, map_cache=None, alone=None)
    try:
        later.settle()
        reader.step()
        with reader.acquire() as snapshot:
            assert dict(snapshot) == {}
        assert later.rebuild() is None
    finally:
        later.close()
