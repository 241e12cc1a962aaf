"""Which indexes to try: what was asked for, or what suits so many vectors of this length, in order.

`auto` scans where a scan is fast: it is exact, and needs neither training nor tuning. From there on
it takes inverted lists, about three times the square root of the rows, in a power of two: twice as
many take four times as long to build, and a query compares as much. Under a memory limit the
vectors inside the lists are kept in fewer bits, in the most exact way that fits; what is coarser
than eight bits looks again at the best candidates' full vectors (``RFlat``), which stay in a mapped
file and of which a query touches a few dozen.

What comes after the first is a remedy, and tried only where a measurement asks for it (`deciding`):
full vectors against lost recall, lists against a slow scan, and a graph against slow lists, if the
memory allows it and building it is bearable. A graph comes last: it takes ten times as long to
build, and half as much memory again as vectors of 128.

A named index is built as named as soon as there are enough rows to train it; until then it is a
scan, which is what few rows need. The version's details say so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import log2, sqrt
from typing import Final

from indexrelay.components.build_memory import UNLIMITED, BuildMemory
from indexrelay.components.errors import MemoryLimitError
from indexrelay.components.vector_index.factory import Factory, parse_factory
from indexrelay.components.vector_index.parameters import AUTO, VectorIndexParameters
from indexrelay.components.vector_index.weighing import trainable_rows

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
