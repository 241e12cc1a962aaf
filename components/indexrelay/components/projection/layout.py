"""From vectors to the map: reading, starting places, the two methods, and the frame.

Layouts work on Euclidean distances. Under cosine the vectors are brought to unit length first: the
squared distance is then twice the cosine distance. Few entries and degenerate ones are settled
before a method sees them: none and one need no layout, equal vectors share one place, and t-SNE
hands over to PCA where there are too few entries to have neighbourhoods.

The frame brings raw coordinates onto the last map, at its scale, inside [-1, 1]. The turn is the
orthogonal Procrustes solution (Schönemann 1966): of all rotations and reflections the one that
brings the shared entries nearest to where they were, by the singular vectors of their
cross-covariance. The scale is not fitted: a fitted one would creep a little with every build.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from indexrelay.components.errors import UnusableInputError
from indexrelay.components.kind import KindParameters
from indexrelay.components.layered.build import numbered_chunks
from indexrelay.components.projection.map import Coordinates, ProjectionMap
from indexrelay.schemas.errors import require
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import SourceSnapshot, Vectors


class ProjectionParameters(KindParameters):
    """The keys of a ``kind = "projection"`` table."""

    method: Literal["pca", "tsne"] = "pca"
    """``pca``: linear, a second for 100,000 entries; shows the broad directions.
    ``tsne``: shows neighbourhoods; 25 seconds for a first map of 10,000 entries on two cores, 8
    for the next one."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of everything drawn at random. Equal entries, parameters and last map give an equal map; only
    t-SNE of 2,000 entries or more adds up in parallel, in an order that is not always the same."""

    perplexity: Annotated[float, Field(gt=0)] = 30.0
    """t-SNE: about how many neighbours count for each entry. Where there are few entries it is
    lowered to a third of them."""

    iterations: Annotated[int, Field(ge=250)] = 1000
    """t-SNE: steps of a first map."""

    update_iterations: Annotated[int, Field(ge=250)] = 300
    """t-SNE: steps from the last map. Few, since most entries are where they belong."""

    min_trustworthiness: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Least share of neighbourhoods that the map may keep (1: all, about 0.5: chance).

    0, so that it is recorded and stops nothing: how far data can be laid flat is a property of the
    data, and an honest map of high-dimensional noise is no reason to keep an outdated one."""

    max_placed: Annotated[float, Field(ge=0, le=1)] = 0.10
    """Entries that may be put into the map that is there, or be gone from it, as a share of those
    that it was laid out from; beyond, all are laid out from scratch. 0.10: that many cannot change
    the shape of a map much. 0: every change lays the map out from scratch."""


@dataclass(frozen=True, kw_only=True)
class Points:
    """What is to be laid out, ``n`` entries in the order of the inputs, then of their ids."""

    ids: list[str]
    vectors: Vectors
    """Shape ``(n, dimension)``, float32; unit length under cosine."""

    @property
    def differ(self) -> bool:
        """Whether any two vectors are different: if not, one place is right for all of them."""
        return bool((self.vectors != self.vectors[:1]).any())


def read_points(collections: Mapping[str, SourceSnapshot]) -> Points:
    """All entries of ``collections``: ``4 * n * dimension`` bytes, as every layout needs them.

    Raises:
        UnusableInputError: the collections have different dimensions or metrics, or share ids, or
            one of them gives another number of entries than it says it has.
    """
    snapshots = list(collections.values())
    check_alike(snapshots)
    vectors = np.empty((sum(s.count for s in snapshots), snapshots[0].dimension), np.float32)
    ids: list[str] = []
    for chunk_ids, chunk in _chunks(snapshots):
        vectors[len(ids) : len(ids) + len(chunk_ids)] = chunk
        ids += chunk_ids
    if len(snapshots) > 1:
        _check_unique(ids)
    return Points(ids=ids, vectors=vectors)


def _chunks(snapshots: list[SourceSnapshot]) -> Iterator[tuple[list[str], Vectors]]:
    for snapshot in snapshots:
        for _, chunk in numbered_chunks(snapshot):
            yield chunk.ids, as_laid_out(chunk.vectors, snapshot.metric)


def as_laid_out(vectors: Vectors, metric: Metric) -> Vectors:
    """Vectors of a collection as layouts see them: at unit length under cosine."""
    if metric is not Metric.COSINE:
        return vectors
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def check_alike(snapshots: Sequence[SourceSnapshot]) -> None:
    """Raise `UnusableInputError` where the collections do not go together."""
    first = snapshots[0]
    for other in snapshots[1:]:
        for what, left, right in (
            ("dimension", first.dimension, other.dimension),
            ("metric", first.metric, other.metric),
        ):
            if left != right:
                raise UnusableInputError(
                    f"{first.collection} has the {what} {left} and {other.collection} has {right}; "
                    "one map needs the same of all its collections"
                )


def _check_unique(ids: list[str]) -> None:
    twice = [entry_id for entry_id, times in Counter(ids).items() if times > 1]
    if twice:
        raise UnusableInputError(
            f"{len(twice)} id(s) are in more than one of the collections, the first is "
            f"{twice[0]!r}; one map needs ids that tell the entries apart"
        )


