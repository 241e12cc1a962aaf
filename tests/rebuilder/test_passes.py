"""One pass after another, in this process: what is built, released and said."""

import errno
import os
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis
from redis.exceptions import ConnectionError as RedisConnectionError

from indexrelay.rebuilder.publisher import Publisher
from indexrelay.rebuilder.reconciler import RepairOutcome
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.messages import (
    BatchCompleted,
    BuildOutcome,
    Event,
    RebuildFinished,
    RebuildStatus,
    ReleasePublished,
)
from indexrelay.schemas.settings import Metric
from indexrelay.streams import Presence
from tests.rebuilder.conftest import MakeBench, behaving


def test_a_batch_becomes_a_release(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a", "b")
    result = bench.rebuild()
    assert (result.status, result.message) == (
        RebuildStatus.SUCCESS,
        "Successfully rebuilt 1 index(es)",
    )
    assert result.indexes_rebuilt == ("index",)
    assert result.batch_ids == ("batch-1",)
    assert bench.release().number == result.release == 1
    opened = bench.opened("index")
    assert opened.files["count.txt"].read_text() == "index: 2\n"
    assert opened.manifest.covers == {"tracks": 1}


def test_a_release_is_announced_after_it_is_stored_and_the_result_said(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    result = bench.rebuild()
    [published] = bench.messages(bench.keys.reloads)
    assert isinstance(published.data, ReleasePublished)
    assert published.data.release == 1
    assert published.data.digest == bench.store.release(1).digest
    [finished] = bench.messages(bench.keys.results)
    assert isinstance(finished.data, RebuildFinished)
    assert finished.data.message == result.message
    assert bench.connection.commands.get(bench.keys.release) == b"1"


def test_nothing_is_built_when_everything_is_covered(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    bench.rebuild()
    assert bench.rebuilder.step() is None
    assert bench.release().number == 1


def test_an_event_for_what_is_covered_already_gives_a_result_and_no_release(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(index=behaving("tracks"))
    commit = bench.commit("a")
    bench.rebuild()
    event = Event.of(
        BatchCompleted(collection="tracks", epoch=commit.epoch, batch_id="batch-1", generation=1),
        source="test",
        time=bench.release().created_at,
    )
    bench.connection.commands.xadd(bench.keys.events, {"event": event.to_bytes()})
    result = bench.rebuild()
    assert (result.status, result.message, result.release) == (
        RebuildStatus.SUCCESS,
        "Nothing was due",
        None,
    )
    assert bench.release().number == 1


def test_several_batches_that_came_together_make_one_release(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    bench.commit("b")
    bench.commit("c")
    result = bench.rebuild()
    assert result.batch_ids == ("batch-1", "batch-2", "batch-3")
    assert result.components["index"].covers == {"tracks": 3}
    assert bench.rebuilder.step() is None


def test_a_failed_component_keeps_its_last_version_and_the_others_go_on(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(good=behaving("tracks"), bad=behaving("tracks"))
    bench.commit("a")
    bench.rebuild()
    before = bench.release().components
    bad = behaving("tracks", behaviour="raises")
    rebuilder = bench.another(components={"good": behaving("tracks"), "bad": bad})
    bench.commit("b")
    result = bench.rebuild(rebuilder)
    assert result.status is RebuildStatus.PARTIAL_SUCCESS
    assert result.message == "Rebuilt 1 of 2 index(es); failed: bad"
    assert (result.indexes_rebuilt, result.indexes_failed) == (("good",), ("bad",))
    error = str(result.components["bad"].error)
    assert error.startswith("ValueError: the build raised (tests/rebuilder/kinds.py:")
    after = bench.release().components
    assert after["bad"] == before["bad"]
    assert after["good"] != before["good"]


def test_when_all_fail_there_is_a_result_and_no_release(make_bench: MakeBench) -> None:
    bench = make_bench(bad=behaving("tracks", behaviour="raises"))
    bench.commit("a")
    result = bench.rebuild()
    assert (result.status, result.message) == (RebuildStatus.FAILURE, "All index rebuilds failed")
    assert result.release is None
    assert bench.store.newest_release() is None
    assert bench.messages(bench.keys.reloads) == []
    [finished] = bench.messages(bench.keys.results)
    assert isinstance(finished.data, RebuildFinished)
    assert finished.data.status is RebuildStatus.FAILURE


def test_what_is_made_from_a_failed_component_is_skipped_with_the_reason(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(
        good=behaving("tracks"),
        parent=behaving("tracks", behaviour="raises"),
        child=behaving("parent"),
        grandchild=behaving("child"),
    )
    bench.commit("a")
    result = bench.rebuild()
    assert result.indexes_failed == ("parent",)
    assert result.components["child"].outcome is BuildOutcome.SKIPPED
    assert result.components["child"].error == "parent, which it is made from, was not rebuilt"
    assert result.components["grandchild"].outcome is BuildOutcome.SKIPPED
    assert set(bench.release().components) == {"good"}


def test_a_child_is_made_from_the_version_that_its_parent_got_in_the_same_pass(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(parent=behaving("tracks"), child=behaving("parent"))
    bench.commit("a", "b")
    result = bench.rebuild()
    child = bench.opened("child").manifest
    assert child.parents == {"parent": result.components["parent"].version}
    assert child.covers == {"tracks": 1}


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        ("gate_raises", "gate verify: ValueError: the gate raised"),
        ("gate_fails", "gate taste: measured 0.1, limit 0.9"),
    ],
)
def test_what_does_not_pass_its_gates_is_not_released(
    make_bench: MakeBench, behaviour: str, error: str
) -> None:
    bench = make_bench(index=behaving("tracks", behaviour=behaviour))
    bench.commit("a")
    result = bench.rebuild()
    assert str(result.components["index"].error).startswith(error)
    assert bench.store.newest_release() is None
    assert list(bench.store.root.glob("blobs/sha256/*/*")) == []


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


def test_losing_most_entries_needs_force(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a", "b", "c", "d")
    bench.rebuild()
    bench.commit(deletes=("a", "b", "c"))
    result = bench.rebuild()
    assert result.status is RebuildStatus.FAILURE
    assert "1 entries where the last version has 4" in str(result.components["index"].error)
    assert bench.release().number == 1
    bench.catalog.inbox.request("r1", components=("index",), force=True, reason="it is right")
    result = bench.rebuild()
    assert result.status is RebuildStatus.SUCCESS
    assert result.request_ids == ("r1",)
    assert result.components["index"].entries == 1


def test_a_release_that_could_not_be_announced_stands_and_is_announced_later(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")

    def refuse(*_args: object, **_keys: object) -> bool:
        raise redis.ConnectionError("connection refused")

    with monkeypatch.context() as patch:
        patch.setattr("indexrelay.rebuilder.publisher.announce", refuse)
        patch.setattr("indexrelay.rebuilder.publisher.publish", refuse)
        result = bench.rebuild()
    assert result.status is RebuildStatus.PARTIAL_SUCCESS
    assert (
        result.message == "1 index(es) rebuilt but reload notification failed: connection refused"
    )
    assert bench.release().number == 1
    assert bench.messages(bench.keys.reloads) == []
    bench.rebuilder.step()
    [published] = bench.messages(bench.keys.reloads)
    assert isinstance(published.data, ReleasePublished)
    assert published.data.release == 1
    assert bench.connection.commands.get(bench.keys.release) == b"1"


def test_an_emptied_redis_is_told_the_release_again_and_nothing_is_rebuilt(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    bench.rebuild()
    bench.connection.commands.flushall()
    assert bench.rebuilder.step() is None
    assert bench.connection.commands.get(bench.keys.release) == b"1"
    assert bench.release().number == 1


def test_a_damaged_blob_is_rebuilt(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    bench.rebuild()
    bench.opened("index").files["count.txt"].unlink()
    result = bench.rebuild()
    assert result.status is RebuildStatus.SUCCESS
    assert bench.opened("index").files["count.txt"].read_text() == "index: 1\n"


def test_a_component_that_is_no_longer_defined_leaves_the_release(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"), old=behaving("tracks"))
    bench.commit("a")
    bench.rebuild()
    bench.rebuilder.stop()
    rebuilder = bench.another(components={"index": behaving("tracks")})
    assert rebuilder.step() is None
    release = bench.release()
    assert (release.number, set(release.components)) == (2, {"index"})


def test_a_component_stays_while_a_rebuilder_runs_that_would_build_it_anew(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(index=behaving("tracks", group="pair"), old=behaving("tracks", group="pair"))
    bench.commit("a")
    bench.rebuild()
    later = bench.another(components={"index": behaving("tracks", group="pair")})
    bench.commit("b")
    bench.rebuild(later)
    release = bench.release()
    assert set(release.components) == {"index", "old"}
    assert release.groups == {"index": "pair"}  # nobody here brings it to the state of the others
    assert bench.opened("index").manifest.covers == {"tracks": 2}
    (finding,) = later._repair().findings
    assert finding.outcome is RepairOutcome.LEFT
    who = f"rebuilder {bench.rebuilder.id} ({socket.gethostname()}:{os.getpid()})"
    assert finding.what == (
        f"old is declared no longer and stays in the release: {who} was started with it, "
        "and would build it again"
    )
    bench.rebuilder.stop()
    later.step()
    assert set(bench.release().components) == {"index"}


def test_what_is_declared_no_longer_leaves_where_nobody_can_say_who_declares_it(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(index=behaving("tracks"), old=behaving("tracks"))
    bench.commit("a")
    bench.rebuild()
    later = bench.another(components={"index": behaving("tracks")})

    def away(*_args: object, **_named: object) -> None:
        raise RedisConnectionError("away")

    monkeypatch.setattr(Presence, "look", away)
    bench.commit("b")
    order = later._scheduler.next_order(woken_at=None)
    assert order is not None
    later._run_pass(order)
    assert set(bench.release().components) == {"index"}


def test_what_cannot_be_read_becomes_a_dead_letter_and_holds_up_nobody(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    poison = b"\xff\x00 not an event"
    bench.connection.commands.xadd(bench.keys.events, {"event": poison})
    assert bench.rebuild().status is RebuildStatus.SUCCESS
    [letter] = bench.catalog.dead_letters.all()
    assert letter.raw == poison
    assert bench.connection.commands.xpending(bench.keys.events, "rebuilder")["pending"] == 0


def test_a_lease_held_elsewhere_leaves_the_component_and_its_children_to_later(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(
        parent=behaving("tracks"), child=behaving("parent"), other=behaving("tracks")
    )
    bench.commit("a")
    bench.connection.commands.set(bench.keys.lease("parent"), "somebody", px=60_000)
    result = bench.rebuild()
    assert result.indexes_rebuilt == ("other",)
    bench.connection.commands.delete(bench.keys.lease("parent"))
    assert bench.rebuild().indexes_rebuilt == ("parent", "child")


def test_a_request_waits_for_its_component_to_be_free(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    bench.rebuild()
    bench.connection.commands.set(bench.keys.lease("index"), "somebody", px=60_000)
    bench.catalog.inbox.request("r1", components=("index",), force=False, reason="")
    assert bench.rebuilder.step() is None
    bench.connection.commands.delete(bench.keys.lease("index"))
    assert bench.rebuild().request_ids == ("r1",)
    assert bench.catalog.inbox.open() == []


def test_a_request_for_a_held_component_fails_and_says_why(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"), other=behaving("tracks"))
    bench.commit("a")
    bench.rebuild()
    bench.store.hold("index", reason="it was better")
    bench.catalog.inbox.request("r1", components=("index",), force=False, reason="")
    result = bench.rebuild()
    assert (result.status, result.request_ids) == (RebuildStatus.FAILURE, ("r1",))
    assert result.message == "index was not built: it is held (it was better); lift it first"
    bench.catalog.inbox.request("r2", components=("index", "other"), force=False, reason="")
    result = bench.rebuild()
    assert result.status is RebuildStatus.PARTIAL_SUCCESS
    assert result.indexes_rebuilt == ("other",)


@pytest.mark.parametrize(
    ("name", "why"),
    [("nonsense", "there is no such component"), ("index", "nothing was committed to tracks yet")],
)
def test_a_request_for_what_cannot_be_built_says_why(
    make_bench: MakeBench, name: str, why: str
) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.catalog.inbox.request("r1", components=(name,), force=False, reason="")
    result = bench.rebuild()
    assert (result.status, result.message) == (
        RebuildStatus.FAILURE,
        f"{name} was not built: {why}",
    )


def test_a_forcing_request_that_names_nothing_waits_for_all_that_is_due(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(index=behaving("tracks"), other=behaving("tracks"))
    bench.commit("a", "b", "c", "d")
    bench.rebuild()
    bench.commit(deletes=("a", "b", "c"))
    bench.catalog.inbox.request("r1", components=(), force=True, reason="")
    bench.connection.commands.set(bench.keys.lease("other"), "somebody", px=60_000)
    assert bench.rebuild().indexes_failed == ("index",)  # without its force
    bench.connection.commands.delete(bench.keys.lease("other"))
    result = bench.rebuild()
    assert (result.status, result.request_ids) == (RebuildStatus.SUCCESS, ("r1",))
    assert set(result.indexes_rebuilt) <= {"index", "other"}


def test_rebuilders_with_different_settings_do_not_fight(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"), old=behaving("tracks", group="pair"))
    bench.commit("a")
    bench.rebuild()
    later = bench.another(
        components={
            "index": behaving("tracks", colour="blue"),
            "new": behaving("tracks", group="pair"),
        }
    )
    assert set(bench.rebuild(later).indexes_rebuilt) == {"index", "new"}
    bench.rebuilder.step()  # has "old", knows no "new", and another definition of "index"
    settled = bench.release()
    assert set(settled.components) == {"index", "new", "old"}
    for _ in range(3):
        assert later.step() is None
        assert bench.rebuilder.step() is None
    assert bench.release().number == settled.number
    bench.commit("b")
    later.step()
    bench.rebuilder.step()
    index = bench.opened("index").manifest
    assert (index.parameters["colour"], index.covers) == ("blue", {"tracks": 2})


def test_a_full_disk_is_remembered_as_a_cause_outside(make_bench: MakeBench) -> None:
    bench = make_bench(
        full=behaving("tracks", behaviour="full"), bad=behaving("tracks", behaviour="raises")
    )
    bench.commit("a")
    result = bench.rebuild()
    assert "No space left on device; make room on that disk" in str(result.components["full"].error)
    transient = {name: tried.transient for name, tried in bench.catalog.attempts.all().items()}
    assert transient == {"full": True, "bad": False}


def test_a_publisher_that_was_overtaken_changes_nothing(make_bench: MakeBench) -> None:
    bench = make_bench(parent=behaving("tracks"), child=behaving("parent"))
    publisher = Publisher(store=bench.store, clock=SystemClock())
    bench.commit("a")
    bench.rebuild()
    released = bench.release()
    parent = bench.opened("parent").manifest.model_copy(update={"created_at": datetime.now(UTC)})
    child = bench.opened("child").manifest.model_copy(update={"parents": {"parent": parent.id}})
    late = {"parent": parent, "child": child}
    for manifest in late.values():
        bench.store.put_version(manifest)
    definitions = bench.settings.components
    assert publisher.publish(late, definitions=definitions, reason="late").release is None
    assert bench.release() == released
    asked = publisher.publish(
        late, definitions=definitions, anyway={"parent"}, reason="asked"
    ).release
    assert asked is not None
    assert asked.components == {name: manifest.id for name, manifest in late.items()}


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
