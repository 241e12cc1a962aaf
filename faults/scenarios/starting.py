"""F15: fifty readers start at once, and then all of them restart: everyone applies the release.

Each is a process of its own, forked from one that has everything imported. Said besides: over how
long their start was spread, by what they meant to wait and by when the server heard of each, and
for comparison the same without any spread. A new release at the end reaches all of them at once.
"""

import json
import time
from collections import Counter
from pathlib import Path

from faults.bench import HERD, Bench
from faults.processes import Process
from faults.rows import Row
from indexrelay.schemas.messages import ReleaseApplied

_SPREAD_SECONDS = 0.2
"""The setting's default."""
_APPLIED_SECONDS = 15.0
"""Two cores have fifty processes to start, each with its own connections and threads."""
_SLOT_MS = 10


def run(program: Path, row: Row, runs: int) -> None:
    """Start all, restart all, release; once more without a spread, for its figures only."""
    with Bench(program) as bench:
        bench.start("rebuilder", "rebuilder-1")
        bench.start("reader", "reader-1")
        bench.commit()
        bench.settle()
        herd = bench.start("herd", "herd")
        for number in range(runs):
            for what in ("start", "restart"):
                with row.run(f"{what}, run {number}"):
                    try:
                        _start(bench, row, herd, what, _SPREAD_SECONDS)
                        _check_spread(bench)
                        if what == "restart":
                            _release(bench, row)
                    finally:
                        ended = int(herd.ask("stop"))
                    assert ended == HERD, f"{ended} of {HERD} ended well"
        _start(bench, row, herd, "without a spread", 0.0)
        herd.ask("stop")
        row.broke(bench.violations())


def _start(bench: Bench, row: Row, herd: Process, what: str, spread_seconds: float) -> None:
    bench.recorder.watch()
    told = _reported(bench).keys()
    started = time.monotonic()
    assert int(herd.ask(f"start {spread_seconds}")) == HERD
    bench.wait(lambda: _applied(bench))
    seconds = time.monotonic() - started
    bench.wait(lambda: len(_reported(bench).keys() - told) == HERD)  # a moment after presence
    at = sorted(milliseconds for each, milliseconds in _reported(bench).items() if each not in told)
    busiest = max(Counter(each // _SLOT_MS for each in at).values())
    row.figures.append(
        f"{what}: {HERD} readers reported within {at[-1] - at[0]} ms, at most {busiest} of them in "
        f"the same {_SLOT_MS} ms; all applied after {seconds:.2f} s"
    )
    if spread_seconds:
        row.recovered(seconds, within=_APPLIED_SECONDS)
        assert at[-1] - at[0] >= 500 * spread_seconds, "their start was not spread"


def _release(bench: Bench, row: Row) -> None:
    started = time.monotonic()
    bench.commit()
    bench.settle()
    bench.wait(lambda: _applied(bench))
    seconds = time.monotonic() - started
    row.figures.append(f"a batch reached all {HERD} after {seconds:.2f} s")


def _check_spread(bench: Bench) -> None:
    """What they meant to wait, as each said itself, fills the time that there is."""
    waits = [
        said["first_look_in_seconds"]
        for file in (bench.folder / "logs").glob("herd-*.log")
        for said in map(json.loads, file.read_text(encoding="utf-8").splitlines())
        if said["event"] == "reader.started"
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
