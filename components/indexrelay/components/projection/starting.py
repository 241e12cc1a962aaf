"""Where each entry begins: on the last map's place, or among its neighbours there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.projection.served import Coordinates, ProjectionMap
from indexrelay.schemas.extras import require
from indexrelay.storage.entries import Vectors

_NEIGHBOURS = 5
"""So many neighbours place a new entry: one would stack new entries onto old ones, and the mean of
many is somewhere in the middle of the map."""

_ENOUGH_KNOWN = 0.25
"""Below this share of known entries the last map says too little, and a new layout is drawn: it
is still turned onto the last one."""

_JITTER = 1e-3
"""Share of the map's size by which a new entry is moved at random: equal starting places have no
direction to part in."""


@dataclass(frozen=True, kw_only=True)
class LastMap:
    """The last map, seen from the entries of the new one."""

    places: Coordinates
    """Row for row with the new entries; rows of entries that it did not show are zero."""
    known: NDArray[np.bool_]
    """Shape ``(n,)``: which entries it showed."""
    unit: float
    """The layout's own length that is 1 on the map."""

    @property
    def shared(self) -> int:
        """How many entries both maps show."""
        return int(self.known.sum())

    @property
    def guides(self) -> bool:
        """Whether it says enough for a layout to begin there; one point says nothing."""
        if self.shared < max(3, _ENOUGH_KNOWN * len(self.known)):
            return False
        return bool(np.ptp(self.places[self.known], axis=0).any())


def look_up(last: ProjectionMap, details: Mapping[str, Any], ids: list[str]) -> LastMap:
    """Find the places of ``ids`` on ``last``, whose manifest holds ``details``."""
    rows_there = {entry_id: row for row, entry_id in enumerate(last.ids)}
    rows = np.array([rows_there.get(entry_id, -1) for entry_id in ids], np.int64)
    known = rows >= 0
    places = np.zeros((len(ids), 2), np.float32)
    places[known] = last.coordinates[rows[known]]
    return LastMap(places=places, known=known, unit=float(details["unit"]))


def starting_places(vectors: Vectors, last: LastMap, *, seed: int, threads: int) -> Coordinates:
    """Places for all entries in the layout's own unit, shape ``(n, 2)``."""
    places = last.places.copy()
    new = np.flatnonzero(~last.known)
    if len(new):
        known = np.flatnonzero(last.known)
        neighbors = require("sklearn.neighbors")
        search = neighbors.NearestNeighbors(
            n_neighbors=min(_NEIGHBOURS, len(known)), n_jobs=threads
        )
        nearest = search.fit(vectors[known]).kneighbors(vectors[new], return_distance=False)
        size = float(np.ptp(last.places[known], axis=0).max())
        jitter = np.random.default_rng(seed).normal(scale=_JITTER * size, size=(len(new), 2))
        places[new] = last.places[known][nearest].mean(axis=1) + jitter
    return np.asarray(places * last.unit, dtype=np.float32)
