"""The gates of a vector index: those of a full build, of an incremental one, and of its quality.

After a **full** build the index is searched first. Then the collection is read once more, from the
source itself: every id and payload must be in its row, every vector must be finite, and the true
vectors of all queries and answers are kept on the way. A check of the base alone has the base's
digest: versions that continue this one name the same base, and inherit these checks.

After an **incremental** build the checks of the base are inherited, as long as its files have the
same digests. The others cost what the batch and the delta cost. They judge, in fresh handles and
against the source, that what changed is found as the source has it, and that what did not change is
there as before.

Both judge the **quality** of the answers to the query sample by the same gates (`Answers`): recall,
latency, and whether entries find themselves. Distances are computed from true vectors, so neither
what a build had in memory nor what a compressed index reports can make a gate pass. A hit counts
by its distance: of several equal entries any one is right.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import NormalDist
from time import perf_counter
from typing import Final

import numpy as np

from indexrelay.components.formats.entry_tables import IdTable, PayloadTable
from indexrelay.components.formats.string_table import Rows
from indexrelay.components.kind import (
    Built,
    Job,
    PreviousVersion,
    Verdict,
    concerning,
    count_gate,
    equal,
    judge,
    reads_back,
)
from indexrelay.components.layered import IDS, Unchanged, among, changes_of
from indexrelay.components.matches import columns_gate
from indexrelay.components.vector_index.metrics import (
    Distances,
    NearestRows,
    distances,
    distances_of_found,
    others,
    prepared,
    tolerance,
    without_itself,
)
from indexrelay.components.vector_index.sample import (
    KEPT,
    SAMPLE,
    QuerySample,
    searched_again,
)
from indexrelay.components.vector_index.search import VectorSearch
from indexrelay.components.vector_index.sketches import SKETCHES, Sketches
from indexrelay.components.vector_index.spec import VectorIndexParameters
from indexrelay.components.vector_index.version import BASE, FIELDS, Contents
from indexrelay.schemas.gates import LATENCY, LATENCY_P99, RECALL, RECALL_LOWER, GateSettings
from indexrelay.schemas.settings import Metric
from indexrelay.schemas.versions import BlobRef, Check, VersionManifest
from indexrelay.storage.entries import Entries, SourceSnapshot, Vectors


def full_gates(
    source: SourceSnapshot,
    built: Built,
    files: Mapping[str, Path],
    parameters: VectorIndexParameters,
    asked: GateSettings,
) -> Iterator[Check]:
    """Yield one `Check` for each gate; ``asked``: the limits of the component's table.

    Where the files do not open, or hold another number of vectors, nothing else can be judged.
    """

    def opened() -> tuple[VectorSearch, QuerySample]:
        index = VectorSearch(files)
        return index, QuerySample.load(files[SAMPLE], rows=len(index), dimension=index.dimension)

    check, version = reads_back(opened)
    yield check
    if version is None:
        return
    index, sample = version
    with closing(index):
        ids, payloads = index.contents.base.ids, index.contents.base.payloads
        yield judge("count", lambda: count_gate(len(index), source, built))
        yield judge(
            "dimension",
            lambda: equal(index.dimension, source.dimension, "vectors have another length"),
        )
        yield judge("metric", lambda: _metric(index, source))
        unique = judge("ids_unique", lambda: equal(ids.check(), 0, "ids repeat in the source"))
        yield concerning(unique, built, IDS)
        if not len(index) == source.count == built.entries or index.dimension != source.dimension:
            return
        found = index.nearest_rows(sample.vectors, k=sample.depth + 1)
        seen = _SourcePass(
            ids=ids,
            payloads=payloads,
            metric=index.metric,
            dimension=index.dimension,
            wanted=np.union1d(sample.rows, found[found >= 0]),
            nearest=NearestRows(sample.vectors[:_RECOMPUTED], k=KEPT + 1, metric=index.metric),
        )
        matching = judge("entries_match_source", lambda: _entries(seen, source))
        yield concerning(matching, built, BASE)
        finite = judge(
            "vectors_finite", lambda: equal(seen.infinite, 0, "the source holds NaN or ±inf")
        )
        yield concerning(finite, built, BASE)
        if seen.infinite or seen.rows != len(index):
            return
        if parameters.filterable:
            columns = index.contents.base.columns
            fields = judge(
                "fields_match_payloads",
                lambda: columns_gate(
                    columns, parameters.filterable, payloads.text_many, len(index)
                ),
            )
            yield concerning(fields, built, FIELDS)
        true = judge("vectors_match_source", lambda: _vectors(seen, index, sample))
        yield concerning(true, built, BASE)
        sketches = index.contents.base.sketches
        if sketches is not None:
            same = judge("sketches_match_vectors", lambda: _sketches(seen, sketches))
            yield concerning(same, built, SKETCHES)
        yield judge("sample_is_exact", lambda: _sample(seen, sample))
        answers = Answers(
            index=index,
            sample=sample,
            found=found,
            gather=seen.gather,
            parameters=parameters,
            asked=asked,
        )
        yield from answers.gates()


def _metric(index: VectorSearch, source: SourceSnapshot) -> Verdict:
    same = index.metric is source.metric
    return Verdict(same, "" if same else f"built for {index.metric}, wanted {source.metric}")


@dataclass(kw_only=True)
class _SourcePass:
    """One pass over a collection, compared with the files; `run` it first."""

    ids: IdTable
    payloads: PayloadTable
    metric: Metric
    dimension: int
    wanted: Rows
    """Rows whose vectors are kept: ascending, each once."""
    nearest: NearestRows
    """To which every vector is added, as it is indexed."""

    rows: int = 0
    """How many entries the source gave."""
    kept: dict[int, Vectors] = field(default_factory=dict)
    """For each wanted row that the source has, its vector as it is indexed."""
    infinite: int = 0
    """How many vectors hold a NaN or an infinity."""
    wrong_id: str = ""
    """The first entry whose row names another one; empty: none does."""
    wrong_payload: str = ""
    """The first entry whose payload is another; empty: none is."""

    def run(self, source: SourceSnapshot) -> None:
        """Read everything."""
        for chunk in source.chunks():
            self._compare(chunk)
            finite = np.isfinite(chunk.vectors).all(axis=1)
            self.infinite += int(np.count_nonzero(~finite))
            if finite.all():
                self._keep(prepared(chunk.vectors, self.metric))
            self.rows += len(chunk)

    def gather(self, rows: Rows) -> Vectors:
        """The vectors of ``rows`` (all of them wanted), shape ``(*rows.shape, dimension)``."""
        flat = [self.kept[row] for row in rows.ravel().tolist()]
        return np.array(flat, dtype=np.float32).reshape(*rows.shape, self.dimension)

    def _compare(self, chunk: Entries) -> None:
        end = min(self.rows + len(chunk), len(self.ids))
        rows = np.arange(self.rows, end)
        # As a whole where all is well, row by row only to name what is not.
        if not self.wrong_id and not self.ids.holds(self.rows, chunk.ids):
            self.wrong_id = _first_difference(chunk.ids, self.ids.many(rows), chunk.ids)
        if not self.wrong_payload and not self.payloads.holds(self.rows, chunk.payloads):
            self.wrong_payload = _first_difference(
                chunk.payloads, self.payloads.text_many(rows), chunk.ids
            )

    def _keep(self, vectors: Vectors) -> None:
        self.nearest.add(vectors)
        first, end = np.searchsorted(self.wanted, [self.rows, self.rows + len(vectors)])
        for row in self.wanted[first:end].tolist():
            self.kept[row] = vectors[row - self.rows].copy()


def _first_difference(
    source: Sequence[str | None], ours: Sequence[str | None], ids: Sequence[str]
) -> str:
    """The id of the first entry that differs, where both have one; empty: none does."""
    if source == ours:
        return ""
    differing = (ids[row] for row, (a, b) in enumerate(zip(source, ours, strict=False)) if a != b)
    return next(differing, "")


def _entries(seen: _SourcePass, source: SourceSnapshot) -> Verdict:
    """Every id and every payload is in the row where the source has it."""
    seen.run(source)
    if seen.rows != len(seen.ids):
        return equal(seen.rows, len(seen.ids), "the source gave another number of entries")
    if seen.wrong_id:
        return Verdict(False, f"the row of {seen.wrong_id!r} names another entry")
    if seen.wrong_payload:
        return Verdict(False, f"the payload of {seen.wrong_payload!r} is another one")
    return Verdict(True, measured=seen.rows)


_SAME: Final = 1e-5
"""Two float32 computations of one value differ by this share of the largest."""
_OTHER_BITS: Final = 1e-3
"""… and turn at most this share of the bits of sketches."""


def _vectors(seen: _SourcePass, index: VectorSearch, sample: QuerySample) -> Verdict:
    """What a look-up returns, and the sample's queries, are vectors of the source."""
    if not len(seen.wanted):
        return Verdict(True, measured=0)
    true = seen.gather(seen.wanted)
    kept = np.array([index.contents.vector(row) for row in seen.wanted.tolist()])
    of_sample = np.abs(sample.vectors - seen.gather(sample.rows)).max()
    worst = float(max(np.abs(kept - true).max(), of_sample))
    limit = _SAME * float(np.abs(true).max())
    return Verdict(
        worst <= limit,
        "" if worst <= limit else "vectors are not those of their ids",
        measured=worst,
        limit=limit,
    )


