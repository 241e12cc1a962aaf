"""Three gates on what an index answers: do entries find themselves, how many of the nearest are
found, and how fast.

Distances are computed from true vectors, whatever a compressed index believes, and a hit counts by
distance: of several equal entries any one is right.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Final

import numpy as np

from indexrelay.components.judging import Verdict
from indexrelay.components.string_table import Rows
from indexrelay.components.vector_index.metrics import (
    Distances,
    distances,
    distances_of_found,
    tolerance,
)
from indexrelay.components.vector_index.nearest import without_itself
from indexrelay.components.vector_index.parameters import VectorIndexParameters
from indexrelay.components.vector_index.sample import QuerySample
from indexrelay.components.vector_index.search import VectorSearch
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors

_TIMED_QUERIES: Final = 100


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What an index answered to its query sample."""

    sample: QuerySample
    found: Rows
    """Shape ``(q, depth + 1)``: rows, -1 where there are fewer."""
    gather: Callable[[Rows], Vectors]
    """The true vectors of rows, of the shape ``(*rows.shape, dimension)``."""
    metric: Metric
    parameters: VectorIndexParameters

    def own_distance(self) -> Verdict:
        """An entry that is asked for by its own vector is answered, or one that is just as near."""
        asked = self.sample.rows >= 0
        if not asked.any():
            return Verdict(True, "there is nothing to ask for")
        queries = self.sample.vectors[asked]
        own = distances(queries, queries[:, None, :], self.metric)
        true = self._true(self.found)[asked]
        share = float(np.mean((true <= own + tolerance(own, queries)).any(axis=1)))
        return at_least(share, self.parameters.min_recall, "entries do not find themselves")

    def recall(self) -> Verdict:
        """The share of the nearest ten that is found, or of entries that are just as near."""
        if not self.sample.depth:
            return Verdict(True, "there is nothing to find")
        share = self.sample.recall(self._true(without_itself(self.found, self.sample.rows)))
        return at_least(
            share,
            self.parameters.min_recall,
            "lower min_recall, or choose an index that keeps more",
        )

    def _true(self, found: Rows) -> Distances:
        anything = np.maximum(self.sample.rows, 0)[:, None]
        vectors = self.gather(np.where(found < 0, anything, found))
        return distances_of_found(self.sample.vectors, found, vectors, self.metric)


def latency(index: VectorSearch, sample: QuerySample, parameters: VectorIndexParameters) -> Verdict:
    """The median of single queries, as a reader asks them."""
    seconds = []
    for vector in sample.vectors[:_TIMED_QUERIES]:
        started = perf_counter()
        index.search(vector)
        seconds.append(perf_counter() - started)
    measured = 1000 * median(seconds) if seconds else 0.0
    fast = measured <= parameters.max_latency_ms
    otherwise = "raise max_latency_ms, lower min_recall, or choose a faster index"
    return Verdict(
        fast, "" if fast else otherwise, measured=measured, limit=parameters.max_latency_ms
    )


def at_least(share: float, limit: float, otherwise: str) -> Verdict:
    """A gate on a share that must reach ``limit``."""
    reached = share >= limit
    return Verdict(reached, "" if reached else otherwise, measured=share, limit=limit)
