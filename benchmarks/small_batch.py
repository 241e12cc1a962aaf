"""What does a small batch cost, beside building everything anew?

1,000 changes to 1,000,000 vectors of 128 dimensions in an `IVF4096,Flat`: from the commit until a
reader serves them, with all gates. On a fresh base, where the delta is 9 % of the base, and over
the whole cycle from one full build to the next. The same with 100 changes to 100,000 vectors in a
graph, `HNSW32`.
"""

import statistics
import sys
from dataclasses import dataclass

from measuring.arrays import drawn
from measuring.findings import Figure, Findings, Measured, at_least, joined
from measuring.installation import Installation, installed
from measuring.plots import Bars
from measuring.program import Asked, Program, main
from measuring.servers import bench_server

CAVEATS = """\
- Everything is real: SQLite, the event, a child process that builds, the gates, the release and its
  fsyncs, the announcement, the reader. Only the waits for quiet are left out, on both sides.
- The full build is one that somebody forced: it reads the collection, trains, adds, tunes, hashes
  and judges all of it.
- A cycle is 100 batches of a thousandth of the collection, until the delta has reached `max_delta`
  (0.10), and the full build that follows. It is put together from what batches cost at three sizes
  of the delta and from what that build costs, and not run through; the delta grows in between by
  one large batch.
- All changes are upserts of entries that exist: each makes a tombstone and a row of the delta.
"""
SHARE = 1_000
"""One batch is this part of the collection."""
TO_HALF, TO_NINE = 0.045, 0.043
"""Shares of the collection that change in between, so that batches meet a delta of 4.5 and 9 %."""
CYCLE = 100
BATCHES, QUICK_BATCHES = 3, 1
"""On each size of the delta, in each round: their median counts."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What lies below the batches."""

    count: int
    index: str
    named: str = ""
    """Before the name of each figure."""


LISTS = Case(count=1_000_000, index="IVF4096,Flat")
GRAPH = Case(count=100_000, index="HNSW32", named="a graph: ")
QUICK_LISTS = Case(count=10_000, index="IVF64,Flat")
QUICK_GRAPH = Case(count=10_000, index="HNSW32", named="a graph: ")


def measure(asked: Asked) -> Findings:
    cases = (QUICK_LISTS, QUICK_GRAPH) if asked.quick else (LISTS, GRAPH)
    return joined(_of(case, asked) for case in cases)


def _of(case: Case, asked: Asked) -> Findings:
    with bench_server() as server:
        vectors = drawn(case.count)
        with installed(server.url, vectors, name="small", index=case.index) as bench:
            bench.fill(asked.say)
            # Warm from the start: the first version was built, and served, in `fill`.
            rounds = [_round(bench, case, number + 1, asked) for number in range(asked.rounds)]
        seconds = {name: tuple(each[name] for each in rounds) for name in rounds[0]}
        return _findings(case, seconds, server.versions)


def _round(bench: Installation, case: Case, number: int, asked: Asked) -> dict[str, float]:
    """One full build, and batches on three sizes of delta after it."""
    batch = case.count // SHARE
    batches = QUICK_BATCHES if asked.quick else BATCHES
    told = f"{case.index}, round {number} of {asked.rounds}"
    asked.say(f"full build: {told}")
    found = {"full build": bench.rebuild()}
    for name, growth in (("fresh base", 0.0), ("4.5 % delta", TO_HALF), ("9 % delta", TO_NINE)):
        asked.say(f"{name}: {told}")
        if growth:
            bench.change(int(growth * case.count))
        found[name] = statistics.median(bench.change(batch) for _ in range(batches))
        delta = bench.served.details["delta"]
        if not delta:
            raise RuntimeError(f"{name}: built in full: {bench.served.details['build']}")
    return found


def _findings(
    case: Case, seconds: dict[str, tuple[float, ...]], servers: dict[str, str]
) -> Findings:
    full = seconds["full build"]
    batches = [seconds[name] for name in ("fresh base", "4.5 % delta", "9 % delta")]
    cycle = tuple(
        (sum(each) / 3 * CYCLE + build) / CYCLE
        for build, each in zip(full, zip(*batches, strict=True), strict=True)
    )
    figures = (
        ("full build ÷ batch on a fresh base", batches[0], at_least(25)),
        ("full build ÷ batch with a 9 % delta", batches[2], at_least(25)),
        ("full build ÷ batch over a cycle, its full build included", cycle, at_least(20)),
    )
    measured = tuple(
        Measured(name=f"{case.named}{name}", unit="s", values=values)
        for name, values in {**seconds, "over a cycle": cycle}.items()
    )
    return Findings(
        figures=tuple(
            Figure(
                name=f"{case.named}{name}",
                value=statistics.median(a / b for a, b in zip(full, batch, strict=True)),
                target=target,
            )
            for name, batch, target in figures
        ),
        measured=measured,
        plots=(
            Bars(
                name="small_batch_graph" if case.named else "small_batch",
                title=f"From commit to served, {case.index} over {case.count:,} vectors",
                unit="s",
                bars=tuple((each.name, each.median) for each in measured),
            ),
        ),
        servers=servers,
    )


PROGRAM = Program(name="small_batch", question=__doc__, caveats=CAVEATS, measure=measure)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
