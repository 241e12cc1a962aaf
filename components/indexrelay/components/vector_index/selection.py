"""Which index is built: candidates in order, built and measured until one is good enough.

`auto` scans where a scan is fast: it is exact, and needs neither training nor tuning. From there on
it takes inverted lists, about three times the square root of the rows, in a power of two: twice as
many take four times as long to build, and a query compares as much. Under a memory limit the
vectors inside the lists are kept in fewer bits, in the most exact way that fits; what is coarser
than eight bits also compares the best candidates' full vectors (``RFlat``), which stay in a mapped
file and of which a query reads a few dozen.

What an index reaches depends on the data: lists that answer in 0.1 ms on one collection miss the
target on another. So the first candidate is built and tuned on the query sample. Where it falls
short of the recall or of the latency asked for, the next candidate that is a remedy for this
shortfall is built beside it: full vectors against lost recall, lists against a slow scan, and a
graph against slow lists, if the memory allows it. A graph comes last: it takes ten times as long to
build, and half as much memory again as vectors of 128. The first that reaches both is taken; if
none does, the one that came nearest is, and the gates say by how much it fails. All attempts are in
the version's details.

A named index has no remedies. It is built as soon as there are enough rows to train it; until then
there is a scan, and the version's details say so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import log2, sqrt
from time import perf_counter
from typing import Any, Final

from indexrelay.components.errors import MemoryLimitError
from indexrelay.components.vector_index.factory import Factory, parse_factory
from indexrelay.components.vector_index.index_build import (
    IndexFiles,
    Progress,
    build_index,
    trainable_rows,
)
from indexrelay.components.vector_index.mapped_index import open_index
from indexrelay.components.vector_index.sample import Dataset
from indexrelay.components.vector_index.spec import AUTO, Effort, IndexSpec
from indexrelay.components.vector_index.tuner import Trial, Tuner


class Shortfall(StrEnum):
    """What an index, once it was built and measured, may not reach."""

    RECALL = "recall"
    LATENCY = "latency"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An index that may be built, and why."""

    factory: Factory
    reason: str
    remedies: frozenset[Shortfall] = frozenset()
    """The shortfalls against which it is tried; empty: it is tried first."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One index that was built and measured."""

    candidate: Candidate
    seconds: float
    """To train, fill and tune it."""
    best: Trial | None
    """The effort that it is searched with; ``None``: there is nothing to find."""
    trials: tuple[Trial, ...]
    shortfalls: frozenset[Shortfall]

    @property
    def effort(self) -> Effort:
        """How hard to search it."""
        return Effort() if self.best is None else self.best.effort

    def as_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "index": self.candidate.factory.text,
            "reason": self.candidate.reason,
            "seconds": round(self.seconds, 3),
            **({} if self.best is None else self.best.as_json()),
            "short_of": sorted(self.shortfalls),
        }

    def better_than(self, other: "Attempt") -> bool:
        """Whether it falls short of less, or of the same by less."""
        return self.rank < other.rank

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """The lower the better: recall enough, then fast enough, then the cheapest or nearest."""
        if self.best is None:
            return (False, False, 0.0)
        short_of_recall = Shortfall.RECALL in self.shortfalls
        measured = -self.best.recall if short_of_recall else self.best.milliseconds
        return (short_of_recall, Shortfall.LATENCY in self.shortfalls, measured)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Which index was chosen, and what it was compared with."""

    index: Any
    """The chosen one, mapped from its file."""
    attempts: tuple[Attempt, ...]
    """In the order in which they were made."""
    chosen: Attempt

    @property
    def effort(self) -> Effort:
        """How hard to search it."""
        return self.chosen.effort

    def details(self) -> dict[str, Any]:
        """For the manifest: the decision, and what was measured."""
        return {
            "index": self.chosen.candidate.factory.text,
            "reason": self.chosen.candidate.reason,
            "effort": self.effort.model_dump(exclude_none=True),
            "trials": [trial.as_json() for trial in sorted(self.chosen.trials, key=_by_effort)],
            "attempts": [attempt.as_json() for attempt in self.attempts],
        }


def _by_effort(trial: Trial) -> tuple[int, int]:
    effort = trial.effort
    return (effort.k_factor or 0, effort.nprobe or effort.ef_search or 0)


def decide(files: IndexFiles, dataset: Dataset, progress: Progress) -> Decision:
    """Build the index that suits ``dataset``, and write it to ``files``.

    Each remedy is built beside the chosen index, and replaces it or is deleted.

    ``progress`` is that of the first candidate.

    Raises:
        UnbuildableIndexError: FAISS refuses the index over these vectors.
        MemoryLimitError: ``max_bytes`` cannot be met.
    """
    first, *remedies = candidates(dataset.spec)
    chosen = _attempt(files, first, dataset, progress)
    attempts = [chosen]
    for candidate in remedies:
        if not candidate.remedies & chosen.shortfalls:
            continue
        beside = files.beside()
        attempt = _attempt(beside, candidate, dataset)
        attempts.append(attempt)
        if attempt.better_than(chosen):
            chosen = attempt
            beside.replace(files)
        else:
            beside.remove()
    return Decision(index=open_index(files.index), attempts=tuple(attempts), chosen=chosen)


_LATENCY_SHARE: Final = 0.8
"""The share of ``max_latency_ms`` that FAISS may take by itself. The gate times whole queries, with
ids and payloads, and a figure at the very limit would fail every other time."""


def _attempt(
    files: IndexFiles,
    candidate: Candidate,
    dataset: Dataset,
    progress: Progress = lambda _share: None,
) -> Attempt:
    """Build one index, and tune it as it will be served: from the file, and mapped."""
    started = perf_counter()
    parameters = dataset.spec.parameters
    build_index(files, dataset.vectors, candidate.factory, dataset.spec, progress)
    limit = _LATENCY_SHARE * parameters.max_latency_ms
    tuner = Tuner(index=open_index(files.index), dataset=dataset, max_latency_ms=limit)
    best = tuner.tune(refined=candidate.factory.refined)
    shortfalls = set()
    if best is not None and best.recall < parameters.min_recall:
        shortfalls.add(Shortfall.RECALL)
    if any(trial.milliseconds > limit for trial in tuner.trials) and (
        best is None or shortfalls or best.milliseconds > limit
    ):
        shortfalls.add(Shortfall.LATENCY)  # also where the search for recall ended at the limit
    return Attempt(
        candidate=candidate,
        seconds=perf_counter() - started,
        best=best,
        trials=tuple(tuner.trials),
        shortfalls=frozenset(shortfalls),
    )


_SCANNED_ROWS: Final = 10_000
_SCANNED_VALUES: Final = 20_000 * 128
"""Up to here one thread scans everything in under 0.4 ms (2.2 ms for 10,000 rows of 1536)."""
_POINTS_PER_LIST: Final = 39
"""What k-means needs for each list."""
_FEWEST_LISTS: Final = 16
"""With fewer lists than this, finding the right ones costs what it saves."""
_GRAPH_VALUES: Final = 2_000_000 * 128
"""A graph over so much takes about five minutes on two cores; beyond it `auto` builds none."""
_GRAPH_LINKS: Final = 32
_GRAPH_ROW_BYTES: Final = 2 * _GRAPH_LINKS * 4 + 4 * _GRAPH_LINKS // 31 + 12
"""Of each row: its links (int32) on the lowest level and, of one row in 31, on those above; where
they begin, and its level."""


def candidates(spec: IndexSpec) -> tuple[Candidate, ...]:
    """What suits best, and its remedies in the order in which they are worth a try.

    There are no more lists than can be trained within the build's memory.

    Raises:
        MemoryLimitError: nothing that `auto` may choose is as small as ``max_bytes``.
    """
    parameters, count = spec.parameters, spec.count
    if parameters.index != AUTO:
        return (_named(parse_factory(parameters.index), count),)
    scanned = count <= _SCANNED_ROWS or count * spec.dimension <= _SCANNED_VALUES
    found: list[Candidate] = []
    if scanned:
        found += _encoded(spec, 0, f"scanning {count} entries is fast, and exact", frozenset())
    lists = _list_count(spec)
    if not scanned or lists >= _FEWEST_LISTS:
        remedies = frozenset({Shortfall.LATENCY}) if found else frozenset[Shortfall]()
        found += _encoded(spec, lists, f"{lists} lists suit {count} entries", remedies)
    if not found:
        smallest = min(each.bytes(spec) for each in _encodings(spec, 0 if scanned else lists))
        raise MemoryLimitError(
            f"{count} vectors of length {spec.dimension} need {smallest} bytes even in the "
            f"smallest index; raise max_bytes ({parameters.max_bytes}), or name an index that "
            "keeps less of each vector"
        )
    return (*found, *_graphs(spec))


def _named(factory: Factory, count: int) -> Candidate:
    if count >= max(factory.needed_rows, 1):
        return Candidate(factory, "asked for")
    return Candidate(
        parse_factory("Flat"),
        f"{factory.text} needs {factory.needed_rows} entries to train; there are {count}",
    )


def _encoded(
    spec: IndexSpec, lists: int, reason: str, remedies: frozenset[Shortfall]
) -> Iterator[Candidate]:
    """The most exact encoding that fits, and the same with full vectors as its remedy."""
    limit = spec.parameters.max_bytes
    for encoding in _encodings(spec, lists):
        if limit is not None and encoding.bytes(spec) > limit:
            continue
        if encoding.exact:
            yield Candidate(parse_factory(encoding.text), reason, remedies)
            return
        kept = f"{reason}, in {encoding.row_bytes} bytes each for max_bytes"
        again = f"{kept}, with a second look at full vectors"
        refined = parse_factory(f"{encoding.text},RFlat")
        if spec.parameters.min_recall > encoding.expected_recall:
            yield Candidate(refined, again, remedies)
            return
        yield Candidate(parse_factory(encoding.text), kept, remedies)
        yield Candidate(refined, again, remedies | {Shortfall.RECALL})
        return


@dataclass(frozen=True, slots=True)
class _Encoding:
    """One way to keep vectors, in so many lists or in none."""

    name: str
    row_bytes: int
    """What a search reads for each row."""
    expected_recall: float
    """The recall@10 that is expected of it without full vectors; 0: never without."""
    lists: int

    @property
    def text(self) -> str:
        """Its factory string."""
        return f"IVF{self.lists},{self.name}" if self.lists else self.name

    @property
    def exact(self) -> bool:
        """Whether it keeps full vectors."""
        return self.name == "Flat"

    def bytes(self, spec: IndexSpec) -> int:
        """Each list entry has an int64 row number, and each list a centroid."""
        of_row = self.row_bytes + (8 if self.lists else 0)
        return spec.count * of_row + self.lists * spec.dimension * 4


def _encodings(spec: IndexSpec, lists: int) -> Iterator[_Encoding]:
    """Ways to keep a vector, the most exact first; each can be mapped, and searched by selector.

    Product codes outside of lists cannot be searched with a selector.
    """
    dimension = spec.dimension
    yield _Encoding("Flat", 4 * dimension, 1.0, lists)
    yield _Encoding("SQfp16", 2 * dimension, 0.99, lists)
    yield _Encoding("SQ8", dimension, 0.97, lists)
    yield _Encoding("SQ4", -(-dimension // 2), 0.0, lists)
    for share in (4, 8, 16):
        pieces = dimension // share
        if lists and pieces and dimension % share == 0:
            factory = parse_factory(f"PQ{pieces}")
            if spec.count >= factory.needed_rows:
                yield _Encoding(factory.text, pieces, 0.0, lists)


def _list_count(spec: IndexSpec) -> int:
    """About 3·√n, as a power of two, and no more than can be trained."""
    if not spec.count:
        return 0
    trained = min(spec.count, trainable_rows(spec.dimension, spec.memory))
    lists: int = 2 ** round(log2(3 * sqrt(spec.count)))
    while lists > 1 and lists * _POINTS_PER_LIST > trained:
        lists //= 2
    return lists


def _graphs(spec: IndexSpec) -> Iterator[Candidate]:
    """The most exact graph that fits: it reaches a recall with the fewest comparisons."""
    count, dimension, limit = spec.count, spec.dimension, spec.parameters.max_bytes
    if not 0 < count * dimension <= _GRAPH_VALUES:
        return
    for encoding, row_bytes in (("", 4 * dimension), (",SQ8,RFlat", dimension)):
        if limit is None or count * (row_bytes + _GRAPH_ROW_BYTES) <= limit:
            yield Candidate(
                parse_factory(f"HNSW{_GRAPH_LINKS}{encoding}"),
                f"a graph over {count} entries looks at the fewest vectors for each query",
                frozenset({Shortfall.LATENCY}),
            )
            return
