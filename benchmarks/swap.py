"""What do queries feel of releases that come five times a second, and of builds beside them?

A reader in a process of its own asks its index one query after another, on one thread, while
releases are committed and announced: new deltas on the same base, or a whole new base each time.
Then while an index is built on the same processors: lists, a graph, or deltas that arrive five
times a second, each built and released. Beside it the same without releases and builds.
"""

import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import numpy as np

from indexrelay.schemas.settings import RebuilderSettings
from measuring.arrays import ArrayCollection, drawn
from measuring.companions import Companion, companion
from measuring.findings import Figure, Findings, Measured, at_most
from measuring.program import Asked, Program, main
from measuring.releasing import Publisher, StoredVersion, publishing
from measuring.rounds import Contender, Rounds, interleaved
from measuring.servers import bench_server

CAVEATS = """\
- One thread asks without a pause, which keeps a core busy; the reload, the server and the publisher
  with its fsyncs share what is left. With two cores that is one core for all of them.
- "None waits for a lock" is measured by a swap that is held in its middle, with all that a reload
  locks: queries go on meanwhile. Python's own lock is not in that: a reload computes a few
  milliseconds in Python, and lets queries go first after a tenth of one (decision 012).
- The quiet side serves the same versions. "New deltas" and "new bases" were built beforehand and
  take turns. "Deltas arrive" builds each when it is due, with its gates; "swaps" says how many of
  those of ten seconds were released, which are 50 where the processors have nothing else to do.
- Builds run in a process of their own with the session, niceness, threads and OpenMP settings of a
  rebuilder's child, gates included, and begin before the queries do. They are ended with the turn,
  so that a turn of a few seconds sees a part of a build, from its beginning.
- p99.9 is told for orientation: a few dozen queries decide it in each round.
"""
PER_SECOND = 5
DIMENSION = 128
HELD_QUERIES = 500
LISTS_BUILT, GRAPH_BUILT, DELTAS = "lists are built", "a graph is built", "deltas arrive"
QUIET, QUIET_DELTA = "quiet, base only", "quiet, with a delta"


@dataclass(frozen=True, kw_only=True)
class Building:
    """What is built beside the queries."""

    arguments: tuple[str, ...]
    """Of the builder: its folder, and the server's URL."""
    question: Mapping[str, Any]
    """What it is asked to build."""

    @contextmanager
    def running(self) -> Iterator[Companion]:
        """A builder that has begun."""
        threads = str(RebuilderSettings().build_threads)
        variables = {
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "OMP_WAIT_POLICY": "PASSIVE",
            "OPENBLAS_THREAD_TIMEOUT": "4",
        }
        with companion("builder", *self.arguments, variables=variables) as builder:
            builder.ask(**self.question)
            yield builder


@dataclass
class Watching:
    """A contender: queries for a while, and perhaps releases meanwhile."""

    publisher: Publisher
    reader: Companion
    versions: Sequence[StoredVersion]
    seconds: float
    releasing: bool = False
    """Whether these versions are released, in turn, meanwhile."""
    building: Building | None = None
    """What is built meanwhile; ``None``: nothing."""
    answers: list[dict[str, Any]] = field(default_factory=list)
    """Of every turn, the first, which does not count, included."""

    def turn(self) -> float:
        """The p99 of the queries, in seconds."""
        # The first of them is served when the turn begins.
        release = self.publisher.commit(self.versions[0])
        self.publisher.announce(release)
        self.reader.ask(do="served", release=release.number)
        self.reader.ask(do="ask", count=1_000)
        with self._released(), self._built():
            answer = self.reader.ask(do="watch", seconds=self.seconds)
        if self.releasing and not answer["swaps"]:
            raise RuntimeError("there was no swap to be felt")
        self.answers.append(answer)
        return float(answer["p99"])

    @contextmanager
    def _built(self) -> Iterator[None]:
        """Build in a process of its own, for as long as the ``with``."""
        if self.building is None:
            yield
            return
        with self.building.running() as builder:
            yield
            builder.ask(do="done")  # raises where a build failed

    @contextmanager
    def _released(self) -> Iterator[None]:
        """Release five times a second from a thread of its own, for as long as the ``with``."""
        done = threading.Event()
        wrong: list[BaseException] = []
        thread = threading.Thread(target=self._release_until, args=(done, wrong))
        if self.releasing:
            thread.start()
        try:
            yield
        finally:
            done.set()
            if self.releasing:
                thread.join()
        if wrong:
            raise wrong[0]

    def _release_until(self, done: threading.Event, wrong: list[BaseException]) -> None:
        began = time.monotonic()
        try:
            for number in count(1):
                if done.wait(max(0.0, began + number / PER_SECOND - time.monotonic())):
                    return
                version = self.versions[number % len(self.versions)]
                self.publisher.announce(self.publisher.commit(version))
        except Exception as error:  # noqa: BLE001 - raised again by the thread that waits
            wrong.append(error)


@dataclass(frozen=True, kw_only=True)
class Versions:
    """What is released."""

    bases: Sequence[StoredVersion]
    deltas: Sequence[StoredVersion]
    """On the same base."""


