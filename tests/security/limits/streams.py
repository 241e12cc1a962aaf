"""What streams and the messages in them may take."""

from dataclasses import replace
from typing import Any

import pytest

from indexrelay.rebuilder import gc
from indexrelay.rebuilder.gc import MAX_HISTORY_BYTES, StreamTrimmer
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.messages import BatchCompleted, Event
from indexrelay.schemas.settings import RebuilderSettings, Settings
from indexrelay.streams import Connection, ConsumerGroup, Keys, consumer
from indexrelay.streams.keys import REBUILDERS_GROUP
from indexrelay.streams.repair import MAX_SCRIPT_BYTES, Action, Repair, find_wrong_keys, repair_key
from indexrelay.streams.retention import GroupState, group_state
from tests.rebuilder.conftest import Bench, behaving
from tests.rebuilder.test_gc_streams import read_up_to
from tests.security.limits.table import Row, exercises

_FEW = 7
"""Stands for the limit, where reaching that itself would take long."""


def bench_of(request: pytest.FixtureRequest) -> Bench:
    make: Any = request.getfixturevalue("make_bench")
    bench: Bench = make(index=behaving("tracks"))
    return bench


def event(**also: Any) -> bytes:
    data = BatchCompleted(collection="tracks", epoch="e", batch_id="b", generation=1)
    raw = Event.of(data, source="test", time=SystemClock().now()).to_bytes()
    extra = "".join(f',"{key}":"{value}"' for key, value in also.items()).encode()
    return raw[:-1] + extra + b"}"


def trimmer_of(bench: Bench, **limits: int) -> StreamTrimmer:
    rebuilder = bench.settings.rebuilder.model_copy(update=limits)
    return StreamTrimmer(
        bench.settings.model_copy(update={"rebuilder": rebuilder}), bench.connection, bench.keys
    )


@exercises("an event's bytes")
def _event(row: Row, request: pytest.FixtureRequest) -> None:
    bench = bench_of(request)
    short = len(event(more=""))
    for size in (row.number, row.number + 1):
        raw = event(more="x" * (size - short))
        bench.connection.commands.xadd(bench.keys.events, {"event": raw})
    bench.rebuilder.step()
    [letter] = bench.catalog.dead_letters.all()
    assert letter.reason == f"{row.number + 1} bytes; at most {row.number}"


@exercises("entries of a stream")
def _entries(_row: Row, request: pytest.FixtureRequest) -> None:
    bench = bench_of(request)
    trimmer = trimmer_of(bench, stream_max_entries=_FEW)
    bench.rebuilder.step()  # makes the group, which then has not read them
    for _ in range(_FEW + 1):
        bench.connection.commands.xadd(bench.keys.events, {"event": event()})
        bench.connection.commands.xadd(bench.keys.reloads, {"event": event()})
    assert trimmer.trim()
    assert bench.connection.commands.xlen(bench.keys.events) == _FEW
    assert not trimmer.trim()


@exercises("results and reports that are kept")
def _history(_row: Row, request: pytest.FixtureRequest) -> None:
    bench = bench_of(request)
    trimmer = trimmer_of(bench, history_entries=_FEW)
    for key in (bench.keys.results, bench.keys.reports("web")):
        for _ in range(_FEW + 1):
            bench.connection.commands.xadd(key, {"event": event()})
    trimmer.trim()
    for key in (bench.keys.results, bench.keys.reports("web")):
        assert bench.connection.commands.xlen(key) == _FEW


@exercises("seconds by which a stream's ids may be ahead of the server's clock")
def _ahead(row: Row, request: pytest.FixtureRequest) -> None:
    bench = bench_of(request)
    now = bench.connection.server_milliseconds()
    for ahead, is_set_aside in ((row.number - 10, False), (row.number + 10, True)):
        bench.connection.commands.delete(bench.keys.results)
        bench.connection.commands.xadd(
            bench.keys.results, {"event": event()}, id=f"{now + ahead * 1000}-0"
        )
        bench.rebuilder._check_readers()
        assert bench.connection.commands.exists(bench.keys.results) != is_set_aside


@exercises("bytes of the results, and of the reports under one id")
def _bytes(row: Row, request: pytest.FixtureRequest) -> None:
    connection: Connection = request.getfixturevalue("redis_connection")  # fakeredis weighs nothing
    keys = Keys("limits")
    trimmer = StreamTrimmer(Settings.model_validate({"namespace": "limits"}), connection, keys)
    assert row.number == MAX_HISTORY_BYTES
    for key in (keys.results, keys.reports("web"), keys.reports("other")):
        for number in range(20):
            connection.commands.xadd(key, {"event": b"%02d" % number + b"x" * 1_000_000})
    connection.commands.xtrim(keys.reports("other"), maxlen=15, approximate=False)
    trimmer.trim()
    assert 12 <= connection.commands.xlen(keys.results) <= 16
    assert connection.commands.xlen(keys.reports("other")) == 15
    newest: Any = connection.commands.xrevrange(keys.reports("web"), count=1)
    assert newest[0][1][b"event"].startswith(b"19")
    connection.commands.flushall()


