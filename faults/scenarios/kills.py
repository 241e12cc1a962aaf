"""Processes that are killed, at failpoints and at random, or told to end; and jobs that repeat.

F1: SIGKILL at every failpoint; all is recovered within the lease's TTL and five seconds.

F2: SIGKILL of any process at any moment, under load: nothing is lost, nothing is done twice. The
seed of each run is in its name, so that one that did not hold can be repeated; the moments are not
quite the same again, and F1 is for the exact ones.

F3: SIGTERM during a blocked read and during a build: an end in time, and nothing is left behind.

F13: every event ten times and in any order, and each batch committed twice: as if once.
"""

import json
import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faults.bench import BLOCK_SECONDS, LEASE_SECONDS, Bench
from faults.processes import Process
from faults.rows import Row
from faults.scenarios.live import LIVE
from indexrelay.schemas.failpoints import FAILPOINTS
from indexrelay.streams import publish_many

RECOVERED_SECONDS = LEASE_SECONDS + 5
OWNERS = {
    "producer": "producer",
    "intake": "rebuilder",
    "dispatch": "rebuilder",
    "release": "rebuilder",
    "announce": "rebuilder",
    "inbox": "rebuilder",
    "reader": "reader",
}
"""Who passes a point; builds and their files are children that are not started again."""


def at_failpoints(program: Path, row: Row, runs: int, points: Sequence[str] = FAILPOINTS) -> None:
    """Kill the process that passes each point, ``runs`` times."""
    waiting = [point for point in points for _ in range(runs)]
    while waiting:
        with Bench(program, tables=LIVE) as bench:  # or no job would pass `before_changes`
            _start_all(bench)
            broken = len(row.broken)
            while waiting and len(row.broken) == broken:  # what broke gets no second chance to
                point = waiting.pop(0)
                with row.run(point):
                    _kill_at(bench, row, point)
            row.broke(bench.violations() if len(row.broken) == broken else [])


def _start_all(bench: Bench) -> None:
    bench.start("producer", "producer-1")
    bench.bring_up()


def _kill_at(bench: Bench, row: Row, point: str) -> None:
    token = bench.token(point)
    token.touch()
    batch = bench.new_batch()
    reply = _ask_job(bench, batch)
    bench.wait(lambda: not token.exists())
    hit_at = time.monotonic()
    _start_victim(bench, point)
    if not reply:  # the job's next run: the same batch under the same id
        reply = _ask_job(bench, batch)
    assert json.loads(reply)["generation"] > 0
    bench.settle()
    row.recovered(time.monotonic() - hit_at, within=RECOVERED_SECONDS)


def _ask_job(bench: Bench, batch: tuple[str, Sequence[str]]) -> str:
    batch_id, ids = batch
    return bench.processes["producer-1"].ask(json.dumps({"batch_id": batch_id, "ids": ids}))


def _start_victim(bench: Bench, point: str) -> None:
    """What a supervisor does with the process that was hit."""
    owner = OWNERS.get(point.split(".", maxsplit=1)[0])
    if owner is None:
        return
    mine = [each for name, each in bench.processes.items() if name.startswith(owner)]
    bench.wait(lambda: any(each.ended is not None for each in mine))
    [victim] = [each for each in mine if each.ended is not None]
    assert victim.ended == -signal.SIGKILL
    victim.start()


_KILLS = 8
_LONGEST_SECONDS = 0.4
"""Between two kills, drawn each time: shorter than a start, so that starts are hit as well."""
_COMMITS_PER_KILL = 3


def at_random(program: Path, row: Row, runs: int) -> None:
    """One run after the other on a fresh installation, each with its own seed."""
    first = random.SystemRandom().randrange(10**9)
    row.figures.append(f"seeds {first} to {first + runs - 1}")
    for seed in range(first, first + runs):
        with row.run(f"seed {seed}"):
            _kill_at_random(program, row, seed)


def _kill_at_random(program: Path, row: Row, seed: int) -> None:
    """Kill with the moments and victims that ``seed`` draws."""
    draw = random.Random(seed)
    with Bench(program) as bench:
        bench.bring_up(rebuilders=2)
        for _ in range(_KILLS):
            for _ in range(_COMMITS_PER_KILL):
                bench.commit()
            kill_at = time.monotonic() + draw.uniform(0, _LONGEST_SECONDS)
            bench.wait(lambda at=kill_at: time.monotonic() >= at)  # type: ignore[misc] # bound now
            bench.recorder.watch()
            _kill_one(bench, draw)
        row.recovered(bench.settle(), within=LEASE_SECONDS + 5)
        row.broke(bench.violations())


