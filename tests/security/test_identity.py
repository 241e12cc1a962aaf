"""Who somebody is follows from the key that only they may write, and not from what stands in it."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from indexrelay.health.judge import judge
from indexrelay.health.status import Code
from indexrelay.health.survey import Survey
from indexrelay.producers import NotServedError, Producer
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.messages import (
    ComponentFailure,
    ComponentState,
    LoadOutcome,
    ReaderState,
    RebuilderState,
    Role,
)
from indexrelay.storage.catalog import Commit
from indexrelay.streams import Presence, members_of
from tests.rebuilder.conftest import Bench, MakeBench, behaving

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    return make_bench(index=behaving("tracks"))


def about(label: str, instance: str) -> dict[str, Any]:
    role = {"rebuilder": label} if label == "builder" else {"reader": label, "ready": True}
    process = {"host": "h", "pid": 1, "instance": instance, "release": 1}
    return {**role, **process, "started_at": NOON, "updated_at": NOON}


def serving(bench: Bench, commit: Commit, label: str, instance: str) -> ReaderState:
    known = bench.catalog.collections.log(commit.collection, [commit.generation])
    component = ComponentState(
        outcome=LoadOutcome.APPLIED,
        version="0" * 64,
        covers={commit.collection: commit.generation},
        epochs={commit.collection: commit.epoch},
        stamps={commit.collection: known.stamps[commit.generation]},
    )
    return ReaderState(**about(label, instance), components={"index": component})


def write(bench: Bench, kind: Role, member: str, state: ReaderState | RebuilderState) -> None:
    raw = state.model_dump_json().encode()
    Presence(bench.connection, bench.keys, kind).publish(member, raw, ttl_seconds=60)


def producer_of(bench: Bench) -> Producer:
    return Producer(bench.settings, catalog=bench.catalog, connection=bench.connection)


def problems(bench: Bench) -> dict[Code, str]:
    survey = Survey(
        bench.settings,
        catalog=lambda: bench.catalog,
        store=lambda: bench.store,
        connection=lambda: bench.connection,
        clock=SystemClock(),
    )
    return {problem.code: problem.what for problem in judge(survey.whole()).problems}


def test_nobody_makes_a_job_believe_that_another_reader_serves(bench: Bench) -> None:
    commit = bench.commit("a")
    honest = serving(bench, commit, "web", "0a").model_copy(update={"components": {}, "release": 0})
    write(bench, "reader", "web:0a", honest)
    write(bench, "reader", "evil:0b", serving(bench, commit, "web", "0a"))
    with producer_of(bench) as producer:
        for readers in (["web"], ["evil"], 2, None):
            with pytest.raises(NotServedError):
                producer.wait_served(commit, timeout_seconds=0, readers=readers)
    assert problems(bench)[Code.MEMBER_DROPPED] == (
        "the presence of reader evil:0b counts for nobody: its state says that it is web:0a"
    )


def test_nobody_keeps_a_job_waiting_in_the_name_of_another_reader(bench: Bench) -> None:
    commit = bench.commit("a")
    write(bench, "reader", "web:0a", serving(bench, commit, "web", "0a"))
    behind = serving(bench, commit, "web", "0c").model_copy(update={"components": {}, "release": 0})
    write(bench, "reader", "evil:0b", behind)
    with producer_of(bench) as producer:
        served = producer.wait_served(commit, timeout_seconds=0, readers=["web"])
    assert served.readers == ("web",)


def test_nobody_fails_a_job_in_the_name_of_another_rebuilder(bench: Bench) -> None:
    commit = bench.commit("a")
    failure = ComponentFailure(
        error="forged", failures=1, targets={"tracks": commit.generation}, failed_at=NOON
    )
    forged = RebuilderState(**about("builder", "0a"), failures={"index": failure})
    write(bench, "rebuilder", "other:0b", forged)
    with producer_of(bench) as producer, pytest.raises(NotServedError) as raised:
        producer.wait_served(commit, timeout_seconds=0)
    assert raised.value.failures == {}
    assert problems(bench)[Code.MEMBER_DROPPED] == (
        "the presence of rebuilder other:0b counts for nobody: its state says that it is builder:0a"
    )


def test_a_dropped_rebuilder_is_not_taken_for_a_running_one(bench: Bench) -> None:
    write(bench, "rebuilder", "other:0b", RebuilderState(**about("builder", "0a")))
    write(bench, "reader", "other:0b", ReaderState(**about("web", "0a")))
    assert {Code.NO_REBUILDER, Code.NO_READER} <= problems(bench).keys()


def test_a_lease_in_the_name_of_a_process_that_is_gone_or_another_is_told(bench: Bench) -> None:
    write(bench, "rebuilder", "builder:0a", RebuilderState(**about("builder", "0a")))
    key = bench.keys.lease("index")
    for owner, is_told in (
        ("builder:1:0a", False),
        ("builder:2:0a", True),
        ("builder:1:0b", True),
        ("builder", True),
        ("x" * 1000, True),
    ):
        bench.connection.commands.set(key, owner, px=9_000)
        assert (Code.LEASE_ORPHANED in problems(bench)) is is_told, owner


def test_a_reader_cannot_keep_what_others_serve_from_being_kept(bench: Bench) -> None:
    """Garbage collection reads presence; a name in a value does not hide its reader's own."""
    commit = bench.commit("a")
    write(bench, "reader", "web:0a", serving(bench, commit, "web", "0a"))
    write(bench, "reader", "evil:0b", ReaderState(**about("web", "0a")))
    garbage = bench.rebuilder._garbage
    assert garbage._served() == ({"0" * 64}, False)
    bench.connection.commands.set(bench.keys.reader("evil:0b"), b"not a state", px=60_000)
    assert garbage._served() == ({"0" * 64}, False)
    bench.connection.commands.delete(bench.keys.reader("evil:0b"))
    assert garbage._served() == ({"0" * 64}, True)


NAIVE = '"2026-03-01T12:00:00"'
STRANGE: dict[str, tuple[str, str]] = {
    "a time without a zone": (f'"{NOON:%Y-%m-%dT%H:%M:%SZ}"', NAIVE),
    "a pid of four thousand digits": ('"pid":1,', f'"pid":1{"0" * 4000},'),
    "a release of four thousand digits": ('"release":1,', f'"release":1{"0" * 4000},'),
    "more components than anybody may declare": (
        '"components":{}',
        f'"components":{json.dumps({f"c{n}": {"outcome": "failed"} for n in range(1001)})}',
    ),
}


@pytest.mark.parametrize("what", STRANGE)
def test_a_state_that_no_process_of_ours_writes_is_dropped_and_told(
    bench: Bench, what: str
) -> None:
    before, after = STRANGE[what]
    state = ReaderState(**{**about("a", "00000000000000aa"), "release": 1}, components={})
    raw = state.model_dump_json()
    assert before in raw
    presence = Presence(bench.connection, bench.keys, "reader")
    presence.publish(state.member, raw.replace(before, after).encode(), ttl_seconds=60)
    assert members_of(bench.connection, bench.keys, ReaderState).states[state.member] is None
    told = problems(bench)
    assert any("a:00000000000000aa" in each for each in told.values()), told
