"""The gates of a vector index that continues another: they cost what the batch and the delta cost.

What was judged of the base when it was built holds for its bytes, and these are named by the same
digests. Judged here, in fresh handles and against the source, is the rest: that what changed is
found as the source has it, that what did not change is there as before, and that the answers of
both layers together still are good enough.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

import numpy as np

from indexrelay.components.errors import DamagedFileError
from indexrelay.components.inputs import changes_of, only_collection
from indexrelay.components.judging import Verdict, equal, judge
from indexrelay.components.kind import Built, Job, PreviousVersion
from indexrelay.components.layered_ids import IDS
from indexrelay.components.string_table import Rows
from indexrelay.components.vector_index.answering import Answers, at_least, latency
from indexrelay.components.vector_index.base import BASE
from indexrelay.components.vector_index.contents import Contents
from indexrelay.components.vector_index.metrics import distances, prepared, tolerance
from indexrelay.components.vector_index.nearest import NearestRows
from indexrelay.components.vector_index.parameters import VectorIndexParameters
from indexrelay.components.vector_index.sample import SAMPLE, QuerySample
from indexrelay.components.vector_index.search import VectorSearch
from indexrelay.schemas.settings import Metric
from indexrelay.schemas.versions import BlobRef, Check
from indexrelay.storage.entries import SourceSnapshot, Vectors

_OF_THE_BASE: Final = frozenset(
    {"ids_unique", "entries_match_source", "vectors_finite", "vectors_match_source"}
)
_ASKED: Final = 200
"""Delta entries that are asked for by their own vector."""
_RECOMPUTED: Final = 16
"""Queries whose carried neighbours are held against all that can have changed them."""


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
        changes = _Changes(index.contents, last)
        yield judge(
            "changes_match_source",
            lambda: changes.read(source, after=previous.manifest.covers[source.collection]),
        )
        yield judge("unchanged_kept", changes.kept)
        yield judge("ids_in_order", changes.in_order)
        yield judge("sample_is_exact", lambda: _sample(index.contents, sample))
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


def _count(index: VectorSearch, source: SourceSnapshot, built: Built) -> Verdict:
    if built.entries != source.count:
        return equal(built.entries, source.count, "the build counted other entries than there are")
    return equal(len(index), source.count, "the files hold another number of entries")


@dataclass
class _Changes:
    """Holds the new version against the last one and against what changed in between."""

    new: Contents
    last: Contents

    def __post_init__(self) -> None:
        self.touched: set[str] = set()

    def read(self, source: SourceSnapshot, *, after: int) -> Verdict:
        """Every entry that came or changed is there as the source has it, and none that went."""
        new, wrong, worst = self.new, 0, ""
        for chunk in changes_of(source, after):
            upserts = chunk.upserts
            self.touched.update(upserts.ids, chunk.deletes)
            vectors = prepared(upserts.vectors, new.facts.metric)
            if not np.isfinite(vectors).all():
                return Verdict(False, "the source holds NaN or ±inf")
            for entry_id, vector, payload in zip(
                upserts.ids, vectors, upserts.payloads, strict=True
            ):
                if not self._is(entry_id, vector, payload):
                    wrong, worst = wrong + 1, worst or entry_id
            for entry_id in chunk.deletes:
                if entry_id in new.ids:
                    wrong, worst = wrong + 1, worst or entry_id
        return equal(wrong, 0, f"{worst!r} and perhaps others are not as the source has them")

    def _is(self, entry_id: str, vector: Vectors, payload: str | None) -> bool:
        row = self.new.find(entry_id)
        return (
            row is not None
            and np.array_equal(self.new.vector(row), vector)
            and self.new.payload_texts_of(np.array([row]))[0] == payload
        )

    def kept(self) -> Verdict:
        """What did not change is where it was: in the base, or in the delta with all it had."""
        was, is_now = self.last.ids.layers.tombstones, self.new.ids.layers.tombstones
        if len(np.setdiff1d(was, is_now, assume_unique=True)):
            return Verdict(False, "an entry of the base that was gone is back")
        newly = np.setdiff1d(is_now, was, assume_unique=True)
        if not self.touched.issuperset(self.new.base.ids.many(newly)):
            return Verdict(False, "an entry of the base is gone that did not change")
        last, new = _untouched(self.last, self.touched), _untouched(self.new, self.touched)
        if list(last) != list(new):
            return Verdict(False, "the delta lost an entry that did not change, or made one up")
        return equal(self._differing(list(last.values()), list(new.values())), 0, "rows changed")

    def in_order(self) -> Verdict:
        """What the batch brought stands where the order of the ids has it; the rest did before."""
        ids = self.new.ids
        old = list(_untouched(self.new, self.touched).values())
        brought = np.setdiff1d(np.arange(len(ids.layers.places)), old, assume_unique=True)
        return equal(ids.out_of_order(rows=brought), 0, "delta ids stand elsewhere")

    def _differing(self, last: list[int], new: list[int]) -> int:
        """How many delta rows are not what they were."""
        if self.last.delta is None or self.new.delta is None or not last:
            return 0
        here, there = np.array(last), np.array(new)
        vectors = (self.last.delta.vectors[here] != self.new.delta.vectors[there]).any(axis=1)
        payloads = zip(
            self.last.delta.payloads.text_many(here),
            self.new.delta.payloads.text_many(there),
            strict=True,
        )
        return int(np.count_nonzero(vectors)) + sum(old != now for old, now in payloads)


def _untouched(contents: Contents, touched: set[str]) -> dict[str, int]:
    """The delta rows, by id and in their order, that the batch had nothing to do with."""
    ids = [] if contents.ids.delta is None else list(contents.ids.delta)
    return {entry_id: row for row, entry_id in enumerate(ids) if entry_id not in touched}


def _sample(contents: Contents, sample: QuerySample) -> Verdict:
    """Some queries' neighbours are entries, at the distance claimed, and no newcomer is nearer."""
    queries, depth = sample.vectors[:_RECOMPUTED], sample.depth
    claimed, rows = sample.distances[:_RECOMPUTED, :depth], sample.neighbours[:_RECOMPUTED, :depth]
    if not claimed.size:
        return Verdict(True, measured=0)
    metric, dead = contents.facts.metric, contents.ids.layers.tombstones
    if np.isin(rows, dead).any() or (np.diff(claimed, axis=1) < 0).any():
        return Verdict(False, "the sample names entries that are gone, or not the nearest first")
    true = distances(queries, contents.vectors(rows), metric)
    allowed = tolerance(true, queries)
    if (np.abs(true - claimed) > allowed).any():
        return Verdict(False, "the sample's neighbours are not at the distance claimed")
    missing = _nearer_in_delta(contents, sample, queries, rows, claimed, allowed)
    return equal(missing, 0, "the delta holds entries nearer than the sample's neighbours")


def _nearer_in_delta(
    contents: Contents,
    sample: QuerySample,
    queries: Vectors,
    rows: Rows,
    claimed: np.ndarray,
    allowed: np.ndarray,
) -> int:
    """How many entries of the delta should be among the neighbours, and are not."""
    if contents.delta is None or not len(contents.delta):
        return 0
    nearest = NearestRows(queries, k=rows.shape[1] + 1, metric=contents.facts.metric)
    nearest.add(contents.delta.vectors)
    found = nearest.rows + contents.first_of_delta
    true = distances(queries, contents.delta.vectors[nearest.rows], contents.facts.metric)
    others = found != sample.rows[:_RECOMPUTED, None]
    nearer = others & (true < claimed[:, -1:] - 2 * allowed[:, -1:])
    named = (found[:, :, None] == rows[:, None, :]).any(axis=2)
    return int(np.count_nonzero(nearer & ~named))


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
