"""F3: SIGTERM during a blocked read and during a build: an end in time, and nothing left behind."""

import signal
import time
from pathlib import Path

from faults.bench import BLOCK_SECONDS, Bench
from faults.processes import Process
from faults.rows import Row

_ALLOWED_SECONDS = BLOCK_SECONDS + 1


def run(program: Path, row: Row, runs: int) -> None:
    """End a rebuilder and a reader that wait for news, and a rebuilder that builds."""
    with Bench(program, deed="stop") as bench:
        bench.start("rebuilder", "rebuilder-1")
        bench.start("reader", "reader-1")
        bench.commit()
        bench.settle()
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
    """The build stands still at a failpoint, so that the signal finds it there."""
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
