"""What a crowd of clients writes, and what must be found of it: by a model that compares all.

An entry follows from two draws, one of its vector and one of its text, so that a model of many of
them is small. The model has every entry whose write was answered: nothing of it may be missing, and
nothing else may be found. It compares a query with all vectors, and weighs all texts by BM25 as
FTS5 of SQLite has it.
"""

import json
import math
import os
import secrets
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from indexrelay.service.client import Client, RequestRefusedError, SearchResult
from indexrelay.storage.entries import Vectors
from measuring.companions import BENCHMARKS
from measuring.instances import Instances
from measuring.rounds import Say

COLLECTION, COMPONENT = "memories", "memory"
DIMENSION = 32
WORDS = tuple(map("".join, product("bdfgklmnprst", "aiou", "bdfgklmnprst", "o")))
"""Made up, and such that no two are cut alike."""
_WORDS_OF_A_TEXT = 12
_K1 = 1.2
_LEAST_WEIGHT = 1e-6
"""Of a term that most texts have, in FTS5."""
_AT_ONCE = 50
"""Queries of one request."""
_QUESTIONS = 100
"""That are none of the entries."""
_SEEDS = 500
_LOCUSTFILE = BENCHMARKS / "companions" / "locustfile.py"
_LONGEST_TASK_SECONDS = 60.0
"""That a client may take when its time is over: a write is sent until it is answered."""
_NEAR = 1e-3
"""Of scores: vectors are float32, and a text's weight is summed in another order."""


class Written(NamedTuple):
    """One entry, as its client wrote it last."""

    vector: int
    """The draw of its vector."""
    text: int
    """The draw of its text."""
    client: int
    mark: int
    """Of its payload: how often its client had written."""

    @property
    def payload(self) -> dict[str, int]:
        """The JSON that lies beside it."""
        return {"client": self.client, "mark": self.mark}


def vector_of(draw: int) -> Vectors:
    """The vector of a draw, shape ``(DIMENSION,)``."""
    drawn = np.random.default_rng(draw).standard_normal(DIMENSION)
    return np.asarray(drawn, dtype=np.float32)


def text_of(draw: int) -> str:
    """The text of a draw."""
    rng = np.random.default_rng(draw)
    return " ".join(WORDS[place] for place in rng.integers(len(WORDS), size=_WORDS_OF_A_TEXT))


class Model:
    """Every entry that must be found, and what is found among them by comparing all."""

    def __init__(self, entries: Mapping[str, Written]) -> None:
        self.entries = dict(sorted(entries.items()))
        self.ids = list(self.entries)

    @cached_property
    def vectors(self) -> Vectors:
        """A row for each of `ids`."""
        return np.array([vector_of(each.vector) for each in self.entries.values()])

    @cached_property
    def texts(self) -> list[str]:
        """The text of each of `ids`."""
        return [text_of(each.text) for each in self.entries.values()]

    @cached_property
    def _counts(self) -> list[Counter[str]]:
        return [Counter(text.split()) for text in self.texts]

    @cached_property
    def _weights(self) -> dict[str, float]:
        """By word."""
        having = Counter(word for counts in self._counts for word in counts)
        return {
            word: max(_LEAST_WEIGHT, math.log((len(self.texts) - n + 0.5) / (n + 0.5)))
            for word, n in having.items()
        }

    def nearest(self, vector: Vectors, k: int) -> list[tuple[str, float]]:
        """The ``k`` nearest entries, with their distances."""
        apart = np.linalg.norm(self.vectors - vector, axis=1)
        return [(self.ids[row], float(apart[row])) for row in np.argsort(apart, kind="stable")[:k]]

    def best(self, text: str, k: int) -> list[tuple[str, float]]:
        """The ``k`` entries that fit best to any of the words, with what BM25 gives them."""
        asked = [(word, self._weights[word]) for word in {*text.split()} if word in self._weights]
        # All texts have equally many words, so that their length weighs nothing.
        scores = {
            name: sum(
                weight * counts[word] * (_K1 + 1) / (counts[word] + _K1)
                for word, weight in asked
                if word in counts
            )
            for name, counts in zip(self.ids, self._counts, strict=True)
        }
        ranked = sorted(((name, score) for name, score in scores.items() if score), key=_by_score)
        return ranked[:k]


