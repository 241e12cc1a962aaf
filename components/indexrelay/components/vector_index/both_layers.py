"""Searches base and delta, and answers with the nearest of both.

Each is first looked into with the effort that was tuned, which nearly always finds enough. Where
the base finds fewer than were asked for, both are looked into further: rows of the delta would fill
the gap, however far they are, and nearer ones of the base would be left out.
"""

from typing import Any

import numpy as np

from indexrelay.components.vector_index.delta import Delta
from indexrelay.components.vector_index.facts import IndexFacts
from indexrelay.components.vector_index.index_search import Found, IndexSearch, missing
from indexrelay.components.vector_index.shared_lists import SharedLists, share_lists
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors


class BothLayers:
    """Immutable, and safe to use from many threads."""

    def __init__(
        self, base: Any, delta: Delta, facts: IndexFacts, *, alive: int, selector: Any
    ) -> None:
        """Search ``base``, a FAISS index with ``alive`` rows that ``selector`` lets through."""
        self._in_base = IndexSearch(base, facts.effort, selector)
        self._delta = delta
        self._shared: SharedLists | None = None
        if delta.index is not None and share_lists(base, delta.index):
            self._shared = SharedLists(base, delta.index, facts.effort, selector)
        self._alive = alive
        self._first_of_delta = facts.count
        self._smaller_is_nearer = facts.metric is Metric.L2

    def nearest(self, queries: Vectors, k: int) -> Found:
        """As `IndexSearch.nearest`; rows of the delta are counted on from the base's last."""
        in_base, in_delta = min(k, self._alive), min(k, len(self._delta))
        if not in_delta:
            return self._in_base.nearest(queries, in_base)
        if not in_base:
            return self._moved(self._delta.nearest(queries, in_delta))
        if self._shared is not None:
            of_base, of_delta = self._shared.nearest(queries, in_base, in_delta)
        else:
            of_base = self._in_base.near(queries, in_base)
            of_delta = self._delta.near(queries, in_delta)
        answer = self._merged(of_base, of_delta, k)
        if missing(of_base[1]) or missing(answer[1]):
            of_base = self._in_base.nearest(queries, in_base)
            of_delta = self._delta.nearest(queries, in_delta)
            answer = self._merged(of_base, of_delta, k)
        return answer

    def _merged(self, of_base: Found, of_delta: Found, k: int) -> Found:
        of_delta = self._moved(of_delta)
        found = np.concatenate([of_base[0], of_delta[0]], axis=1)
        rows = np.concatenate([of_base[1], of_delta[1]], axis=1)
        # Where something is missing FAISS says that it is as far as can be, so it comes last.
        near = found if self._smaller_is_nearer else -found
        best = near.argsort(axis=1, kind="stable")[:, :k]
        if len(best) == 1:  # half the time of the general way
            return found[:, best[0]], rows[:, best[0]]
        return np.take_along_axis(found, best, axis=1), np.take_along_axis(rows, best, axis=1)

    def _moved(self, of_delta: Found) -> Found:
        found, rows = of_delta
        rows[rows >= 0] += self._first_of_delta
        return found, rows
