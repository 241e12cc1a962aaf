"""F14: a reader stopped beyond the stream's retention: it resyncs to the current release.

It is stopped between two reads, so that nothing of what it misses lies in its socket already.
"""

import signal
import time
from pathlib import Path

from faults.bench import Bench
from faults.recorder import COLLECTION
from faults.rows import Row

_BACK_SECONDS = 5.0
_BATCHES = 3


def run(program: Path, row: Row, runs: int) -> None:
    """One reader sleeps, the other goes on; what was said meanwhile is trimmed, all of it."""
    with Bench(program, deed="stop") as bench:
        bench.start("rebuilder", "rebuilder-1")
        for name in ("reader-1", "reader-2"):
            bench.start("reader", name)
        bench.commit()
        bench.settle()
        for number in range(runs):
            with row.run(f"run {number}"):
                _once(bench, row)
        row.broke(bench.violations())


def _once(bench: Bench, row: Row) -> None:
    token = bench.token("reader.after_report")
    token.touch()
    bench.commit()
    readers = [bench.processes[name] for name in ("reader-1", "reader-2")]
    bench.wait(lambda: any(each.stopped for each in readers))
    [sleeper] = [each for each in readers if each.stopped]
    [other] = [each for each in readers if not each.stopped]
    for _ in range(_BATCHES):
        generation = bench.commit().generation
        bench.wait(lambda reached=generation: _reached(bench, other.name, reached))  # type: ignore[misc] # bound now
    bench.recorder.watch()
    bench.connection.commands.xtrim(bench.keys.reloads, maxlen=0, approximate=False)
    awake_at = time.monotonic()
    sleeper.send(signal.SIGCONT)
    bench.wait(lambda: _reached(bench, sleeper.name, generation))
    row.recovered(time.monotonic() - awake_at, within=_BACK_SECONDS)
    bench.settle()


def _reached(bench: Bench, reader: str, generation: int) -> bool:
    state = bench.states().get(reader)
    return state is not None and all(
        part.covers.get(COLLECTION) == generation for part in state.components.values()
    )
