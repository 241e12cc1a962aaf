"""What does it cost a reader to be watched?

Searches of one thread in a graph over 100,000 vectors, with everything that a reader counts of a
search and a page of metrics written for each round, beside the same searches with nothing counted.
And what the operator's look at the whole installation takes, with the alerts evaluated.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

from indexrelay.operations.metrics import page_of
from indexrelay.operations.monitor import Looker
from indexrelay.schemas.clock import SystemClock
from indexrelay.service.metrics import MetricsPage, QueryCounts, WriteCounts
from indexrelay.service.queries import Observation
from indexrelay.storage.entries import Vectors
from measuring.arrays import drawn
from measuring.findings import Figure, Findings, Measured, at_least
from measuring.installation import COMPONENT, Installation, installed
from measuring.program import Asked, Program, main
from measuring.rounds import Contender, interleaved, timed
from measuring.servers import bench_server

CAVEATS = """\
- The searches are made in the process, where they are the shortest: over HTTP the same count is a
  tenth of that share. A page is asked for once in each round of about a second, where monitoring
  systems ask every 15 seconds.
- The look is that of an installation with one component and one reader. It runs in the operator's
  process, every `monitoring.look_seconds`.
- Spans of traces are made of batches, builds and loads, and none of searches.
"""
COUNT, QUICK_COUNT = 100_000, 4_000
SEARCHES, QUICK_SEARCHES = 10_000, 400


def measure(asked: Asked) -> Findings:
    count = QUICK_COUNT if asked.quick else COUNT
    searches = QUICK_SEARCHES if asked.quick else SEARCHES
    with bench_server() as server:
        vectors = drawn(count)
        with installed(server.url, vectors, name="monitoring", index="HNSW32") as bench:
            bench.fill(asked.say)
            queries = vectors[:searches]
            counts = QueryCounts()
            page = MetricsPage(bench.reader, counts, WriteCounts(), lambda: 0)
            rounds = interleaved(
                {
                    "nothing counted": _asked(bench, queries, None, lambda: None),
                    "counted, and a page": _asked(bench, queries, counts, page.to_bytes),
                    "the operator's look": timed(_look(bench)),
                },
                rounds=asked.rounds,
                say=asked.say,
            )
        versions = server.versions
    return Findings(
        figures=(
            Figure(
                name="searches/s watched ÷ not watched",
                value=rounds.speed("counted, and a page", "nothing counted"),
                target=at_least(0.97),
            ),
        ),
        measured=(
            rounds.rates("nothing counted", len(queries), "searches/s"),
            rounds.rates("counted, and a page", len(queries), "searches/s"),
            Measured(
                name="the operator's look",
                unit="s",
                values=rounds.seconds["the operator's look"],
            ),
        ),
        servers=versions,
    )


def _asked(
    bench: Installation,
    queries: Vectors,
    counts: QueryCounts | None,
    write_page: Callable[[], object],
) -> Contender:
    """Every query once, each observed as the service does, and one page."""

    def turn() -> float:
        began = time.perf_counter()
        with bench.reader.acquire() as snapshot:
            served: Any = snapshot[COMPONENT]
            for query in queries:
                asked_at = time.perf_counter()
                served.search(query)
                seconds = time.perf_counter() - asked_at
                if counts is not None:
                    counts.observe(
                        Observation(
                            operation="search",
                            outcome="answered",
                            seconds=seconds,
                            component=COMPONENT,
                        )
                    )
        write_page()
        return time.perf_counter() - began

    return turn


def _look(bench: Installation) -> Callable[[], object]:
    looker = Looker(
        bench.settings,
        catalog=bench.catalog,
        store=bench.store,
        connection=lambda: bench.connection,
        clock=SystemClock(),
    )
    return lambda: page_of(looker.look().seen)


PROGRAM = Program(name="monitoring", question=__doc__, caveats=CAVEATS, measure=measure)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