def build(asked: Asked, publisher: Publisher) -> Versions:
    rows, lists = sizes(asked)
    parameters: dict[str, Any] = {"index": f"IVF{lists},Flat", "nprobe": 16}
    vectors = drawn(rows, DIMENSION)
    bases, deltas = [], []
    for number in range(2):
        asked.say(f"building base {number + 1}, {rows} vectors")
        # The same vectors under other ids: other files, and the same answers to look for.
        source = ArrayCollection(vectors=np.roll(vectors, number, axis=0))
        bases.append(publisher.build(source, gates=True, **parameters))
    for number in range(2):
        # The companion `builder` makes the first of them again, to go on from it.
        changed = source.with_changes(rows // 100, seed=number)
        deltas.append(publisher.build(changed, previous=bases[-1], gates=True, **parameters))
    return Versions(bases=bases, deltas=deltas)


def buildings(asked: Asked, versions: Versions, arguments: tuple[str, ...]) -> dict[str, Building]:
    """What may be built beside the queries, by what happens then."""
    rows, lists = sizes(asked)
    built, graph = (5_000, 5_000) if asked.quick else (300_000, 100_000)
    full = {"do": "full", "index": f"IVF{lists},Flat", "rows": built}
    deltas = {"do": "deltas", "version": versions.deltas[0].id, "rows": rows, "lists": lists}
    return {
        LISTS_BUILT: Building(arguments=arguments, question=full),
        GRAPH_BUILT: Building(
            arguments=arguments, question={"do": "full", "index": "HNSW32", "rows": graph}
        ),
        DELTAS: Building(arguments=arguments, question=deltas),
    }


def sizes(asked: Asked) -> tuple[int, int]:
    """Entries and lists of what is served."""
    return (20_000, 64) if asked.quick else (500_000, 1024)


def held(publisher: Publisher, reader: Companion, versions: Sequence[StoredVersion]) -> Figure:
    """Queries in the middle of a swap that does not go on."""
    waited = 0
    for version in versions:
        reader.ask(do="hold")
        publisher.announce(publisher.commit(version))
        answer = reader.ask(do="ask_held", count=HELD_QUERIES)
        waited += answer["failed"] + answer["waited"]
    share = waited / (HELD_QUERIES * len(versions))
    name = "queries that wait for a held swap ÷ queries"
    return Figure(name=name, value=share, target=at_most(0))


def measure(asked: Asked) -> Findings:
    # A build is looked at for longer: it does one thing after the other.
    seconds, while_building = (0.6, 1.0) if asked.quick else (3.0, 10.0)
    with bench_server() as server, publishing(server) as (publisher, folder):
        versions = build(asked, publisher)
        with companion("reader", str(folder), server.url, "3") as reader:
            builds = buildings(asked, versions, (str(folder), server.url))
            watching = partial(Watching, publisher, reader, seconds=seconds)
            beside = partial(Watching, publisher, reader, seconds=while_building)
            turns = {
                QUIET_DELTA: watching(versions.deltas),
                "new deltas": watching(versions.deltas, releasing=True),
                DELTAS: beside(versions.deltas[:1], building=builds[DELTAS]),
                "new bases": watching(versions.bases, releasing=True),
                QUIET: watching(versions.bases[-1:]),
                LISTS_BUILT: beside(versions.bases[-1:], building=builds[LISTS_BUILT]),
                GRAPH_BUILT: beside(versions.bases[-1:], building=builds[GRAPH_BUILT]),
            }
            contenders: dict[str, Contender] = {name: each.turn for name, each in turns.items()}
            p99 = interleaved(contenders, rounds=asked.rounds, say=asked.say)
            asked.say("holding swaps")
            waiting = held(publisher, reader, (*versions.deltas, *versions.bases))
        p999 = _rounds(turns, "p999")
        asked_in_all = sum(answer["asked"] for each in turns.values() for answer in each.answers)
        failed = sum(answer["failed"] for each in turns.values() for answer in each.answers)
        pairs = (
            ("new deltas", QUIET_DELTA, 1.1),
            ("new bases", QUIET, 1.3),
            (LISTS_BUILT, QUIET, 1.1),
            (GRAPH_BUILT, QUIET, 1.2),
            (DELTAS, QUIET_DELTA, 1.1),
        )
        figures = [
            Figure(name=f"p99, {name} ÷ quiet", value=p99.ratio(name, quiet), target=at_most(most))
            for name, quiet, most in pairs
        ]
        figures += [
            Figure(name=f"p99.9, {name} ÷ quiet", value=p999.ratio(name, quiet))
            for name, quiet, _ in pairs
        ]
        figures += [
            Figure(name="failed queries ÷ queries", value=failed / asked_in_all, target=at_most(0)),
            waiting,
        ]
        measured = [
            Measured(
                name=f"{label}: {name}",
                unit="ms",
                values=tuple(1000 * value for value in _rounds(turns, key).seconds[name]),
            )
            for label, key in (("median", "median"), ("p99", "p99"), ("p99.9", "p999"))
            for name in turns
        ]
        measured += [
            Measured(
                name=f"swaps: {name}",
                unit="in a turn",
                values=tuple(float(answer["swaps"]) for answer in each.answers[1:]),
            )
            for name, each in turns.items()
            if each.releasing or name == DELTAS
        ]
        return Findings(figures=tuple(figures), measured=tuple(measured), servers=server.versions)


def _rounds(turns: dict[str, Watching], key: str) -> Rounds:
    """One quantile of every round that counts."""
    return Rounds(
        seconds={
            name: tuple(float(answer[key]) for answer in each.answers[1:])
            for name, each in turns.items()
        }
    )


PROGRAM = Program(name="swap", question=__doc__, caveats=CAVEATS, measure=measure)

if __name__ == "__main__":
    sys.exit(main(PROGRAM))
