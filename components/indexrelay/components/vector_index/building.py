"""Makes the FAISS file: train on a bounded sample, add block by block, write, let go of it.

FAISS learns centroids and codebooks from a seeded sample, so that training costs what the number of
lists asks for and not what the collection weighs. While it is built the index lies in memory once;
the vectors themselves stay mapped.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from indexrelay.components.errors import UnbuildableIndexError
from indexrelay.components.optional import require_faiss
from indexrelay.components.vector_index.factory import Factory
from indexrelay.components.vector_index.metrics import faiss_metric
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors

_BLOCK_ROWS: Final = 65_536
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
) -> None:
    """Build ``factory`` over ``vectors`` (ids are row numbers) and write it to ``path``.

    Raises:
        UnbuildableIndexError: FAISS refuses, for example because the codes do not divide the
            dimension.
    """
    faiss = require_faiss()
    count, dimension = vectors.shape
    try:
        index = faiss.index_factory(dimension, factory.text, faiss_metric(metric))
        _seed(faiss, index, seed)
        if count:
            index.train(_training_rows(vectors, factory.trained_rows, seed))
        progress(0.3)
        if factory.graph == "NSG":
            index.add(np.ascontiguousarray(vectors))  # it can be added to once only
            faiss.downcast_index(index).nsg.search_L = _NSG_SEARCH
        else:
            for start in range(0, count, _BLOCK_ROWS):
                index.add(np.ascontiguousarray(vectors[start : start + _BLOCK_ROWS]))
                progress(0.3 + 0.6 * min(start + _BLOCK_ROWS, count) / count)
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


def _seed(faiss: Any, index: Any, seed: int) -> None:
    """Start every k-means of the index from ``seed``; 1234 is what FAISS itself starts from."""
    index = faiss.downcast_index(index)
    match index:
        case faiss.IndexPreTransform():
            _seed(faiss, index.index, seed)
        case faiss.IndexRefine():
            _seed(faiss, index.base_index, seed)
        case faiss.IndexIVF():
            index.cp.seed = 1234 + seed
            if isinstance(index, faiss.IndexIVFPQ):
                index.pq.cp.seed = 1234 + seed
        case faiss.IndexPQ():
            index.pq.cp.seed = 1234 + seed
        case _:
            pass  # no k-means in there, or one whose seed FAISS does not show