def _sketches(seen: _SourcePass, sketches: Sketches) -> Verdict:
    """The sketches of some entries are those of their vectors, but for bits at the very mean."""
    kept, true = sketches.bits[seen.wanted], sketches.of(seen.gather(seen.wanted))
    differing = float(np.bitwise_count(kept ^ true).sum() / (8 * max(true.size, 1)))
    wrong = "" if differing <= _OTHER_BITS else "sketches are not those of their vectors"
    return Verdict(not wrong, wrong, measured=differing, limit=_OTHER_BITS)


def _sample(seen: _SourcePass, sample: QuerySample) -> Verdict:
    """The sample's neighbours are the nearest: some queries are searched again, exactly."""
    claimed = sample.distances[:_RECOMPUTED]
    if not claimed.size:
        return Verdict(True, measured=0)
    kept = others(seen.nearest.rows, sample.rows[:_RECOMPUTED])
    true = seen.nearest.distances[kept].reshape(claimed.shape)
    worst = float(np.abs(true - claimed).max())
    # FAISS subtracts nearly equal numbers here; the error grows with the largest of them.
    limit = _SAME * float(max(np.abs(claimed).max(), np.square(sample.vectors).sum(axis=1).max()))
    return Verdict(
        worst <= limit,
        "" if worst <= limit else "the sample's neighbours are not the nearest ones",
        measured=worst,
        limit=limit,
    )


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
        yield judge("sample_is_exact", lambda: _carried_is_exact(new, sample))
        found = index.nearest_rows(sample.vectors, k=sample.depth + 1)
        if index.metric is not Metric.INNER_PRODUCT:
            yield judge("delta_found", lambda: _delta_found(index, parameters.min_recall))
        answers = Answers(
            index=index,
            sample=sample,
            found=found,
            gather=new.vectors,
            parameters=parameters,
            asked=job.gates,
        )
        yield from answers.gates()


