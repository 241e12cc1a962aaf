"""Two layers of rows that are read as one: a base that stays, and the rows that came since.

A version that follows a small batch names its predecessor's base again and writes three small
things beside it: the **delta** (rows that came or changed since the base was written), the
**tombstones** (base rows that went, or that the delta replaces), and for each delta row its
**place**: the base row that it stands before. From these follows one order of all live rows, the
same as if they had been written in one piece, so that nobody who reads can tell how they came to
be. The arithmetic of that order is all that is in here.

Why places are counted in base rows and not in live ones: a tombstone that comes later leaves them
as they are.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.string_table import Rows


@dataclass(frozen=True)
class Layers:
    """Which rows of base and delta are shown, and in which order; positions count from 0."""

    base: int
    """Rows of the base, dead ones included."""
    tombstones: Rows
    """Base rows that are not shown: int64, growing."""
    places: Rows
    """For each delta row the base row that it stands before (``base``: after all): int64, never
    shrinking; rows with equal places stand in the order of the delta."""
    _alive_before: Rows = field(init=False, repr=False)
    _delta_at: Rows = field(init=False, repr=False)

    def __post_init__(self) -> None:
        tombstones = self.tombstones
        # How many live base rows stand before each tombstone, and where each delta row is shown.
        object.__setattr__(self, "_alive_before", tombstones - np.arange(len(tombstones)))
        shown = self.places - np.searchsorted(tombstones, self.places)
        object.__setattr__(self, "_delta_at", shown + np.arange(len(self.places)))

    def __len__(self) -> int:
        return self.base - len(self.tombstones) + len(self.places)

    @property
    def plain(self) -> bool:
        """Whether there is only the base, whole: its rows are the positions."""
        return not len(self.tombstones) and not len(self.places)

    @property
    def fault(self) -> str:
        """What is wrong with tombstones or places that were read from a file; empty if nothing."""
        dead, places = self.tombstones, self.places
        if len(dead) and not (dead[0] >= 0 and dead[-1] < self.base and (np.diff(dead) > 0).all()):
            return "its tombstones are not growing row numbers of the base"
        within = not len(places) or (places[0] >= 0 and places[-1] <= self.base)
        if not within or (np.diff(places) < 0).any():
            return "its places are not row numbers of the base in their order"
        return ""

    @property
    def live_base_rows(self) -> Rows:
        """Base rows that are shown."""
        live = np.ones(self.base, dtype=bool)
        live[self.tombstones] = False
        return np.flatnonzero(live)

    @property
    def delta_rows(self) -> Rows:
        """All rows of the delta."""
        return np.arange(len(self.places))

    def locate(self, positions: Rows) -> tuple[NDArray[np.bool_], Rows]:
        """For each position (int64, from 0 below ``len``): is it in the delta, and in which row."""
        before = np.searchsorted(self._delta_at, positions)
        in_delta = np.zeros(len(positions), dtype=bool)
        inside = before < len(self._delta_at)
        in_delta[inside] = self._delta_at[before[inside]] == positions[inside]
        alive = positions - before
        rows = alive + np.searchsorted(self._alive_before, alive, side="right")
        return in_delta, np.where(in_delta, before, rows)

    def dead(self, base_row: int) -> bool:
        """Whether a base row is not shown."""
        at = int(np.searchsorted(self.tombstones, base_row))
        return at < len(self.tombstones) and int(self.tombstones[at]) == base_row

    def base_positions(self, rows: Rows) -> Rows:
        """Where live base rows are shown; of dead ones, where they would be."""
        alive = rows - np.searchsorted(self.tombstones, rows)
        return alive + np.searchsorted(self.places, rows, side="right")

    def delta_positions(self, rows: Rows) -> Rows:
        """Where delta rows are shown."""
        positions: Rows = self._delta_at[rows]
        return positions


def in_one_layer(rows: int) -> Layers:
    """A base of ``rows`` rows, and nothing else."""
    none = np.empty(0, dtype=np.int64)
    return Layers(rows, none, none)
