"""F5: the server is killed ten times under each append-only policy; readers are back in 5 s."""

from pathlib import Path

from faults.bench import Bench
from faults.rows import Row

_BACK_SECONDS = 5.0
_POLICIES = ("always", "everysec")


def run(program: Path, row: Row, runs: int) -> None:
    """Kill it under load, commit while it is away, and start it again."""
    with Bench(program) as bench:
        bench.start("rebuilder", "rebuilder-1")
        for name in ("reader-1", "reader-2"):
            bench.start("reader", name)
        bench.commit()
        bench.settle()
        for policy in _POLICIES:
            for number in range(runs):
                with row.run(f"{policy}, run {number}"):
                    bench.connection.commands.config_set("appendfsync", policy)
                    _once(bench, row)
        row.broke(bench.violations())


def _once(bench: Bench, row: Row) -> None:
    bench.recorder.watch()
    bench.commit()
    bench.commit()
    bench.server.kill()
    away = bench.commit()
    assert not away.repeated
    bench.server.start()
    row.recovered(bench.settle(), within=_BACK_SECONDS)
