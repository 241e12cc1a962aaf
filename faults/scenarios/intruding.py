"""F23: somebody has the password of a reader and uses it for a minute: nobody else is stopped.

Everything runs behind the shipped access list, each as its own user. The intruder does whatever a
reader may do in a harmful way, and whatever it may not. Meanwhile jobs commit, and what they commit
is served by the other readers, who also go on being seen; and `status` says under which label it is
that somebody does harm. Then the password is taken away, and all is well again without a hand.
"""

import json
import signal
import time
from pathlib import Path

from faults.bench import Bench
from faults.guard import knows_access_lists
from faults.rows import Row
from indexrelay.health.judge import judge
from indexrelay.health.survey import Survey
from indexrelay.health.verdict import Problem
from indexrelay.producers import NotServedError
from indexrelay.producers.errors import EventRefusedError
from indexrelay.schemas.clock import SystemClock
from indexrelay.storage.catalog import Commit

LABEL, VICTIM = "reader_a", "reader_b"
_SECONDS = 60.0
_BRIEF_SECONDS = 2.0
"""Among other tests, where each second counts."""
_SERVED_SECONDS = 10.0
"""A commit whose event is refused for want of memory is found by the next comparison (1 s); while
the memory is full, a build waits for the rebuilder to make room."""


def run(program: Path, row: Row, runs: int) -> None:
    """An installation of its own for each run, since the password is lost with it."""
    for number in range(runs):
        if not knows_access_lists(program):
            row.figures.append("this server knows no such access list")
            return
        with Bench(program, guarded=True) as bench:
            bench.recorder.distrusted.add(LABEL)
            with row.run(f"run {number}"):
                _once(bench, row)
            row.broke(bench.violations())


def _once(bench: Bench, row: Row) -> None:
    bench.start("rebuilder", "rebuilder-1")
    for name in (LABEL, VICTIM):
        bench.start("reader", name)
    bench.commit()
    bench.settle()
    intruder = bench.intrude(LABEL, victim=VICTIM)
    end = time.monotonic() + (_SECONDS if row.timed else _BRIEF_SECONDS)
    served: list[float] = []
    named: Problem | None = None
    while time.monotonic() < end or named is None:
        served.append(_serve_one(bench))
        named = named or _named(bench)
        assert time.monotonic() < end + _SERVED_SECONDS, "status does not say who does harm"
    assert intruder.ended is None, "the intruder has ended"
    intruder.send(signal.SIGTERM)
    assert intruder.wait() == 0
    done = json.loads(bench.intruder_log.read_text(encoding="utf-8"))
    assert done["forbidden_and_done"] == []
    assert bench.guard is not None
    bench.guard.forbid(LABEL)
    bench.processes.pop(LABEL).kill()
    row.recovered(bench.settle(), within=8)
    row.figures.append(
        f"{sum(done['done'].values())} deeds, {sum(done['refused'].values())} refused; "
        f"{len(served)} commits served, the slowest after {max(served):.1f} s"
    )


def _serve_one(bench: Bench) -> float:
    """Commit, and wait until the victim serves it; how long that took."""
    started = time.monotonic()
    try:
        commit: Commit = bench.commit()
    except EventRefusedError as error:  # the memory is full; the commit stands
        commit = error.commit
    try:
        bench.producer.wait_served(commit, timeout_seconds=_SERVED_SECONDS, readers=[VICTIM])
    except NotServedError as error:
        raise AssertionError(f"{VICTIM} does not serve what was committed: {error}") from error
    return time.monotonic() - started


def _named(bench: Bench) -> Problem | None:
    """What the judge says about the label."""
    facts = Survey(
        bench.settings,
        catalog=lambda: bench.catalog,
        store=lambda: bench.store,
        connection=lambda: bench.connection,
        clock=SystemClock(),
    ).whole()
    return next((each for each in judge(facts).problems if each.subject == LABEL), None)
