"""How a new entry finds its place on a map that is finished.

Where the layout is linear, a new entry goes where the layout would have put it: the axes and the
frame are one matrix, which is kept. Elsewhere it goes among the **landmarks** that it is nearest
to, at their mean place, the nearest counting most. Landmarks are entries with their vectors and
places, drawn when the map was laid out and kept as they were, so that placing costs what the new
entries cost; up to their number they are the whole map.

An entry that nothing on the map resembles has no good place there. So placed entries are judged
like the landmarks themselves (`trusting`): a batch that lies clearly worse than those has the map
laid out anew, and cannot be released as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from indexrelay.components.judging import Verdict
from indexrelay.components.mapped_array import mapped_array, save_array
from indexrelay.components.projection.framing import Framing
from indexrelay.components.projection.layouts import Layout
from indexrelay.components.projection.reading import Points
from indexrelay.components.projection.served import Coordinates
from indexrelay.components.projection.trusting import FEWEST, squared_distances, trust_among
from indexrelay.storage.entries import Vectors

LANDMARKS: Final = "landmarks.npy"
"""A row for each: its vector, then its place."""
LINEAR: Final = "linear.npy"

MOST_LANDMARKS: Final = 10_000
"""5 MB at 128 dimensions; a thousand entries are placed among them in a tenth of a second."""
_NEIGHBOURS: Final = 5
_JUDGED: Final = 200
"""Entries that are judged, of many: their mean is within 0.02 of that of all."""
_BLOCK: Final = 1000
_WORSE: Final = 0.05
"""So much less trustworthy than the landmarks may placed entries be, besides what chance does."""


@dataclass(frozen=True, kw_only=True)
class Guide:
    """What a finished map knows about where entries belong."""

    vectors: Vectors
    """Of the landmarks, shape ``(m, dimension)``, as they were laid out."""
    places: Coordinates
    """Shape ``(m, 2)``."""
    linear: Vectors | None
    """Shape ``(dimension + 1, 2)``: directions, then the shift; ``None``: the map is not linear."""
    trust: float | None
    """Of the landmarks among themselves, on average; ``None``: they are too few to say."""
    spread: float
    """Standard deviation of the same."""

    @classmethod
    def open(cls, files: Mapping[str, Path], details: Mapping[str, Any]) -> "Guide | None":
        """That of a version with these details; ``None`` where it has none.

        Raises:
            DamagedFileError: a file is not what was written.
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
