"""What a release contains, and how it is announced."""

import os
import socket
from datetime import UTC, datetime

import pytest
import redis
from redis.exceptions import ConnectionError as RedisConnectionError

from indexrelay.health.judge import judge
from indexrelay.health.status import Actor, Code
from indexrelay.rebuilder.publisher import Publisher
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.messages import (
    RebuildFinished,
    RebuildStatus,
    ReleasePublished,
)
from indexrelay.streams import Presence
from tests.rebuilder.conftest import MakeBench, behaving


def test_a_release_is_announced_with_its_result_after_it_is_stored(
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


def test_a_release_that_could_not_be_announced_stays_and_is_announced_later(
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


def test_a_component_that_is_no_longer_defined_leaves_the_release(make_bench: MakeBench) -> None:
    bench = make_bench(index=behaving("tracks"), old=behaving("tracks"))
    bench.commit("a")
    bench.rebuild()
    bench.rebuilder.stop()
    rebuilder = bench.another(components={"index": behaving("tracks")})
    assert rebuilder.step() is None
    release = bench.release()
    assert (release.number, set(release.components)) == (2, {"index"})


def test_a_component_stays_while_a_rebuilder_runs_that_would_build_it_again(
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
    assert later._repair().findings == ()  # the judge reports it, and there is nothing to repair
    [problem] = [
        each
        for each in judge(later._survey.whole()).problems
        if each.code is Code.COMPONENT_UNDECLARED
    ]
    who = f"rebuilder {bench.rebuilder.id} ({socket.gethostname()}:{os.getpid()})"
    assert problem.acts is Actor.PERSON
    assert problem.what == (
        "old is released, and the settings do not declare it; it stays, since "
        f"{who} does and would build it again"
    )
    bench.rebuilder.stop()
    later.step()
    assert set(bench.release().components) == {"index"}


def test_what_is_declared_no_longer_leaves_where_presence_cannot_be_read(
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
