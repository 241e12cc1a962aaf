"""From raw coordinates to the map: onto the last one, at its scale, inside [-1, 1].

The turn is the orthogonal Procrustes solution (Schönemann 1966): of all rotations and reflections
the one that brings the shared entries nearest to where they were, by the singular vectors of their
cross-covariance. The scale is *not* fitted: it stays that of the last map, since a fitted one would
creep a little with every build.

All of it is one turn, one scale and one shift. They are handed on: where the layout is linear, a
new entry is put on the finished map by the same arithmetic.
"""

from dataclasses import dataclass, replace

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
class Framing:
    """How raw coordinates become places on the map: ``raw @ turn + shift``."""

    turn: Plane
    """Shape ``(2, 2)``: a rotation or reflection, times a scale."""
    shift: Plane
    """Shape ``(2,)``."""

    def apply(self, raw: Plane) -> Plane:
        """Places of raw coordinates, shape ``(n, 2)``."""
        placed: Plane = raw @ self.turn + self.shift
        return placed

    def over(self, unit: float) -> "Framing":
        """The same for raw coordinates in a unit of their own."""
        return Framing(turn=self.turn / unit, shift=self.shift)

    def scaled(self, factor: float) -> "Framing":
        """The same, about the origin, so that directions stay."""
        return Framing(turn=self.turn * factor, shift=self.shift * factor)


@dataclass(frozen=True, kw_only=True)
class Framed:
    """A finished map."""

    coordinates: Coordinates
    framing: Framing
    """How they came from the raw ones."""
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
        return _fitted(plane, Framing(turn=np.eye(2), shift=-_middle(plane)), unit=1.0)
    framing = _turning(plane / last.unit, last).over(last.unit)
    placed = framing.apply(plane)
    if _SMALLEST <= _reach(placed) <= _REACH:
        return Framed(
            coordinates=placed.astype(np.float32), framing=framing, unit=last.unit, rescaled=False
        )
    return replace(_fitted(plane, framing, unit=last.unit), rescaled=True)


def measure_drift(coordinates: Coordinates, last: LastMap) -> Drift:
    """How far the entries that ``last`` shows are from where they were."""
    if not last.shared:
        return Drift(shared=0, median=0.0, maximum=0.0)
    moved = np.linalg.norm(coordinates[last.known] - last.places[last.known], axis=1)
    return Drift(shared=last.shared, median=float(np.median(moved)), maximum=float(moved.max()))


def _turning(plane: Plane, last: LastMap) -> Framing:
    """Rotates, mirrors and moves so that the shared entries are nearest to their places."""
    shared, places = plane[last.known], last.places[last.known].astype(np.float64)
    here, there = shared.mean(axis=0), places.mean(axis=0)
    left, _, right = np.linalg.svd((shared - here).T @ (places - there))
    turn = left @ right
    return Framing(turn=turn, shift=there - here @ turn)


def _fitted(plane: Plane, framing: Framing, *, unit: float) -> Framed:
    """Scaled to `_FILLED`. One point stays as it is."""
    factor = _FILLED / (_reach(framing.apply(plane)) or _FILLED)
    scaled = framing.scaled(factor)
    return Framed(
        coordinates=scaled.apply(plane).astype(np.float32),
        framing=scaled,
        unit=unit / factor,
        rescaled=False,
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
