"""What streams and the messages in them may take."""

from typing import Any

import pytest

from indexrelay.rebuilder.janitor import Janitor
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.events import BatchCompleted, Event
from tests.rebuilder.conftest import Bench, behaving
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


def janitor_of(bench: Bench, **limits: int) -> Janitor:
    rebuilder = bench.settings.rebuilder.model_copy(update=limits)
    return Janitor(
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
    janitor = janitor_of(bench, stream_max_entries=_FEW)
    bench.rebuilder.step()  # makes the group, which then has not read them
    for _ in range(_FEW + 1):
        bench.connection.commands.xadd(bench.keys.events, {"event": event()})
        bench.connection.commands.xadd(bench.keys.reloads, {"event": event()})
    assert janitor.trim()
    assert bench.connection.commands.xlen(bench.keys.events) == _FEW
    assert not janitor.trim()


@exercises("results and reports that are kept")
def _history(_row: Row, request: pytest.FixtureRequest) -> None:
    bench = bench_of(request)
    janitor = janitor_of(bench, history_entries=_FEW)
    for key in (bench.keys.results, bench.keys.reports("web")):
        for _ in range(_FEW + 1):
            bench.connection.commands.xadd(key, {"event": event()})
    janitor.trim()
    for key in (bench.keys.results, bench.keys.reports("web")):
        assert bench.connection.commands.xlen(key) == _FEW
