"""What does it cost a reader to be watched?

Searches over HTTP in a graph, with everything that a reader counts of them and a page of metrics in
each round, beside the same searches of a reader that counts nothing. And what the operator's look
at the whole installation takes.
"""

import json
import sys
from collections.abc import Callable

from indexrelay.operations.metrics import page_of
from indexrelay.operations.monitor import Looker
from indexrelay.schemas.clock import SystemClock
from measuring.arrays import drawn
from measuring.companions import companion
from measuring.findings import Figure, Findings, at_least
from measuring.installation import COMPONENT, Installation, installed
from measuring.program import Asked, Program, main
from measuring.requests import asking, request
from measuring.rounds import interleaved, timed
from measuring.servers import bench_server

CAVEATS = """\
- Both readers are in one process and serve the same files; who is not asked takes no time. The
  client is another process, on the same two cores.
- A page is asked for once in each round of a few seconds, where monitoring systems ask every 15.
- The look is that of an installation with one component. It runs in the operator's process, every
  `monitoring.look_seconds`.
- Traces have spans of batches, builds and loads, and none of searches.
"""
INDEX = "HNSW32"
OFF, ON, LOOK = "nothing counted", "counted, and a page", "the operator's look"
COUNT, QUICK_COUNT = 20_000, 2_000
SEARCHES, QUICK_SEARCHES = 4_000, 200


def measure(asked: Asked) -> Findings:
    count = QUICK_COUNT if asked.quick else COUNT
    vectors = drawn(count)
    queries = vectors[: QUICK_SEARCHES if asked.quick else SEARCHES]
    searches = [
        request(
            "POST",
            f"/v1/components/{COMPONENT}/search",
            json.dumps({"vector": each.tolist()}).encode(),
        )
        for each in queries
    ]
    with (
        bench_server() as server,
        installed(server.url, vectors, name="monitoring", index=INDEX, live=True) as bench,
    ):
        bench.fill(asked.say)
        arguments = (str(bench.folder), server.url, str(vectors.shape[1]), bench.name, INDEX)
        with companion("service", *arguments) as far:
            counted = far.ask(do="serve")["ours"]
            uncounted = far.ask(do="serve_uncounted")["uncounted"]
            rounds = interleaved(
                {
                    OFF: asking(uncounted, searches),
                    ON: asking(counted, [*searches, request("GET", "/metrics")]),
                    LOOK: timed(_look(bench)),
                },
                rounds=asked.rounds,
                say=asked.say,
            )
        versions = server.versions
    return Findings(
        figures=(
            Figure(
                name="searches/s watched ÷ not watched",
                value=rounds.speed(ON, OFF),
                target=at_least(0.97),
            ),
        ),
        measured=(
            rounds.rates(OFF, len(searches), "searches/s"),
            rounds.rates(ON, len(searches), "searches/s"),
            rounds.durations(LOOK),
        ),
        servers=versions,
    )


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
