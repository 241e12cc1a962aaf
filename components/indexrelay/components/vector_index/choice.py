"""Which index to build: what was asked for, or what suits so many vectors of this length.

`auto` scans where a scan is fast: it is exact, and needs neither training nor tuning. From there on
it takes inverted lists, about four for each square root of a row, in a power of two. Under a memory
limit the vectors inside the lists are kept in fewer bits, in the most exact way that fits.

A named index is built as named as soon as there are enough rows to train it; until then it is a
scan, which is what few rows need. The version's details say so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import log2, sqrt
from typing import Final

from indexrelay.components.errors import MemoryLimitError
from indexrelay.components.vector_index.factory import Factory, parse_factory
from indexrelay.components.vector_index.parameters import AUTO, VectorIndexParameters

_SCANNED_ROWS: Final = 10_000
_SCANNED_VALUES: Final = 20_000 * 128
"""Up to here one thread scans everything in under 0.4 ms (2.2 ms for 10,000 rows of 1536)."""
_POINTS_PER_LIST: Final = 39
"""What k-means wants for each list."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What to build, and why."""

    factory: Factory
    reason: str


def choose(parameters: VectorIndexParameters, *, count: int, dimension: int) -> Choice:
    """Choose the index for ``count`` vectors of length ``dimension``.

    Raises:
        MemoryLimitError: nothing that `auto` may choose is as small as ``max_bytes``.
    """
    flat = parse_factory("Flat")
    if parameters.index != AUTO:
        asked = parse_factory(parameters.index)
        if count >= max(asked.needed_rows, 1):
            return Choice(asked, "asked for")
        return Choice(
            flat, f"{asked.text} needs {asked.needed_rows} entries to train; there are {count}"
        )
    limit = parameters.max_bytes
    if count <= _SCANNED_ROWS or count * dimension <= _SCANNED_VALUES:
        coarse, lists, reason = "", 0, f"scanning {count} entries is fast, and exact"
    else:
        lists = _lists(count)
        coarse, reason = f"IVF{lists},", f"{lists} lists suit {count} entries"
    smallest = 0
    for encoding, code_bytes in _encodings(count, dimension):
        # Each list entry has an int64 row number, and each list a centroid.
        smallest = count * (code_bytes + (8 if lists else 0)) + lists * dimension * 4
        if limit is None or smallest <= limit:
            cut = "" if encoding == "Flat" else f", in {code_bytes} bytes each for max_bytes"
            return Choice(parse_factory(coarse + encoding), reason + cut)
    raise MemoryLimitError(
        f"{count} vectors of length {dimension} need {smallest} bytes even in the smallest index; "
        f"raise max_bytes ({limit}), or name an index that keeps less of each vector"
    )


def _lists(count: int) -> int:
    """About 4·√n, as a power of two, and no more than can be trained."""
    lists: int = 2 ** round(log2(4 * sqrt(count)))
    while lists * _POINTS_PER_LIST > count:
        lists //= 2
    return lists


def _encodings(count: int, dimension: int) -> Iterator[tuple[str, int]]:
    """Ways to keep a vector and their bytes, the most exact first."""
    yield "Flat", 4 * dimension
    yield "SQfp16", 2 * dimension
    yield "SQ8", dimension
    yield "SQ4", -(-dimension // 2)
    for share in (4, 8, 16):
        pieces = dimension // share
        if pieces and dimension % share == 0:
            factory = parse_factory(f"PQ{pieces}")
            if count >= factory.needed_rows:
                yield factory.text, pieces