def validation_gates(
    files: Mapping[str, Path],
    manifest: VersionManifest,
    parameters: VectorIndexParameters,
    asked: GateSettings,
) -> Iterator[Check]:
    """Yield one `Check` for each gate on a version that is judged without its source.

    What is true is what its own vectors say: all of them are compared with the query sample.
    """

    def opened() -> tuple[VectorSearch, QuerySample]:
        index = VectorSearch(files)
        sample = QuerySample.load(files[SAMPLE], rows=index.facts.rows, dimension=index.dimension)
        return index, sample

    check, version = reads_back(opened)
    yield check
    if version is None:
        return
    index, sample = version
    with closing(index):
        yield judge(
            "count",
            lambda: equal(len(index), manifest.entries, "its manifest counts other entries"),
        )
        if not len(index):
            return
        true = searched_again(sample, index.contents)
        yield judge("sample_is_exact", lambda: _is_as_near(sample, true))
        answers = Answers(
            index=index,
            sample=true,
            found=index.nearest_rows(true.vectors, k=true.depth + 1),
            gather=index.contents.vectors,
            parameters=parameters,
            asked=asked,
        )
        yield from answers.gates()


def _is_as_near(sample: QuerySample, true: QuerySample) -> Verdict:
    """The neighbours that a version has are as near as those that were searched again."""
    depth = min(sample.depth, true.depth)
    claimed, searched = sample.distances[:, :depth], true.distances[:, :depth]
    if not claimed.size:
        return Verdict(True, measured=0)
    wrong = np.abs(claimed - searched) > tolerance(searched, true.vectors)
    return equal(
        int(np.count_nonzero(wrong.any(axis=1))), 0, "queries whose neighbours are not the nearest"
    )


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
    if SKETCHES in built.files:
        wanted, named = wanted | {"sketches_match_vectors"}, [*named, SKETCHES]
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
    return _at_least(float(np.mean(near)), min_recall, "entries of the delta are not found")


