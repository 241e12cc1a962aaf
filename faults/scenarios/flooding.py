"""F16: 10,000 events in a few seconds: while one build runs, all that arrives makes one more."""

import time
from datetime import UTC, datetime
from pathlib import Path

from faults.bench import Bench
from faults.rows import Row
from indexrelay.schemas.messages import BatchCompleted, Event
from indexrelay.storage.catalog import Commit
from indexrelay.streams import publish_many

_EVENTS = 10_000
_COMMITS = 50
"""Each is told of by as many events as make up the number."""
_BUILD_SECONDS = 0.5


def run(program: Path, row: Row, runs: int) -> None:
    """Flood a rebuilder whose builds take half a second."""
    slow = {
        name: {"from": ["tracks"], "group": "pair", "seconds": _BUILD_SECONDS}
        for name in ("left", "right")
    }
    with Bench(program, components=slow) as bench:
        bench.start("rebuilder", "rebuilder-1")
        bench.start("reader", "reader-1")
        bench.commit()
        bench.settle()
        for number in range(runs):
            with row.run(f"run {number}"):
                _once(bench, row)
        row.broke(bench.violations())


def _once(bench: Bench, row: Row) -> None:
    built = len(bench.recorder.manifests())
    started = time.monotonic()
    for _ in range(_COMMITS):
        commit = bench.commit()
        raws = [_event(commit) for _ in range(_EVENTS // _COMMITS)]
        publish_many(bench.connection, bench.keys.events, raws)
    flooded = time.monotonic() - started
    row.recovered(bench.settle(), within=10)
    seconds = time.monotonic() - started
    per_component = (len(bench.recorder.manifests()) - built) / len(bench.settings.components)
    allowed = seconds / _BUILD_SECONDS + 2
    row.figures.append(
        f"{_EVENTS} events in {flooded:.1f} s: {per_component:.0f} builds of each component, "
        f"{allowed:.0f} allowed"
    )
    assert per_component <= allowed, f"{per_component} builds of each component"


def _event(commit: Commit) -> bytes:
    said = BatchCompleted(
        collection=commit.collection,
        epoch=commit.epoch,
        batch_id=commit.batch_id,
        generation=commit.generation,
    )
    return Event.of(said, source="faults", time=datetime.now(UTC)).to_bytes()
