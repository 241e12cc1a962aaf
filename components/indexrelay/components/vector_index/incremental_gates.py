"""The gates of an incremental build: they cost what the batch and the delta cost.

The checks of the base are inherited, as long as its files have the same digests. Judged here, in
fresh handles and against the source, is the rest: that what changed is found as the source has it,
that what did not change is there as before, and that the answers of both layers together are still
good enough.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from indexrelay.components.filtering import columns_gate
from indexrelay.components.kind import (
    Built,
    Job,
    PreviousVersion,
    Verdict,
    count_gate,
    equal,
    judge,
    reads_back,
)
from indexrelay.components.layered import IDS, Unchanged, changes_of
from indexrelay.components.vector_index.metrics import distances, prepared, tolerance
from indexrelay.components.vector_index.quality_gates import Answers, at_least, carried_is_exact
from indexrelay.components.vector_index.sample import SAMPLE, QuerySample
from indexrelay.components.vector_index.search import VectorSearch
from indexrelay.components.vector_index.spec import VectorIndexParameters
from indexrelay.components.vector_index.version import BASE, FIELDS, Contents
from indexrelay.schemas.settings import Metric
from indexrelay.schemas.versions import BlobRef, Check
from indexrelay.storage.entries import SourceSnapshot


def incremental_gates(
    job: Job,
    previous: PreviousVersion,
    built: Built,
    files: Mapping[str, Path],
    parameters: VectorIndexParameters,
) -> Iterator[Check]:
    """Yield one `Check` for each gate; nothing else is judged where the files do not open."""
    source = job.collection

    def opened() -> tuple[VectorSearch, Contents, QuerySample]:
        index = VectorSearch(files)
        sample = QuerySample.load(files[SAMPLE], rows=index.facts.rows, dimension=index.dimension)
        return index, Contents(previous.files), sample

    check, versions = reads_back(opened)
    yield check
    if versions is None:
        return
    index, last, sample = versions
    with closing(index), closing(last):
        new = index.contents
        yield judge("count", lambda: count_gate(len(index), source, built))
        yield judge(
            "dimension",
            lambda: equal(index.dimension, source.dimension, "vectors have another length"),
        )
        yield from _base_checks(previous, built, parameters)
        touched: set[str] = set()
        after = previous.manifest.covers[source.collection]
        yield judge("changes_match_source", lambda: _changes(new, source, after, touched))
        unchanged = Unchanged(new.ids, last.ids, touched)
        same_delta = partial(_same_delta, new, last)
        yield judge("unchanged_kept", lambda: unchanged.kept(same_delta))
        yield judge("ids_in_order", unchanged.in_order)
        delta = new.delta
        if parameters.filterable and delta is not None:
            yield judge(
                "delta_fields_match_payloads",
                lambda: columns_gate(
                    delta.columns, parameters.filterable, delta.payloads.text_many, len(delta)
                ),
            )
        yield judge("sample_is_exact", lambda: carried_is_exact(new, sample))
        found = index.nearest_rows(sample.vectors, k=sample.depth + 1)
        if index.metric is not Metric.INNER_PRODUCT:
            yield judge("delta_found", lambda: _delta_found(index, parameters.min_recall))
        answers = Answers(
            index=index, sample=sample, found=found, gather=new.vectors, parameters=parameters
        )
        yield from answers.gates()


_BASE_CHECKS: Final = frozenset(
    {"ids_unique", "entries_match_source", "vectors_finite", "vectors_match_source"}
)


def _base_checks(
    previous: PreviousVersion, built: Built, parameters: VectorIndexParameters
) -> Iterator[Check]:
    """The checks of the base's bytes that the previous version has, where these are named again."""
    wanted, named = _BASE_CHECKS, [BASE, IDS]
    if parameters.filterable:
        wanted, named = wanted | {"fields_match_payloads"}, [*named, FIELDS]
    blobs = (built.files.get(name) for name in named)
    digests = {blob.digest for blob in blobs if isinstance(blob, BlobRef)}
    inherited = [
        check
        for check in previous.manifest.checks
        if check.name in wanted and check.blob in digests and check.passed
    ]
    missing = wanted - {check.name for check in inherited}
    yield from inherited
    if missing:
        yield Check(
            name="base_was_judged",
            passed=False,
            detail=f"this base was never checked for: {', '.join(sorted(missing))}",
        )


def _changes(new: Contents, source: SourceSnapshot, after: int, touched: set[str]) -> Verdict:
    """All that changed after generation ``after`` is in ``new`` as the source has it.

    The ids of these upserts and deletes are added to ``touched``, as far as the source was read.
    """
    wrong: list[str] = []
    for chunk in changes_of(source, after):
        upserts = chunk.upserts
        touched.update(upserts.ids, chunk.deletes)
        vectors = prepared(upserts.vectors, new.facts.metric)
        if not np.isfinite(vectors).all():
            return Verdict(False, "the source holds NaN or ±inf")
        differing = new.differing(replace(upserts, vectors=vectors))
        wrong += (upserts.ids[row] for row in differing)
        wrong += (entry_id for entry_id in chunk.deletes if entry_id in new.ids)
    worst = f"{wrong[0]!r} and perhaps others are not as the source has them" if wrong else ""
    return equal(len(wrong), 0, worst)


def _same_delta(new: Contents, last: Contents, row: int, last_row: int, count: int) -> bool:
    """Whether so many rows of two deltas have the same vectors and payloads."""
    if new.delta is None or last.delta is None:
        return not count
    ours, theirs = new.delta.vectors[row:][:count], last.delta.vectors[last_row:][:count]
    return np.array_equal(ours, theirs) and new.delta.payloads.same(
        row, last.delta.payloads, last_row, count=count
    )


_DELTA_QUERIES: Final = 200


def _delta_found(index: VectorSearch, min_recall: float) -> Verdict:
    """Own vectors of entries of the delta find the entries, or others that are just as near."""
    delta = index.contents.delta
    if delta is None or not len(delta):
        return Verdict(True, "there is no delta")
    some = np.linspace(0, len(delta) - 1, num=min(_DELTA_QUERIES, len(delta))).astype(np.int64)
    queries = np.ascontiguousarray(delta.vectors[some])
    found = index.nearest_rows(queries, k=1)
    own = distances(queries, queries[:, None, :], index.metric)
    there = np.where(found < 0, index.contents.first_of_delta, found)
    true = distances(queries, index.contents.vectors(there), index.metric)
    near = (found >= 0) & (true <= own + tolerance(own, queries))
    return at_least(float(np.mean(near)), min_recall, "entries of the delta are not found")
