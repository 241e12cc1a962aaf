"""F17: the clock of a client moves by an hour, ahead and back: nothing runs twice.

Two rebuilders, each with a clock of its own. In every second run a build is killed, and clocks are
set before its second attempt: it must neither be put off for an hour nor be made more than once.
"""

import random
from pathlib import Path

from faults.bench import Bench
from faults.rows import Row

_HOUR = 3600
_RECOVERED_SECONDS = 6.0
_NAMES = ("rebuilder-1", "rebuilder-2")


def run(program: Path, row: Row, runs: int) -> None:
    """Before and during each build somebody's clock is set."""
    draw = random.Random(runs)
    with Bench(program) as bench:
        for name in _NAMES:
            _set(bench, name, 0)
            bench.start("misdated", name)
        bench.start("reader", "reader-1")
        bench.commit()
        bench.settle()
        for number in range(runs):
            with row.run(f"run {number}"):
                _once(bench, row, draw, fails=number % 2 == 1)
        row.broke(bench.violations())


def _once(bench: Bench, row: Row, draw: random.Random, *, fails: bool) -> None:
    built, number = len(bench.recorder.manifests()), bench.store.next_number()
    _set(bench, draw.choice(_NAMES), draw.choice((-_HOUR, 0, _HOUR)))
    token = bench.token("build.before_blob")
    if fails:
        token.touch()
    bench.commit()
    if fails:  # the build was killed; the clock is set before its second attempt
        bench.wait(lambda: not token.exists())
    _set(bench, draw.choice(_NAMES), draw.choice((-_HOUR, 0, _HOUR)))
    row.recovered(bench.settle(), within=_RECOVERED_SECONDS)
    more = len(bench.recorder.manifests()) - built
    assert more == len(bench.settings.components), f"{more} builds came of one batch"
    # One that failed first, was slow, or fell to the other rebuilder has a release of its own.
    releases = bench.store.next_number() - number
    assert releases <= more, f"{releases} releases came of {more} builds"


def _set(bench: Bench, name: str, seconds: int) -> None:
    """In one step: a clock that is half written is no clock."""
    draft = bench.folder / f"{name}.clock.new"
    draft.write_text(str(seconds), encoding="ascii")
    draft.replace(bench.clock(name))
