"""Makes the FAISS file: train on a bounded sample, make room, add block by block, write, let go.

FAISS learns centroids and codebooks from a seeded sample, so that training costs what the number of
lists asks for and not what the collection weighs. While it is built the index lies in memory once
(see `adding`); the vectors themselves stay mapped. Beside the index a build so holds the rows that
it trains on, and little else.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from indexrelay.components.build_memory import UNLIMITED, BuildMemory
from indexrelay.components.errors import UnbuildableIndexError
from indexrelay.components.optional import require_faiss
from indexrelay.components.vector_index.adding import add_all
from indexrelay.components.vector_index.factory import Factory
from indexrelay.components.vector_index.metrics import faiss_metric
from indexrelay.components.vector_index.weighing import trainable_rows, version_bytes
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors

_ROUNDS: Final = 6
"""Of the k-means of inverted lists; FAISS's own ten cost more and save no comparison."""
_NSG_SEARCH: Final = 128
"""Candidates of an NSG search. It takes no parameters with a search, so this is fixed here."""


def build_base(
    path: Path,
    vectors: Vectors,
    metric: Metric,
    factory: Factory,
    *,
    seed: int,
    progress: Callable[[float], None],
    trained: Path | None = None,
    memory: BuildMemory = UNLIMITED,
) -> None:
    """Build ``factory`` over ``vectors`` (ids are row numbers) and write it to ``path``.

    ``trained`` is where the index is written before anything is added to it; ``None``: nowhere.
    ``memory`` is told what the index will hold, and bounds the rows that it is trained on.

    Raises:
        UnbuildableIndexError: FAISS refuses, for example because the codes do not divide the
            dimension.
    """
    faiss = require_faiss()
    count, dimension = vectors.shape
    try:
        index = faiss.index_factory(dimension, factory.text, faiss_metric(metric))
        _prepare(faiss, index, seed)
        memory.hold(version_bytes(index, count))
        if count and not index.is_trained:
            rows = min(factory.trained_rows, trainable_rows(dimension, memory))
            rows = max(rows, factory.needed_rows)  # whoever names so many lists wants them trained
            index.train(_training_rows(vectors, rows, seed))
        if trained is not None:
            faiss.write_index(index, str(trained))
        progress(0.4)
        if factory.graph == "NSG":
            faiss.downcast_index(index).nsg.search_L = _NSG_SEARCH
        if count:
            add_all(index, vectors, lambda share: progress(0.4 + 0.5 * share))
        faiss.write_index(index, str(path))
    except RuntimeError as error:  # what every FAISS exception becomes
        raise UnbuildableIndexError(
            f"FAISS cannot make {factory.text} over {count} vectors of length {dimension}: {error}"
        ) from error
    progress(1.0)


def _training_rows(vectors: Vectors, limit: int, seed: int) -> Vectors:
    count = len(vectors)
    if count <= limit:
        return np.ascontiguousarray(vectors)
    rows = np.random.default_rng(seed).choice(count, size=limit, replace=False)
    return np.ascontiguousarray(vectors[np.sort(rows)])


def _prepare(faiss: Any, index: Any, seed: int) -> None:
    """Start every k-means of the index from ``seed``; 1234 is what FAISS itself starts from."""
    index = faiss.downcast_index(index)
    match index:
        case faiss.IndexPreTransform():
            _prepare(faiss, index.index, seed)
        case faiss.IndexRefine():
            _prepare(faiss, index.base_index, seed)
        case faiss.IndexIVF():
            index.cp.seed = 1234 + seed
            index.cp.niter = _ROUNDS
            if isinstance(index, faiss.IndexIVFPQ):
                index.pq.cp.seed = 1234 + seed
        case faiss.IndexPQ():
            index.pq.cp.seed = 1234 + seed
        case _:
            pass  # no k-means in there, or one whose seed FAISS does not show
