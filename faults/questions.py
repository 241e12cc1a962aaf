"""Asks a reader service all the time, and knows what it should have said.

The truth is what exact search finds among the entries of each generation. An answer names the
version that it comes from, and is held against that version's generation.
"""

import json
import socket
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from faults.bench import Bench
from faults.recorder import COLLECTION

COMPONENT = "similar"
_ASK_SECONDS = 0.02
_TIMEOUT_SECONDS = 5.0
_K = 10


@dataclass(frozen=True)
class Answer:
    """What one query got."""

    at: float
    query: int
    version: str | None = None
    ids: tuple[str, ...] = ()
    """Empty: there was none."""


@dataclass
class Truth:
    """The entries of each generation, and what is nearest among them."""

    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(11))
    vectors: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    counts: dict[int, int] = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)
    """What each version covers, taken down before anything happens to it."""

    def __post_init__(self) -> None:
        self.queries = self.rng.random((50, 2), dtype=np.float32)

    def commit(self, bench: Bench, count: int) -> int:
        """Add entries; the generation that has them."""
        more = self.rng.random((count, 2), dtype=np.float32)
        ids = [str(row) for row in range(len(self.vectors), len(self.vectors) + count)]
        with bench.producer.batch(COLLECTION) as batch:
            batch.upsert(ids, more)
        self.vectors = np.concatenate([self.vectors, more])
        self.counts[batch.commit.generation] = len(self.vectors)
        return batch.commit.generation

    def is_right(self, answer: Answer) -> bool:
        """Whether the answer is what its version should find."""
        assert answer.version in self.generations, f"nobody released {answer.version}"
        count = self.counts[self.generations[answer.version]]
        distances = ((self.vectors[:count] - self.queries[answer.query]) ** 2).sum(axis=1)
        nearest = np.sort(distances)[:_K]
        # A damaged table of ids gives names that nobody ever gave.
        rows = [int(name) for name in answer.ids if name.isascii() and name.isdigit()]
        found = distances[[row for row in rows if row < count]]
        # By distance: two may be equally far.
        return len(found) == _K and bool(np.allclose(np.sort(found), nearest, atol=1e-6))


class Asker:
    """Asks the reader all the time, on a thread of its own."""

    def __init__(self, socket: Path, truth: Truth) -> None:
        self._socket = socket
        self._truth = truth
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="asker")
        self.answers: list[Answer] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._done.is_set():
            with closing(_UnixConnection(self._socket)) as http:
                answered = True
                while answered and not self._done.wait(_ASK_SECONDS):
                    number = (number + 1) % len(self._truth.queries)
                    self.answers.append(self._ask(http, number))
                    answered = bool(self.answers[-1].ids)

    def _ask(self, http: HTTPConnection, number: int) -> Answer:
        body = json.dumps({"vector": self._truth.queries[number].tolist(), "k": _K})
        try:
            http.request(
                "POST",
                f"/components/{COMPONENT}/search",
                body=body,
                headers={"Content-Type": "application/json"},
            )
            response = http.getresponse()
            said = json.loads(response.read())
        except (OSError, HTTPException, ValueError):
            return Answer(time.monotonic(), number)
        if response.status != HTTPStatus.OK:
            return Answer(time.monotonic(), number)
        ids = tuple(hit["id"] for hit in said["hits"])
        return Answer(time.monotonic(), number, said["version"], ids)


class _UnixConnection(HTTPConnection):
    """Over a unix socket; closed whole also where nobody listens."""

    def __init__(self, path: Path) -> None:
        super().__init__("reader", timeout=_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_SECONDS)
        self.sock.connect(str(self._path))
