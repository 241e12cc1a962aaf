"""Do fifty clients that write and search through two instances all find everything, without errors?

They come five a second, three searches to one write, while rebuilds and reloads go on. Each asks
one instance for what it has just written through the other. In the end every entry must be found by
its own vector and its own text through both instances, and answers must be those of a model that
compares all: before a release has everything, and after it.
"""

import sys

from measuring.crowd import Crowd, compared, seeded, tables
from measuring.findings import Figure, Findings, Measured, at_most
from measuring.instances import instances
from measuring.program import Asked, Program, main
from measuring.servers import bench_server

CAVEATS = """\
- Locust and its fifty clients, two instances, the rebuilder and the server share the machine: the
  times are those of a crowd on two cores, each client waiting 0.1 to 0.5 s between two requests.
- A time is that of one call of our client, on an event loop that fifty clients share.
- Each client writes entries of its own, up to 200, so that it can say what must be found. That
  clients do not hurt each other where they write the same entry is for the tests to show.
- What is missing or wrong ends the program: there are no figures of a crowd that lost something.
"""
SECONDS, QUICK_SECONDS = 300, 60
NAMES = ("north", "south")


class WrongError(RuntimeError):
    """Raised when a request failed, or something is not found."""

    def __init__(self, wrong: list[str]) -> None:
        super().__init__("\n".join([f"{len(wrong)} things are not right:", *wrong[:20]]))


def measure(asked: Asked) -> Findings:
    crowd = Crowd(
        clients=50,
        a_second=5,
        seconds=QUICK_SECONDS if asked.quick else SECONDS,
        # The quick form runs where others may take the machine for seconds: late is no error there.
        deadline_seconds=60.0 if asked.quick else 10.0,
    )
    with bench_server() as server, instances(server.url, tables(), *NAMES) as there:
        seeds = seeded(there)
        first = there.store.next_number()
        asked.say(f"{crowd.clients} clients for {crowd.seconds} s")
        visit = crowd.visit([*there.addresses.values()])
        releases = there.store.next_number() - first
        model = visit.model(seeds)
        wrong = [*visit.errors, *compared(there, model, asked.say)]
        versions = server.versions
    if wrong:
        raise WrongError(wrong)
    requests = sum(each.requests for each in visit.requests.values())
    writes = sum(visit.requests[each].requests for each in ("upsert", "patch", "delete"))
    kinds = sorted(visit.requests.items())
    return Findings(
        figures=(
            Figure(
                name="requests that failed, or whose answer lacked something",
                value=0,
                target=at_most(0),
                note=f"of {requests}, {writes} of them writes; {releases} releases meanwhile",
            ),
            Figure(
                name="entries that are lost, or not found by their own vector and text",
                value=0,
                target=at_most(0),
                note=f"of {len(model.ids)}, through each of {len(NAMES)} instances",
            ),
        ),
        measured=(
            Measured(name="requests", unit="1/s", values=(requests / crowd.seconds,)),
            *(Measured(name=f"{name}, p50", unit="ms", values=(each.p50,)) for name, each in kinds),
            *(Measured(name=f"{name}, p99", unit="ms", values=(each.p99,)) for name, each in kinds),
        ),
        servers=versions,
    )


PROGRAM = Program(name="crowd", question=__doc__, caveats=CAVEATS, measure=measure)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
