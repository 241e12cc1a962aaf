"""The gates of a full build: they compare the files, in fresh handles, with the collection.

The index is searched first. Then the collection is read once more, from the source itself: every
id and payload must be in its row, every vector must be finite, and the true vectors of all queries
and answers are kept on the way. The `quality_gates` compute recall and distances from those, so
neither what the build had in memory nor what a compressed index reports can make a gate pass.

A check of the base alone has the base's digest: versions that continue this one name the same base,
and inherit these checks.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from indexrelay.components.filtering import columns_gate
from indexrelay.components.formats.entry_tables import IdTable, PayloadTable
from indexrelay.components.formats.string_table import Rows
from indexrelay.components.kind import (
    Built,
    Verdict,
    concerning,
    count_gate,
    equal,
    judge,
    reads_back,
)
from indexrelay.components.layered import IDS
from indexrelay.components.vector_index.metrics import NearestRows, others, prepared
from indexrelay.components.vector_index.quality_gates import RECOMPUTED, Answers
from indexrelay.components.vector_index.sample import KEPT, SAMPLE, QuerySample
from indexrelay.components.vector_index.search import VectorSearch
from indexrelay.components.vector_index.spec import VectorIndexParameters
from indexrelay.components.vector_index.version import BASE, FIELDS
from indexrelay.schemas.settings import Metric
from indexrelay.schemas.versions import Check
from indexrelay.storage.entries import Entries, SourceSnapshot, Vectors


def full_gates(
    source: SourceSnapshot,
    built: Built,
    files: Mapping[str, Path],
    parameters: VectorIndexParameters,
) -> Iterator[Check]:
    """Yield one `Check` for each gate.

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
            nearest=NearestRows(sample.vectors[:RECOMPUTED], k=KEPT + 1, metric=index.metric),
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
        yield judge("sample_is_exact", lambda: _sample(seen, sample))
        answers = Answers(
            index=index, sample=sample, found=found, gather=seen.gather, parameters=parameters
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


def _vectors(seen: _SourcePass, index: VectorSearch, sample: QuerySample) -> Verdict:
    """What a look-up returns, and the sample's queries, are vectors of the source."""
    if not len(seen.wanted):
        return Verdict(True, measured=0)
    true = seen.gather(seen.wanted)
    kept = np.array([index.contents.vector(row) for row in seen.wanted.tolist()])
    asked = np.abs(sample.vectors - seen.gather(sample.rows)).max()
    worst = float(max(np.abs(kept - true).max(), asked))
    limit = _SAME * float(np.abs(true).max())
    return Verdict(
        worst <= limit,
        "" if worst <= limit else "vectors are not those of their ids",
        measured=worst,
        limit=limit,
    )


def _sample(seen: _SourcePass, sample: QuerySample) -> Verdict:
    """The sample's neighbours are the nearest: some queries are searched again, exactly."""
    claimed = sample.distances[:RECOMPUTED]
    if not claimed.size:
        return Verdict(True, measured=0)
    kept = others(seen.nearest.rows, sample.rows[:RECOMPUTED])
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