_RECOMPUTED: Final = 16
"""Queries whose neighbours the gates of the sample itself search again, exactly."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What an index answered to its query sample."""

    index: VectorSearch
    sample: QuerySample
    found: Rows
    """Shape ``(q, depth + 1)``: rows, -1 where there are fewer."""
    gather: Callable[[Rows], Vectors]
    """Returns the true vectors of rows, of the shape ``(*rows.shape, dimension)``."""
    parameters: VectorIndexParameters
    asked: GateSettings

    def gates(self) -> Iterator[Check]:
        """Whether entries find themselves, how many of the nearest are found, and how fast."""
        if self.index.metric is not Metric.INNER_PRODUCT:
            yield judge("own_distance", self._own_distance)
        yield judge(RECALL, self._recall)
        yield judge(RECALL_LOWER, self._recall_lower)
        yield judge(LATENCY, self._latency)
        yield judge(LATENCY_P99, self._latency_p99)

    def _own_distance(self) -> Verdict:
        """An entry's own vector finds the entry, or one that is just as near."""
        are_entries = self.sample.rows >= 0
        if not are_entries.any():
            return Verdict(True, "there is nothing to ask for")
        queries = self.sample.vectors[are_entries]
        own = distances(queries, queries[:, None, :], self.index.metric)
        true = self._true(self.found)[are_entries]
        share = float(np.mean((true <= own + tolerance(own, queries)).any(axis=1)))
        return _at_least(share, self.parameters.min_recall, "entries do not find themselves")

    def _recall(self) -> Verdict:
        """The share of the nearest ten that is found, or of entries that are just as near."""
        if not self.sample.depth:
            return Verdict(True, "there is nothing to find")
        return _at_least(
            self._share_found,
            self.parameters.min_recall,
            "lower min_recall, or choose an index that keeps more",
        )

    def _recall_lower(self) -> Verdict:
        """The recall that it has at least, as sure as is asked for."""
        if not self.sample.depth:
            return Verdict(True, "there is nothing to find")
        asked = self.asked.recall_confidence
        lower = wilson_lower(
            self._share_found, trials=len(self.sample.vectors), confidence=asked or _CONFIDENCE
        )
        if asked is None:
            return Verdict(True, measured=lower)
        return _at_least(
            lower,
            self.parameters.min_recall,
            f"it is not sure enough at a confidence of {asked:g}: lower gates.recall_confidence or "
            "min_recall, or choose an index that keeps more",
        )

    def _latency(self) -> Verdict:
        """The median time of single queries, as in a reader."""
        measured = float(np.median(self._milliseconds)) if self._milliseconds else 0.0
        return _at_most(
            measured,
            self.parameters.max_latency_ms,
            "raise max_latency_ms, lower min_recall, or choose a faster index",
        )

    def _latency_p99(self) -> Verdict:
        """The time that one query of a hundred takes, or more."""
        taken = self._milliseconds
        measured = float(np.percentile(taken, 99, method="higher")) if taken else 0.0
        limit = self.asked.max_latency_p99_ms
        if limit is None:
            return Verdict(True, measured=measured)
        return _at_most(measured, limit, "raise gates.max_latency_p99_ms, or choose a faster index")

    @cached_property
    def _share_found(self) -> float:
        return self.sample.recall(self._true(without_itself(self.found, self.sample.rows)))

    @cached_property
    def _milliseconds(self) -> list[float]:
        """How long single queries took, one after another, as in a reader."""
        taken = []
        for vector in self.sample.vectors[:_TIMED_QUERIES]:
            started = perf_counter()
            self.index.search(vector)
            taken.append(1000 * (perf_counter() - started))
        return taken

    def _true(self, found: Rows) -> Distances:
        anything = np.maximum(self.sample.rows, 0)[:, None]
        vectors = self.gather(np.where(found < 0, anything, found))
        return distances_of_found(self.sample.vectors, found, vectors, self.index.metric)


