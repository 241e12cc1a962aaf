"""How long from a release message until the new index is served, beside reading its file?

A release names a new base of 256 MB, flat and IVF. A reader in a process of its own follows real
announcements over a real server; the blobs were checked on this host when they were built. Beside
it, `faiss.read_index` reads the same file in a fresh process. And what does it cost that the index
is ten times as large?
"""

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from measuring.arrays import ArrayCollection, drawn
from measuring.companions import Companion, companion
from measuring.findings import Figure, Findings, Measured, at_most
from measuring.plots import Bars
from measuring.program import Asked, Program, main
from measuring.releasing import Publisher, StoredVersion, publishing
from measuring.rounds import Contender, interleaved
from measuring.servers import bench_server

CAVEATS = """\
- From the moment before the announcement's script is sent until queries get the new snapshot,
  without the warm-up, which is beside it: recent queries, asked again of the new index. What is
  read from the file is read then, and in the queries that follow; `read_index` reads all of it.
- The files are in the page cache for both. From a cold disk both wait for it, and `read_index` for
  all of it.
- The commit of the release (its fsync) comes before the message, and is not in here; neither is the
  check of blobs that a host sees for the first time, which reads and hashes them once.
- The versions are built without their gates. Two of each kind and size take turns, so that every
  release brings a base that is not open yet.
"""
LARGE, SMALL = 500_000, 50_000
QUICK_LARGE, QUICK_SMALL = 20_000, 5_000
DIMENSION = 128
RELEASES = 4
"""Timed in each turn, which counts as their median: each takes milliseconds."""
WARMING_QUERIES = 40
"""Asked after each release, so that there is something to warm the next one up with."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """An index that is released again and again, in two versions."""

    name: str
    size: str
    versions: Sequence[StoredVersion]


@dataclass
class Reloading:
    """A contender that releases, and waits until the reader serves it."""

    publisher: Publisher
    reader: Companion
    case: Case
    releases: int
    warm_ups: list[float] = field(default_factory=list)

    def contender(self) -> Contender:
        versions = cycle(self.case.versions)

        def turn() -> float:
            # The first does not count: the reader comes from another contender's index.
            self._release(next(versions))
            timed = [self._release(next(versions)) for _ in range(self.releases)]
            self.warm_ups.append(statistics.median(warm_up for _, warm_up in timed))
            return statistics.median(seconds for seconds, _ in timed)

        return turn

    def _release(self, version: StoredVersion) -> tuple[float, float]:
        release = self.publisher.commit(version)
        self.reader.ask(do="settled")
        began = time.perf_counter()
        self.publisher.announce(release)
        served = self.reader.ask(do="served", release=release.number)
        self.reader.ask(do="ask", count=WARMING_QUERIES)
        warm_up = float(served["warm_up"])
        return float(served["at"]) - began - warm_up, warm_up


def read_index(path: Path) -> Contender:
    """`faiss.read_index` in a fresh process."""

    def turn() -> float:
        with companion("read_index") as fresh:
            return fresh.seconds(path=str(path))

    return turn


def cases(asked: Asked, publisher: Publisher) -> dict[str, Case]:
    """Every index, in both versions, by name and size."""
    sizes = {"small": SMALL, "large": LARGE}
    lists = 1024
    if asked.quick:
        sizes, lists = {"small": QUICK_SMALL, "large": QUICK_LARGE}, 64
    kinds: Mapping[str, dict[str, Any]] = {
        "flat": {"index": "Flat"},
        "IVF": {"index": f"IVF{lists},Flat", "nprobe": 16},
    }
    found = {}
    for size, rows in sizes.items():
        vectors = drawn(rows, DIMENSION)
        for name, parameters in kinds.items():
            versions = []
            for number, shift in enumerate((0, 1), start=1):
                asked.say(f"building {name}, {rows} vectors, version {number}")
                # The same vectors under other ids: other files, and as much work.
                source = ArrayCollection(vectors=np.roll(vectors, shift, axis=0))
                versions.append(publisher.build(source, **parameters))
            found[f"{name} {size}"] = Case(name=name, size=size, versions=versions)
    return found


def measure(asked: Asked) -> Findings:
    with bench_server() as server, publishing(server) as (publisher, folder):
        known = cases(asked, publisher)
        with companion("reader", str(folder), server.url, "3") as reader:
            releases = 1 if asked.quick else RELEASES
            reloads = {
                name: Reloading(publisher, reader, case, releases) for name, case in known.items()
            }
            contenders = {f"reload {name}": each.contender() for name, each in reloads.items()}
            for name in ("flat", "IVF"):
                file = publisher.path(known[f"{name} large"].versions[0], "base.faiss")
                contenders[f"read_index {name} large"] = read_index(file)
            rounds = interleaved(contenders, rounds=asked.rounds, say=asked.say)
        figures = []
        for name, growth in (("flat", 1.5), ("IVF", 3.0)):
            figures += [
                Figure(
                    name=f"reload of {name} ÷ faiss.read_index",
                    value=rounds.ratio(f"reload {name} large", f"read_index {name} large"),
                    target=at_most(0.05),
                ),
                Figure(
                    name=f"reload of {name}, 500,000 ÷ 50,000 vectors",
                    value=rounds.ratio(f"reload {name} large", f"reload {name} small"),
                    target=at_most(growth),
                ),
            ]
        measured = [rounds.durations(name) for name in contenders]
        measured += [
            Measured(name=f"warm-up {name}", unit="s", values=tuple(each.warm_ups[1:]))
            for name, each in reloads.items()
        ]
        bars = tuple((name, 1000 * rounds.median(name)) for name in contenders)
        plot = Bars(name="reload", title="Until a new index is served", unit="ms", bars=bars)
        return Findings(
            figures=tuple(figures),
            measured=tuple(measured),
            plots=(plot,),
            servers=server.versions,
        )


PROGRAM = Program(name="reload", question=__doc__, caveats=CAVEATS, measure=measure)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
