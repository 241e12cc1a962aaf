"""Clients with sessions, which ask one reader of a live collection after the other.

F26: what carries changes fails as in F25, and a reader is killed with SIGKILL and starts again. Two
clients write meanwhile, ask with their sessions, hand them over, and ask for everything that was
committed. A reader that can open the catalog answers each of them in time; one that cannot may
refuse. No answer lacks what its client has written or seen (I9), or is older than one before (I10),
whichever reader gives it, and each holds what the commits up to its generation add up to.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import cycle
from pathlib import Path

import numpy as np

from faults.bench import COMPONENTS, Bench
from faults.history import Answered, Told, content_digest
from faults.recorder import COLLECTION
from faults.rows import Row
from faults.scenarios import live
from indexrelay.schemas.session import SessionToken
from indexrelay.storage.catalog import Commit

_FRESH_SECONDS = 5.0
"""How long a reader may take until it is as fresh as asked: the time-out of a command (1 s), and a
busy machine."""


class _Client:
    """Keeps its session, and records what it is told and answered."""

    def __init__(self, bench: Bench, name: str) -> None:
        self._bench = bench
        self._name = name
        self.session = SessionToken()
        self.seconds: list[float] = []
        """How long each answer to its session took."""

    def learn(self, session: SessionToken) -> None:
        """It has written that, or another client has handed it over."""
        self.session = self.session.merge(session)
        newest = max(life.generation for life in self.session)
        self._bench.recorder.clients.append(Told(client=self._name, generation=newest))

    def ask(self, reader: str, level: str, *, committed: int) -> str | None:
        """Ask a reader; why it refuses, ``None``: it has answered."""
        sent = self.session if level == "session" else SessionToken()
        asked = {"level": level, "session": str(sent), "seconds": _FRESH_SECONDS}
        began = time.monotonic()
        answer = json.loads(self._bench.processes[reader].ask(json.dumps(asked)))
        if "refused" in answer:
            return str(answer["refused"])
        if level == "session":
            self.seconds.append(time.monotonic() - began)
        self._bench.recorder.clients.append(
            Answered(
                client=self._name,
                reader=reader,
                level=level,
                generation=answer["generation"],
                content=content_digest(answer["ids"]),
                committed=committed,
            )
        )
        self.session = self.session.after(sent, SessionToken.from_text(answer["session"]))
        return None


def keep(program: Path, row: Row, runs: int) -> None:
    """One fault after the other, on one installation."""
    with Bench(
        program,
        components={**COMPONENTS, "similar": live.SIMILAR},
        tables=live.LIVE,
        linked=("live",),
    ) as bench:
        live.start(bench)
        clients = [_Client(bench, "first"), _Client(bench, "second")]
        for number, what in zip(range(runs), cycle(FAULTS), strict=False):
            with row.run(f"{what}, run {number}"):
                with FAULTS[what](bench):
                    _once(bench, row, clients)
                _once(bench, row, clients)
                bench.settle()
        seconds = [each for client in clients for each in client.seconds]
        row.figures.append(
            f"{len(seconds)} answers to sessions, median {statistics.median(seconds) * 1000:.1f} ms"
        )
        # The files of a real index do not say what it holds; the answers of readers do.
        row.broke([each for each in bench.violations() if not each.startswith("I1: ")])


def _once(bench: Bench, row: Row, clients: list[_Client]) -> None:
    """Each client writes and asks everybody, then the other one with what it has seen."""
    for writer, other in (clients, clients[::-1]):
        committed = _commit(bench)
        writer.learn(committed.session)
        began = time.monotonic()
        for reader in live.WITH_CATALOG:
            refused = writer.ask(reader, "session", committed=committed.generation)
            assert refused is None, f"{reader}: {refused}"
        row.recovered(time.monotonic() - began, within=_FRESH_SECONDS)
        other.learn(writer.session)
        other.ask(live.FAR, "session", committed=committed.generation)
        for level in ("session", "eventual", "strong"):
            for reader in reversed(live.WITH_CATALOG):
                refused = other.ask(reader, level, committed=committed.generation)
                assert refused is None, f"{reader}: {refused}"


def _commit(bench: Bench) -> Commit:
    name, ids = bench.new_batch()
    with bench.producer.batch(COLLECTION, name) as batch:
        batch.upsert(ids, np.ones((len(ids), 2), dtype=np.float32))
    return batch.commit


@contextmanager
def _reader_killed(bench: Bench) -> Iterator[None]:
    """One of them is killed and started again, and a commit comes in between."""
    reader = bench.processes[live.NEAR]
    reader.kill()
    _commit(bench)
    reader.start()
    asked = json.dumps({"level": "eventual", "session": str(SessionToken()), "seconds": 0})
    bench.wait(lambda: "refused" not in json.loads(reader.ask(asked)))
    yield


FAULTS: Mapping[str, Callable[[Bench], AbstractContextManager[None]]] = {
    **live.FAULTS,
    "reader killed": _reader_killed,
}