def _by_score(found: tuple[str, float]) -> tuple[float, str]:
    return -found[1], found[0]


def tables(*, save_seconds: float = 5.0, more: str = "") -> str:
    """The settings of an installation for a crowd, in TOML.

    Args:
        save_seconds: how often what was written becomes a release.
        more: tables.
    """
    return f"""
[live]
keys = ["{secrets.token_hex(32)}"]
[http]
writes = true
[collections.{COLLECTION}]
dimension = {DIMENSION}
metric = "l2"
live = true
persistence = "periodic"
save_interval_seconds = {save_seconds}
filterable = {{ client = "number" }}
[components.{COMPONENT}]
kind = "search"
from = "{COLLECTION}"
vector = {{ index = "Flat" }}
{more}"""


def seeded(there: Instances) -> Model:
    """Commit and release the entries that are there before the crowd comes."""
    model = Model({f"seed-{n:03d}": Written(n, n, 0, n) for n in range(_SEEDS)})
    payloads = [each.payload for each in model.entries.values()]
    with there.producer.batch(COLLECTION) as batch:
        batch.upsert(model.ids, model.vectors, texts=model.texts, payloads=payloads)
    there.release_all(COLLECTION)
    return model


@dataclass(frozen=True)
class Requests:
    """What Locust counted of one kind of requests; times are in milliseconds."""

    requests: int
    failures: int
    p50: float
    p99: float


@dataclass(frozen=True)
class Visit:
    """What a crowd had written when it went, and what its requests came to."""

    entries: Mapping[str, Written]
    requests: Mapping[str, Requests]
    errors: list[str]

    def model(self, seeds: Model) -> Model:
        """What must be there now."""
        return Model({**seeds.entries, **self.entries})


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """How many clients come, how fast, and how long they stay."""

    clients: int
    a_second: float
    seconds: float
    deadline_seconds: float = 10.0
    """Of one request, with its repeats."""

    def visit(self, addresses: Sequence[str]) -> Visit:
        """Have them come and go: Locust in a process of its own.

        Raises:
            RuntimeError: Locust did not end as it should; what it said is above.
        """
        with self.started(addresses) as visitors:
            return visitors.visit()

    def started(self, addresses: Sequence[str]) -> "Visitors":
        """Have them come."""
        return Visitors(self, addresses)


