"""The quality gates of a vector index: recall, latency, and whether entries find themselves.

Full and incremental builds judge what an index answers to its query sample by the same three gates.
Distances are computed from true vectors, whatever a compressed index reports, and a hit counts by
distance: of several equal entries any one is right.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Final

import numpy as np

from indexrelay.components.formats.string_table import Rows
from indexrelay.components.kind import Verdict, equal, judge
from indexrelay.components.layered import among
from indexrelay.components.vector_index.metrics import (
    Distances,
    NearestRows,
    distances,
    distances_of_found,
    tolerance,
    without_itself,
)
from indexrelay.components.vector_index.sample import QuerySample
from indexrelay.components.vector_index.search import VectorSearch
from indexrelay.components.vector_index.spec import VectorIndexParameters
from indexrelay.components.vector_index.version import Contents
from indexrelay.schemas.settings import Metric
from indexrelay.schemas.versions import Check
from indexrelay.storage.entries import Vectors

RECOMPUTED: Final = 16
"""Queries whose neighbours the gates of the sample itself search again, exactly."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What an index answered to its query sample."""

    index: VectorSearch
    sample: QuerySample
    found: Rows
    """Shape ``(q, depth + 1)``: rows, -1 where there are fewer."""
    gather: Callable[[Rows], Vectors]
    """Returns the true vectors of rows, of the shape ``(*rows.shape, dimension)``."""
    parameters: VectorIndexParameters

    def gates(self) -> Iterator[Check]:
        """Whether entries find themselves, how many of the nearest are found, and how fast."""
        if self.index.metric is not Metric.INNER_PRODUCT:
            yield judge("own_distance", self._own_distance)
        yield judge("recall_at_10", self._recall)
        yield judge("latency_ms", self._latency)

    def _own_distance(self) -> Verdict:
        """An entry's own vector finds the entry, or one that is just as near."""
        asked = self.sample.rows >= 0
        if not asked.any():
            return Verdict(True, "there is nothing to ask for")
        queries = self.sample.vectors[asked]
        own = distances(queries, queries[:, None, :], self.index.metric)
        true = self._true(self.found)[asked]
        share = float(np.mean((true <= own + tolerance(own, queries)).any(axis=1)))
        return at_least(share, self.parameters.min_recall, "entries do not find themselves")

    def _recall(self) -> Verdict:
        """The share of the nearest ten that is found, or of entries that are just as near."""
        if not self.sample.depth:
            return Verdict(True, "there is nothing to find")
        share = self.sample.recall(self._true(without_itself(self.found, self.sample.rows)))
        return at_least(
            share,
            self.parameters.min_recall,
            "lower min_recall, or choose an index that keeps more",
        )

    def _latency(self) -> Verdict:
        """The median time of single queries, as in a reader."""
        seconds = []
        for vector in self.sample.vectors[:_TIMED_QUERIES]:
            started = perf_counter()
            self.index.search(vector)
            seconds.append(perf_counter() - started)
        measured = 1000 * median(seconds) if seconds else 0.0
        limit = self.parameters.max_latency_ms
        fast = measured <= limit
        otherwise = "raise max_latency_ms, lower min_recall, or choose a faster index"
        return Verdict(fast, "" if fast else otherwise, measured=measured, limit=limit)

    def _true(self, found: Rows) -> Distances:
        anything = np.maximum(self.sample.rows, 0)[:, None]
        vectors = self.gather(np.where(found < 0, anything, found))
        return distances_of_found(self.sample.vectors, found, vectors, self.index.metric)


_TIMED_QUERIES: Final = 100


def at_least(share: float, limit: float, otherwise: str) -> Verdict:
    """A gate on a share that must reach ``limit``."""
    reached = share >= limit
    return Verdict(reached, "" if reached else otherwise, measured=share, limit=limit)


def carried_is_exact(contents: Contents, sample: QuerySample) -> Verdict:
    """Some queries' neighbours are entries, at the distance claimed, and no new entry is nearer.

    An entry of the base can only leave the neighbours that were exact before, one of the delta can
    come. So the whole delta is compared, and of the base the neighbours.
    """
    queries, depth = sample.vectors[:RECOMPUTED], sample.depth
    claimed, rows = sample.distances[:RECOMPUTED, :depth], sample.neighbours[:RECOMPUTED, :depth]
    if not claimed.size:
        return Verdict(True, measured=0)
    metric, delta, dead = contents.facts.metric, contents.delta, contents.ids.layers.tombstones
    if among(rows, dead).any() or (np.diff(claimed, axis=1) < 0).any():
        return Verdict(False, "the sample names entries that are gone, or not the nearest first")
    true = distances(queries, contents.vectors(rows), metric)
    allowed = tolerance(true, queries)
    if (np.abs(true - claimed) > allowed).any():
        return Verdict(False, "the sample's neighbours are not at the distance claimed")
    if delta is None or not len(delta):
        return equal(0, 0, "")
    nearest = NearestRows(queries, k=depth + 1, metric=metric)
    nearest.add(delta.vectors)
    found = nearest.rows + contents.first_of_delta
    others = found != sample.rows[:RECOMPUTED, None]
    true = distances(queries, delta.vectors[nearest.rows], metric)
    nearer = others & (true < claimed[:, -1:] - 2 * allowed[:, -1:])
    named = (found[:, :, None] == rows[:, None, :]).any(axis=2)
    missing = int(np.count_nonzero(nearer & ~named))
    return equal(missing, 0, "the delta holds entries nearer than the sample's neighbours")
