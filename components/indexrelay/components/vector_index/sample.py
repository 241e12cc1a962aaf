"""The query sample: drawn, and carried from version to version.

An index is tuned and judged by queries that are entries of the collection, each with itself left
out of its own answer: that is how "more like this" asks, and it needs no query log. Each query
keeps its exact nearest 50, although recall counts 10.

A version that continues another also continues its sample, so the cost of recall follows the batch.
Deleted entries are removed from each list of neighbours, and new ones are compared with the query.
The nearest 50 of both are exact again, as far as the old list reached. A list gets shorter by
deletes and longer by upserts; when fewer than ten are left, that query alone is searched again. For
500 queries, a million entries and 1,000 changes that is 0.06 s instead of 4.4 s. A query whose
entry is deleted or changes keeps its vector. A full build draws a new sample.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final, Self
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.formats.string_table import Rows
from indexrelay.components.layered import among
from indexrelay.components.vector_index.metrics import (
    BLOCK_ROWS,
    Distances,
    NearestRows,
    distances,
    tolerance,
    without_itself,
)
from indexrelay.components.vector_index.spec import IndexSpec
from indexrelay.components.vector_index.version import Contents
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors

SAMPLE: Final = "sample.npz"
MAX_QUERIES: Final = 200
"""Recall@10 of 2,000 neighbours is known to about half a percent."""
_TUNED_BY: Final = 800
"""Queries that a graph is tuned by: it answers them in a fraction of a second."""
KEPT: Final = 50
"""Neighbours of each query: a later version can drop some, and still have ten."""
MEASURED: Final = 10
"""The k of recall@k."""
_COLUMNS: Final = ("rows", "vectors", "neighbours", "distances")


@dataclass(frozen=True, kw_only=True)
class QuerySample:
    """``q`` queries with at most ``m`` neighbours each: 50, or all others where there are fewer."""

    rows: Rows
    """The queries' own rows, shape ``(q,)``; -1: the entry was deleted or changed since."""
    vectors: Vectors
    """Shape ``(q, dimension)``."""
    neighbours: Rows
    """Shape ``(q, m)``, the nearest first; -1 where there are fewer."""
    distances: Distances
    """Theirs, shape ``(q, m)``, as `metrics.distances` computes them; infinite beside -1."""

    @property
    def depth(self) -> int:
        """How many neighbours recall counts: 10, or as many as every query has."""
        known = (self.neighbours >= 0).sum(axis=1)
        return min(MEASURED, int(known.min(initial=self.neighbours.shape[1])))

    def recall(self, found: Distances) -> float:
        """The share of ``found`` that is not farther than the exact neighbour of that depth.

        ``found`` has the shape ``(q, depth)``; infinity means nothing found. Counted by
        distance and not by row, because of several equal entries any one is right.
        """
        limit = self.distances[:, self.depth - 1 : self.depth]
        return float(np.mean(found <= limit + tolerance(limit, self.vectors)))

    def thinned(self, queries: int) -> Self:
        """So many of the queries, evenly spread over the rows; all where there are no more."""
        if queries >= len(self.vectors):
            return self
        kept = np.linspace(0, len(self.vectors) - 1, queries).astype(np.int64)
        return replace(self, **{name: getattr(self, name)[kept] for name in _COLUMNS})

    def save(self, path: Path) -> None:
        """Write it; equal samples make equal files."""
        np.savez(path, **{name: getattr(self, name) for name in _COLUMNS})

    @classmethod
    def load(cls, path: Path, *, rows: int, dimension: int) -> Self:
        """Read the sample of a version whose rows number from 0 to ``rows``.

        Raises:
            CorruptFileError: the file is not what was written, or belongs to another index.
            OSError: it cannot be read.
        """
        with path.open("rb") as raw:
            try:
                _refuse_packed(path, raw)
                with np.load(raw, allow_pickle=False) as file:
                    sample = cls(**{name: file[name] for name in _COLUMNS})
            except (CorruptFileError, OSError, MemoryError):
                raise
            except Exception as error:  # zipfile and NumPy raise anything for a corrupt file
                raise CorruptFileError(path, f"it cannot be read: {error}") from error
        if not sample._fits(rows, dimension):
            raise CorruptFileError(path, f"it is not the sample of {rows} vectors")
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
    """Refuse a file that unpacks to more than it has: `QuerySample.save` packs nothing."""
    with ZipFile(raw) as archive:
        packed = [each for each in archive.infolist() if each.compress_type != ZIP_STORED]
        size = sum(each.file_size for each in archive.infolist())
    if packed or size > path.stat().st_size:
        raise CorruptFileError(path, "it says that it holds more than it has")
    raw.seek(0)


