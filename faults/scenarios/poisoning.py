"""F12: poison in the stream and in builds: buried, or given up after exactly three attempts."""

import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faults.bench import RECONCILE_SECONDS, Bench
from faults.recorder import COLLECTION
from faults.rows import Row
from indexrelay.schemas.messages import FIELD

_BAD: Mapping[str, Mapping[str, Any]] = {
    "raises": {"behaviour": "gate_raises"},
    "exits": {"behaviour": "exits"},
    "eats": {"behaviour": "eats", "build_memory_bytes": 200_000_000},
    "hangs": {"behaviour": "hangs", "build_timeout_seconds": 0.3},
}
_HEALTHY_SECONDS = 10.0
"""Where it has to wait for a worker, it is one of the bad ones that it waits for."""


def run(program: Path, row: Row, runs: int) -> None:
    """Four bad components beside a good one, and bad events before a good one."""
    components = {
        "healthy": {"from": [COLLECTION]},
        **{name: {"from": [COLLECTION], **keys} for name, keys in _BAD.items()},
    }
    for number in range(runs):
        with row.run(f"run {number}"), Bench(program, components=components) as bench:
            _once(bench, row)


def _once(bench: Bench, row: Row) -> None:
    rebuilder = bench.start("rebuilder", "rebuilder-1")
    bench.start("reader", "reader-1")
    poison = [
        secrets.token_bytes(64),
        json.dumps({"type": "batch.completed.v1", "data": {"generation": "many"}}).encode(),
        json.dumps({"type": "batch.completed.v9", "id": "1"}).encode(),
    ]
    for raw in poison:
        bench.connection.commands.xadd(bench.keys.events, {FIELD: raw})
    committed_at = time.monotonic()
    generation = bench.commit().generation
    bench.wait(lambda: _served(bench) == generation)
    row.recovered(time.monotonic() - committed_at, within=_HEALTHY_SECONDS)
    bench.wait(lambda: bench.catalog.dead_letters.count() == len(poison))
    assert {letter.raw for letter in bench.catalog.dead_letters.all()} == set(poison)
    most = bench.settings.rebuilder.max_consecutive_failures
    bench.wait(
        lambda: (
            {name: each.failures for name, each in bench.catalog.attempts.all().items()}
            == dict.fromkeys(_BAD, most)
        )
    )
    # Two more reconciles, and nobody tries again.
    given_up_at = time.monotonic()
    bench.wait(lambda: time.monotonic() - given_up_at > 2 * RECONCILE_SECONDS)
    lines = [
        json.loads(line)
        for line in rebuilder.log.read_text(encoding="utf-8").splitlines()
        if line.startswith("{")
    ]
    building = [line["component"] for line in lines if line["event"] == "component.building"]
    tried = {name: building.count(name) for name in _BAD}
    assert tried == dict.fromkeys(_BAD, most), f"tried {tried}"
    row.broke(bench.violations(given_up=len(_BAD)))


def _served(bench: Bench) -> int | None:
    state = bench.states().get("reader-1")
    healthy = state.components.get("healthy") if state is not None else None
    return healthy.covers.get(COLLECTION) if healthy is not None else None
