"""Writes a cache: all of it, or what a batch changed beside the base that is there.

What an upsert gives again bit for bit, as jobs do that hand over everything each time, is no
change: it neither grows the delta nor costs the next build anything.
"""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np

from indexrelay.components.continuing import Continued, InFull, inherit_all, told
from indexrelay.components.embedding_cache.parameters import EmbeddingCacheParameters
from indexrelay.components.embedding_cache.served import DELTA, MATRIX, Embeddings
from indexrelay.components.errors import UnknownEntryError
from indexrelay.components.id_table import IdTable
from indexrelay.components.inputs import numbered_chunks, only_collection, refuse_infinite
from indexrelay.components.kind import Built, Job, PreviousVersion
from indexrelay.components.layered_ids import IDS
from indexrelay.components.layers import Layers
from indexrelay.components.mapped_array import new_mapped_array, save_array
from indexrelay.components.succession import ChangedIds, InputRows, Succession, succeed
from indexrelay.storage.entries import Changes, Entries, Vectors


def build_in_full(job: Job, mode: InFull) -> Built:
    """Write matrix and ids in one pass over the source.

    Raises:
        UnusableInputError: a vector holds a NaN or an infinity.
    """
    source = only_collection(job)
    files = {MATRIX: job.workdir / MATRIX, IDS: job.workdir / IDS}
    shape = (source.count, source.dimension)
    matrix = new_mapped_array(files[MATRIX], shape, np.float32)
    with IdTable.writer(files[IDS]) as ids:
        for first, chunk in numbered_chunks(source):
            refuse_infinite(chunk)
            matrix[first : first + len(chunk)] = chunk.vectors
            ids.extend(chunk.ids)
            job.progress((first + len(chunk)) / source.count)
    matrix.flush()
    return Built(
        files=files,
        entries=source.count,
        details={"build": told(mode), "base": source.count, "delta": 0, "tombstones": 0},
    )


def extend(job: Job, continued: Continued, parameters: EmbeddingCacheParameters) -> Built | InFull:
    """Write delta and tombstones, and name the base again.

    Raises:
        UnusableInputError: a vector holds a NaN or an infinity.
        DamagedFileError: a file of the previous version is not what was written.
    """
    source, previous = only_collection(job), continued.previous
    with closing(Embeddings(previous.files)) as last:
        ids = last.ids
        base = len(ids.base)
        most = int(parameters.max_delta * base)
        batch = _read(last, continued.changes[source.collection], most)
        if batch is None:
            return _outgrown("the delta", parameters.max_delta, "max_delta")
        changed, vectors = batch
        if not changed.upserts and not changed.deletes:
            return inherit_all(previous)
        rows = InputRows(base=(base,), delta=(len(ids.layers.places),))
        next_ = succeed(ids, rows, [changed])
        if len(next_) > most:
            return _outgrown("the delta", parameters.max_delta, "max_delta")
        if len(next_.layers.tombstones) > parameters.max_tombstones * base:
            return _outgrown("tombstones", parameters.max_tombstones, "max_tombstones")
        delta = next_.column(last.delta, vectors)
        return _written(job, previous, next_, delta)


def _written(job: Job, previous: PreviousVersion, next_: Succession, delta: Vectors) -> Built:
    save_array(job.workdir / DELTA, delta)
    job.progress(1.0)
    same = {name: previous.manifest.files[name] for name in (MATRIX, IDS)}
    return Built(
        files={**same, **next_.write(job.workdir), DELTA: job.workdir / DELTA},
        entries=len(next_.layers),
        extends=True,
        details={"build": told(None), **_sizes(next_.layers)},
    )


def _read(
    last: Embeddings, changes: Iterator[Changes], most: int
) -> tuple[ChangedIds, Vectors] | None:
    """What differs from the last version; ``None`` once that is more than ``most`` vectors."""
    upserts: list[str] = []
    deletes: list[str] = []
    vectors: list[Vectors] = [np.empty((0, last.dimension), dtype=np.float32)]
    for chunk in changes:
        refuse_infinite(chunk.upserts)
        rows = _differing(last, chunk.upserts)
        upserts += (chunk.upserts.ids[row] for row in rows)
        vectors.append(chunk.upserts.vectors[rows])
        deletes += (entry_id for entry_id in chunk.deletes if entry_id in last)
        if len(upserts) > most:
            return None
    return ChangedIds(upserts=upserts, deletes=deletes), np.concatenate(vectors)


def _differing(last: Embeddings, upserts: Entries) -> list[int]:
    """The rows of ``upserts`` that ``last`` does not hold bit for bit."""
    given = zip(upserts.ids, upserts.vectors, strict=True)
    return [
        row for row, (entry_id, vector) in enumerate(given) if not _holds(last, entry_id, vector)
    ]


def _holds(last: Embeddings, entry_id: str, vector: Vectors) -> bool:
    try:
        return last.get(entry_id).tobytes() == vector.tobytes()
    except UnknownEntryError:
        return False


def _sizes(layers: Layers) -> dict[str, Any]:
    return {
        "base": layers.base,
        "delta": len(layers.places),
        "tombstones": len(layers.tombstones),
    }


def _outgrown(what: str, limit: float, parameter: str) -> InFull:
    return InFull(f"{what} would pass {limit:.0%} of the base ({parameter})")
