"""Writes the delta of a version that continues another: the last one with the batch applied.

Everything that is written weighs what the delta weighs, and little of it is thought about: rows of
the last delta keep their vector, their payload and their inverted list.
"""

from pathlib import Path
from typing import Any

import numpy as np

from indexrelay.components.errors import UnbuildableIndexError
from indexrelay.components.optional import require_faiss
from indexrelay.components.payload_table import PayloadTable
from indexrelay.components.string_table import Rows
from indexrelay.components.succession import Succession
from indexrelay.components.vector_index.adding import add_to_lists
from indexrelay.components.vector_index.batch import Batch
from indexrelay.components.vector_index.contents import Contents
from indexrelay.components.vector_index.delta import (
    DELTA_INDEX,
    DELTA_PAYLOADS,
    DELTA_VECTORS,
    SCANNED_BESIDE_LISTS,
    SCANNED_ROWS,
    Delta,
)
from indexrelay.components.vector_index.factory import parse_factory
from indexrelay.components.vector_index.facts import IndexFacts
from indexrelay.components.vector_index.shared_lists import lists_of_rows, share_lists
from indexrelay.storage.entries import Vectors


def write_delta(
    folder: Path, last: Contents, batch: Batch, next_: Succession, trained: Path | None
) -> dict[str, Path]:
    """Write the delta's files and say which."""
    delta = last.delta
    none: Vectors = np.empty((0, last.facts.dimension), dtype=np.float32)
    files = {name: folder / name for name in (DELTA_VECTORS, DELTA_PAYLOADS)}
    kept = none if delta is None else delta.vectors
    vectors = next_.save_column(files[DELTA_VECTORS], kept, batch.vectors)
    with PayloadTable.writer(files[DELTA_PAYLOADS]) as payloads:
        for piece in next_.pieces:
            if piece.kept is None or delta is None:
                payloads.extend([batch.payloads[piece.given]])
            else:
                delta.payloads.copy(payloads, piece.kept)
    files |= next_.write(folder)
    if trained is not None and _is_indexed(last.facts, len(vectors)):
        files[DELTA_INDEX] = folder / DELTA_INDEX
        _write_index(files[DELTA_INDEX], trained, vectors, delta, next_)
    return files


def _is_indexed(facts: IndexFacts, rows: int) -> bool:
    """Whether a delta of so many rows is searched as an index.

    Behind a transform the base measures other distances than a scan does, and answers of both could
    not be told which is nearer; a refinement measures the true ones again.
    """
    factory = parse_factory(facts.factory)
    scanned = SCANNED_BESIDE_LISTS if factory.lists else SCANNED_ROWS
    return rows > scanned or (rows > 0 and factory.transformed and not factory.refined)


def _write_index(
    path: Path, trained: Path, vectors: Vectors, last: Delta | None, next_: Succession
) -> None:
    """A copy of the trained index with these rows: its own centroids, and nothing borrowed."""
    faiss = require_faiss()
    try:
        index = faiss.read_index(str(trained))
        if last is not None and last.index is not None and share_lists(index, last.index):
            add_to_lists(index, vectors, _lists(index, vectors, last.index, next_))
        else:
            index.add(vectors)
        faiss.write_index(index, str(path))
    except RuntimeError as error:  # what every FAISS exception becomes
        raise UnbuildableIndexError(f"FAISS cannot index the delta: {error}") from error


def _lists(index: Any, vectors: Vectors, last: Any, next_: Succession) -> Rows:
    """The list of each row. Rows of the last delta stay in theirs, which the centroids decide."""
    lists = np.empty(len(vectors), dtype=np.int64)
    kept = next_.kept >= 0
    lists[kept] = lists_of_rows(last)[next_.kept[kept]]
    _, nearest = index.quantizer.search(np.ascontiguousarray(vectors[~kept]), 1)
    lists[~kept] = nearest[:, 0]
    return lists
