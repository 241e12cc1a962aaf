"""The gates of an embedding cache: the files, in fresh handles, held against the collection.

A row is compared bit for bit. Of a version that was written in one piece every row is: reading the
collection costs far more. Of one that continues another, what its base holds was judged when the
base was written, and is named by the same digest; judged here are the delta, how it lies over the
base, that what changed is as the source has it, and that what did not change is found as before.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from time import perf_counter

import numpy as np

from indexrelay.components.embedding_cache.served import Embeddings
from indexrelay.components.embedding_cache.succeeding import (
    changed_entries,
    kept_entries,
    upserted_ids,
)
from indexrelay.components.errors import DamagedFileError
from indexrelay.components.judging import Verdict, equal, judge
from indexrelay.components.kind import Built, PreviousVersion
from indexrelay.schemas.versions import Check
from indexrelay.storage.entries import SourceSnapshot, Vectors


def gates(
    source: SourceSnapshot,
    built: Built,
    files: Mapping[str, Path],
    continued: PreviousVersion | None,
) -> Iterator[Check]:
    """Yield one `Check` for each gate; nothing else is judged where the files do not open.

    ``continued`` is the version whose base the new one names; ``None``: it has its own.
    """
    started = perf_counter()
    try:
        cache = Embeddings(files)
    except DamagedFileError as error:
        yield Check(name="reads_back", passed=False, detail=str(error))
        return
    yield Check(name="reads_back", passed=True, seconds=perf_counter() - started)
    with closing(cache):
        yield judge("count", lambda: _count(cache, source, built))
        yield judge(
            "dimension",
            lambda: equal(cache.dimension, source.dimension, "vectors have another length"),
        )
        if continued is None:
            yield from _of_everything(source, cache)
        else:
            yield from _of_what_changed(source, cache, continued)


def _of_everything(source: SourceSnapshot, cache: Embeddings) -> Iterator[Check]:
    yield judge("ids_unique", lambda: equal(cache.ids.base.check(), 0, "ids repeat in the source"))
    yield judge("vectors_finite", lambda: _finite(vectors for _, vectors in cache.blocks()))
    yield judge("rows_match_source", lambda: _rows(cache, source))


def _of_what_changed(
    source: SourceSnapshot, cache: Embeddings, continued: PreviousVersion
) -> Iterator[Check]:
    ids = cache.ids
    new = ids.delta_rows(upserted_ids(source, continued))
    with closing(Embeddings(continued.files)) as last:
        yield judge("ids_unique", lambda: equal(ids.repeats(new), 0, "ids repeat each other"))
        yield judge(
            "ids_in_order",
            lambda: equal(ids.out_of_order(rows=new), 0, "ids of the delta stand elsewhere"),
        )
        yield judge("vectors_finite", lambda: _finite([cache.delta]))
        yield judge("rows_match_source", lambda: changed_entries(source, cache, continued))
        yield judge("unchanged_kept", lambda: kept_entries(source, cache, last, continued))


def _count(cache: Embeddings, source: SourceSnapshot, built: Built) -> Verdict:
    if built.entries != source.count:
        return equal(built.entries, source.count, "the build counted other entries than there are")
    return equal(len(cache), source.count, "the files hold another number of entries")


def _finite(blocks: Iterable[Vectors]) -> Verdict:
    wrong = sum(int(np.count_nonzero(~np.isfinite(block).all(axis=1))) for block in blocks)
    return equal(wrong, 0, "vectors hold a NaN or an infinity")


def _rows(cache: Embeddings, source: SourceSnapshot) -> Verdict:
    """Every id and every vector stands in the row where the source has it."""
    first = 0
    for chunk in source.chunks():
        end = first + len(chunk)
        if cache.ids[first:end] != chunk.ids:
            return Verdict(False, f"rows {first} to {end} name other entries than the source")
        if not np.array_equal(cache.block(first, end), chunk.vectors):
            return Verdict(False, f"rows {first} to {end} hold other vectors than the source")
        first = end
    return equal(first, len(cache), "the source gives another number of entries")
