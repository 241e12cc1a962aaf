"""What was built and never released is released, and not built again."""

from pathlib import Path
from typing import Any

import pytest

from indexrelay.schemas.messages import RebuildStatus
from indexrelay.schemas.settings import Metric
from indexrelay.storage.artifacts import ArtifactStore, StoreAccessError
from tests.rebuilder.conftest import Bench, MakeBench, behaving


def build_without_release(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass whose release cannot be written; what it built is in the store."""

    def refuse(store: ArtifactStore, *_args: Any, **_keys: Any) -> None:
        raise StoreAccessError(store.root, "write", OSError(28, "No space left on device"))

    with monkeypatch.context() as patch:
        patch.setattr(ArtifactStore, "commit_release", refuse)
        assert bench.rebuild().release is None


def built(bench: Bench, component: str = "index") -> list[Path]:
    return sorted((bench.store.root / "versions" / component).glob("*.json"))


@pytest.fixture
def bench(make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The index was built, and not released."""
    bench = make_bench(index=behaving("tracks"), child=behaving("index"))
    bench.commit("a")
    build_without_release(bench, monkeypatch)
    assert len(built(bench)) == len(built(bench, "child")) == 1
    return bench


def test_what_was_built_before_a_release_failed_is_released_without_another_build(
    bench: Bench,
) -> None:
    before = built(bench) + built(bench, "child")
    result = bench.rebuild(bench.another())  # another life: nothing of it is in memory
    assert (result.status, result.indexes_rebuilt) == (RebuildStatus.SUCCESS, ("index", "child"))
    assert built(bench) + built(bench, "child") == before
    assert set(bench.release().components.values()) == {file.stem for file in before}
    assert result.components["index"].covers == {"tracks": 1}
    assert result.components["index"].checks
    assert result.batch_ids == ("batch-1",)


def test_what_was_committed_since_then_is_built(bench: Bench) -> None:
    bench.commit("b")
    bench.rebuild()
    assert len(built(bench)) == 2
    assert bench.opened("index").manifest.covers == {"tracks": 2}


def test_what_follows_another_definition_is_built(bench: Bench) -> None:
    changed = {"index": behaving("tracks", colour="red"), "child": behaving("index")}
    bench.rebuild(bench.another(components=changed))
    assert len(built(bench)) == len(built(bench, "child")) == 2


def test_what_belongs_to_a_recreated_collection_is_built(bench: Bench) -> None:
    bench.catalog.collections.drop("tracks")
    bench.catalog.collections.declare("tracks", dimension=2, metric=Metric.L2)
    bench.commit("b")  # generation 1 again
    bench.rebuild(bench.another())
    assert len(built(bench)) == 2


def test_what_somebody_asks_for_is_built(bench: Bench) -> None:
    bench.catalog.inbox.request("r1", components=("index",), force=False, reason="said so")
    bench.rebuild()
    assert len(built(bench)) == 2


def test_what_was_rolled_back_is_built_again(bench: Bench) -> None:
    bench.rebuild()
    bench.commit("b")
    bench.rebuild()
    number, bad = bench.release().number, bench.release().components["index"]
    bench.store.rollback(number - 1, reason="it was bad")
    bench.store.lift("index", "child", reason="mended")
    bench.rebuild()
    assert bench.opened("index").manifest.covers == {"tracks": 2}
    assert bench.release().components["index"] != bad


def test_that_they_went_back_is_not_forgotten_with_the_release_that_was_collected(
    bench: Bench,
) -> None:
    bench.rebuild()
    bench.commit("b")
    bench.rebuild()
    number, bad = bench.release().number, bench.release().components["index"]
    bench.store.rollback(number - 1, reason="it was bad")
    bench.store.collect_garbage(keep_releases=1, used_versions=set(), grace_seconds=3600.0)
    bench.store.lift("index", "child", reason="mended")
    bench.rebuild()
    assert bench.opened("index").manifest.covers == {"tracks": 2}
    assert bench.release().components["index"] != bad


def test_what_is_corrupt_is_built(bench: Bench) -> None:
    [file] = built(bench)
    for ref in bench.store.version("index", file.stem).files.values():
        bench.store.blob(ref).unlink()
    bench.rebuild(bench.another())
    assert len(built(bench)) == 2
    assert bench.opened("index").files


def test_a_manifest_that_cannot_be_read_keeps_nothing_from_being_built(bench: Bench) -> None:
    [file] = built(bench)
    file.chmod(0o600)
    file.write_bytes(b"{}")
    assert bench.rebuild(bench.another()).status is RebuildStatus.SUCCESS


def test_earlier_failures_are_forgotten_with_it(bench: Bench) -> None:
    bench.catalog.attempts.failed("index", error="x", inputs="other", targets={})
    bench.rebuild()
    assert bench.catalog.attempts.all() == {}