@exercises("bytes of the scripts, and of the functions, that Redis keeps")
def _scripts(row: Row, request: pytest.FixtureRequest) -> None:
    assert row.number == MAX_SCRIPT_BYTES
    connection: Connection = request.getfixturevalue("redis_connection")
    repair = Repair(connection, Keys("limits"), RebuilderSettings(), components=())
    assert repair.look() == ()
    for number in range(18):
        connection.commands.script_load(f"return '{number}{'x' * 1_000_000}'")
    [step] = repair.look()
    assert step.action is Action.FLUSH_SCRIPTS
    repair.carry_out(step)
    assert repair.look() == ()


@exercises("bytes that are set aside for a week")
def _aside(row: Row, request: pytest.FixtureRequest) -> None:
    connection: Connection = request.getfixturevalue("redis_connection")
    keys, limits = Keys("limits"), RebuilderSettings()
    for size, kept in ((row.number - 10_000, 1), (row.number + 10_000, 0)):
        connection.commands.rpush(keys.results, b"x" * size)
        [wrong] = find_wrong_keys(connection, keys, limits, components=())
        repair_key(connection, keys, wrong, ttl_seconds=15)
        assert connection.commands.delete(keys.aside(keys.results)) == kept


@exercises(
    "bytes of `events`, and of `reloads`, in the server's memory; a sixteenth of `maxmemory` where "
    "that is less"
)
def _stream_bytes(row: Row, request: pytest.FixtureRequest) -> None:
    connection: Connection = request.getfixturevalue("redis_connection")
    keys = Keys("limits")
    few = row.number // 256
    trimmer = StreamTrimmer(
        Settings.model_validate({"rebuilder": {"stream_max_bytes": few}}), connection, keys
    )
    read_up_to(connection, keys, "slow", b"1-0")  # so that reload messages are not read by all
    for key in (keys.events, keys.reloads):
        for _ in range(20):
            connection.commands.xadd(key, {"event": b"x" * (few // 16)})
    assert trimmer.trim()
    for key in (keys.events, keys.reloads):
        assert 5 <= connection.commands.xlen(key) < 20
        assert 0 < int(connection.commands.memory_usage(key) or 0) <= few
    assert not trimmer.trim()


@exercises("seconds after which a rebuilder that is gone is forgotten as a consumer")
def _consumers(row: Row, request: pytest.FixtureRequest) -> None:
    assert row.number == gc._FORGET_SECONDS
    connection: Connection = request.getfixturevalue("redis_connection")
    keys = Keys("limits")
    trimmer = StreamTrimmer(Settings(), connection, keys)
    for name in ("gone", "busy", "here"):
        connection.commands.xadd(keys.events, {"event": b"x"})
        group = ConsumerGroup(connection, keys.events, group=REBUILDERS_GROUP, consumer=name)
        taken = group.read(count=1, block_seconds=0)
        if name != "busy":
            group.acknowledge([each.entry_id for each in taken])
    idle = {"gone": row.number + 1.0, "busy": row.number + 1.0, "here": row.number - 1.0}
    monkeypatch = request.getfixturevalue("monkeypatch")

    def look(*of: Any) -> GroupState | None:
        state = group_state(*of)
        assert state is not None
        consumers = tuple(replace(each, idle_seconds=idle[each.name]) for each in state.consumers)
        return replace(state, consumers=consumers)

    monkeypatch.setattr(gc, "group_state", look)
    trimmer.trim()
    state = group_state(connection, keys.events, REBUILDERS_GROUP)
    assert state is not None
    assert {each.name for each in state.consumers} == {"busy", "here"}


@exercises("bytes of one read of a stream, as far as the last one tells")
def _read(row: Row, request: pytest.FixtureRequest) -> None:
    assert row.number == consumer.MOST_BYTES
    bench = bench_of(request)
    keys, commands = bench.keys, bench.connection.commands
    group = ConsumerGroup(bench.connection, keys.events, group="other", consumer="one")
    for _ in range(20):
        commands.xadd(keys.events, {"event": b"x" * (row.number // 4)})
    taken = [len(group.read(count=10, block_seconds=0)) for _ in range(5)]
    assert taken == [10, 4, 6, 0, 0]
