"""F8: the server stalls longer than the socket's time-out during a write: exactly one effect.

By turns the write is a job's event and a rebuilder's announcement. Its sender gives up, the server
wakes up and does it after all, and reconcile repeats what was never confirmed.
"""

import signal
from pathlib import Path

from faults.bench import Bench
from faults.rows import Row
from indexrelay.schemas.messages import RebuildFinished

_BACK_SECONDS = 6.0


def run(program: Path, row: Row, runs: int) -> None:
    """Stall the server around one write, and count what came of it."""
    with Bench(program, deed="stop") as bench:
        bench.start("rebuilder", "rebuilder-1")
        bench.start("reader", "reader-1")
        bench.commit()
        bench.settle()
        for number in range(runs):
            write = _during_an_announcement if number % 2 else _during_an_event
            with row.run(f"{write.__name__.strip('_')}, run {number}"):
                _once(bench, row, stall_around=write)
        row.broke(bench.violations())


def _once(bench: Bench, row: Row, *, stall_around: object) -> None:
    assert callable(stall_around)
    built, number = len(bench.recorder.manifests()), bench.store.next_number()
    stall_around(bench)
    row.recovered(bench.settle(), within=_BACK_SECONDS)
    more = len(bench.recorder.manifests()) - built
    assert more == len(bench.settings.components), f"{more} builds came of one batch"
    releases = bench.store.next_number() - number
    assert releases == 1, f"{releases} releases came of one batch"
    history = bench.recorder.history()
    told = [each.number for each in history.announced]
    assert told.count(number) == 1, f"release {number} was announced {told.count(number)} times"
    results = [
        event.data.release
        for _, event in bench.recorder.events(bench.keys.results)
        if isinstance(event.data, RebuildFinished)
    ]
    assert results.count(number) <= 1, "a result was told twice"
    newest = max(batch.generation for batch in history.batches)
    assert history.emitted.count(newest) <= 1, "an event was sent twice"


def _during_an_event(bench: Bench) -> None:
    """The job's own time-out ends its wait; its commit stands."""
    bench.server.stall()
    bench.commit()
    bench.server.go_on()


def _during_an_announcement(bench: Bench) -> None:
    rebuilder = bench.processes["rebuilder-1"]
    said_before = len(_said(rebuilder.log))
    token = bench.token("announce.before")
    token.touch()
    bench.commit()
    bench.wait(lambda: rebuilder.stopped)
    bench.server.stall()
    rebuilder.send(signal.SIGCONT)
    bench.wait(lambda: "not_announced" in _said(rebuilder.log)[said_before:])
    bench.server.go_on()


def _said(log: Path) -> str:
    return log.read_text(encoding="utf-8")
