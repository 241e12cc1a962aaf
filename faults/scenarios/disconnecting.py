"""F9: each link in turn is cut, half open, or slow by five seconds: nothing is lost, all is mended.

Batches are committed meanwhile. Time runs from the moment at which the link is as it should be.
"""

import json
import time
from pathlib import Path
from typing import get_args

from faults.bench import Bench
from faults.links import DELAY_SECONDS, Link, Mode
from faults.rows import Row

_BROKEN_SECONDS = 2.0
"""Longer than a command's time-out; for a slow link, until the first late piece has arrived."""
_MENDED_SECONDS = 8.0
"""The longest pause before a client reconnects, and what follows from that."""
_ROLES = ("producer", "rebuilder", "reader")
_MODES = tuple(mode for mode in get_args(Mode) if mode != "open")


def run(program: Path, row: Row, runs: int) -> None:
    """Every link in every mode."""
    with Bench(program, linked=_ROLES) as bench:
        bench.start("rebuilder", "rebuilder-1")
        bench.start("producer", "producer-1")
        for name in ("reader-1", "reader-2"):
            bench.start("reader", name)
        bench.commit()
        bench.settle()
        for number in range(runs):
            for role in _ROLES:
                for mode in _MODES:
                    with row.run(f"{role} {mode}, run {number}"):
                        _once(bench, row, bench.links[role], mode)
        row.broke(bench.violations())


def _once(bench: Bench, row: Row, link: Link, mode: Mode) -> None:
    job = bench.processes["producer-1"]
    link.become(mode)
    broken_at = time.monotonic()
    lasts = DELAY_SECONDS + 1 if mode == "slow" else _BROKEN_SECONDS
    batch_id, ids = bench.new_batch()
    said = json.loads(job.ask(json.dumps({"batch_id": batch_id, "ids": ids})))
    assert not said["repeated"]
    bench.wait(lambda: time.monotonic() - broken_at >= lasts)
    link.become("open")
    row.recovered(bench.settle(), within=_MENDED_SECONDS)
