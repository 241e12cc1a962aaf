"""From raw coordinates to the map: onto the last one, at its scale, inside [-1, 1].

The turn is the orthogonal Procrustes solution (Schönemann 1966): of all rotations and reflections
the one that brings the shared entries nearest to where they were, by the singular vectors of their
cross-covariance. The scale is *not* fitted: it stays that of the last map, since a fitted one would
creep a little with every build.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.projection.served import Coordinates
from indexrelay.components.projection.starting import LastMap

_FILLED = 0.8
"""How far a newly scaled map reaches: some room to grow before it must be scaled again."""
_REACH = 1.0
"""How far a map may reach."""
_SMALLEST = 0.4
"""A map that reaches less far than this is scaled anew."""

Plane = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Framed:
    """A finished map."""

    coordinates: Coordinates
    unit: float
    """The layout's own length that is 1 on the map; the next build begins with it."""
    rescaled: bool
    """Whether a last map's scale had to be given up."""


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How far the shared entries moved, as distances on the map (which is about 2 wide)."""

    shared: int
    median: float
    maximum: float


def frame(raw: Coordinates, last: LastMap | None) -> Framed:
    """Bring ``raw`` (shape ``(n, 2)``) onto ``last``, or centre it where there is none."""
    plane = raw.astype(np.float64)
    if last is None or not last.shared:
        return _fitted(plane - _middle(plane), unit=1.0, rescaled=False)
    placed = _turned(plane / last.unit, last)
    if _SMALLEST <= _reach(placed) <= _REACH:
        return Framed(coordinates=placed.astype(np.float32), unit=last.unit, rescaled=False)
    return _fitted(placed, unit=last.unit, rescaled=True)


def measure_drift(coordinates: Coordinates, last: LastMap) -> Drift:
    """How far the entries that ``last`` shows are from where they were."""
    if not last.shared:
        return Drift(shared=0, median=0.0, maximum=0.0)
    moved = np.linalg.norm(coordinates[last.known] - last.places[last.known], axis=1)
    return Drift(shared=last.shared, median=float(np.median(moved)), maximum=float(moved.max()))


def _turned(plane: Plane, last: LastMap) -> Plane:
    """Rotated, mirrored and moved so that the shared entries are nearest to their places."""
    shared, places = plane[last.known], last.places[last.known].astype(np.float64)
    here, there = shared.mean(axis=0), places.mean(axis=0)
    left, _, right = np.linalg.svd((shared - here).T @ (places - there))
    turned: Plane = (plane - here) @ (left @ right) + there
    return turned


def _fitted(plane: Plane, *, unit: float, rescaled: bool) -> Framed:
    """Scaled to `_FILLED`; about the origin, so that directions stay. One point stays as it is."""
    factor = _FILLED / (_reach(plane) or _FILLED)
    return Framed(
        coordinates=(plane * factor).astype(np.float32), unit=unit / factor, rescaled=rescaled
    )


def _reach(plane: Plane) -> float:
    """How far it reaches from the origin along either axis."""
    return float(np.abs(plane).max(initial=0.0))


def _middle(plane: Plane) -> Plane:
    """The middle of the box around all entries; the origin where there are none."""
    if not len(plane):
        return np.zeros(2)
    middle: Plane = (plane.min(axis=0) + plane.max(axis=0)) / 2
    return middle
