"""F13: every event ten times and shuffled, and each batch committed twice: as if once."""

import random
from pathlib import Path
from typing import Any

from faults.bench import Bench
from faults.rows import Row
from indexrelay.streams import publish_many

_BATCHES = 5
_TIMES = 10


def run(program: Path, row: Row, runs: int) -> None:
    """Repeat everything that is said, while it is news and when it no longer is."""
    with Bench(program) as bench:
        bench.start("rebuilder", "rebuilder-1")
        for name in ("reader-1", "reader-2"):
            bench.start("reader", name)
        for number in range(runs):
            with row.run(f"run {number}"):
                _once(bench, row, random.Random(number))
        row.broke(bench.violations())


def _once(bench: Bench, row: Row, draw: random.Random) -> None:
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