_TIMED_QUERIES: Final = 100
_CONFIDENCE: Final = 0.95
"""Of the bound that is recorded where none is asked for."""


def wilson_lower(share: float, *, trials: int, confidence: float) -> float:
    """The lower end of Wilson's interval for a share of ``trials``, 0 where there are none.

    A query's share of hits counts as one trial, since its ten hits hang together. The variance of
    such a share is at most that of a hit or miss, so the interval is never too narrow. Source:
    E. B. Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    if not trials:
        return 0.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    return max((middle - half) / (1 + z * z / trials), 0.0)


def _at_least(share: float, limit: float, otherwise: str) -> Verdict:
    """A gate on a share that must reach ``limit``."""
    reached = share >= limit
    return Verdict(reached, "" if reached else otherwise, measured=share, limit=limit)


def _at_most(measured: float, limit: float, otherwise: str) -> Verdict:
    """A gate on a figure that must not go above ``limit``."""
    kept = measured <= limit
    return Verdict(kept, "" if kept else otherwise, measured=measured, limit=limit)


def _carried_is_exact(contents: Contents, sample: QuerySample) -> Verdict:
    """Some queries' neighbours are entries, at the distance claimed, and no new entry is nearer.

    An entry of the base can only leave the neighbours that were exact before, one of the delta can
    come. So the whole delta is compared, and of the base the neighbours.
    """
    queries, depth = sample.vectors[:_RECOMPUTED], sample.depth
    claimed, rows = sample.distances[:_RECOMPUTED, :depth], sample.neighbours[:_RECOMPUTED, :depth]
    if not claimed.size:
        return Verdict(True, measured=0)
    metric, delta, dead = contents.facts.metric, contents.delta, contents.ids.layers.tombstones
    if among(rows, dead).any() or (np.diff(claimed, axis=1) < 0).any():
        return Verdict(False, "the sample names entries that are gone, or not the nearest first")
    true = distances(queries, contents.vectors(rows), metric)
    allowed = tolerance(true, queries)
    if (np.abs(true - claimed) > allowed).any():
        return Verdict(False, "the sample's neighbours are not at the distance claimed")
    if delta is None or not len(delta):
        return equal(0, 0, "")
    nearest = NearestRows(queries, k=depth + 1, metric=metric)
    nearest.add(delta.vectors)
    found = nearest.rows + contents.first_of_delta
    not_itself = found != sample.rows[:_RECOMPUTED, None]
    true = distances(queries, delta.vectors[nearest.rows], metric)
    nearer = not_itself & (true < claimed[:, -1:] - 2 * allowed[:, -1:])
    named = (found[:, :, None] == rows[:, None, :]).any(axis=2)
    missing = int(np.count_nonzero(nearer & ~named))
    return equal(missing, 0, "the delta holds entries nearer than the sample's neighbours")
