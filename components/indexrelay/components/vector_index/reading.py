"""Reads the collection once, into files of the work folder.

Training, adding, tuning and the query sample each want the vectors, and in different orders. Read
from the source once they cost one pass over a database; from there on they lie in a mapped ``.npy``
that the kernel may drop from memory whenever it likes. Row numbers are positions in that one pass.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from indexrelay.components.errors import UnusableInputError
from indexrelay.components.id_table import IdTable
from indexrelay.components.payload_table import PayloadTable
from indexrelay.components.vector_index.metrics import prepared
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Entries, SourceSnapshot, Vectors

IDS = "ids.table"
PAYLOADS = "payloads.table"
VECTORS = "vectors.npy"


@dataclass(frozen=True, kw_only=True)
class Columns:
    """A collection in files."""

    vectors: Vectors
    """Mapped, shape ``(count, dimension)``, as `metrics.prepared` makes them."""
    ids: Path
    payloads: Path
    matrix: Path
    """Where `vectors` lies."""


def read_columns(
    snapshot: SourceSnapshot, folder: Path, *, progress: Callable[[float], None]
) -> Columns:
    """Read everything, a chunk at a time.

    Raises:
        UnusableInputError: a vector cannot be indexed (NaN, infinity, zero under cosine), or the
            source gave another number of entries than it says it has.
    """
    count, dimension = snapshot.count, snapshot.dimension
    ids, payloads, matrix = folder / IDS, folder / PAYLOADS, folder / VECTORS
    vectors = open_memmap(matrix, mode="w+", dtype=np.float32, shape=(count, dimension))
    row = 0
    with IdTable.writer(ids) as id_writer, PayloadTable.writer(payloads) as payload_writer:
        for chunk in snapshot.chunks():
            end = row + len(chunk)
            if end > count:
                break
            _refuse_unusable(chunk, snapshot.metric)
            vectors[row:end] = prepared(chunk.vectors, snapshot.metric)
            id_writer.extend(chunk.ids)
            payload_writer.extend(chunk.payloads)
            row = end
            progress(row / count)
        else:
            end = row
    if end != count:
        more = "more" if end > count else f"only {end}"
        raise UnusableInputError(
            f"{snapshot.collection} says it has {count} entries, but gave {more}"
        )
    vectors.flush()
    return Columns(vectors=vectors, ids=ids, payloads=payloads, matrix=matrix)


def _refuse_unusable(chunk: Entries, metric: Metric) -> None:
    finite = np.isfinite(chunk.vectors).all(axis=1)
    bad, reason = np.flatnonzero(~finite), "holds a NaN or an infinity"
    if not len(bad) and metric is Metric.COSINE:
        lengths = np.linalg.norm(chunk.vectors, axis=1)
        bad = np.flatnonzero((lengths == 0) | ~np.isfinite(lengths))
        reason = "is zero or too long, and has no direction for cosine"
    if len(bad):
        named = ", ".join(repr(chunk.ids[row]) for row in bad[:5].tolist())
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise UnusableInputError(f"the vector of {named}{more} {reason}")
