"""Whether the query sample that a version carries along still names the nearest entries.

Some of its queries are held against the entries that are named, and against the whole delta: an
entry of the base can only leave the neighbours that were exact before, one of the delta can come.
"""

from typing import Final

import numpy as np

from indexrelay.components.judging import Verdict, equal
from indexrelay.components.row_sets import among
from indexrelay.components.string_table import Rows
from indexrelay.components.vector_index.contents import Contents
from indexrelay.components.vector_index.metrics import distances, tolerance
from indexrelay.components.vector_index.nearest import NearestRows
from indexrelay.components.vector_index.sample import QuerySample
from indexrelay.storage.entries import Vectors

_RECOMPUTED: Final = 16
"""Queries whose carried neighbours are held against all that can have changed them."""


def sample_is_exact(contents: Contents, sample: QuerySample) -> Verdict:
    """Some queries' neighbours are entries, at the distance claimed, and no newcomer is nearer."""
    queries, depth = sample.vectors[:_RECOMPUTED], sample.depth
    claimed, rows = sample.distances[:_RECOMPUTED, :depth], sample.neighbours[:_RECOMPUTED, :depth]
    if not claimed.size:
        return Verdict(True, measured=0)
    metric, dead = contents.facts.metric, contents.ids.layers.tombstones
    if among(rows, dead).any() or (np.diff(claimed, axis=1) < 0).any():
        return Verdict(False, "the sample names entries that are gone, or not the nearest first")
    true = distances(queries, contents.vectors(rows), metric)
    allowed = tolerance(true, queries)
    if (np.abs(true - claimed) > allowed).any():
        return Verdict(False, "the sample's neighbours are not at the distance claimed")
    missing = _nearer_in_delta(contents, sample, queries, rows, claimed, allowed)
    return equal(missing, 0, "the delta holds entries nearer than the sample's neighbours")


def _nearer_in_delta(
    contents: Contents,
    sample: QuerySample,
    queries: Vectors,
    rows: Rows,
    claimed: np.ndarray,
    allowed: np.ndarray,
) -> int:
    """How many entries of the delta should be among the neighbours, and are not."""
    if contents.delta is None or not len(contents.delta):
        return 0
    nearest = NearestRows(queries, k=rows.shape[1] + 1, metric=contents.facts.metric)
    nearest.add(contents.delta.vectors)
    found = nearest.rows + contents.first_of_delta
    true = distances(queries, contents.delta.vectors[nearest.rows], contents.facts.metric)
    others = found != sample.rows[:_RECOMPUTED, None]
    nearer = others & (true < claimed[:, -1:] - 2 * allowed[:, -1:])
    named = (found[:, :, None] == rows[:, None, :]).any(axis=2)
    return int(np.count_nonzero(nearer & ~named))
