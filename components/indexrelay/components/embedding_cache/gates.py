"""The gates of an embedding cache: the files, in fresh handles, held against the collection.

A row is compared bit for bit, and every row is: reading the collection costs far more.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from time import perf_counter

import numpy as np

from indexrelay.components.embedding_cache.served import IDS, Embeddings
from indexrelay.components.errors import DamagedFileError
from indexrelay.components.id_table import IdTable
from indexrelay.components.judging import Verdict, equal, judge
from indexrelay.components.kind import Built
from indexrelay.schemas.versions import Check
from indexrelay.storage.entries import CHUNK_ROWS, SourceSnapshot, Vectors


def gates(source: SourceSnapshot, built: Built, files: Mapping[str, Path]) -> Iterator[Check]:
    """Yield one `Check` for each gate; nothing else is judged where the files do not open."""
    started = perf_counter()
    try:
        cache, ids = Embeddings(files), IdTable(files[IDS])
    except DamagedFileError as error:
        yield Check(name="reads_back", passed=False, detail=str(error))
        return
    yield Check(name="reads_back", passed=True, seconds=perf_counter() - started)
    with closing(cache), closing(ids):
        yield judge("count", lambda: _count(cache, source, built))
        yield judge(
            "dimension",
            lambda: equal(cache.dimension, source.dimension, "vectors have another length"),
        )
        yield judge("ids_unique", lambda: equal(ids.check(), 0, "ids repeat in the source"))
        yield judge("vectors_finite", lambda: _finite(cache.matrix))
        yield judge("rows_match_source", lambda: _rows(cache, source))


def _count(cache: Embeddings, source: SourceSnapshot, built: Built) -> Verdict:
    if built.entries != source.count:
        return equal(built.entries, source.count, "the build counted other entries than there are")
    return equal(len(cache), source.count, "the files hold another number of entries")


def _finite(matrix: Vectors) -> Verdict:
    blocks = range(0, len(matrix), CHUNK_ROWS)
    wrong = sum(
        int(np.count_nonzero(~np.isfinite(matrix[row : row + CHUNK_ROWS]).all(axis=1)))
        for row in blocks
    )
    return equal(wrong, 0, "vectors hold a NaN or an infinity")


def _rows(cache: Embeddings, source: SourceSnapshot) -> Verdict:
    """Every id and every vector stands in the row where the source has it."""
    first = 0
    for chunk in source.chunks():
        end = first + len(chunk)
        if cache.ids[first:end] != chunk.ids:
            return Verdict(False, f"rows {first} to {end} name other entries than the source")
        if not np.array_equal(cache.matrix[first:end], chunk.vectors):
            return Verdict(False, f"rows {first} to {end} hold other vectors than the source")
        first = end
    return equal(first, len(cache), "the source gives another number of entries")
