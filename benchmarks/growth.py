"""Does the same small batch cost more where the collection is larger?

1,000 changes to 100,000, 300,000, 1,000,000 and, in a full run, 3,000,000 vectors of 128
dimensions, each on a fresh base: from the commit until a reader serves them, with all gates. The
same where graphs are the bases (`HNSW32`), over 100,000, 300,000 and 1,000,000.
"""

import sys
from contextlib import ExitStack
from functools import partial

from measuring.arrays import drawn
from measuring.findings import Figure, Findings, at_most, joined
from measuring.installation import installed
from measuring.plots import Line, Lines
from measuring.program import Asked, Program, main
from measuring.rounds import Contender, interleaved
from measuring.servers import bench_server

CAVEATS = """\
- All installations stand side by side, and their batches are timed in turn. Each delta grows from
  round to round, by 1,000 rows: on the smallest it has reached 6 % at the end.
- Lists grow with the collection (1,024 to 4,096), as `auto` would have it; more lists are more
  centroids that a batch reads.
- 100,000 vectors fit into a few caches where 3,000,000 do not.
- Beside a graph a delta lies in lists that are trained with it, as many as a tenth of the base asks
  for.
"""
SIZES = {100_000: "IVF1024,Flat", 300_000: "IVF2048,Flat", 1_000_000: "IVF4096,Flat"}
LARGEST = {3_000_000: "IVF4096,Flat"}
GRAPHS = dict.fromkeys((100_000, 300_000, 1_000_000), "HNSW32")
QUICK_SIZES = {10_000: "IVF64,Flat", 20_000: "IVF128,Flat"}
QUICK_GRAPHS = dict.fromkeys(QUICK_SIZES, "HNSW32")
BATCH = 1_000


def measure(asked: Asked) -> Findings:
    lists, graphs = (QUICK_SIZES, QUICK_GRAPHS) if asked.quick else ({**SIZES, **LARGEST}, GRAPHS)
    return joined((_of(asked, lists, named=""), _of(asked, graphs, named="graphs: ")))


def _of(asked: Asked, sizes: dict[int, str], *, named: str) -> Findings:
    """The figures of some sizes, each called ``named`` and what it is."""
    batch = BATCH // 10 if asked.quick else BATCH
    with bench_server() as server, ExitStack() as stack:
        contenders: dict[str, Contender] = {}
        for count, index in sizes.items():
            vectors = drawn(count)
            bench = stack.enter_context(
                installed(server.url, vectors, name=f"growth{count}", index=index)
            )
            bench.fill(asked.say)
            contenders[f"{count:,} entries"] = partial(bench.change, batch)
        rounds = interleaved(contenders, rounds=asked.rounds, say=asked.say)
        names = list(contenders)
        costs = [rounds.median(name) for name in names]
        largest, smallest = (pick(names, key=rounds.median) for pick in (max, min))
        return Findings(
            figures=(
                Figure(
                    name=f"{named}the dearest ÷ the cheapest of all sizes",
                    value=rounds.ratio(largest, smallest),
                    target=at_most(2),
                    note=f"{largest} against {smallest}",
                ),
                Figure(
                    name=f"{named}the largest ÷ the smallest",
                    value=rounds.ratio(names[-1], names[0]),
                ),
            ),
            measured=tuple(rounds.durations(name, called=f"{named}{name}") for name in names),
            plots=(
                Lines(
                    name="growth_graphs" if named else "growth",
                    title=f"From commit to served, {named}{batch:,} changes",
                    x="entries",
                    y="s",
                    lines=(Line(label="indexrelay", points=tuple(zip(sizes, costs, strict=True))),),
                    log_x=True,
                ),
            ),
            servers=server.versions,
        )


PROGRAM = Program(name="growth", question=__doc__, caveats=CAVEATS, measure=measure)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
