"""How soon does a large collection answer, and what does the better index behind it cost meanwhile?

Sentence embeddings of real texts are committed in one batch. The rebuilder releases the index that
is ready soonest, and builds the best one behind it. Both times are from the end of the commit until
a reader serves the version, with all gates. While the better index is built, small batches go on
being committed and released, and queries asked; both are compared with the same before.
"""

import sys
import threading
from collections.abc import Callable
from statistics import median
from time import perf_counter

from indexrelay.storage.entries import Vectors
from measuring.arrays import drawn
from measuring.corpus import real_texts
from measuring.findings import Figure, Findings, Measured, at_most
from measuring.installation import Installation, installed
from measuring.plots import Bars
from measuring.program import Asked, Program, main
from measuring.servers import bench_server

CAVEATS = """\
- One run: the better index takes minutes. Batches and queries are many; their medians are given.
- Everything else is in one process: reader, rebuilder and job share the interpreter with the
  queries. Builds have child processes of their own, niced; the improvement is niced to the utmost.
- Two cores. With more of them an improvement is no neighbour of queries at all.
"""
BATCH = 100
BATCHES_BEFORE = 10
QUICK_COUNT = 70_000
QUICK_BATCHES = 5
"""Of the quick form, before and meanwhile: an improvement that has the processors takes seconds."""
QUERIES = 200


class Meanwhile:
    """Small batches and queries, until the better index is built."""

    def __init__(self, bench: Installation, queries: Vectors) -> None:
        self._bench = bench
        self._queries = queries
        self.batches: list[float] = []
        self.asked: list[float] = []

    def once(self) -> None:
        """One batch, and some queries."""
        self.batches.append(self._bench.change(BATCH, quick=True))
        self.asked += self._bench.ask(self._queries)

    def until(self, over: Callable[[], bool], *, most: int | None) -> None:
        """Again and again, and once at least; ``most``: no more batches than so many."""
        self.once()
        while not over() and len(self.batches) != most:
            self.once()


def _given(asked: Asked) -> tuple[Vectors, Vectors]:
    """What is committed, and what is asked."""
    if asked.quick:  # about as few as get a quick version
        return drawn(QUICK_COUNT), drawn(QUERIES)
    return real_texts(asked.say).split(QUERIES)


def measure(asked: Asked) -> Findings:
    vectors, queries = _given(asked)
    with (
        bench_server() as server,
        installed(server.url, vectors, name="improve", index="auto") as bench,
    ):
        began = bench.fill(asked.say, quick=True)
        first_seconds = perf_counter() - began
        quick = bench.served
        before, during = Meanwhile(bench, queries), Meanwhile(bench, queries)
        for _ in range(QUICK_BATCHES if asked.quick else BATCHES_BEFORE):
            before.once()
        asked.say(f"improving {quick.details['index']}")
        improving_since = perf_counter()
        improvement = threading.Thread(target=bench.improve)
        improvement.start()
        during.until(
            lambda: not improvement.is_alive(), most=QUICK_BATCHES if asked.quick else None
        )
        improvement.join()
        bench.change(BATCH, quick=True)
        best = bench.served
        improved_seconds = perf_counter() - improving_since
        after = bench.ask(queries)
    final_seconds = first_seconds + improved_seconds
    return Findings(
        figures=(
            Figure(
                name="until the first release answers ÷ until the final one does",
                value=first_seconds / final_seconds,
                target=at_most(0.25),
                note=f"{quick.details['index']}, then {best.details['index']}, over "
                f"{len(vectors):,} vectors of {vectors.shape[1]}",
            ),
            Figure(
                name="a small batch while it is improved ÷ before",
                value=median(during.batches) / median(before.batches),
                note=f"{len(during.batches)} batches of {BATCH} until a reader serves them",
            ),
            Figure(
                name="a query while it is improved ÷ before",
                value=median(during.asked) / median(before.asked),
            ),
            Figure(
                name="a query of the final version ÷ of the first",
                value=median(after) / median(before.asked),
                target=at_most(1),
            ),
        ),
        measured=(
            Measured(name="until the first release answers", unit="s", values=(first_seconds,)),
            Measured(name="until the final one does", unit="s", values=(final_seconds,)),
            Measured(name="a batch before", unit="s", values=tuple(before.batches)),
            Measured(name="a batch meanwhile", unit="s", values=tuple(during.batches)),
        ),
        plots=(
            Bars(
                name="improve",
                title=f"{len(vectors):,} vectors of {vectors.shape[1]}: until they are found",
                unit="seconds, less is better",
                bars=(
                    (f"first release ({quick.details['index']})", first_seconds),
                    (f"final release ({best.details['index']})", final_seconds),
                ),
            ),
        ),
    )


PROGRAM = Program(name="improve", question=__doc__, caveats=CAVEATS, measure=measure)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
