"""The gates of an incremental build: they cost what the batch and the delta cost.

What was judged of the base when it was built holds for its bytes, and these are named by the same
digests. Judged here, in fresh handles and against the source, is the rest: that what changed is
found as the source has it, that what did not change is there as before, and that the answers of
both layers together are still good enough.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Final

import numpy as np

from indexrelay.components.errors import DamagedFileError
from indexrelay.components.formats.string_table import Rows
from indexrelay.components.gates import Verdict, equal, judge
from indexrelay.components.kind import Built, Job, PreviousVersion
from indexrelay.components.layered.build import changes_of
from indexrelay.components.layered.layers import IDS, runs, without
from indexrelay.components.vector_index.metrics import distances, prepared, tolerance
from indexrelay.components.vector_index.parameters import VectorIndexParameters
from indexrelay.components.vector_index.sample import (
    SAMPLE,
    Answers,
    QuerySample,
    at_least,
    latency,
    sample_is_exact,
)
from indexrelay.components.vector_index.search import VectorSearch
from indexrelay.components.vector_index.version import BASE, Contents
from indexrelay.schemas.settings import Metric
from indexrelay.schemas.versions import BlobRef, Check
from indexrelay.storage.entries import SourceSnapshot, Vectors


def held_against_source(
    new: Contents, source: SourceSnapshot, *, after: int
) -> tuple[Verdict, set[str]]:
    """Whether all that changed after generation ``after`` is in ``new`` as the source has it.

    With the ids that it touched: upserts and deletes, as far as the source was read.
    """
    touched: set[str] = set()
    wrong: list[str] = []
    for chunk in changes_of(source, after):
        upserts = chunk.upserts
        touched.update(upserts.ids, chunk.deletes)
        vectors = prepared(upserts.vectors, new.facts.metric)
        if not np.isfinite(vectors).all():
            return Verdict(False, "the source holds NaN or ±inf"), touched
        wrong += (
            entry_id
            for entry_id, vector, payload in zip(
                upserts.ids, vectors, upserts.payloads, strict=True
            )
            if not _holds(new, entry_id, vector, payload)
        )
        wrong += (entry_id for entry_id in chunk.deletes if entry_id in new.ids)
    worst = f"{wrong[0]!r} and perhaps others are not as the source has them" if wrong else ""
    return equal(len(wrong), 0, worst), touched


def _holds(new: Contents, entry_id: str, vector: Vectors, payload: str | None) -> bool:
    row = new.find(entry_id)
    return (
        row is not None
        and np.array_equal(new.vector(row), vector)
        and new.payload_texts_of(np.array([row]))[0] == payload
    )


class Untouched:
    """What a batch had nothing to do with: in the new version as it was in the last one.

    Args:
        new: the version that is judged.
        last: the one that it continues.
        touched: the ids that the batch brought, changed or deleted.
    """

    def __init__(self, new: Contents, last: Contents, touched: set[str]) -> None:
        self._new = new
        self._last = last
        self._touched = touched

    def kept(self) -> Verdict:
        """Everything is where it was: in the base, or in the delta with all it had."""
        was, is_now = self._last.ids.layers.tombstones, self._new.ids.layers.tombstones
        if len(without(was, is_now)):
            return Verdict(False, "an entry of the base that was gone is back")
        newly = without(is_now, was)
        if not self._touched.issuperset(self._new.base.ids.many(newly)):
            return Verdict(False, "an entry of the base is gone that did not change")
        touched_there = self._last.ids.delta_rows(self._touched)
        last = without(self._last.ids.layers.delta_rows, touched_there)
        new = without(self._new.ids.layers.delta_rows, self._brought)
        if len(last) != len(new):
            return Verdict(False, "the delta lost an entry that did not change, or made one up")
        places_were, places_are = self._last.ids.layers.places, self._new.ids.layers.places
        if not np.array_equal(places_were[last], places_are[new]):
            return Verdict(False, "an entry of the delta stands elsewhere that did not change")
        changed = sum(
            not self._same(int(last[start]), int(new[start]), stop - start)
            for start, stop in runs(last, new)
        )
        return equal(changed, 0, "rows of the delta changed that the batch did not touch")

    def brought_in_order(self) -> Verdict:
        """What the batch brought stands where the order of the ids has it; the rest did before."""
        wrong = self._new.ids.out_of_order(rows=self._brought)
        return equal(wrong, 0, "delta ids stand elsewhere")

    @cached_property
    def _brought(self) -> Rows:
        """The new delta's rows that the batch touched."""
        return self._new.ids.delta_rows(self._touched)

    def _same(self, last: int, new: int, count: int) -> bool:
        """Whether so many delta rows are what they were: id, vector and payload."""
        was, is_now = self._last.delta, self._new.delta
        ids_were, ids_are = self._last.ids.delta, self._new.ids.delta
        if was is None or is_now is None or ids_were is None or ids_are is None:
            return not count
        return (
            ids_are.same(new, ids_were, last, count=count)
            and np.array_equal(is_now.vectors[new : new + count], was.vectors[last : last + count])
            and is_now.payloads.same(new, was.payloads, last, count=count)
        )


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
    source, started = job.collection, perf_counter()
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
