"""One pass after another, in this process: what is built, and from what."""

from indexrelay.rebuilder.passes import _rank
from indexrelay.schemas.messages import (
    BuildOutcome,
    RebuildStatus,
)
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


def test_nothing_is_built_when_everything_is_covered(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    bench.rebuild()
    assert bench.rebuilder.step() is None
    assert bench.release().number == 1


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


def test_a_release_is_announced_again_to_an_emptied_redis_and_nothing_is_rebuilt(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    bench.rebuild()
    bench.connection.commands.flushall()
    assert bench.rebuilder.step() is None
    assert bench.connection.commands.get(bench.keys.release) == b"1"
    assert bench.release().number == 1


def test_a_corrupt_blob_is_rebuilt(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("a")
    bench.rebuild()
    bench.opened("index").files["count.txt"].unlink()
    result = bench.rebuild()
    assert result.status is RebuildStatus.SUCCESS
    assert bench.opened("index").files["count.txt"].read_text() == "index: 1\n"


def test_what_cannot_be_read_becomes_a_dead_letter_and_blocks_nothing(
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


def test_of_what_is_built_at_once_the_greater_priority_begins_and_takes_its_group_along(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(
        a_last=behaving("tracks", priority=-1),
        b_plain=behaving("tracks"),
        c_first=behaving("tracks", priority=5),
        d_mate=behaving("tracks", group="both"),
        e_urgent=behaving("tracks", group="both", priority=7),
    )
    bench.commit("a")
    order = bench.rebuilder._scheduler.next_order(woken_at=None)
    assert order is not None
    turns = sorted(order.turns, key=lambda turn: _rank(turn, order.facts.definitions))
    built = [name for turn in turns for name in turn]
    assert built == ["d_mate", "e_urgent", "c_first", "b_plain", "a_last"]
