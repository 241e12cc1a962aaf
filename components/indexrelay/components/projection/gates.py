"""The gates of a map: it shows its source, whole and unbroken, and keeps enough neighbourhoods.

Trustworthiness (Venna and Kaski 2001) asks, of the entries that are neighbours on the map, how many
were neighbours before: 1 is all, about 0.5 is chance. It compares all pairs, so it is measured on a
sample.
"""

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from time import perf_counter

import numpy as np

from indexrelay.components.projection.reading import Points, read_points
from indexrelay.components.projection.served import ProjectionMap
from indexrelay.schemas.versions import Check
from indexrelay.storage.entries import SourceSnapshot

_SAMPLE = 500
"""Entries that trustworthiness is measured on: 0.1 s, and within 0.02 of the whole."""
_NEIGHBOURS = 5
_SMALLEST_EXTENT = 1e-3
"""A map whose entries all lie within this is one point to every eye."""
_REACH = 1.0 + 1e-6


def judge(
    chart: ProjectionMap,
    collections: Mapping[str, SourceSnapshot],
    *,
    min_trustworthiness: float,
    seed: int,
) -> Iterator[Check]:
    """Yield one `Check` for each gate; ``chart`` was opened from the new files."""
    points = read_points(collections)
    yield Check(
        name="count",
        passed=len(chart) == len(points.ids) == len(chart.coordinates),
        measured=len(chart),
        limit=len(points.ids),
    )
    ids = list(chart.ids)
    yield Check(name="ids_unique", passed=len(set(ids)) == len(ids), measured=len(set(ids)))
    yield _same_ids(ids, points.ids)
    finite = bool(np.isfinite(chart.coordinates).all())
    yield Check(name="finite", passed=finite)
    yield from _shape(chart, points)
    if finite and ids == points.ids:
        yield from _trust(chart, points, least=min_trustworthiness, seed=seed)


def _same_ids(found: list[str], expected: list[str]) -> Check:
    pairs = enumerate(zip_longest(found, expected))
    wrong = next((row for row, (here, there) in pairs if here != there), None)
    return Check(
        name="ids_match_source",
        passed=wrong is None,
        detail="" if wrong is None else f"the first other id is in row {wrong}",
    )


def _shape(chart: ProjectionMap, points: Points) -> Iterator[Check]:
    """Inside its range, and not all in one place."""
    if not len(chart):
        return
    reach = float(np.abs(chart.coordinates).max())
    yield Check(name="range", passed=reach <= _REACH, measured=_or_none(reach), limit=1.0)
    if points.differ:
        extent = float(np.ptp(chart.coordinates, axis=0).max())
        yield Check(
            name="not_collapsed",
            passed=extent >= _SMALLEST_EXTENT,
            measured=_or_none(extent),
            limit=_SMALLEST_EXTENT,
        )


def _trust(chart: ProjectionMap, points: Points, *, least: float, seed: int) -> Iterator[Check]:
    from sklearn.manifold import trustworthiness

    neighbours = min(_NEIGHBOURS, (len(chart) - 1) // 2)
    if neighbours < 1 or not points.differ:
        return  # neighbourhoods need three entries that differ
    started = perf_counter()
    rows = np.random.default_rng(seed).permutation(len(chart))[:_SAMPLE]
    measured = float(
        trustworthiness(points.vectors[rows], chart.coordinates[rows], n_neighbors=neighbours)
    )
    yield Check(
        name="trustworthiness",
        passed=measured >= least,
        measured=measured,
        limit=least,
        detail=f"{neighbours} neighbours of each of {len(rows)} entries",
        seconds=perf_counter() - started,
    )


def _or_none(value: float) -> float | None:
    """A NaN has no place in a manifest; the gate has failed on it already."""
    return value if np.isfinite(value) else None
