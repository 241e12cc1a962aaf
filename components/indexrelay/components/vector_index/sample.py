"""The queries that an index is tuned and judged by, and their exact nearest neighbours.

Queries are entries of the collection, each with itself left out of its own answer: that is how
"more like this" asks, and it needs nobody's query log. Each keeps its exact nearest 50, although
recall looks at 10, so that a later version can drop those that were deleted and still know the
nearest ten (see `carrying`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from indexrelay.components.errors import DamagedFileError
from indexrelay.components.string_table import Rows
from indexrelay.components.vector_index.metrics import Distances, distances, tolerance
from indexrelay.components.vector_index.nearest import BLOCK_ROWS, NearestRows, without_itself
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors

SAMPLE: Final = "sample.npz"
MAX_QUERIES: Final = 200
"""Recall@10 of 2,000 neighbours is known to about half a percent."""
KEPT: Final = 50
MEASURED: Final = 10
"""The k of recall@k."""


@dataclass(frozen=True, kw_only=True)
class QuerySample:
    """``q`` queries with at most ``m`` neighbours each: 50, or all others where there are fewer."""

    rows: Rows
    """The entries that ask, shape ``(q,)``; -1: that entry went or changed since it was drawn."""
    vectors: Vectors
    """Shape ``(q, dimension)``."""
    neighbours: Rows
    """Shape ``(q, m)``, the nearest first; -1 where no more are known."""
    distances: Distances
    """Theirs, shape ``(q, m)``, as `metrics.distances` computes them; infinite beside -1."""

    @property
    def depth(self) -> int:
        """How many neighbours recall looks at: 10, or as many as all queries know."""
        known = (self.neighbours >= 0).sum(axis=1)
        return min(MEASURED, int(known.min(initial=self.neighbours.shape[1])))

    def recall(self, found: Distances) -> float:
        """The share of ``found`` that is not farther than the exact neighbour of that depth.

        ``found`` has the shape ``(q, depth)``; infinity stands for nothing found. Counted by
        distance and not by row, because of several equal entries any one is right.
        """
        limit = self.distances[:, self.depth - 1 : self.depth]
        return float(np.mean(found <= limit + tolerance(limit, self.vectors)))

    def save(self, path: Path) -> None:
        """Write it; equal samples make equal files."""
        np.savez(path, **{name: getattr(self, name) for name in _COLUMNS})

    @classmethod
    def load(cls, path: Path, *, rows: int, dimension: int) -> Self:
        """Read the sample of a version whose rows number from 0 to ``rows``.

        Raises:
            DamagedFileError: the file is not what was written, or belongs to another index.
            OSError: it cannot be read.
        """
        with path.open("rb") as raw:
            try:
                _refuse_packed(path, raw)
                with np.load(raw, allow_pickle=False) as file:
                    sample = cls(**{name: file[name] for name in _COLUMNS})
            except (DamagedFileError, OSError, MemoryError):
                raise
            except Exception as error:  # what zipfile and NumPy make of a file that is none
                raise DamagedFileError(path, f"it cannot be read: {error}") from error
        if not sample._fits(rows, dimension):
            raise DamagedFileError(path, f"it is not the sample of {rows} vectors")
        return sample

    def _fits(self, rows: int, dimension: int) -> bool:
        queries, kept = len(self.vectors), self.neighbours.shape[-1]
        shapes = ((queries,), (queries, dimension), (queries, kept), (queries, kept))
        found = tuple(getattr(self, name).shape for name in _COLUMNS)
        named = np.concatenate([self.rows.ravel(), self.neighbours.ravel()])
        return (
            found == shapes
            and min(1, rows) <= queries <= MAX_QUERIES
            and kept <= KEPT
            and not np.any((named < -1) | (named >= rows))
            and np.array_equal(np.isinf(self.distances), self.neighbours < 0)
        )


def _refuse_packed(path: Path, raw: BinaryIO) -> None:
    """Refuse what unpacks to more than is in the file: nothing in ours is packed."""
    with ZipFile(raw) as archive:
        packed = [each for each in archive.infolist() if each.compress_type != ZIP_STORED]
        size = sum(each.file_size for each in archive.infolist())
    if packed or size > path.stat().st_size:
        raise DamagedFileError(path, "it says that it holds more than it has")
    raw.seek(0)


_COLUMNS: Final = ("rows", "vectors", "neighbours", "distances")


def draw_sample(
    vectors: Vectors, metric: Metric, *, seed: int, progress: Callable[[float], None]
) -> QuerySample:
    """Draw queries from ``vectors`` and search them exactly, block by block."""
    count = len(vectors)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(count, size=min(MAX_QUERIES, count), replace=False))
    queries = np.ascontiguousarray(vectors[rows])
    nearest = NearestRows(queries, k=min(KEPT + 1, count), metric=metric)
    for start in range(0, count, BLOCK_ROWS):
        nearest.add(vectors[start : start + BLOCK_ROWS])
        progress(min(start + BLOCK_ROWS, count) / count)
    neighbours = without_itself(nearest.rows, rows)
    # FAISS computes in float32, and L2 from norms: settle the order by the real thing.
    exact = distances(queries, vectors[neighbours], metric)
    order = np.argsort(exact, axis=1, kind="stable")
    return QuerySample(
        rows=rows,
        vectors=queries,
        neighbours=np.take_along_axis(neighbours, order, axis=1),
        distances=np.take_along_axis(exact, order, axis=1),
    )
