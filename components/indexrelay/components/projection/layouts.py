"""The two methods: vectors in, raw coordinates in the method's own unit out.

A linear layout also hands out its axes, by which further entries find their place.

Few entries and degenerate ones are settled here, so that no method has to refuse them: none and
one need no layout, equal vectors share one place, and t-SNE hands over to PCA where there are too
few entries to have neighbourhoods.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from indexrelay.components.projection.parameters import ProjectionParameters
from indexrelay.components.projection.reading import Points
from indexrelay.components.projection.served import Coordinates
from indexrelay.components.projection.starting import LastMap, starting_places
from indexrelay.schemas.extras import require
from indexrelay.storage.entries import Vectors

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
