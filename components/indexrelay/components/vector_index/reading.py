"""Reads the collection once, into files of the work folder.

Training, adding, tuning and the query sample each want the vectors, and in different orders. Read
from the source once they cost one pass over a database; from there on they lie in a mapped ``.npy``
that the kernel may drop from memory whenever it likes. Row numbers are positions in that one pass.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from indexrelay.components.formats.id_table import IdTable
from indexrelay.components.formats.mapped_array import new_mapped_array
from indexrelay.components.formats.payload_table import PayloadTable
from indexrelay.components.layered.build import numbered_chunks, refuse_entries, refuse_infinite
from indexrelay.components.layered.layers import IDS
from indexrelay.components.vector_index.metrics import prepared
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Entries, SourceSnapshot, Vectors

PAYLOADS = "payloads.table"
VECTORS = "vectors.npy"


@dataclass(frozen=True, kw_only=True)
class Columns:
    """A collection in files."""

    vectors: Vectors
    """Mapped, shape ``(count, dimension)``, as `metrics.prepared` makes them."""
    ids: Path
    payloads: Path
    with_payload: int
    """How many entries have a payload."""
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
    with_payload = 0
    vectors = new_mapped_array(matrix, (count, dimension), np.float32)
    with IdTable.writer(ids) as id_writer, PayloadTable.writer(payloads) as payload_writer:
        for first, chunk in numbered_chunks(snapshot):
            end = first + len(chunk)
            refuse_infinite(chunk)
            vectors[first:end] = indexable(chunk, snapshot.metric)
            id_writer.extend(chunk.ids)
            payload_writer.extend(chunk.payloads)
            with_payload += len(chunk) - chunk.payloads.count(None)
            progress(end / count)
    vectors.flush()
    return Columns(
        vectors=vectors, ids=ids, payloads=payloads, with_payload=with_payload, matrix=matrix
    )


def indexable(chunk: Entries, metric: Metric) -> Vectors:
    """The vectors of finite entries as they are indexed, shape ``(n, dimension)``.

    Raises:
        UnusableInputError: one has no direction for cosine.
    """
    if metric is Metric.COSINE:
        with np.errstate(over="ignore"):
            lengths = np.linalg.norm(chunk.vectors, axis=1)
        no_direction = (lengths == 0) | ~np.isfinite(lengths)
        refuse_entries(chunk, no_direction, "is zero or too long, and has no direction for cosine")
    return prepared(chunk.vectors, metric)
