"""Sketches of vectors: one bit for each dimension, by which a few near rows are found among many.

A bit says whether the vector is above the mean in that dimension. The more bits of two vectors
differ, the farther apart they lie, roughly: the Hamming distance of such bits estimates the angle
(Charikar, STOC 2002). So the rows with the nearest sketches are compared exactly, and the nearest
of those are the answer. A sketch has a thirty-second part of the vector's bytes, and ten thousand
are compared in the time of 400 vectors.

They are for filters that match too many rows to compare them all, and so few that a graph would
have to be searched much harder than without a filter (docs/decisions/031). How many candidates that
takes is measured when a base is built, on its query sample. Where the bits say too little of the
vectors, as with few dimensions, it has no sketches.

The file is a ``.npy`` array of bytes, mapped: one line for each row of the base, behind 32 lines
that hold the thresholds as float32, with zeros up to a whole number of bytes in a line.
"""

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.formats.mapped_array import mapped_array, new_mapped_array
from indexrelay.components.formats.string_table import Rows
from indexrelay.components.matches import LayerMatches
from indexrelay.components.vector_index.mapped_index import release_rows, require_faiss
from indexrelay.storage.entries import Vectors

SKETCHES: Final = "sketches.npy"
Bits = NDArray[np.uint8]
"""Sketches, of the shape ``(n, ceil(dimension / 8))``."""

_LINES: Final = 32
"""Of thresholds: 8 dimensions are a byte of a sketch, and 32 bytes of float32."""
_FEWEST_ROWS: Final = 5_000
"""Below this a filter leaves few enough to compare all."""
_MEAN_OF: Final = 20_000
"""Rows that the thresholds are the mean of."""
_WRITTEN_AT_ONCE: Final = 8_192
"""Rows: 8 MB of truth values where vectors have 1,024 dimensions."""
_RANKED: Final = 100_000
"""Rows among which the candidates that it takes are measured; more are counted up from these."""
_SHARES: Final = (1, 2, 5)
"""Of how many rows one matches in the filters that are measured: the sample knows 50 neighbours,
and the nearest ten of every fifth row are about these."""
_HITS: Final = 10
_MISSES: Final = 2 / 3
"""Other queries than those of the sample miss a few more."""
_MOST_IDLE_BYTES: Final = 4 << 20
"""Of an array that is kept for the next query; each thread that searches at a time has one."""
_MOST_CANDIDATES: Final = 4_096
_MOST_SHARE: Final = 0.125
"""Beyond so many candidates, and beyond such a share of the rows, sketches gain too little."""


