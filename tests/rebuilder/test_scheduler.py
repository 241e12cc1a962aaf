"""Which rebuilder builds what, once: between passes, between hosts, and between two looks."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from indexrelay.health.judge import judge
from indexrelay.health.status import Condition
from indexrelay.rebuilder import Rebuilder
from indexrelay.rebuilder.passes import PassOrder
from indexrelay.rebuilder.scheduler import Scheduler
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.messages import RebuildResult, RebuildStatus
from indexrelay.storage.catalog import Attempts, Inbox
from indexrelay.streams import BackendRefusedError, Lease
from tests.rebuilder.conftest import Bench, MakeBench, behaving

BY_HAND = {"dimension": 2, "metric": "l2", "persistence": "manual"}


def condition(rebuilder: Rebuilder, component: str) -> Condition:
    """What ``status`` says of a component."""
    return judge(rebuilder._whole_survey.whole()).components[component].condition


def scheduler(bench: Bench) -> Scheduler:
    return bench.rebuilder._scheduler


def order(bench: Bench) -> PassOrder:
    """The next pass, which must be there; it is not carried out."""
    found = scheduler(bench).next_order(woken_at=None)
    assert found is not None
    return found


def once(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, act: Callable[[], Any]) -> None:
    """Do something the first time that a method was called, right behind it."""
    original = getattr(owner, name)
    acted: list[bool] = []

    def method(self: Any, *args: Any, **keys: Any) -> Any:
        result = original(self, *args, **keys)
        if not acted:
            acted.append(True)
            act()
        return result

    monkeypatch.setattr(owner, name, method)


def test_a_request_waits_as_a_whole_while_one_of_its_components_is_not_free(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(a=behaving("tracks"), b=behaving("tracks"))
    bench.commit("x")
    bench.rebuild()
    bench.connection.commands.set(bench.keys.lease("b"), "somebody", px=60_000)
    bench.catalog.inbox.request("r1", components=("a", "b"), force=False, reason="")
    assert [bench.rebuilder.step() for _ in range(3)] == [None, None, None]
    assert not bench.connection.commands.exists(bench.keys.lease("a"))
    bench.connection.commands.delete(bench.keys.lease("b"))
    assert bench.rebuild().indexes_rebuilt == ("a", "b")
    assert bench.rebuilder.step() is None


@pytest.mark.parametrize("components", [(), ("index",)])
def test_what_somebody_asked_for_is_behind_and_not_deferred(
    make_bench: MakeBench, components: tuple[str, ...]
) -> None:
    bench = make_bench(index=behaving("tracks"))
    rebuilder = bench.another(collections={"tracks": BY_HAND})
    bench.commit("x")
    bench.rebuild(rebuilder)
    bench.commit("y")
    assert condition(rebuilder, "index") is Condition.DEFERRED
    bench.catalog.inbox.request("r1", components=components, force=False, reason="")
    assert condition(rebuilder, "index") is Condition.BEHIND
    bench.rebuild(rebuilder)
    bench.commit("z")
    assert condition(rebuilder, "index") is Condition.DEFERRED


def test_a_request_for_whatever_is_due_waits_for_what_is_due_by_it_alone(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(a=behaving("tracks"), b=behaving("tracks"))
    rebuilder = bench.another(collections={"tracks": BY_HAND})
    bench.commit("x")
    bench.rebuild(rebuilder)
    bench.commit("y")
    bench.connection.commands.set(bench.keys.lease("b"), "somebody", px=60_000)
    bench.catalog.inbox.request("r1", components=(), force=False, reason="")
    assert [rebuilder.step() for _ in range(3)] == [None, None, None]
    assert condition(rebuilder, "b") is Condition.BEHIND
    bench.connection.commands.delete(bench.keys.lease("b"))
    result = bench.rebuild(rebuilder)
    assert (result.indexes_rebuilt, result.request_ids) == (("a", "b"), ("r1",))


def test_a_component_that_waits_for_a_request_is_still_built_for_a_batch(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(a=behaving("tracks"), b=behaving("tracks"))
    bench.commit("x")
    bench.rebuild()
    bench.connection.commands.set(bench.keys.lease("b"), "somebody", px=60_000)
    bench.catalog.inbox.request("r1", components=("a", "b"), force=False, reason="")
    bench.commit("y")
    result = bench.rebuild()
    assert (result.indexes_rebuilt, result.request_ids) == (("a",), ())


def test_what_another_host_built_between_look_and_lease_is_not_built_again(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(index=behaving("tracks"))
    other = bench.another()
    bench.commit("x")
    once(monkeypatch, Attempts, "paused", other.step)  # the last fact that a look reads
    assert bench.rebuilder.step() is None
    assert bench.release().number == 1
    assert not bench.connection.commands.exists(bench.keys.lease("index"))


def test_a_request_that_a_pass_finishes_during_a_look_is_not_answered_twice(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("x")
    bench.rebuild()
    bench.catalog.inbox.request("r1", components=("index",), force=False, reason="")
    first = order(bench)
    once(monkeypatch, Inbox, "open", lambda: bench.rebuilder._run_pass(first))
    assert scheduler(bench).next_order(woken_at=None) is None


def test_a_pass_that_ends_frees_nothing_that_a_later_one_took(make_bench: MakeBench) -> None:
    bench = make_bench(quick=behaving("tracks"), slow=behaving("tracks"))
    bench.commit("x")
    first = order(bench)
    now = SystemClock().now()
    result = RebuildResult(
        status=RebuildStatus.SUCCESS, message="", started_at=now, finished_at=now
    )
    scheduler(bench).free(["quick"], result)  # released before the rest of its pass
    second = order(bench)
    assert set(second.reasons) == {"quick"}
    scheduler(bench).end(first, left={"slow"}, answered=True)
    assert scheduler(bench).building == ("quick",)
    assert bench.connection.commands.exists(bench.keys.lease("quick"))


def test_a_request_that_cannot_be_read_becomes_a_dead_letter_and_blocks_nothing(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("x")
    bench.catalog.inbox.request("z", components=(), reason="")
    with create_engine(bench.settings.catalog_url).begin() as database:  # of a later release
        database.execute(text("UPDATE indexrelay_inbox SET body = :body"), {"body": b"{}"})
    assert bench.rebuild().indexes_rebuilt == ("index",)
    [letter] = bench.catalog.dead_letters.all()
    assert (letter.stream, letter.entry_id, letter.raw) == ("inbox", "z", b"{}")
    assert bench.catalog.inbox.open() == []


def test_a_server_that_refuses_to_take_leases_back_keeps_nothing_from_being_built_again(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(a=behaving("tracks"), b=behaving("tracks"), c=behaving("tracks"))
    bench.commit("x")

    def refuse(_lease: Lease) -> bool:
        raise BackendRefusedError("lease", "READONLY", "replica")

    with monkeypatch.context() as patch:
        patch.setattr(Lease, "release", refuse)
        bench.rebuild()
    assert scheduler(bench).building == ()
    bench.commit("y")
    assert bench.rebuild().indexes_rebuilt == ("a", "b", "c")


def test_a_catalog_that_cannot_close_requests_does_not_keep_them_from_a_later_pass(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(index=behaving("tracks"))
    bench.commit("x")
    bench.catalog.inbox.request("r1", components=("index",), force=False, reason="")

    def refuse(*_args: object, **_keys: object) -> None:
        raise OSError("database is locked")

    with monkeypatch.context() as patch:
        patch.setattr(Inbox, "finish", refuse)
        with pytest.raises(OSError, match="locked"):
            bench.rebuilder.step()
    assert scheduler(bench).building == ()
    assert not bench.connection.commands.exists(bench.keys.lease("index"))
    assert bench.rebuild().request_ids == ("r1",)
