"""F2: random SIGKILLs of any process under load: nothing lost, nothing twice.

The seed of each run is in its name, so that one that did not hold can be repeated. What a random
moment hits is not quite the same again: `faults.scenarios.kills` is for the exact ones.
"""

import os
import random
import signal
import time
from pathlib import Path

from faults.bench import LEASE_SECONDS, Bench
from faults.rows import Row

_KILLS = 8
_LONGEST_SECONDS = 0.4
"""Between two kills, drawn anew each time: shorter than a start, so that starts are hit as well."""
_COMMITS_PER_KILL = 3


def run(program: Path, row: Row, runs: int) -> None:
    """One run after the other on a fresh installation, each with its own seed."""
    first = random.SystemRandom().randrange(10**9)
    row.figures.append(f"seeds {first} to {first + runs - 1}")
    for seed in range(first, first + runs):
        with row.run(f"seed {seed}"):
            once(program, row, seed)


def once(program: Path, row: Row, seed: int) -> None:
    """Kill with the moments and victims that ``seed`` draws."""
    draw = random.Random(seed)
    with Bench(program) as bench:
        for name in ("rebuilder-1", "rebuilder-2"):
            bench.start("rebuilder", name)
        for name in ("reader-1", "reader-2"):
            bench.start("reader", name)
        bench.commit()
        bench.settle()
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