class Sketches:
    """A mapped file of sketches; immutable, and safe to read from many threads."""

    def __init__(self, path: Path, *, rows: int, dimension: int) -> None:
        """Map the file of a base of ``rows`` rows.

        Raises:
            CorruptFileError: it is not of this shape.
            OSError: it cannot be opened.
        """
        width = -(-dimension // 8)
        lines: Bits = mapped_array(path, (_LINES + rows, width), np.uint8)
        self.bits: Bits = lines[_LINES:]
        """Shape ``(rows, ceil(dimension / 8))``."""
        self._thresholds: Vectors = lines[:_LINES].reshape(-1).view(np.float32)[:dimension]
        # Whoever asks takes one out, and puts it back: no two threads ever have the same.
        self._idle: deque[Bits] = deque()

    def of(self, vectors: Vectors) -> Bits:
        """The sketches of ``vectors``, which are of the shape ``(n, dimension)``."""
        return np.packbits(vectors > self._thresholds, axis=1)

    @contextmanager
    def among(self, matches: LayerMatches) -> Iterator[Bits]:
        """Those of the rows that match; read within the context only.

        From the second query with a filter on they are kept beside its matches. Before, they lie in
        an array that is used again: the kernel takes ten times as long for a new one of 300 kB as
        it takes to fill it.
        """
        rows = matches.rows
        if matches.sketched and matches.sketches is None:
            matches.sketches = np.take(self.bits, rows, axis=0)
        matches.sketched = True
        if matches.sketches is not None:
            yield matches.sketches
            return
        try:
            found = self._idle.pop()
        except IndexError:
            found = np.empty((0, self.bits.shape[1]), dtype=np.uint8)
        if len(found) < len(rows):
            found = np.empty((len(rows), self.bits.shape[1]), dtype=np.uint8)
        # With "raise" NumPy would fill a buffer of its own, row by row.
        yield np.take(self.bits, rows, axis=0, out=found[: len(rows)], mode="clip")
        if found.nbytes <= _MOST_IDLE_BYTES:
            self._idle.append(found)


def nearest_sketches(query: Bits, bits: Bits, count: int) -> Rows:
    """Where in ``bits`` those are that differ least from ``query``, in increasing order.

    ``query`` has the shape ``(1, width)`` and ``bits`` ``(n, width)``, with ``n >= count >= 1``.
    They are ``count``, and all others that differ in as few bits as the last of them.
    """
    differing = _differing(query, bits)
    no_farther = np.bincount(differing, minlength=8 * bits.shape[1] + 1).cumsum()
    return np.flatnonzero(differing <= no_farther.searchsorted(count))


def _differing(query: Bits, bits: Bits) -> NDArray[np.int32]:
    """In how many bits each of ``bits`` differs from ``query``, shape ``(n,)``."""
    faiss = require_faiss()
    pointer = faiss.swig_ptr
    found = np.empty(len(bits), dtype=np.int32)
    faiss.hammings(pointer(query), pointer(bits), 1, len(bits), bits.shape[1], pointer(found))
    return found


def write_sketches(
    path: Path, vectors: Vectors, *, queries: Vectors, neighbours: Rows, min_recall: float
) -> int | None:
    """Write those of ``vectors``, and return how many candidates the best ten hits take.

    ``None``: there is no file, since it would gain too little.

    Args:
        path: of the file.
        vectors: as they are indexed, shape ``(rows, dimension)``.
        queries: of the sample, shape ``(q, dimension)``.
        neighbours: their nearest rows, shape ``(q, m)``, see `QuerySample`.
        min_recall: of the best ten.
    """
    count, dimension = vectors.shape
    if count < _FEWEST_ROWS:
        return None
    width = -(-dimension // 8)
    thresholds = np.zeros(8 * width, dtype=np.float32)
    thresholds[:dimension] = vectors[:: -(-count // _MEAN_OF)].mean(axis=0)
    lines = new_mapped_array(path, (_LINES + count, width), np.uint8)
    lines[:_LINES] = thresholds.view(np.uint8).reshape(_LINES, width)
    for start in range(0, count, _WRITTEN_AT_ONCE):
        block = vectors[start : start + _WRITTEN_AT_ONCE]
        lines[_LINES + start :][: len(block)] = np.packbits(block > thresholds[:dimension], axis=1)
        release_rows(block)
    lines.flush()
    sketches = Sketches(path, rows=count, dimension=dimension)
    candidates = _candidates(_ranks(sketches, queries, neighbours), min_recall)
    if candidates > min(_MOST_CANDIDATES, _MOST_SHARE * count):
        path.unlink()
        return None
    return 32 * math.ceil(candidates / 32)


def _candidates(ranks: NDArray[np.float64], min_recall: float) -> float:
    """How many of the nearest sketches have the nearest ten vectors, with two thirds of the misses
    that ``min_recall`` allows."""
    wanted = 1 - (1 - min_recall) * _MISSES
    most = 1.0
    for each in _SHARES:
        known = ranks[:, : _HITS * each]
        most = max(most, float(np.quantile(known, wanted)) / each)
    return most


def _ranks(sketches: Sketches, queries: Vectors, neighbours: Rows) -> NDArray[np.float64]:
    """For each neighbour how many rows have a sketch that is no farther from the query's than its
    own, shape ``(q, m)``; infinite where there is no neighbour."""
    bits = sketches.bits
    step = -(-len(bits) // _RANKED)
    some = np.ascontiguousarray(bits[::step])
    ranks = np.full(neighbours.shape, np.inf)
    for number, query in enumerate(sketches.of(queries)):
        own = np.bitwise_count(bits[np.maximum(neighbours[number], 0)] ^ query).sum(axis=1)
        counts = np.bincount(_differing(query, some), minlength=8 * bits.shape[1] + 1)
        known = neighbours[number] >= 0
        ranks[number, known] = (step * counts.cumsum()[own])[known]
    return ranks
