"""Which index is built: candidates in order, built and measured until one is good enough.

`auto` scans where a scan is fast: it is exact, and needs neither training nor tuning. From there on
it takes inverted lists, about three times the square root of the rows, in a power of two: twice as
many take four times as long to build, and a query compares as much. Under a memory limit the
vectors inside the lists are kept in fewer bits, in the most exact way that fits; what is coarser
than eight bits looks again at the best candidates' full vectors (``RFlat``), which stay in a mapped
file and of which a query touches a few dozen.

What an index reaches depends on the data: the same lists that answer songs in 0.1 ms miss the
target on noise. So the first candidate is built and tuned on the query sample. Where it falls short
of the recall or of the latency asked for, the next candidate that is a remedy for this shortfall is
built beside it: full vectors against lost recall, lists against a slow scan, and a graph against
slow lists, if the memory allows it. A graph comes last: it takes ten times as long to build, and
half as much memory again as vectors of 128. The first that reaches both is taken; if none does, the
one that came nearest is, and the gates say by how much it fails. All attempts are in the version's
details.

A named index has no remedies: it is what its user wants. It is built as named as soon as there are
enough rows to train it; until then it is a scan, and the version's details say so.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import log2, sqrt
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from indexrelay.components.errors import MemoryLimitError
from indexrelay.components.kind import UNLIMITED, BuildMemory
from indexrelay.components.vector_index.factory import Factory, parse_factory
from indexrelay.components.vector_index.index_build import build_base, trainable_rows
from indexrelay.components.vector_index.mapped_index import open_index
from indexrelay.components.vector_index.parameters import AUTO, VectorIndexParameters
from indexrelay.components.vector_index.sample import QuerySample
from indexrelay.components.vector_index.spec import Effort
from indexrelay.components.vector_index.tuner import Trial, Tuner
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors

_SCANNED_ROWS: Final = 10_000
_SCANNED_VALUES: Final = 20_000 * 128
"""Up to here one thread scans everything in under 0.4 ms (2.2 ms for 10,000 rows of 1536)."""
_POINTS_PER_LIST: Final = 39
"""What k-means wants for each list."""
_FEWEST_LISTS: Final = 16
"""With fewer lists than this, looking for the right ones costs what it saves."""
_GRAPH_VALUES: Final = 2_000_000 * 128
"""A graph over so much takes about five minutes on two cores; beyond it `auto` builds none."""
_GRAPH_LINKS: Final = 32
_GRAPH_ROW_BYTES: Final = 2 * _GRAPH_LINKS * 4 + 4 * _GRAPH_LINKS // 31 + 12
"""Of each row: its links (int32) on the ground floor and, of one row in 31, on those above; where
they begin, and how high it stands."""


class Shortfall(StrEnum):
    """What an index, once it was built and measured, may not reach."""

    RECALL = "recall"
    LATENCY = "latency"


@dataclass(frozen=True, slots=True)
class Choice:
    """What to build, and why."""

    factory: Factory
    reason: str
    remedies: frozenset[Shortfall] = frozenset()
    """What it is tried against; empty: it is what suits best, and tried first."""


@dataclass(frozen=True, slots=True)
class _Encoding:
    """One way to keep a vector."""

    text: str
    row_bytes: int
    """What a search walks over, for each row."""
    reaches: float
    """The recall@10 that is expected of it without looking at full vectors; 0: never without."""


def choose(
    parameters: VectorIndexParameters,
    *,
    count: int,
    dimension: int,
    memory: BuildMemory = UNLIMITED,
) -> Choice:
    """What suits ``count`` vectors of length ``dimension`` best, before anything is measured.

    Raises:
        MemoryLimitError: nothing that `auto` may choose is as small as ``max_bytes``.
    """
    return candidates(parameters, count=count, dimension=dimension, memory=memory)[0]


def candidates(
    parameters: VectorIndexParameters,
    *,
    count: int,
    dimension: int,
    memory: BuildMemory = UNLIMITED,
) -> tuple[Choice, ...]:
    """What suits best, and its remedies in the order in which they are worth a try.

    There are no more lists than can be trained within ``memory``.

    Raises:
        MemoryLimitError: nothing that `auto` may choose is as small as ``max_bytes``.
    """
    if parameters.index != AUTO:
        return (_asked(parse_factory(parameters.index), count),)
    scanned = count <= _SCANNED_ROWS or count * dimension <= _SCANNED_VALUES
    found: list[Choice] = []
    if scanned:
        reason = f"scanning {count} entries is fast, and exact"
        found += _encoded("", 0, reason, parameters, count=count, dimension=dimension)
    lists = _lists(count, trained=min(count, trainable_rows(dimension, memory)))
    if not scanned or lists >= _FEWEST_LISTS:
        reason = f"{lists} lists suit {count} entries"
        remedied = frozenset({Shortfall.LATENCY}) if found else frozenset[Shortfall]()
        found += [
            Choice(choice.factory, choice.reason, choice.remedies | remedied)
            for choice in _encoded(
                f"IVF{lists},", lists, reason, parameters, count=count, dimension=dimension
            )
        ]
    if not found:
        raise MemoryLimitError(
            f"{count} vectors of length {dimension} need "
            f"{_smallest(count, dimension, 0 if scanned else lists)} bytes even in the smallest "
            f"index; raise max_bytes ({parameters.max_bytes}), or name an index that keeps less "
            "of each vector"
        )
    return (*found, *_graphs(parameters.max_bytes, count=count, dimension=dimension))


def _asked(asked: Factory, count: int) -> Choice:
    if count >= max(asked.needed_rows, 1):
        return Choice(asked, "asked for")
    return Choice(
        parse_factory("Flat"),
        f"{asked.text} needs {asked.needed_rows} entries to train; there are {count}",
    )


def _encoded(
    coarse: str,
    lists: int,
    reason: str,
    parameters: VectorIndexParameters,
    *,
    count: int,
    dimension: int,
) -> Iterator[Choice]:
    """The most exact encoding that fits, and the same with a second look as its remedy."""
    limit = parameters.max_bytes
    for encoding in _encodings(count, dimension, lists):
        if limit is not None and _bytes(encoding, count, dimension, lists) > limit:
            continue
        if encoding.text == "Flat":
            yield Choice(parse_factory(coarse + encoding.text), reason)
            return
        kept = f"{reason}, in {encoding.row_bytes} bytes each for max_bytes"
        again = f"{kept}, with a second look at full vectors"
        refined = parse_factory(f"{coarse}{encoding.text},RFlat")
        if parameters.min_recall > encoding.reaches:
            yield Choice(refined, again)
            return
        yield Choice(parse_factory(coarse + encoding.text), kept)
        yield Choice(refined, again, frozenset({Shortfall.RECALL}))
        return


def _graphs(limit: int | None, *, count: int, dimension: int) -> Iterator[Choice]:
    """Graphs that fit, the most exact first: what reaches a recall with the fewest comparisons."""
    if not 0 < count * dimension <= _GRAPH_VALUES:
        return
    for encoding, row_bytes in (("", 4 * dimension), (",SQ8", dimension)):
        if limit is None or count * (row_bytes + _GRAPH_ROW_BYTES) <= limit:
            yield Choice(
                parse_factory(f"HNSW{_GRAPH_LINKS}{encoding}{',RFlat' if encoding else ''}"),
                f"a graph over {count} entries looks at the fewest vectors for each query",
                frozenset({Shortfall.LATENCY}),
            )
            return


def _lists(count: int, *, trained: int) -> int:
    """About 3·√n, as a power of two, and no more than so many rows can train."""
    if not count:
        return 0
    lists: int = 2 ** round(log2(3 * sqrt(count)))
    while lists > 1 and lists * _POINTS_PER_LIST > trained:
        lists //= 2
    return lists


def _bytes(encoding: _Encoding, count: int, dimension: int, lists: int) -> int:
    """Each list entry has an int64 row number, and each list a centroid."""
    return count * (encoding.row_bytes + (8 if lists else 0)) + lists * dimension * 4


def _smallest(count: int, dimension: int, lists: int) -> int:
    return min(
        _bytes(each, count, dimension, lists) for each in _encodings(count, dimension, lists)
    )


def _encodings(count: int, dimension: int, lists: int) -> Iterator[_Encoding]:
    """Ways to keep a vector, the most exact first; each can be mapped, and skip what was deleted.

    Product codes by themselves cannot skip, those in lists can.
    """
    yield _Encoding("Flat", 4 * dimension, 1.0)
    yield _Encoding("SQfp16", 2 * dimension, 0.99)
    yield _Encoding("SQ8", dimension, 0.97)
    yield _Encoding("SQ4", -(-dimension // 2), 0.0)
    for share in (4, 8, 16):
        pieces = dimension // share
        if lists and pieces and dimension % share == 0:
            factory = parse_factory(f"PQ{pieces}")
            if count >= factory.needed_rows:
                yield _Encoding(factory.text, pieces, 0.0)


_HEADROOM: Final = 0.8
"""The share of ``max_latency_ms`` that FAISS may take by itself. The gate times whole queries, with
ids and payloads, and a figure at the very limit would fail every other time."""


@dataclass(frozen=True, slots=True)
class _Files:
    """What one attempt writes."""

    index: Path
    trained: Path | None

    def of_a_remedy(self) -> "_Files":
        """Beside these, while it is not known which are better."""
        return _Files(_remedy(self.index), self.trained and _remedy(self.trained))

    def replace(self, others: "_Files") -> None:
        """Take the place of others."""
        for path, other in zip(self.both, others.both, strict=True):
            if path is not None and other is not None:
                path.replace(other)

    def remove(self) -> None:
        """They were not better."""
        for path in self.both:
            if path is not None:
                path.unlink()

    @property
    def both(self) -> tuple[Path, Path | None]:
        """In one order."""
        return (self.index, self.trained)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One index that was built and measured."""

    choice: Choice
    seconds: float
    """To train, fill and tune it."""
    best: Trial | None
    """What it is searched with; ``None``: there is nothing to find."""
    trials: tuple[Trial, ...]
    shortfalls: frozenset[Shortfall]

    @property
    def effort(self) -> Effort:
        """How hard to search it."""
        return Effort() if self.best is None else self.best.effort

    def as_json(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "index": self.choice.factory.text,
            "reason": self.choice.reason,
            "seconds": round(self.seconds, 3),
            **({} if self.best is None else self.best.as_json()),
            "short_of": sorted(self.shortfalls),
        }


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was built, and what it was held against."""

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
        """For the manifest: the decision, and the trade-off that was measured."""
        return {
            "index": self.chosen.choice.factory.text,
            "reason": self.chosen.choice.reason,
            "effort": self.effort.model_dump(exclude_none=True),
            "trials": [trial.as_json() for trial in sorted(self.chosen.trials, key=_by_effort)],
            "attempts": [attempt.as_json() for attempt in self.attempts],
        }


def decide(
    path: Path,
    vectors: Vectors,
    metric: Metric,
    parameters: VectorIndexParameters,
    *,
    sample: QuerySample,
    progress: Callable[[float], None],
    trained: Path | None = None,
    memory: BuildMemory = UNLIMITED,
) -> Decision:
    """Build at ``path`` what ``parameters`` ask for over ``vectors``.

    Args:
        path: where the file of the chosen index will be; others lie beside it meanwhile.
        vectors: shape ``(count, dimension)``, as `metrics.prepared` makes them; best a mapped file.
        metric: theirs.
        parameters: of the component.
        sample: drawn from ``vectors``.
        progress: told shares up to 1.
        trained: where the chosen index goes as it was before anything was added; ``None``: nowhere.
        memory: told what each index that is tried will hold.

    Raises:
        UnbuildableIndexError: FAISS refuses the index over these vectors.
        MemoryLimitError: ``max_bytes`` cannot be met.
    """
    count, dimension = vectors.shape
    attempts: list[Attempt] = []
    kept: Attempt | None = None
    for choice in candidates(parameters, count=count, dimension=dimension, memory=memory):
        if kept is not None and not choice.remedies & kept.shortfalls:
            continue
        files = _Files(path, trained) if kept is None else _Files(path, trained).of_a_remedy()
        started = perf_counter()
        build_base(
            files.index,
            vectors,
            metric,
            choice.factory,
            seed=parameters.seed,
            progress=progress if kept is None else lambda _share: None,
            trained=files.trained,
            memory=memory,
        )
        attempt = _measured(files.index, vectors, metric, choice, parameters, sample, started)
        attempts.append(attempt)
        if kept is None:
            kept = attempt
        elif _better(attempt, kept):
            kept = attempt
            files.replace(_Files(path, trained))
        else:
            files.remove()
        if not kept.shortfalls:
            break
    if kept is None:  # never: `candidates` gives one or raises
        raise LookupError("there was nothing to build")
    return Decision(index=open_index(path), attempts=tuple(attempts), chosen=kept)


def _measured(
    file: Path,
    vectors: Vectors,
    metric: Metric,
    choice: Choice,
    parameters: VectorIndexParameters,
    sample: QuerySample,
    started: float,
) -> Attempt:
    """Tune it as it will be served: from the file, and mapped."""
    tuner = Tuner(
        index=open_index(file),
        sample=sample,
        vectors=vectors,
        metric=metric,
        min_recall=parameters.min_recall,
        max_latency_ms=_HEADROOM * parameters.max_latency_ms,
    )
    best = tuner.best(parameters, refined=choice.factory.refined)
    shortfalls = set()
    if best is not None and best.recall < tuner.min_recall:
        shortfalls.add(Shortfall.RECALL)
    if any(trial.milliseconds > tuner.max_latency_ms for trial in tuner.trials) and (
        best is None or shortfalls or best.milliseconds > tuner.max_latency_ms
    ):
        shortfalls.add(Shortfall.LATENCY)  # also where the search for recall ended at it
    return Attempt(
        choice=choice,
        seconds=perf_counter() - started,
        best=best,
        trials=tuple(tuner.trials),
        shortfalls=frozenset(shortfalls),
    )


def _better(attempt: Attempt, than: Attempt) -> bool:
    """Whether it falls short of less, or as far, by less."""
    return _standing(attempt) < _standing(than)


def _standing(attempt: Attempt) -> tuple[bool, bool, float]:
    best = attempt.best
    short_of_recall = Shortfall.RECALL in attempt.shortfalls
    if best is None:
        return (False, False, 0.0)
    measured = -best.recall if short_of_recall else best.milliseconds
    return (short_of_recall, Shortfall.LATENCY in attempt.shortfalls, measured)


def _remedy(path: Path) -> Path:
    return path.with_name(f"{path.name}.remedy")


def _by_effort(trial: Trial) -> tuple[int, int]:
    effort = trial.effort
    return (effort.k_factor or 0, effort.nprobe or effort.ef_search or 0)
