"""Carries the query sample from one version to the next, so that recall costs what the batch costs.

Each query knows its exact nearest 50. What went from the collection is struck out, what came is
compared with the query, and the nearest 50 of both are exact again: up to the distance that the
list reached before, everything is known. So a list gets shorter by deletes and longer by upserts,
and when fewer than the ten are left that recall looks at, that query alone is searched anew. For
500 queries, a million entries and 1,000 changes that is 0.06 s instead of 4.4 s.

A query is an entry, left out of its own answer. One that went or changed goes on asking with the
vector that it had, and there is nothing to leave out any more. Compaction draws a new sample.
"""

from dataclasses import dataclass, replace

import numpy as np

from indexrelay.components.row_sets import among
from indexrelay.components.string_table import Rows
from indexrelay.components.vector_index.contents import Contents
from indexrelay.components.vector_index.metrics import Distances, distances
from indexrelay.components.vector_index.nearest import NearestRows
from indexrelay.components.vector_index.sample import KEPT, MEASURED, QuerySample


@dataclass(frozen=True, kw_only=True)
class Moves:
    """From the rows of one version to those of the next."""

    first_of_delta: int
    """Rows of the base, which both share."""
    tombstones: Rows
    """Base rows that do not count in the next version."""
    delta: Rows
    """For each delta row of the last version: its delta row in the next, or -1."""
    fresh: Rows
    """Delta rows of the next version that this batch brought."""

    def of(self, rows: Rows) -> Rows:
        """Where ``rows`` are now; -1: they are no more (or were -1)."""
        moved = rows.copy()
        moved[among(rows, self.tombstones)] = -1
        beside = rows >= self.first_of_delta
        now = self.delta[rows[beside] - self.first_of_delta]
        moved[beside] = np.where(now < 0, now, now + self.first_of_delta)
        return moved


def carry(sample: QuerySample, moves: Moves, last: Contents, contents: Contents) -> QuerySample:
    """The sample of ``contents``, which follows ``last``, whose sample this is."""
    askers = moves.of(sample.rows)
    survivors = moves.of(sample.neighbours)
    kept = np.where(survivors < 0, np.inf, sample.distances)
    fresh, fresh_distances = _fresh(sample, moves, contents)
    # Beyond the distance that a list reached, others are not known: no newcomer may stand there.
    beyond = fresh_distances > _reach(sample, entries=len(last))[:, None]
    fresh_distances[beyond], fresh[beyond] = np.inf, -1
    neighbours, near = _nearest(
        np.hstack([survivors, fresh]), np.hstack([kept, fresh_distances]), contents
    )
    carried = replace(sample, rows=askers, neighbours=neighbours, distances=near)
    others = len(contents) - (askers >= 0)
    known = (carried.neighbours >= 0).sum(axis=1)
    short = np.flatnonzero(known < np.minimum(MEASURED, others))
    if len(short):
        _search_anew(carried, short, contents)
    return carried


def _reach(sample: QuerySample, *, entries: int) -> Distances:
    """For each query, up to which distance its list names everything."""
    known = (sample.neighbours >= 0).sum(axis=1)
    complete = known >= entries - (sample.rows >= 0)
    last = np.take_along_axis(sample.distances, np.maximum(known - 1, 0)[:, None], axis=1)[:, 0]
    return np.where(complete, np.inf, np.where(known > 0, last, -np.inf))


def _fresh(sample: QuerySample, moves: Moves, contents: Contents) -> tuple[Rows, Distances]:
    """The nearest newcomers of each query."""
    if contents.delta is None or not len(moves.fresh):
        return np.empty((len(sample.rows), 0), dtype=np.int64), np.empty((len(sample.rows), 0))
    vectors = contents.delta.vectors[moves.fresh]
    nearest = NearestRows(sample.vectors, k=KEPT, metric=contents.facts.metric)
    nearest.add(vectors)
    exact = distances(sample.vectors, vectors[nearest.rows], contents.facts.metric)
    return moves.fresh[nearest.rows] + moves.first_of_delta, exact


def _nearest(rows: Rows, far: Distances, contents: Contents) -> tuple[Rows, Distances]:
    """The nearest of some candidates, in order, in as many columns as a sample has."""
    width = min(KEPT, len(contents))
    order = np.argsort(far, axis=1, kind="stable")[:, :width]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(far, order, axis=1)


def _search_anew(sample: QuerySample, queries: Rows, contents: Contents) -> None:
    """Fill the lists of some queries by an exact search over all entries."""
    asking = np.ascontiguousarray(sample.vectors[queries])
    nearest = NearestRows(asking, k=KEPT + 1, metric=contents.facts.metric)
    rows = [np.empty(0, dtype=np.int64)]
    for block, vectors in contents.live_blocks():
        nearest.add(vectors)
        rows.append(block)
    found = np.concatenate(rows)[nearest.rows]
    exact = distances(asking, contents.vectors(found), contents.facts.metric)
    itself = found == sample.rows[queries][:, None]
    found[itself], exact[itself] = -1, np.inf
    width = sample.neighbours.shape[1]
    order = np.argsort(exact, axis=1, kind="stable")[:, :width]
    sample.neighbours[queries, : order.shape[1]] = np.take_along_axis(found, order, axis=1)
    sample.distances[queries, : order.shape[1]] = np.take_along_axis(exact, order, axis=1)