_NEIGHBOURS = 5
"""So many neighbours place a new entry: one would stack new entries onto old ones, and the mean of
many is somewhere in the middle of the map."""

_ENOUGH_KNOWN = 0.25
"""Below this share of known entries the last map is of little use, and a new layout is drawn: it
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
        """Whether a layout can begin there; one point is not enough."""
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


_FEWEST_FOR_TSNE = 5
"""With fewer, a third of them is not even one neighbour."""

_FEWEST_FOR_THREADS = 2_000
"""With fewer, threads wait for each other longer than they work; on a busy host, many times so."""

_DENOISED = 50
"""t-SNE sees at most so many principal components: the usual step before it, and its neighbour
search is then as fast at 1,000 dimensions as at 50."""

_EXAGGERATION = 12.0
"""Of the first steps of a first map (scikit-learn's default). A map that begins from the last one
is not exaggerated: that would tear it apart again."""

_LEAST_RATE, _LEAST_UPDATE_RATE = 50.0, 10.0
"""Learning rates of small maps. A first one needs the pace; one that begins from the last wanders
with it: at 200 entries by three times as much, for the same trustworthiness."""


@dataclass(frozen=True, kw_only=True)
class Axes:
    """A linear layout: ``(vectors - mean) @ directions``."""

    mean: Vectors
    """Shape ``(dimension,)``."""
    directions: Vectors
    """Shape ``(dimension, 2)``."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a method made."""

    raw: Coordinates
    """Shape ``(n, 2)``, float32."""
    axes: Axes | None
    """``None``: it is not linear."""


def lay_out(
    points: Points, parameters: ProjectionParameters, last: LastMap | None, *, threads: int
) -> Layout:
    """Lay all entries out, on at most ``threads`` threads."""
    if not len(points.ids) or not points.differ:
        return Layout(raw=np.zeros((len(points.ids), 2), np.float32), axes=None)
    with some_threads(threads if len(points.ids) >= _FEWEST_FOR_THREADS else 1) as used:
        if parameters.method == "pca" or len(points.ids) < _FEWEST_FOR_TSNE:
            return _linear(points.vectors, seed=parameters.seed)
        return Layout(raw=_neighbourly(points.vectors, parameters, last, threads=used), axes=None)


@contextmanager
def some_threads(threads: int) -> Iterator[int]:
    """Let numerical libraries use so many."""
    with require("threadpoolctl").threadpool_limits(threads):
        yield threads


def _linear(vectors: Vectors, *, seed: int) -> Layout:
    there_are = min(2, *vectors.shape)
    method = require("sklearn.decomposition").PCA(n_components=there_are, random_state=seed)
    raw = np.pad(method.fit_transform(vectors), ((0, 0), (0, 2 - there_are)))
    directions = np.pad(method.components_.T, ((0, 0), (0, 2 - there_are)))
    return Layout(
        raw=raw.astype(np.float32, copy=False), axes=Axes(mean=method.mean_, directions=directions)
    )


def _principal(vectors: Vectors, components: int, *, seed: int) -> Vectors:
    """The first principal components; missing ones (one dimension, two entries) are zero."""
    there_are = min(components, *vectors.shape)
    method = require("sklearn.decomposition").PCA(n_components=there_are, random_state=seed)
    found = method.fit_transform(vectors)
    return np.pad(found, ((0, 0), (0, components - there_are))).astype(np.float32, copy=False)


def _neighbourly(
    vectors: Vectors, parameters: ProjectionParameters, last: LastMap | None, *, threads: int
) -> Coordinates:
    """t-SNE, from the last map where it guides, else from the principal plane."""
    count, dimension = vectors.shape
    if dimension > _DENOISED:
        vectors = _principal(vectors, _DENOISED, seed=parameters.seed)
    if last is not None and last.guides:
        start = starting_places(vectors, last, seed=parameters.seed, threads=threads)
        iterations, exaggeration = parameters.update_iterations, 1.0
        least_rate = _LEAST_UPDATE_RATE
    else:
        plane = _principal(vectors, 2, seed=parameters.seed)
        # As small as the literature has it, so that the exaggerated steps can pull it apart.
        start = (plane / plane[:, 0].std() * 1e-4).astype(np.float32)
        iterations, exaggeration = parameters.iterations, _EXAGGERATION
        least_rate = _LEAST_RATE
    method = require("sklearn.manifold").TSNE(
        perplexity=min(parameters.perplexity, (count - 1) / 3),
        init=start,
        early_exaggeration=exaggeration,
        # n/12 as in Belkina et al. 2019, whose gradient is four times scikit-learn's. Not "auto":
        # that would be twelve times as much without the exaggeration.
        learning_rate=max(count / _EXAGGERATION / 4, least_rate),
        max_iter=iterations,
        random_state=parameters.seed,
        n_jobs=threads,
    )
    return np.asarray(method.fit_transform(vectors), dtype=np.float32)


_FILLED = 0.8
"""How far a newly scaled map reaches: some room to grow before it must be scaled again."""
_REACH = 1.0
"""How far a map may reach."""
_SMALLEST = 0.4
"""A map that reaches less far than this is scaled again."""

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

    @property
    def details(self) -> dict[str, Any]:
        """For the version's details."""
        return {"shared": self.shared, "median": self.median, "maximum": self.maximum}


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