def _kill_one(bench: Bench, draw: random.Random) -> None:
    """A process and all below it get no warning; a supervisor starts it again at once."""
    victim = draw.choice([*sorted(bench.processes), "server", "build"])
    if victim == "server":
        bench.server.kill()
        bench.server.start()
    elif victim == "build":
        rebuilder = bench.processes[draw.choice(("rebuilder-1", "rebuilder-2"))]
        for pid in rebuilder.descendants:
            _kill(pid)
    else:
        bench.processes[victim].kill()
        bench.processes[victim].start()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # the build was through a moment ago


_ALLOWED_SECONDS = BLOCK_SECONDS + 1


def by_sigterm(program: Path, row: Row, runs: int) -> None:
    """End a rebuilder and a reader that wait for news, and a rebuilder that builds."""
    with Bench(program, deed="stop") as bench:
        bench.bring_up(readers=1)
        for number in range(runs):
            for name in ("rebuilder-1", "reader-1"):
                with row.run(f"{name}, blocked, run {number}"):
                    _end(bench, row, bench.processes[name])
            with row.run(f"build, run {number}"):
                _during_a_build(bench, row)
        row.broke(bench.violations())


def _end(bench: Bench, row: Row, process: Process) -> None:
    try:
        _terminate(row, process)
    finally:  # the next run finds everybody there, whatever this one found
        process.start()
        bench.settle()


def _during_a_build(bench: Bench, row: Row) -> None:
    """The build is stopped at a failpoint, so that the signal finds it there."""
    token = bench.token("build.before_blob")
    token.touch()
    bench.commit()
    bench.wait(lambda: not token.exists())
    rebuilder = bench.processes["rebuilder-1"]
    try:
        _terminate(row, rebuilder)
        work = [each.name for each in (bench.store.root / "work").iterdir()]
        assert not work, f"the build left {work}"
        remains = bench.recorder.left()
        assert (remains.pending, remains.leases, remains.retries) == (0, 0, 0), remains
    finally:
        rebuilder.start()
        bench.settle()


def _terminate(row: Row, process: Process) -> None:
    """It ends as it should, in time, and so does all that it started."""
    children = process.descendants
    started = time.monotonic()
    process.send(signal.SIGTERM)
    assert process.wait() == 0, f"it ended with {process.ended}"
    seconds = time.monotonic() - started
    left = {pid for pid in children if Path(f"/proc/{pid}").exists()}
    assert not left, f"processes outlived it: {left}"
    row.recovered(seconds, within=_ALLOWED_SECONDS)


_BATCHES = 5
_TIMES = 10


def with_repeats(program: Path, row: Row, runs: int) -> None:
    """Repeat every message, while it is news and when it no longer is."""
    with Bench(program) as bench:
        bench.start("rebuilder", "rebuilder-1")
        for name in ("reader-1", "reader-2"):
            bench.start("reader", name)
        for number in range(runs):
            with row.run(f"run {number}"):
                _repeat_all(bench, row, random.Random(number))
        row.broke(bench.violations())


def _repeat_all(bench: Bench, row: Row, draw: random.Random) -> None:
    for _ in range(_BATCHES):
        batch = bench.new_batch()
        first, second = bench.commit(batch), bench.commit(batch)
        assert (first.repeated, second.repeated) == (False, True)
        assert first.generation == second.generation
    _repeat(bench, bench.keys.events, draw)
    row.recovered(bench.settle(), within=10)
    _repeat(bench, bench.keys.reloads, draw)
    built, released = _counts(bench)
    known = bench.recorder.inbox_rows()
    # Old news, ten times, and one true novelty behind it: when that is served, all was read.
    _repeat(bench, bench.keys.events, draw)
    bench.commit()
    bench.settle()
    assert bench.recorder.inbox_rows() == known + 1, "a repeated event became work"
    assert _counts(bench) == (built + len(bench.settings.components), released + 1)


def _repeat(bench: Bench, key: str, draw: random.Random) -> None:
    entries: Any = bench.connection.commands.xrange(key)
    raws = list({fields[b"event"] for _, fields in entries}) * _TIMES
    draw.shuffle(raws)
    publish_many(bench.connection, key, raws)


def _counts(bench: Bench) -> tuple[int, int]:
    return len(bench.recorder.manifests()), bench.store.next_number() - 1
