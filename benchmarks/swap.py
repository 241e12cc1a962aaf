"""What do queries feel of releases that come five times a second?

A reader in a process of its own asks its index one query after another, on one thread, while
releases are committed and announced: new deltas on the same base, or a whole new base each time.
Beside it the same without releases.
"""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

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
- The quiet side serves the same versions. Versions are built beforehand and take turns.
- p99.9 is told for orientation: a few dozen queries decide it in each round.
"""
PER_SECOND = 5
DIMENSION = 128
HELD_QUERIES = 500


@dataclass
class Watching:
    """A contender: queries for a while, and perhaps releases meanwhile."""

    publisher: Publisher
    reader: Companion
    versions: Sequence[StoredVersion]
    releasing: bool
    seconds: float
    answers: list[dict[str, Any]] = field(default_factory=list)
    """Of every turn, the first, which does not count, included."""

    def turn(self) -> float:
        """The p99 of the queries, in seconds."""
        # The first of them is served when the turn begins.
        release = self.publisher.commit(self.versions[0])
        self.publisher.announce(release)
        self.reader.ask(do="served", release=release.number)
        self.reader.ask(do="ask", count=1_000)
        with self._released():
            answer = self.reader.ask(do="watch", seconds=self.seconds)
        if self.releasing and not answer["swaps"]:
            raise RuntimeError("there was no swap to be felt")
        self.answers.append(answer)
        return float(answer["p99"])

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
    rows, lists = (20_000, 64) if asked.quick else (500_000, 1024)
    parameters: dict[str, Any] = {"index": f"IVF{lists},Flat", "nprobe": 16}
    vectors = drawn(rows, DIMENSION)
    bases, deltas = [], []
    for number in range(2):
        asked.say(f"building base {number + 1}, {rows} vectors")
        # The same vectors under other ids: other files, and the same answers to look for.
        source = ArrayCollection(vectors=np.roll(vectors, number, axis=0))
        bases.append(publisher.build(source, **parameters))
    for number in range(2):
        changed = source.with_changes(rows // 100, seed=number)
        deltas.append(publisher.build(changed, previous=bases[-1], **parameters))
    return Versions(bases=bases, deltas=deltas)


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
    seconds = 0.6 if asked.quick else 3.0
    with bench_server() as server, publishing(server) as (publisher, folder):
        versions = build(asked, publisher)
        with companion("reader", str(folder), server.url, "3") as reader:

            def watching(of: Sequence[StoredVersion], *, releasing: bool) -> Watching:
                return Watching(publisher, reader, of, releasing, seconds)

            turns = {
                "quiet, with a delta": watching(versions.deltas, releasing=False),
                "new deltas": watching(versions.deltas, releasing=True),
                "new bases": watching(versions.bases, releasing=True),
                "quiet, base only": watching(versions.bases, releasing=False),
            }
            contenders: dict[str, Contender] = {name: each.turn for name, each in turns.items()}
            p99 = interleaved(contenders, rounds=asked.rounds, say=asked.say)
            asked.say("holding swaps")
            waiting = held(publisher, reader, (*versions.deltas, *versions.bases))
        p999 = _rounds(turns, "p999")
        asked_in_all = sum(answer["asked"] for each in turns.values() for answer in each.answers)
        failed = sum(answer["failed"] for each in turns.values() for answer in each.answers)
        pairs = (
            ("new deltas", "quiet, with a delta", 1.1),
            ("new bases", "quiet, base only", 1.3),
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
            if each.releasing
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
