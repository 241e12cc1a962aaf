"""F21: workers that are forks under one id, one of them stopped and one killed, in every order.

`wait_served` and `status` may say that a commit is served only when each process that answers
queries at that moment answers from it. A killed process counts until its presence ends; a stopped
one as well, and once more as soon as it goes on. Said besides: how soon each claim came.
"""

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from faults.bench import PATIENCE_SECONDS, Bench
from faults.processes import Process
from faults.recorder import COLLECTION
from faults.rows import Row
from faults.workers import LABEL, ORDERS
from indexrelay.console.installation import Installation, verdict_of
from indexrelay.producers import NotServedError
from indexrelay.schemas.messages import ReaderState
from indexrelay.storage.catalog import Commit
from indexrelay.streams import members_of

_WORKERS = 3
_PRESENCE_SECONDS = 1.5
_CLAIM_SECONDS = _PRESENCE_SECONDS + 5.0
"""A killed process's presence, a poll, and a busy machine."""


def run(program: Path, row: Row, runs: int) -> None:
    """Fork, stop one, kill one, commit, and hold each claim against what the workers answer."""
    with Bench(program) as bench:
        bench.start("rebuilder", "rebuilder-1")
        bench.start("reader", "reader-1")
        bench.commit()
        bench.settle()
        server = bench.start("workers", "workers")
        for number in range(runs):
            order = ORDERS[number % len(ORDERS)]
            with row.run(f"{order} first, run {number}"):
                try:
                    _one(bench, row, server, order, random.Random(number))
                finally:
                    server.ask("end")
                bench.wait(lambda: not _members(bench), 3 * _PRESENCE_SECONDS)
        row.broke(bench.violations())


def _one(bench: Bench, row: Row, server: Process, order: str, drawn: random.Random) -> None:
    pids = json.loads(server.ask(f"start {order} {_WORKERS}"))
    bench.wait(lambda: _members(bench) == set(pids) and _ready(bench))
    everyone = len(pids) + 1  # reader-1 is one, too
    served = bench.producer.wait_served(bench.commit(), **_asked(everyone))
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
        bench.producer.wait_served(commit, **_asked(everyone, seconds=0.2))
    except NotServedError as error:
        assert "alive" in str(error), error  # noqa: PT017 - what it says is the claim
    else:
        raise AssertionError(f"{everyone} processes are said to serve, {len(living) + 1} live")
    os.kill(stopped, signal.SIGCONT)
    bench.wait(lambda: _members(bench) == {*living, stopped})
    again = bench.commit()
    bench.producer.wait_served(again, **_asked(everyone - 1))
    _hold_against(server, [*living, stopped], again, "wait_served")
    if _is_well(bench):
        _hold_against(server, [*living, stopped], again, "status")
    row.recovered(claimed, within=_CLAIM_SECONDS)


def _asked(count: int, *, seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
    return {"timeout_seconds": seconds, "readers": count, "fail_fast": False}


def _hold_against(server: Process, pids: list[int], commit: Commit, who: str) -> None:
    """Each of these answers from the commit, or the claim was more than is so."""
    for pid in pids:
        seen = json.loads(server.ask(f"ask {pid}"))
        behind = {
            name: covers for name, covers in seen["covers"].items() if covers < commit.generation
        }
        assert seen["covers"], f"{who} said served, and {pid} serves nothing"
        assert not behind, f"{who} said served at {commit.generation}, and {pid} is at {behind}"


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