def draw_sample(
    vectors: Vectors,
    metric: Metric,
    *,
    seed: int,
    progress: Callable[[float], None],
    queries_wanted: int = MAX_QUERIES,
) -> QuerySample:
    """Draw queries from ``vectors`` and search them exactly, block by block."""
    count = len(vectors)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(count, size=min(queries_wanted, count), replace=False))
    queries = np.ascontiguousarray(vectors[rows])
    nearest = NearestRows(queries, k=min(KEPT + 1, count), metric=metric)
    for start in range(0, count, BLOCK_ROWS):
        nearest.add(vectors[start : start + BLOCK_ROWS])
        progress(min(start + BLOCK_ROWS, count) / count)
    neighbours = without_itself(nearest.rows, rows)
    # FAISS computes in float32, and L2 from norms: the order follows exact distances.
    exact = distances(queries, vectors[neighbours], metric)
    order = np.argsort(exact, axis=1, kind="stable")
    return QuerySample(
        rows=rows,
        vectors=queries,
        neighbours=np.take_along_axis(neighbours, order, axis=1),
        distances=np.take_along_axis(exact, order, axis=1),
    )


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What an index is built over, and what it is measured by."""

    spec: IndexSpec
    vectors: Vectors
    """Shape ``(count, dimension)``, as `metrics.prepared` makes them; best a mapped file."""
    sample: QuerySample
    """Drawn from ``vectors``."""

    def with_more_queries(self) -> "Dataset":
        """The same with up to 800 queries, of which no version keeps any; at most 1 % of entries.

        The recall of 200 queries differs by 0.008 from that of 200 others at 0.95.
        """
        queries = min(_TUNED_BY, self.spec.count // 100)
        if queries <= len(self.sample.vectors):
            return self
        sample = draw_sample(
            self.vectors,
            self.spec.metric,
            seed=self.spec.parameters.seed,
            progress=lambda _share: None,
            queries_wanted=queries,
        )
        return replace(self, sample=sample)

    def part(self, rows: int) -> "Dataset":
        """So many random entries of it, with queries of their own; all where there are no more."""
        spec, seed = self.spec, self.spec.parameters.seed
        if rows >= spec.count:
            return self
        drawn = np.sort(np.random.default_rng(seed).choice(spec.count, size=rows, replace=False))
        vectors = np.ascontiguousarray(self.vectors[drawn])
        sample = draw_sample(vectors, spec.metric, seed=seed, progress=lambda _share: None)
        return Dataset(spec=replace(spec, count=rows), vectors=vectors, sample=sample)


@dataclass(frozen=True, kw_only=True)
class Moves:
    """From the rows of one version to those of the next."""

    first_of_delta: int
    """Rows of the base, which both share."""
    tombstones: Rows
    """Base rows that are dead in the next version."""
    delta: Rows
    """For each delta row of the last version: its delta row in the next, or -1."""
    fresh: Rows
    """Delta rows of the next version that came with this batch."""

    def of(self, rows: Rows) -> Rows:
        """Where ``rows`` are now; -1: they are gone (or were -1)."""
        moved = rows.copy()
        moved[among(rows, self.tombstones)] = -1
        in_delta = rows >= self.first_of_delta
        now = self.delta[rows[in_delta] - self.first_of_delta]
        moved[in_delta] = np.where(now < 0, now, now + self.first_of_delta)
        return moved


def carry(sample: QuerySample, moves: Moves, last: Contents, contents: Contents) -> QuerySample:
    """The sample of ``contents``, which follows ``last``, whose sample this is."""
    askers = moves.of(sample.rows)
    survivors = moves.of(sample.neighbours)
    kept = np.where(survivors < 0, np.inf, sample.distances)
    fresh, fresh_distances = _nearest_fresh(sample.vectors, moves, contents)
    # Beyond the distance that a list reached, other entries are not known: no new one may follow.
    beyond = fresh_distances > _reach(sample, entries=len(last))[:, None]
    fresh_distances[beyond], fresh[beyond] = np.inf, -1
    neighbours, near = _in_order(
        np.hstack([survivors, fresh]), np.hstack([kept, fresh_distances]), contents
    )
    others = len(contents) - (askers >= 0)
    known = (neighbours >= 0).sum(axis=1)
    short = np.flatnonzero(known < np.minimum(MEASURED, others))
    if len(short):
        neighbours[short], near[short] = _exact(sample.vectors[short], askers[short], contents)
    return replace(sample, rows=askers, neighbours=neighbours, distances=near)


def searched_again(sample: QuerySample, contents: Contents) -> QuerySample:
    """The same queries with the nearest of all live entries, whatever the sample says of them."""
    neighbours, near = _exact(sample.vectors, sample.rows, contents)
    return replace(sample, neighbours=neighbours, distances=near)


def _reach(sample: QuerySample, *, entries: int) -> Distances:
    """For each query, up to which distance its list has every entry."""
    known = (sample.neighbours >= 0).sum(axis=1)
    complete = known >= entries - (sample.rows >= 0)
    last = np.take_along_axis(sample.distances, np.maximum(known - 1, 0)[:, None], axis=1)[:, 0]
    return np.where(complete, np.inf, np.where(known > 0, last, -np.inf))


def _nearest_fresh(queries: Vectors, moves: Moves, contents: Contents) -> tuple[Rows, Distances]:
    """Of the rows that came with the batch, the nearest to each query."""
    if contents.delta is None or not len(moves.fresh):
        return np.empty((len(queries), 0), dtype=np.int64), np.empty((len(queries), 0))
    vectors = contents.delta.vectors[moves.fresh]
    nearest = NearestRows(queries, k=KEPT, metric=contents.facts.metric)
    nearest.add(vectors)
    exact = distances(queries, vectors[nearest.rows], contents.facts.metric)
    return moves.fresh[nearest.rows] + moves.first_of_delta, exact


def _exact(queries: Vectors, askers: Rows, contents: Contents) -> tuple[Rows, Distances]:
    """The nearest of all entries to some queries, without the queries' own."""
    nearest = NearestRows(queries, k=KEPT + 1, metric=contents.facts.metric)
    rows = [np.empty(0, dtype=np.int64)]
    for block, vectors in contents.live_blocks():
        nearest.add(vectors)
        rows.append(block)
    found = np.concatenate(rows)[nearest.rows]
    exact = distances(queries, contents.vectors(found), contents.facts.metric)
    itself = found == askers[:, None]
    found[itself], exact[itself] = -1, np.inf
    return _in_order(found, exact, contents)


def _in_order(rows: Rows, far: Distances, contents: Contents) -> tuple[Rows, Distances]:
    """The nearest of some candidates, in order, in as many columns as a sample has."""
    width = min(KEPT, len(contents))
    order = np.argsort(far, axis=1, kind="stable")[:, :width]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(far, order, axis=1)