class Visitors:
    """A crowd that is there; for ``with``."""

    def __init__(self, crowd: Crowd, addresses: Sequence[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ir-")
        self._record = Path(self._folder.name) / "record.json"
        options = {
            "users": crowd.clients,
            "spawn-rate": crowd.a_second,
            "run-time": f"{crowd.seconds:.0f}s",
            "stop-timeout": f"{_LONGEST_TASK_SECONDS:.0f}s",
            "loglevel": "WARNING",
            "exit-code-on-error": 0,  # what failed is in the record
            "instances": ",".join(addresses),
            "deadline-seconds": crowd.deadline_seconds,
            "record": self._record,
        }
        command = [sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--headless"]
        self._process = subprocess.Popen(
            [*command, "--only-summary", *(f"--{name}={each}" for name, each in options.items())],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            env={**os.environ, "PYTHONPATH": str(BENCHMARKS)},
        )

    @property
    def are_gone(self) -> bool:
        """Whether all have gone."""
        return self._process.poll() is not None

    def visit(self) -> Visit:
        """What it came to, when all have gone; raises `RuntimeError`, as `Crowd.visit`."""
        code = self._process.wait()
        if code != 0 or not self._record.exists():
            raise RuntimeError(f"Locust ended with {code}")
        said = json.loads(self._record.read_bytes())
        return Visit(
            entries={name: Written(*numbers) for name, numbers in said["entries"].items()},
            requests={name: Requests(**each) for name, each in said["requests"].items()},
            errors=said["errors"],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()


def compared(there: Instances, model: Model, say: Say) -> Iterator[str]:
    """What is not as the model has it, through each instance; before a release has it all, too."""
    for released in (False, True):
        if released:
            there.release_all(COLLECTION)
        for name, address in there.addresses.items():
            say(f"comparing {len(model.ids)} entries through {name}")
            yield from (f"{name}: {each}" for each in differences(model, address, released))


def differences(model: Model, address: str, released: bool) -> Iterator[str]:
    """Each answer of an instance that is not as the model has it.

    Args:
        model: what must be found.
        address: of the instance; everything is asked for that is committed.
        released: whether a release has all of it. Live texts are weighed by the numbers of the
            release below them, so only then are their scores those of the model.
    """
    with Client(address, deadline_seconds=60) as client:
        client.count(COMPONENT, consistency="strong")  # from here on its session asks for as much
        yield from _lost_or_other(model, client)
        yield from _not_found_by_themselves(model, client)
        yield from _ranked_otherwise(model, client, by_words=released)


def _lost_or_other(model: Model, client: Client) -> Iterator[str]:
    held: dict[str, Any] = {}
    after = None
    while True:
        page = client.scroll(COMPONENT, after=after, limit=500)
        held |= {each.id: (each.payload, each.text) for each in page.entries}
        after = page.after
        if after is None:
            break
    for name in sorted(model.entries.keys() ^ held.keys()):
        yield f"{name} is {'lost' if name in model.entries else 'there, and nobody wrote it'}"
    for name, text in zip(model.ids, model.texts, strict=True):
        wanted = (model.entries[name].payload, text)
        if name in held and held[name] != wanted:
            yield f"{name} is {held[name]}, and was written as {wanted}"


def _not_found_by_themselves(model: Model, client: Client) -> Iterator[str]:
    for first in range(0, len(model.ids), _AT_ONCE):
        names = model.ids[first : first + _AT_ONCE]
        rows = model.vectors[first : first + _AT_ONCE]
        texts = model.texts[first : first + _AT_ONCE]
        by_vector = client.search_vectors(COMPONENT, rows, k=1)
        by_text = client.batch(COMPONENT, [{"text": text, "k": 3} for text in texts])
        for name, vector, text in zip(names, by_vector, by_text, strict=True):
            if [hit.id for hit in _hits(vector)] != [name]:
                yield f"{name} is not found by its own vector"
            if name not in {hit.id for hit in _hits(text)}:
                yield f"{name} is not found by its own text"


def _ranked_otherwise(model: Model, client: Client, *, by_words: bool) -> Iterator[str]:
    rng = np.random.default_rng(17)
    for _ in range(_QUESTIONS):
        vector = vector_of(int(rng.integers(2**40)))
        found = client.search(COMPONENT, vector=vector, k=10)
        yield from _unlike(model.nearest(vector, 11), found, "a vector")
        if by_words:
            text = " ".join(WORDS[place] for place in rng.integers(len(WORDS), size=3))
            found = client.search(COMPONENT, text=text, k=10)
            yield from _unlike(model.best(text, 11), found, f"{text!r}")


def _unlike(wanted: list[tuple[str, float]], found: SearchResult, asked: str) -> Iterator[str]:
    """Where hits are not the best ten; among equal scores anyone may be the last."""
    best, scores = wanted[:10], {hit.id: hit.score for hit in found.hits}
    same_scores = len(scores) == len(best) and np.allclose(
        sorted(scores.values()), sorted(score for _, score in best), rtol=_NEAR, atol=_NEAR
    )
    beyond = wanted[10][1] if len(wanted) > 10 else math.inf
    sure = {name for name, score in best if abs(score - beyond) > _NEAR}
    if not same_scores or not sure <= scores.keys():
        yield f"{asked} finds {scores}, and the model {dict(best)}"


def _hits(answer: SearchResult | RequestRefusedError) -> tuple[Any, ...]:
    if isinstance(answer, RequestRefusedError):
        raise answer
    return answer.hits
