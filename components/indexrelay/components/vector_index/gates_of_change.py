"""The gates of a vector index that continues another: they cost what the batch and the delta cost.

What was judged of the base when it was built holds for its bytes, and these are named by the same
digests. Judged here, in fresh handles and against the source, is the rest: that what changed is
found as the source has it, that what did not change is there as before, and that the answers of
both layers together still are good enough.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import Final

import numpy as np

from indexrelay.components.errors import DamagedFileError
from indexrelay.components.inputs import only_collection
from indexrelay.components.judging import Verdict, equal, judge
from indexrelay.components.kind import Built, Job, PreviousVersion
from indexrelay.components.layered_ids import IDS
from indexrelay.components.vector_index.answering import Answers, at_least, latency
from indexrelay.components.vector_index.base import BASE
from indexrelay.components.vector_index.carried_sample import sample_is_exact
from indexrelay.components.vector_index.contents import Contents
from indexrelay.components.vector_index.metrics import distances, tolerance
from indexrelay.components.vector_index.parameters import VectorIndexParameters
from indexrelay.components.vector_index.sample import SAMPLE, QuerySample
from indexrelay.components.vector_index.search import VectorSearch
from indexrelay.components.vector_index.untouched import Untouched, held_against_source
from indexrelay.schemas.settings import Metric
from indexrelay.schemas.versions import BlobRef, Check
from indexrelay.storage.entries import SourceSnapshot

_OF_THE_BASE: Final = frozenset(
    {"ids_unique", "entries_match_source", "vectors_finite", "vectors_match_source"}
)
_ASKED: Final = 200
"""Delta entries that are asked for by their own vector."""


def gates_of_change(
    job: Job,
    previous: PreviousVersion,
    built: Built,
    files: Mapping[str, Path],
    parameters: VectorIndexParameters,
) -> Iterator[Check]:
    """Yield one `Check` for each gate; nothing else is judged where the files do not open."""
    source, started = only_collection(job), perf_counter()
    try:
        index, last = VectorSearch(files), Contents(previous.files)
        rows = index.facts.count + (len(index.contents.delta) if index.contents.delta else 0)
        sample = QuerySample.load(files[SAMPLE], rows=rows, dimension=index.dimension)
    except DamagedFileError as error:
        yield Check(name="reads_back", passed=False, detail=str(error))
        return
    yield Check(name="reads_back", passed=True, seconds=perf_counter() - started)
    with closing(index), closing(last):
        yield judge("count", lambda: _count(index, source, built))
        yield judge("dimension", lambda: equal(index.dimension, source.dimension, "built anew?"))
        yield from _of_the_base(previous, built)
        yield from _of_the_batch(index.contents, last, source, previous)
        yield judge("sample_is_exact", lambda: sample_is_exact(index.contents, sample))
        answers = Answers(
            sample=sample,
            found=index.nearest_rows(sample.vectors, k=sample.depth + 1),
            gather=index.contents.vectors,
            metric=index.metric,
            parameters=parameters,
        )
        if index.metric is not Metric.INNER_PRODUCT:
            yield judge("own_distance", answers.own_distance)
            yield judge("delta_found", lambda: _delta_found(index, parameters))
        yield judge("recall_at_10", answers.recall)
        yield judge("latency_ms", lambda: latency(index, sample, parameters))


def _of_the_base(previous: PreviousVersion, built: Built) -> Iterator[Check]:
    """What was judged of the base's bytes, as long as these are named."""
    blobs = (built.files[name] for name in (BASE, IDS))
    digests = {blob.digest for blob in blobs if isinstance(blob, BlobRef)}
    taken_over = [
        check
        for check in previous.manifest.checks
        if check.name in _OF_THE_BASE and check.blob in digests and check.passed
    ]
    missing = _OF_THE_BASE - {check.name for check in taken_over}
    yield from taken_over
    if missing:
        yield Check(
            name="base_was_judged",
            passed=False,
            detail=f"nobody judged of this base: {', '.join(sorted(missing))}",
        )


def _of_the_batch(
    new: Contents, last: Contents, source: SourceSnapshot, previous: PreviousVersion
) -> Iterator[Check]:
    """What the batch touched is as the source has it, and everything else as it was."""
    touched: set[str] = set()

    def changes_match_source() -> Verdict:
        after = previous.manifest.covers[source.collection]
        verdict, found = held_against_source(new, source, after=after)
        touched.update(found)
        return verdict

    yield judge("changes_match_source", changes_match_source)
    untouched = Untouched(new, last, touched)
    yield judge("unchanged_kept", untouched.kept)
    yield judge("ids_in_order", untouched.brought_in_order)


def _count(index: VectorSearch, source: SourceSnapshot, built: Built) -> Verdict:
    if built.entries != source.count:
        return equal(built.entries, source.count, "the build counted other entries than there are")
    return equal(len(index), source.count, "the files hold another number of entries")


def _delta_found(index: VectorSearch, parameters: VectorIndexParameters) -> Verdict:
    """Entries of the delta find themselves, or what is just as near."""
    delta = index.contents.delta
    if delta is None or not len(delta):
        return Verdict(True, "there is no delta")
    some = np.linspace(0, len(delta) - 1, num=min(_ASKED, len(delta))).astype(np.int64)
    queries = np.ascontiguousarray(delta.vectors[some])
    found = index.nearest_rows(queries, k=1)
    own = distances(queries, queries[:, None, :], index.metric)
    there = np.where(found < 0, index.contents.first_of_delta, found)
    true = distances(queries, index.contents.vectors(there), index.metric)
    near = (found >= 0) & (true <= own + tolerance(own, queries))
    return at_least(
        float(np.mean(near)), parameters.min_recall, "entries of the delta are not found"
    )
