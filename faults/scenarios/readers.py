"""Many readers at once, and readers that are forks under one id.

F15: fifty readers start at once, and then all of them restart: everyone applies the release. Each
is a process of its own, forked from one that has everything imported. Measured besides: over how
long their start was spread, by what each meant to wait and by when the server heard of each, and
the same without any spread. A new release at the end reaches all of them at once.

F21: workers that are forks under one id, one of them stopped and one killed, in every order.
`wait_served` and `status` may say that a commit is served only when each process that answers
queries at that moment answers from it. A killed process counts until its presence ends; a stopped
one as well, and once more as soon as it goes on.
"""

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from faults.bench import HERD, PATIENCE_SECONDS, Bench
from faults.processes import Process
from faults.readers import LABEL, ORDERS
from faults.recorder import COLLECTION
from faults.rows import Row
from indexrelay.console.installation import Installation, verdict_of
from indexrelay.producers import NotServedError
from indexrelay.schemas.messages import ReaderState, ReleaseApplied
from indexrelay.storage.catalog import Commit
from indexrelay.streams import members_of

_SPREAD_SECONDS = 0.2
"""The setting's default."""
_APPLIED_SECONDS = 15.0
"""Two cores have fifty processes to start, each with its own connections and threads."""
_SLOT_MS = 10


def in_a_herd(program: Path, row: Row, runs: int) -> None:
    """Start all, restart all, release; where runs are timed, once without a spread, for figures."""
    with Bench(program) as bench:
        bench.bring_up(readers=1)
        herd = bench.start("herd", "herd")
        for number in range(runs):
            for what in ("start", "restart"):
                with row.run(f"{what}, run {number}"):
                    try:
                        _start_herd(bench, row, herd, what, _SPREAD_SECONDS)
                        _check_spread(bench)
                        if what == "restart":
                            _release_to_herd(bench, row)
                    finally:
                        ended = int(herd.ask("stop"))
                    assert ended == HERD, f"{ended} of {HERD} ended well"
        if row.timed:
            _start_herd(bench, row, herd, "without a spread", 0.0)
            herd.ask("stop")
        row.broke(bench.violations())


