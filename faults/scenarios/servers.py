"""F6: the server comes back empty: one reconcile restores all, and nothing current is rebuilt."""

from pathlib import Path

from faults.bench import RECONCILE_SECONDS, Bench
from faults.rows import Row

_RESTORED_SECONDS = RECONCILE_SECONDS + 2
"""One reconcile, and a reader's longest pause before it reconnects."""
_FROM_NOTHING_SECONDS = _RESTORED_SECONDS + 5
"""… after a server that was away, whose clients wait a little longer each time."""


def run(program: Path, row: Row, runs: int) -> None:
    """By turns FLUSHALL on a running server, and a server that is killed and loses its files."""
    with Bench(program) as bench:
        bench.start("rebuilder", "rebuilder-1")
        for name in ("reader-1", "reader-2"):
            bench.start("reader", name)
        bench.commit()
        bench.settle()
        for number in range(runs):
            with row.run(f"run {number}"):
                _once(bench, row, restart=number % 2 == 1)
        row.broke(bench.violations())


def _once(bench: Bench, row: Row, *, restart: bool) -> None:
    bench.recorder.watch()
    built, number = bench.recorder.manifests(), bench.store.next_number()
    if restart:
        bench.server.kill()
        bench.server.forget()
        bench.server.start()
    else:
        bench.connection.commands.flushall()
    seconds = bench.settle()
    row.recovered(seconds, within=_FROM_NOTHING_SECONDS if restart else _RESTORED_SECONDS)
    assert bench.recorder.manifests() == built, "something current was rebuilt"
    assert bench.store.next_number() == number, "something was released"
    bench.commit()
    bench.settle()
