"""F4: the lease holder is stopped for three TTLs and wakes up: its late publish changes nothing.

By turns it stands before its release's link and before its announcement.
"""

import signal
import time
from pathlib import Path
from typing import Any

from faults.bench import LEASE_SECONDS, Bench
from faults.processes import Process
from faults.rows import Row
from indexrelay.streams import current_release

_SLEEP_SECONDS = 3 * LEASE_SECONDS
_POINTS = ("release.before_link", "announce.before")


def run(program: Path, row: Row, runs: int) -> None:
    """Two rebuilders; whoever is about to publish falls asleep."""
    with Bench(program, deed="stop") as bench:
        for name in ("rebuilder-1", "rebuilder-2"):
            bench.start("rebuilder", name)
        bench.start("reader", "reader-1")
        bench.commit()
        bench.settle()
        for number in range(runs):
            point = _POINTS[number % len(_POINTS)]
            with row.run(f"{point}, run {number}"):
                _once(bench, row, point)
        row.broke(bench.violations())


def _once(bench: Bench, row: Row, point: str) -> None:
    token = bench.token(point)
    token.touch()
    bench.commit()
    bench.wait(lambda: not token.exists())
    asleep_at = time.monotonic()
    rebuilders = [each for name, each in bench.processes.items() if name.startswith("rebuilder")]
    bench.wait(lambda: any(each.stopped for each in rebuilders))
    [sleeper] = [each for each in rebuilders if each.stopped]
    bench.commit()
    bench.settle()
    row.recovered(time.monotonic() - asleep_at, within=LEASE_SECONDS + 5)
    bench.wait(lambda: time.monotonic() - asleep_at > _SLEEP_SECONDS)
    before = _what_is_served(bench)
    passes = _passes(sleeper)
    sleeper.send(signal.SIGCONT)
    bench.wait(lambda: _passes(sleeper) > passes)
    after = _what_is_served(bench)
    assert after == before, f"a late publish changed what is served from {before} to {after}"
    bench.settle()


def _what_is_served(bench: Bench) -> tuple[object, int, bytes]:
    """The newest release, the announced one, and the last message about one."""
    newest = bench.store.newest_release()
    announced = current_release(bench.connection, bench.keys)
    # Not how many there are: the sleeper may trim the stream as soon as it is awake.
    reloads: Any = bench.connection.commands.xinfo_stream(bench.keys.reloads)
    return newest, announced, reloads["last-generated-id"]


def _passes(rebuilder: Process) -> int:
    """How many passes it has come to the end of."""
    return rebuilder.log.read_text(encoding="utf-8").count('"rebuild.finished"')