def _start_herd(bench: Bench, row: Row, herd: Process, what: str, spread_seconds: float) -> None:
    bench.recorder.watch()
    before = _reported(bench).keys()
    started = time.monotonic()
    assert int(herd.ask(f"start {spread_seconds}")) == HERD
    bench.wait(lambda: _applied(bench))
    seconds = time.monotonic() - started
    bench.wait(lambda: len(_reported(bench).keys() - before) == HERD)  # a moment after presence
    at = sorted(
        milliseconds for each, milliseconds in _reported(bench).items() if each not in before
    )
    busiest = max(Counter(each // _SLOT_MS for each in at).values())
    row.figures.append(
        f"{what}: {HERD} readers reported within {at[-1] - at[0]} ms, at most {busiest} of them in "
        f"the same {_SLOT_MS} ms; all applied after {seconds:.2f} s"
    )
    if spread_seconds:
        row.recovered(seconds, within=_APPLIED_SECONDS)
        assert at[-1] - at[0] >= 500 * spread_seconds, "their start was not spread"


def _release_to_herd(bench: Bench, row: Row) -> None:
    started = time.monotonic()
    bench.commit()
    bench.settle()
    bench.wait(lambda: _applied(bench))
    seconds = time.monotonic() - started
    row.figures.append(f"a batch reached all {HERD} after {seconds:.2f} s")


def _check_spread(bench: Bench) -> None:
    """What each means to wait, by its own log, fills the time that there is."""
    waits = [
        line["first_look_in_seconds"]
        for file in (bench.folder / "logs").glob("herd-*.log")
        for line in map(json.loads, file.read_text(encoding="utf-8").splitlines())
        if line["event"] == "reader.started"
    ]
    assert max(waits) - min(waits) >= 0.8 * _SPREAD_SECONDS, f"waits: {sorted(waits)}"


def _applied(bench: Bench) -> bool:
    """Whether every reader of the herd serves the newest release."""
    newest = bench.store.newest_release()
    states = bench.states()
    mine = [state for name, state in states.items() if name.startswith("herd")]
    return (
        newest is not None
        and len(mine) == HERD
        and all(state.ready and state.release == newest.number for state in mine)
    )


def _reported(bench: Bench) -> dict[bytes, int]:
    """The herd's reports by their entries, with the server's time of each in milliseconds."""
    return {
        entry: int(entry.split()[1].split(b"-")[0])
        for entry, event in bench.recorder.reports()
        if isinstance(event.data, ReleaseApplied) and event.data.reader.startswith("herd")
    }


_WORKERS = 3
_PRESENCE_SECONDS = 1.5
_CLAIM_SECONDS = _PRESENCE_SECONDS + 5.0
"""A killed process's presence, a poll, and a busy machine."""


def as_forks(program: Path, row: Row, runs: int) -> None:
    """Fork, stop one, kill one, commit, and hold each claim against what the workers answer."""
    with Bench(program) as bench:
        bench.bring_up(readers=1)
        server = bench.start("workers", "workers")
        for number in range(runs):
            order = ORDERS[number % len(ORDERS)]
            with row.run(f"{order} first, run {number}"):
                try:
                    _fork_once(bench, row, server, order, random.Random(number))
                finally:
                    server.ask("end")
                bench.wait(lambda: not _members(bench), 3 * _PRESENCE_SECONDS)
        row.broke(bench.violations())


def _fork_once(bench: Bench, row: Row, server: Process, order: str, drawn: random.Random) -> None:
    pids = json.loads(server.ask(f"start {order} {_WORKERS}"))
    bench.wait(lambda: _members(bench) == set(pids) and _ready(bench))
    served = bench.producer.wait_served(bench.commit(), **_asked(len(pids)))
    assert served.readers.count(LABEL) == len(pids), served.readers
    stopped, killed = drawn.sample(pids[:_WORKERS], 2)
    acts = [(stopped, signal.SIGSTOP), (killed, signal.SIGKILL)]
    drawn.shuffle(acts)
    early = drawn.randrange(3)  # how many of both come before the commit
    for pid, act in acts[:early]:
        os.kill(pid, act)
    commit = bench.commit()
    for pid, act in acts[early:]:
        time.sleep(drawn.random() * 0.1)
        os.kill(pid, act)
    living = [pid for pid in pids if pid not in (stopped, killed)]
    started = time.monotonic()
    served = bench.producer.wait_served(
        commit, timeout_seconds=PATIENCE_SECONDS, readers={LABEL}, fail_fast=False
    )
    claimed = time.monotonic() - started
    _hold_against(server, living, commit, "wait_served")
    assert served.readers.count(LABEL) >= len(living), served.readers
    # Those that are not there any more are not counted among so many.
    bench.wait(lambda: _members(bench) == set(living), 4 * _PRESENCE_SECONDS)
    try:
        bench.producer.wait_served(commit, **_asked(len(pids), seconds=0.2))
    except NotServedError as error:
        assert "alive" in str(error), error  # noqa: PT017 - its words are the claim
    else:
        raise AssertionError(f"{len(pids)} workers are claimed to serve, {len(living)} live")
    os.kill(stopped, signal.SIGCONT)
    bench.wait(lambda: _members(bench) == {*living, stopped})
    again = bench.commit()
    bench.producer.wait_served(again, **_asked(len(pids) - 1))
    _hold_against(server, [*living, stopped], again, "wait_served")
    if _is_well(bench):
        _hold_against(server, [*living, stopped], again, "status")
    row.recovered(claimed, within=_CLAIM_SECONDS)


def _asked(workers: int, *, seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
    """That so many workers serve, and the reader beside them."""
    readers = {LABEL: workers, "reader-1": 1}
    return {"timeout_seconds": seconds, "readers": readers, "fail_fast": False}


def _hold_against(server: Process, pids: list[int], commit: Commit, who: str) -> None:
    """Each of these answers from the commit, or the claim was more than is so."""
    for pid in pids:
        seen = json.loads(server.ask(f"ask {pid}"))
        behind = {
            name: covers for name, covers in seen["covers"].items() if covers < commit.generation
        }
        assert seen["covers"], f"{who} claims served, and {pid} serves nothing"
        assert not behind, f"{who} claims served at {commit.generation}, and {pid} is at {behind}"


def _members(bench: Bench) -> set[int]:
    """The processes under the label, as presence shows them."""
    found = members_of(bench.connection, bench.keys, ReaderState).known.values()
    return {state.pid for state in found if state.reader == LABEL}


def _ready(bench: Bench) -> bool:
    found = members_of(bench.connection, bench.keys, ReaderState).states.values()
    return all(state is not None and state.ready for state in found)


def _is_well(bench: Bench) -> bool:
    with Installation(bench.settings) as installation:
        verdict = verdict_of(installation)
    return verdict.well and COLLECTION in verdict.collections
