"""One build into the store, in this process."""

import errno
import os
from pathlib import Path

import pytest

from indexrelay.schemas.messages import BuildMode, BuildOutcome
from indexrelay.schemas.settings import Metric
from tests.fixtures.logs import capture_logs
from tests.rebuilder.conftest import Bench, MakeBench, behaving

CONTINUING = "tests.rebuilder.kinds:Continuing"


def build_of(bench: Bench) -> dict[str, str]:
    """How the released version of ``index`` was built, and why so."""
    found: dict[str, str] = bench.opened("index").manifest.details["build"]
    return found


@pytest.mark.parametrize("behaviour", ["fine", "silent"])
def test_a_gate_that_only_the_incremental_build_fails_is_named(
    make_bench: MakeBench, behaviour: str
) -> None:
    bench = make_bench(index=behaving("tracks", kind=CONTINUING, behaviour=behaviour))
    bench.commit("a")
    bench.rebuild()
    bench.commit("b")
    with capture_logs() as events:
        result = bench.rebuild().components["index"]
    assert (result.outcome, result.mode) == (BuildOutcome.REBUILT, BuildMode.FULL)
    reason = "the incremental build failed: gate taste: it tastes of yesterday"
    assert build_of(bench) == {"mode": "full", "reason": reason, "failed_gates": ["taste"]}
    warned = [each for each in events if each["log_level"] == "warning"]
    assert [(each["event"], each["gates"], each["reason"]) for each in warned] == [
        ("component.built_in_full", ["taste"], reason)
    ]


def test_a_full_build_says_that_the_definition_changed(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks", kind=CONTINUING))
    bench.commit("a")
    bench.rebuild()
    assert build_of(bench) == {"mode": "full", "reason": "there is no version to continue"}
    changed = {"index": behaving("tracks", kind=CONTINUING, colour="red")}
    rebuilder = bench.another(components=changed)
    try:
        bench.rebuild(rebuilder)
    finally:
        rebuilder.stop()
    assert build_of(bench) == {"mode": "full", "reason": "its definition changed"}


def test_what_the_disk_did_not_take_is_not_released(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def refuse_new_files(file: int) -> None:
        if Path(f"/proc/self/fd/{file}").readlink().name == "count.txt":
            raise OSError(errno.EIO, "Input/output error")
        fsync(file)

    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse_new_files)
        failed = bench.rebuild().components["index"]
    assert failed.outcome is BuildOutcome.FAILED
    assert "cannot force to disk" in str(failed.error)
    assert "Input/output error" in str(failed.error)
    assert failed.transient
    assert list(bench.store.root.glob("blobs/sha256/*/*")) == []
    assert bench.store.newest_release() is None


def test_a_full_disk_is_remembered_as_a_cause_outside(make_bench: MakeBench) -> None:
    bench = make_bench(
        full=behaving("tracks", behaviour="full"), bad=behaving("tracks", behaviour="raises")
    )
    bench.commit("a")
    result = bench.rebuild()
    assert "No space left on device; make room on that disk" in str(result.components["full"].error)
    transient = {name: tried.transient for name, tried in bench.catalog.attempts.all().items()}
    assert transient == {"full": True, "bad": False}


def test_a_collection_of_another_dimension_stops_only_what_is_made_from_it(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    bench.catalog.collections.declare("songs", dimension=8, metric=Metric.L2)
    collections = {
        **bench.settings.model_dump(by_alias=True)["collections"],
        "songs": {"dimension": 3, "metric": "l2"},
    }
    components = {"index": behaving("tracks"), "broken": behaving("songs")}
    rebuilder = bench.another(collections=collections, components=components)
    try:
        result = bench.rebuild(rebuilder)
    finally:
        rebuilder.stop()
    assert result.indexes_rebuilt == ("index",)
    assert set(bench.release().components) == {"index"}
