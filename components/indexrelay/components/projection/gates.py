"""The gates of a map: it shows its source, whole and unbroken, and keeps enough neighbourhoods.

Trustworthiness (Venna and Kaski 2001) asks, of the entries that are neighbours on the map, how many
were neighbours before: 1 is all, about 0.5 is chance. It compares all pairs, so it is measured on a
sample.
"""

from collections.abc import Iterator, Mapping
from itertools import zip_longest

import numpy as np

from indexrelay.components.judging import Verdict, equal, judge
from indexrelay.components.projection.reading import Points, read_points
from indexrelay.components.projection.served import ProjectionMap
from indexrelay.schemas.extras import require
from indexrelay.schemas.versions import Check
from indexrelay.storage.entries import SourceSnapshot

_SAMPLE = 500
"""Entries that trustworthiness is measured on: 0.1 s, and within 0.02 of the whole."""
_NEIGHBOURS = 5
_SMALLEST_EXTENT = 1e-3
"""A map whose entries all lie within this is one point to every eye."""
_REACH = 1.0 + 1e-6


def judged(
    chart: ProjectionMap,
    collections: Mapping[str, SourceSnapshot],
    *,
    min_trustworthiness: float,
    seed: int,
) -> Iterator[Check]:
    """Yield one `Check` for each gate; ``chart`` was opened from the new files."""
    points = read_points(collections)
    ids = list(chart.ids)
    yield judge("count", lambda: equal(len(ids), len(points.ids), "it is not of this generation"))
    yield judge("ids_unique", lambda: equal(len(set(ids)), len(ids), "ids repeat each other"))
    yield judge("ids_match_source", lambda: _same_ids(ids, points.ids))
    finite = bool(np.isfinite(chart.coordinates).all())
    yield judge("finite", lambda: Verdict(finite, "" if finite else "NaN or infinity in it"))
    if finite and len(chart):
        yield judge("range", lambda: in_range(chart))
    if finite and ids == points.ids and points.differ:
        yield judge("not_collapsed", lambda: spread(chart))
        # Neighbourhoods need three entries.
        if len(ids) > 2:
            yield judge(
                "trustworthiness",
                lambda: _trust(chart, points, least=min_trustworthiness, seed=seed),
            )


def _same_ids(found: list[str], expected: list[str]) -> Verdict:
    pairs = enumerate(zip_longest(found, expected))
    wrong = next((row for row, (here, there) in pairs if here != there), None)
    detail = "" if wrong is None else f"the first other id is in row {wrong}"
    return Verdict(wrong is None, detail)


def in_range(chart: ProjectionMap) -> Verdict:
    """No entry is beyond the edge."""
    reach = float(np.abs(chart.coordinates).max())
    return Verdict(reach <= _REACH, measured=reach, limit=1.0)


def spread(chart: ProjectionMap) -> Verdict:
    """Entries that differ are not all in one place."""
    extent = float(np.ptp(chart.coordinates, axis=0).max())
    return Verdict(extent >= _SMALLEST_EXTENT, measured=extent, limit=_SMALLEST_EXTENT)


def _trust(chart: ProjectionMap, points: Points, *, least: float, seed: int) -> Verdict:
    manifold = require("sklearn.manifold")
    neighbours = min(_NEIGHBOURS, (len(chart) - 1) // 2)
    rows = np.random.default_rng(seed).permutation(len(chart))[:_SAMPLE]
    measured = float(
        manifold.trustworthiness(
            points.vectors[rows], chart.coordinates[rows], n_neighbors=neighbours
        )
    )
    detail = f"{neighbours} neighbours of each of {len(rows)} entries"
    return Verdict(measured >= least, detail, measured=measured, limit=least)
