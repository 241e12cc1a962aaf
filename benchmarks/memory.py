"""How much memory do eight readers take that serve the same index?

Eight processes serve one index of 256 MB, with string ids and payloads, and each answers 1,000
queries. Their proportional set size (a page that several processes map counts in parts) is held
against the blobs of the version. What the processes take by themselves is measured in the same
round, while they serve an index of a few entries, and is taken off.
"""

import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from measuring.arrays import ArrayCollection, drawn
from measuring.companions import Companion, companion
from measuring.findings import Figure, Findings, Measured, at_most
from measuring.machine import pss
from measuring.plots import Bars
from measuring.program import Asked, Program, main
from measuring.releasing import Publisher, StoredVersion, publishing
from measuring.servers import bench_server

CAVEATS = """\
- Proportional set size, from the kernel's `smaps_rollup`: the sum over all readers is what they
  take together. Pages of the index that a query or the warm-up touched are in it; the blobs hold
  more than that, such as the query sample and the trained index, which only builds read.
- In every round the readers come from the small index to the large one, so what an earlier round
  left behind would show in the later ones.
- What a process takes for itself (interpreter, libraries, 5 MB of queries) is taken off as it was
  before; what Python's heap grew by in the meantime counts as the index's.
"""
READERS = 8
QUERIES = 1_000
SMALL_ROWS = 1_000


class Fleet:
    """Readers that do everything at once."""

    def __init__(self, publisher: Publisher, readers: Sequence[Companion]) -> None:
        self._publisher = publisher
        self._readers = readers

    def serving(self, version: StoredVersion, queries: int) -> int:
        """What they take together once all serve it and have answered; bytes."""
        release = self._publisher.commit(version)
        self._publisher.announce(release)

        def serve(reader: Companion) -> None:
            reader.ask(do="served", release=release.number)
            reader.ask(do="settled")
            if reader.ask(do="ask", count=queries)["failed"]:
                raise RuntimeError("a query failed")

        with ThreadPoolExecutor(len(self._readers)) as pool:
            list(pool.map(serve, self._readers))
        return pss(reader.process.pid for reader in self._readers)


def measure(asked: Asked) -> Findings:
    rows, lists, count = (20_000, 64, 2) if asked.quick else (500_000, 1024, READERS)
    queries = 100 if asked.quick else QUERIES
    with bench_server() as server, publishing(server) as (publisher, folder), ExitStack() as stack:
        asked.say(f"building an index of {rows} vectors")
        vectors = drawn(rows)
        small = publisher.build(ArrayCollection(vectors=vectors[:SMALL_ROWS]), index="Flat")
        large = publisher.build(
            ArrayCollection(vectors=vectors), index=f"IVF{lists},Flat", nprobe=16
        )
        del vectors
        readers = [
            stack.enter_context(companion("reader", str(folder), server.url, str(seed)))
            for seed in range(count)
        ]
        fleet = Fleet(publisher, readers)
        own: list[float] = []
        together: list[float] = []
        for number in range(asked.rounds + 1):
            asked.say(f"round {number} of {asked.rounds}" if number else "warming up")
            before = fleet.serving(small, queries)
            after = fleet.serving(large, queries)
            if number:
                own.append(before)
                together.append(after - before)
        blobs = large.manifest.size
        name = f"{count} readers together ÷ blobs of the version"
        mega = 1e6
        return Findings(
            figures=(
                Figure(
                    name=name,
                    value=statistics.median(each / blobs for each in together),
                    target=at_most(1.1),
                ),
            ),
            measured=(
                Measured(name="blobs of the version", unit="MB", values=(blobs / mega,)),
                Measured(
                    name=f"{count} readers, for the index",
                    unit="MB",
                    values=tuple(each / mega for each in together),
                ),
                Measured(
                    name=f"{count} readers, for themselves",
                    unit="MB",
                    values=tuple(each / mega for each in own),
                ),
            ),
            plots=(
                Bars(
                    name="memory",
                    title=f"Memory of {count} readers of one index",
                    unit="MB",
                    bars=(
                        ("blobs of the version", blobs / mega),
                        ("all readers, for the index", statistics.median(together) / mega),
                        ("a copy in each reader", count * blobs / mega),
                    ),
                ),
            ),
            servers=server.versions,
        )


PROGRAM = Program(name="memory", question=__doc__, caveats=CAVEATS, measure=measure)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
