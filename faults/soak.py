"""Clients write and search for long, while instances and the rebuilder are killed.

``python -m faults.soak --minutes 60``: clients with sessions, one write in four requests, come to
three instances of a reader service, while releases are made and reloaded. Again and again one of
the processes is killed with SIGKILL, and started again when the others have served alone for a
while; one instance is never killed, so that its memory over time shows whether anything grows. The
clients repeat what got no answer, under the same key. In the end everything that was acknowledged
must be there, and answers must be those of a model that compares all. A run in which no instance or
not the rebuilder was killed, or nothing was released, has shown nothing.

Prints one JSON object; ends with 0 only if no request failed, nothing is lost, memory is steady and
both were killed.
"""

import argparse
import json
import random
import signal
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from measuring.crowd import Crowd, Visitors, compared, seeded, tables
from measuring.instances import REBUILDER, Instances, instances
from measuring.servers import bench_server

KEPT = "steady"
"""The instance that is never killed."""
KILLED = ("north", "south")
_LOOK_SECONDS = 5.0
_ALONE_SECONDS = 2.0
"""Until what was killed is started again."""
_FIRST_SECONDS = 30.0
"""Until everything that is killed has been started again twice, beside the pauses."""
_WARM = 1 / 6
"""Of the time, after which memory is no longer expected to grow: the collection has its size, and
every thread and cache has been used."""
_MOST_GROWTH = 1.1
"""Of the memory in the last tenth of the time, beside that at the end of the warm-up."""


@dataclass
class Soak:
    """One run: what was killed, and the memory of each process over time."""

    there: Instances
    seconds: float
    kill_seconds: float
    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    memory: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    """By process: seconds since the start, and bytes that it had resident."""

    def watch(self, visitors: Visitors) -> None:
        """Kill and look, until all clients have gone."""
        draw = random.Random(self.seed)
        began = time.monotonic()
        kill_at = began + self.kill_seconds
        while not visitors.are_gone:
            now = time.monotonic()
            if ended := self.there.ended():
                raise RuntimeError(f"ended, and nobody killed them: {', '.join(ended)}")
            for name in self.there.names:
                seen = self.memory.setdefault(name, [])
                seen.append((round(now - began, 1), self.there.memory(name)))
            if now >= kill_at and now - began < self.seconds - self.kill_seconds:
                self._kill(self._next(draw))
                kill_at = now + draw.uniform(0.5, 1.5) * self.kill_seconds
            time.sleep(_LOOK_SECONDS)

    def _next(self, draw: random.Random) -> str:
        """Whom to kill: of instances and rebuilder first one each."""
        if not self.kills:
            return draw.choice(KILLED)
        return draw.choice((*KILLED, REBUILDER)) if self.kills[REBUILDER] else REBUILDER

    def _kill(self, name: str) -> None:
        self.there.kill(name)
        self.kills[name] += 1
        time.sleep(_ALONE_SECONDS)
        self.there.start(name)
        self.there.await_all()

    def unproved(self, releases: int) -> list[str]:
        """What did not happen although there was time, so that the run shows nothing of it."""
        if self.seconds < 6 * self.kill_seconds + _FIRST_SECONDS:
            return []
        counts = {
            "no instance was killed": sum(self.kills[name] for name in KILLED),
            "the rebuilder was not killed": self.kills[REBUILDER],
            "nothing was released": releases,
        }
        return [what for what, count in counts.items() if count == 0]

    @property
    def growth(self) -> float:
        """Memory of the instance that was never killed, in the end ÷ when it was warm."""
        seen = self.memory[KEPT]

        def around(start: float, end: float) -> float:
            return statistics.median(
                size for at, size in seen if start * self.seconds <= at <= end * self.seconds
            )

        return around(0.9, 1) / around(_WARM, _WARM + 0.1)


def main() -> int:
    asked = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and clear up
    seconds = asked.minutes * 60
    crowd = Crowd(clients=asked.clients, a_second=1, seconds=seconds, deadline_seconds=60)
    settings = tables(save_seconds=10)
    with bench_server() as server, instances(server.url, settings, KEPT, *KILLED) as there:
        seeds = seeded(there)
        soak = Soak(there, seconds, asked.kill_seconds, asked.seed)
        first = there.store.next_number()
        with crowd.started([*there.addresses.values()]) as visitors:
            soak.watch(visitors)
            visit = visitors.visit()
        releases = there.store.next_number() - first
        model = visit.model(seeds)
        wrong = [*visit.errors, *compared(there, model, _say)]
    growth = soak.growth
    if growth > _MOST_GROWTH:
        wrong.append(f"the memory of an instance grew by a factor of {growth:.2f}")
    wrong += soak.unproved(releases)
    writes = sum(visit.requests[each].requests for each in ("upsert", "patch", "delete"))
    result: dict[str, Any] = {
        "minutes": asked.minutes,
        "seed": asked.seed,
        "requests": sum(each.requests for each in visit.requests.values()),
        "writes": writes,
        "entries": len(model.ids),
        "releases": releases,
        "kills": dict(soak.kills),
        "growth": round(growth, 3),
        "megabytes": {name: _over_time(seen) for name, seen in soak.memory.items()},
        "wrong": wrong,
    }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return 1 if wrong else 0


def _over_time(seen: list[tuple[float, int]]) -> dict[str, float]:
    """Some of it: about twenty looks, by their minute."""
    step = max(1, len(seen) // 20)
    return {f"{at / 60:.1f}": round(size / 1e6, 1) for at, size in [*seen[::step], seen[-1]]}


def _say(what: str) -> None:
    sys.stderr.write(f"soak: {what}\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long; default: 60")
    parser.add_argument("--clients", type=int, default=12, help="how many; default: 12")
    parser.add_argument(
        "--kill-seconds", type=float, default=30.0, help="about, between two kills; default: 30"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
