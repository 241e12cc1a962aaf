"""How a new entry finds its place on a finished map, and how well placed entries lie there.

Where the layout is linear, a new entry goes where the layout would have put it: the axes and the
frame are one matrix, which is kept. Elsewhere it goes among the **landmarks** that it is nearest
to, at their mean place, the nearest counting most. Landmarks are entries with their vectors and
places, drawn when the map was laid out and kept as they were, so that placing costs what the new
entries cost.

Trustworthiness (Venna and Kaski 2001) asks, of those that are near on the map, how many were near
before; 1 is all, about 0.5 is chance. Placed entries are measured like the landmarks themselves: a
batch that lies clearly worse is refused, and the map is laid out from scratch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.formats.mapped_array import mapped_array, save_array
from indexrelay.components.kind import Verdict
from indexrelay.components.projection.layout import Framing, Layout, Points
from indexrelay.components.projection.map import Coordinates
from indexrelay.storage.entries import Vectors

_TRUST_NEIGHBOURS = 5
FEWEST = 3 * _TRUST_NEIGHBOURS
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
    for near in np.argpartition(here, _TRUST_NEIGHBOURS, axis=1)[:, :_TRUST_NEIGHBOURS].T:
        distance = np.take_along_axis(before, near[:, None], axis=1)
        rank = 1 + (before + rounding < distance).sum(axis=1)
        lost += np.maximum(rank - _TRUST_NEIGHBOURS, 0)
    most = _TRUST_NEIGHBOURS * (2 * others - 3 * _TRUST_NEIGHBOURS + 1) / 2
    trust: Trust = 1 - lost / most
    return trust


def squared_distances(left: Vectors, right: Vectors) -> Vectors:
    """Between all rows of two matrices, shape ``(len(left), len(right))``, never below 0."""
    lengths = (left * left).sum(axis=1)[:, None] + (right * right).sum(axis=1)
    squares: Vectors = np.maximum(lengths - 2 * (left @ right.T), 0)
    return squares


LANDMARKS: Final = "landmarks.npy"
"""A row for each: its vector, then its place."""
LINEAR: Final = "linear.npy"

MOST_LANDMARKS: Final = 10_000
"""5 MB at 128 dimensions; a thousand entries are placed among them in a tenth of a second."""
_NEIGHBOURS: Final = 5
_JUDGED: Final = 200
"""Entries that are measured: their mean is within 0.02 of that of all."""
_BLOCK: Final = 1000
_WORSE: Final = 0.05
"""So much less trustworthy than the landmarks may placed entries be, besides what chance does."""


@dataclass(frozen=True, kw_only=True)
class Guide:
    """Where entries belong on a finished map."""

    vectors: Vectors
    """Of the landmarks, shape ``(m, dimension)``, as they were laid out."""
    places: Coordinates
    """Shape ``(m, 2)``."""
    linear: Vectors | None
    """Shape ``(dimension + 1, 2)``: directions, then the shift; ``None``: the map is not linear."""
    trust: float | None
    """Of the landmarks among themselves, on average; ``None``: they are too few."""
    spread: float
    """Standard deviation of the same."""

    @classmethod
    def open(cls, files: Mapping[str, Path], details: Mapping[str, Any]) -> "Guide | None":
        """That of a version with these details; ``None`` where it has none.

        Raises:
            CorruptFileError: a file is not what was written.
        """
        if LANDMARKS not in files:
            return None
        landmarks = mapped_array(files[LANDMARKS], (None, None), np.float32)
        vectors, places = landmarks[:, :-2], landmarks[:, -2:]
        shape = (vectors.shape[1] + 1, 2)
        return cls(
            vectors=vectors,
            places=places,
            linear=mapped_array(files[LINEAR], shape, np.float64) if LINEAR in files else None,
            trust=details["guide"]["trust"],
            spread=details["guide"]["spread"],
        )

    def write(self, folder: Path) -> dict[str, Path]:
        """Write what `open` takes, but for the details."""
        arrays = {LANDMARKS: np.hstack([self.vectors, self.places])}
        if self.linear is not None:
            arrays[LINEAR] = self.linear
        for name, array in arrays.items():
            save_array(folder / name, array)
        return {name: folder / name for name in arrays}

    @property
    def details(self) -> dict[str, Any]:
        """For the version's details."""
        return {"landmarks": len(self.vectors), "trust": self.trust, "spread": self.spread}

    def place(self, vectors: Vectors) -> Coordinates:
        """Where entries belong: shape ``(n, 2)``, for ``vectors`` as they would be laid out."""
        if self.linear is not None:
            there: Coordinates = (vectors @ self.linear[:-1] + self.linear[-1]).astype(np.float32)
            return there
        places = [np.empty((0, 2), np.float32)]
        places += [
            self._among_nearest(vectors[row : row + _BLOCK])
            for row in range(0, len(vectors), _BLOCK)
        ]
        return np.concatenate(places)

    def judge(self, vectors: Vectors, places: Coordinates) -> Verdict:
        """Whether entries lie about as well on the map as its landmarks do.

        A few entries may lie badly by chance, so they may deviate by two standard errors.
        """
        if self.trust is None or not len(vectors):
            return Verdict(True)
        rows = np.linspace(0, len(vectors) - 1, num=min(_JUDGED, len(vectors))).astype(np.int64)
        measured = trust_among(vectors[rows], places[rows], self.vectors, self.places).mean()
        least = self.trust - _WORSE - 2 * self.spread / np.sqrt(len(rows))
        return Verdict(
            bool(measured >= least),
            "" if measured >= least else "new entries resemble nothing that is near their places",
            measured=float(measured),
            limit=float(least),
        )

    def _among_nearest(self, vectors: Vectors) -> Coordinates:
        squares = squared_distances(vectors, self.vectors)
        count = min(_NEIGHBOURS, len(self.vectors))
        nearest = np.argpartition(squares, count - 1, axis=1)[:, :count]
        distances = np.sqrt(np.take_along_axis(squares, nearest, axis=1))
        # A twin takes its entry along, and yet nothing is divided by zero.
        near = distances + 1e-3 * distances.mean(axis=1, keepdims=True) + np.finfo(np.float32).tiny
        weights = (1 / near) / (1 / near).sum(axis=1, keepdims=True)
        mean: Coordinates = np.einsum("nk,nkc->nc", weights, self.places[nearest])
        return mean.astype(np.float32, copy=False)


def guide_of(
    points: Points, layout: Layout, framing: Framing, coordinates: Coordinates, *, seed: int
) -> Guide:
    """Draw the landmarks of a map that was just laid out, and judge them."""
    rng = np.random.default_rng(seed)
    count = len(points.ids)
    rows = np.sort(rng.permutation(count)[:MOST_LANDMARKS])
    vectors, places = points.vectors[rows], coordinates[rows]
    trust, spread = None, 0.0
    if len(rows) > FEWEST:
        judged = rng.permutation(len(rows))[:_JUDGED]
        found = trust_among(vectors[judged], places[judged], vectors, places, selves=judged)
        trust, spread = float(found.mean()), float(found.std())
    return Guide(
        vectors=vectors,
        places=places,
        linear=_matrix(layout, framing),
        trust=trust,
        spread=spread,
    )


def _matrix(layout: Layout, framing: Framing) -> Vectors | None:
    if layout.axes is None:
        return None
    directions = layout.axes.directions.astype(np.float64) @ framing.turn
    shift = framing.shift - layout.axes.mean.astype(np.float64) @ directions
    matrix: Vectors = np.vstack([directions, shift])
    return matrix
