"""F1: SIGKILL at every failpoint; recovered within the lease's TTL and five seconds."""

import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from faults.bench import LEASE_SECONDS, Bench
from faults.rows import Row
from indexrelay.schemas.failpoints import FAILPOINTS

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
"""Who passes a point; builds and their files are children that nobody has to start again."""


def run(program: Path, row: Row, runs: int, points: Sequence[str] = FAILPOINTS) -> None:
    """Kill whoever passes each point, ``runs`` times."""
    waiting = [point for point in points for _ in range(runs)]
    while waiting:
        with Bench(program) as bench:
            _start(bench)
            broken = len(row.broken)
            while waiting and len(row.broken) == broken:  # what broke gets no second chance to
                point = waiting.pop(0)
                with row.run(point):
                    _once(bench, row, point)
            row.broke(bench.violations() if len(row.broken) == broken else [])


def _start(bench: Bench) -> None:
    bench.start("rebuilder", "rebuilder-1")
    bench.start("producer", "producer-1")
    for name in ("reader-1", "reader-2"):
        bench.start("reader", name)
    bench.commit()
    bench.settle()


def _once(bench: Bench, row: Row, point: str) -> None:
    token = bench.token(point)
    token.touch()
    batch = bench.new_batch()
    said = _commit(bench, batch)
    bench.wait(lambda: not token.exists())
    hit_at = time.monotonic()
    _start_again(bench, point)
    if not said:  # the job's next run: the same batch under the same id
        said = _commit(bench, batch)
    assert json.loads(said)["generation"] > 0
    bench.settle()
    row.recovered(time.monotonic() - hit_at, within=RECOVERED_SECONDS)


def _commit(bench: Bench, batch: tuple[str, Sequence[str]]) -> str:
    batch_id, ids = batch
    return bench.processes["producer-1"].ask(json.dumps({"batch_id": batch_id, "ids": ids}))


def _start_again(bench: Bench, point: str) -> None:
    """What a supervisor does with the process that was hit."""
    owner = OWNERS.get(point.split(".", maxsplit=1)[0])
    if owner is None:
        return
    mine = [each for name, each in bench.processes.items() if name.startswith(owner)]
    bench.wait(lambda: any(each.ended is not None for each in mine))
    [victim] = [each for each in mine if each.ended is not None]
    assert victim.ended == -signal.SIGKILL
    victim.start()
