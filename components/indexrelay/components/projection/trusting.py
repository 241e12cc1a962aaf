"""How well entries lie among landmarks: a share of neighbourhoods, one entry at a time.

Trustworthiness (Venna and Kaski 2001) asks, of those that are near on the map, how many were near
before; 1 is all, about 0.5 is chance. Against landmarks, a sample of the map, it can be asked of
single entries: of those that were placed into a map, and of the landmarks themselves, which says
what this map can do at all.
"""

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.projection.served import Coordinates
from indexrelay.storage.entries import Vectors

_NEIGHBOURS = 5
FEWEST = 3 * _NEIGHBOURS
"""With fewer landmarks, every one is near."""
_ROUNDING = 1e-5

Trust = NDArray[np.float64]


def trust_among(
    vectors: Vectors,
    places: Coordinates,
    landmark_vectors: Vectors,
    landmark_places: Coordinates,
    *,
    selves: NDArray[np.int64] | None = None,
) -> Trust:
    """Trust of each entry, shape ``(n,)``, 0 to 1; there are at least `FEWEST` landmarks.

    Args:
        vectors: of the entries, shape ``(n, dimension)``.
        places: of the entries on the map, shape ``(n, 2)``.
        landmark_vectors: shape ``(m, dimension)``.
        landmark_places: shape ``(m, 2)``.
        selves: where the entries are landmarks: which, so that none is its own neighbour.
    """
    before = squared_distances(vectors, landmark_vectors)
    here = squared_distances(places, landmark_places)
    others = len(landmark_vectors)
    if selves is not None:
        others -= 1
        rows = np.arange(len(selves))
        before[rows, selves] = here[rows, selves] = np.inf
    # Equal vectors are equally near; what their rounded distances differ by must not rank them.
    rounding = _ROUNDING * float((landmark_vectors * landmark_vectors).sum(axis=1).mean())
    lost = np.zeros(len(vectors))
    for near in np.argpartition(here, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS].T:
        distance = np.take_along_axis(before, near[:, None], axis=1)
        rank = 1 + (before + rounding < distance).sum(axis=1)
        lost += np.maximum(rank - _NEIGHBOURS, 0)
    most = _NEIGHBOURS * (2 * others - 3 * _NEIGHBOURS + 1) / 2
    trust: Trust = 1 - lost / most
    return trust


def squared_distances(left: Vectors, right: Vectors) -> Vectors:
    """Between all rows of two matrices, shape ``(len(left), len(right))``, never below 0."""
    lengths = (left * left).sum(axis=1)[:, None] + (right * right).sum(axis=1)
    squares: Vectors = np.maximum(lengths - 2 * (left @ right.T), 0)
    return squares
