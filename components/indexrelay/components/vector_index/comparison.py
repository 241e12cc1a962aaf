"""The comparison of a new vector index with the version that serves.

Recall says how well an index finds what is in it. It does not say whether that is what was in it
yesterday: with the vectors of another model, or ids that went to other vectors, an index finds its
own entries as well as ever. So three figures are recorded with a version, and may have limits in
``[components.NAME.gates]``:

- *overlap@10*: of the best ten of a query, the share that is among the best ten of what serves, by
  id, as the mean over the query sample;
- *norm shift*: by which share the mean length of the vectors differs;
- *centroid shift*: how far the mean of the vectors moved, as a share of how far vectors lie from
  their mean (the root of the mean square), so that it does not depend on scale or dimension.

The last two are measured over rows that are spread evenly over both versions: a thousand give the
mean to about three hundredths of the spread, and cost a thousand pages.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

import numpy as np

from indexrelay.components.kind import PreviousVersion, Verdict, judge
from indexrelay.components.vector_index.sample import SAMPLE, QuerySample
from indexrelay.components.vector_index.search import VectorSearch
from indexrelay.components.vector_index.version import Contents
from indexrelay.schemas.gates import CENTROID_SHIFT, NORM_SHIFT, OVERLAP, GateSettings
from indexrelay.schemas.versions import Check
from indexrelay.storage.entries import Vectors

_QUERIES: Final = 100
_ROWS: Final = 1000
_BEST: Final = 10


def comparison_gates(
    files: Mapping[str, Path], previous: PreviousVersion, asked: GateSettings
) -> Iterator[Check]:
    """One `Check` for each figure; it fails only where there is a limit.

    Args:
        files: the new version's.
        previous: the version that serves, of the same definition.
        asked: the limits.

    Raises:
        CorruptFileError: a file of one of them is not what was written.
    """
    with closing(VectorSearch(files)) as new, closing(VectorSearch(previous.files)) as serving:
        if not len(new) or not len(serving):
            return
        sample = QuerySample.load(files[SAMPLE], rows=new.facts.rows, dimension=new.dimension)
        yield judge(OVERLAP, lambda: _overlap(new, serving, sample, asked))
        ours, theirs = spread_vectors(new.contents), spread_vectors(serving.contents)
        yield judge(NORM_SHIFT, lambda: _norm_shift(ours, theirs, asked))
        yield judge(CENTROID_SHIFT, lambda: _centroid_shift(ours, theirs, asked))


def _overlap(
    new: VectorSearch, serving: VectorSearch, sample: QuerySample, asked: GateSettings
) -> Verdict:
    queries = sample.vectors[:_QUERIES]
    share = overlap(new, serving, queries, k=_BEST)
    limit = asked.min_overlap
    wrong = limit is not None and share < limit
    detail = (
        "it answers otherwise than what serves: see that vectors and ids are of the same model and "
        "source; if that is right, lower gates.min_overlap"
    )
    return Verdict(not wrong, detail if wrong else "", measured=share, limit=limit)


def overlap(one: VectorSearch, other: VectorSearch, queries: Vectors, *, k: int) -> float:
    """The mean share of the best ``k`` ids of ``one`` that are among the best ``k`` of ``other``.

    Args:
        one: not empty, like the other.
        other: what it is compared with.
        queries: shape ``(q, dimension)``, ``q`` at least 1.
        k: how many of the best; of an index with fewer entries, all.
    """
    most = min(k, len(one), len(other))
    ids = [index.search_arrays(queries, k=most)[0].tolist() for index in (one, other)]
    same = [len(set(ours) & set(theirs)) for ours, theirs in zip(*ids, strict=True)]
    return float(np.mean(same)) / most


def spread_vectors(contents: Contents) -> Vectors:
    """Vectors of live entries that are spread evenly, shape ``(n, dimension)``, float32."""
    count = len(contents)
    positions = np.unique(np.linspace(0, count - 1, min(count, _ROWS)).astype(np.int64))
    rows = np.array([contents.row_at(each) for each in positions.tolist()], dtype=np.int64)
    return contents.vectors(rows)


def _norm_shift(new: Vectors, serving: Vectors, asked: GateSettings) -> Verdict:
    ours, theirs = (float(np.linalg.norm(each, axis=1).mean()) for each in (new, serving))
    shift = abs(ours - theirs) / theirs if theirs else float(ours > 0)
    detail = (
        "vectors are of another length than those that serve; if that is right, raise "
        "gates.max_norm_shift"
    )
    return _within(shift, asked.max_norm_shift, detail)


def centroid_shift(new: Vectors, serving: Vectors) -> float:
    """How far the mean of vectors lies from that of others, as a share of the spread of these.

    Args:
        new: shape ``(n, dimension)``, at least one.
        serving: shape ``(m, dimension)``, at least one.
    """
    centre = serving.mean(axis=0, dtype=np.float64)
    spread = float(np.sqrt(np.square(serving - centre).sum(axis=1).mean()))
    moved = float(np.linalg.norm(new.mean(axis=0, dtype=np.float64) - centre))
    return moved / spread if spread else float(moved > 0)


def _centroid_shift(new: Vectors, serving: Vectors, asked: GateSettings) -> Verdict:
    shift = centroid_shift(new, serving)
    detail = (
        "vectors lie elsewhere than those that serve: see that they are of the same model; if that "
        "is right, raise gates.max_centroid_shift"
    )
    return _within(shift, asked.max_centroid_shift, detail)


def _within(measured: float, limit: float | None, detail: str) -> Verdict:
    wrong = limit is not None and measured > limit
    return Verdict(not wrong, detail if wrong else "", measured=measured, limit=limit)
