"""Tries a factory string on a few rows, so that what cannot be built is found before it is wanted.

Whether the codes divide the dimension, or a transform can give so many, FAISS says when it is asked
for such an index, and some of it only when it trains one. One list stands for all of them, and the
rows are few, so that it takes a second at most; what trains for long however few rows there are
(codebooks, rotations, long vectors) is made and not trained.
"""

import re
from typing import Final

import numpy as np

from indexrelay.components.errors import UnbuildableIndexError
from indexrelay.components.optional import require_faiss
from indexrelay.components.vector_index.factory import Factory
from indexrelay.components.vector_index.metrics import faiss_metric
from indexrelay.components.vector_index.threads import openmp_threads
from indexrelay.schemas.settings import Metric

_ROWS: Final = 100
_TRAINED_DIMENSIONS: Final = 1024
_LISTS: Final = re.compile(r"IVF\d+(_HNSW\d+)?")
_REASON: Final = re.compile(r"Error: '.*' failed: ", re.DOTALL)
_PRINCIPAL: Final = re.compile(r"PCA[RW]?(\d+),")


def require_buildable(factory: Factory, *, dimension: int, metric: Metric) -> None:
    """Make the index, empty.

    Raises:
        UnbuildableIndexError: FAISS cannot make it of vectors of this length.
        MissingExtraError: FAISS is not installed.
    """
    _try(factory, dimension, metric)


def try_factory(factory: Factory, *, dimension: int, metric: Metric) -> None:
    """Make the index with one list, train it on a few rows, fill it and search it.

    Raises:
        UnbuildableIndexError, MissingExtraError: as `require_buildable`.
    """
    slow = "OPQ" in factory.text or "RQ" in factory.text or factory.graph == "NSG"
    trains = not slow and not factory.code_bits and dimension <= _TRAINED_DIMENSIONS
    _try(factory, dimension, metric, text=_LISTS.sub("IVF1", factory.text), trains=trains)


def _try(
    factory: Factory, dimension: int, metric: Metric, *, text: str = "", trains: bool = False
) -> None:
    """Make ``text``, which stands for ``factory``, and train it if that is wanted."""
    faiss = require_faiss()
    wide = _PRINCIPAL.match(factory.text)
    if wide is not None and int(wide[1]) > dimension:
        raise _unbuildable(factory, dimension, f"it cannot make {wide[1]} dimensions of fewer")
    try:
        with openmp_threads(1):
            index = faiss.index_factory(dimension, text or factory.text, faiss_metric(metric))
            if trains:
                rows = np.random.default_rng(0).normal(size=(_ROWS, dimension))
                rows = np.ascontiguousarray(rows, dtype=np.float32)
                if not index.is_trained:
                    index.train(rows)
                index.add(rows)
                index.search(rows[:1], 1)
    except RuntimeError as error:  # what every FAISS exception becomes
        reason = _REASON.split(str(error))[-1].strip()
        raise _unbuildable(factory, dimension, reason) from error


def _unbuildable(factory: Factory, dimension: int, reason: str) -> UnbuildableIndexError:
    return UnbuildableIndexError(
        f"FAISS cannot make {factory.text} of vectors of length {dimension}: {reason}"
    )
