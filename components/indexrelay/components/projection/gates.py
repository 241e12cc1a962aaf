"""The gates of a map: it shows its source, whole and unbroken, and keeps enough neighbourhoods.

A full layout is compared with the whole collection; trustworthiness compares all pairs, so it is
measured on a sample. A map into which entries were placed continues one that passed these gates.
It is right if it shows what came and not what was deleted, if everything else is where it was, bit
for bit, and if the new places are about as trustworthy as the landmarks'.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import accumulate, zip_longest
from pathlib import Path

import numpy as np

from indexrelay.components.kind import Built, Job, PreviousVersion, Verdict, equal, judge
from indexrelay.components.layered.build import changes_of
from indexrelay.components.layered.layers import without
from indexrelay.components.projection.build import MapRows
from indexrelay.components.projection.guide import Guide
from indexrelay.components.projection.layout import Points, as_laid_out, read_points, some_threads
from indexrelay.components.projection.map import Coordinates, ProjectionMap
from indexrelay.schemas.errors import require
from indexrelay.schemas.versions import Check
from indexrelay.storage.entries import Changes, SourceSnapshot, Vectors


def full_gates(
    chart: ProjectionMap,
    collections: Mapping[str, SourceSnapshot],
    *,
    min_trustworthiness: float,
    seed: int,
) -> Iterator[Check]:
    """Yield one `Check` for each gate; ``chart`` was opened from the new files."""
    points = read_points(collections)
    ids = list(chart.ids)
    yield judge("count", lambda: equal(len(ids), len(points.ids), "it is not of this generation"))
    yield judge("ids_unique", lambda: equal(len(set(ids)), len(ids), "ids repeat each other"))
    yield judge("ids_match_source", lambda: _same_ids(ids, points.ids))
    finite = bool(np.isfinite(chart.coordinates).all())
    yield judge("finite", lambda: Verdict(finite, "" if finite else "NaN or infinity in it"))
    if finite and len(chart):
        yield judge("range", lambda: _in_range(chart))
    if finite and ids == points.ids and points.differ:
        yield judge("not_collapsed", lambda: _spread(chart))
        # Neighbourhoods need three entries.
        if len(ids) > 2:
            yield judge(
                "trustworthiness",
                lambda: _trust(chart, points, least=min_trustworthiness, seed=seed),
            )


def incremental_gates(
    chart: ProjectionMap,
    job: Job,
    built: Built,
    previous: PreviousVersion,
    files: Mapping[str, Path],
) -> Iterator[Check]:
    """Yield one `Check` for each gate; ``chart`` was opened from the new ``files``."""
    ids = chart.ids
    count = sum(source.count for source in job.collections.values())
    yield judge("count", lambda: equal(len(ids), count, "it is not of this generation"))
    starts = list(accumulate(source.count for source in job.collections.values()))
    changes = _Changed(tuple(job.collections.values()), previous)
    new = ids.delta_rows(changes.ids())
    yield judge("ids_unique", lambda: equal(ids.repeats(new), 0, "ids repeat each other"))
    yield judge(
        "ids_in_order",
        lambda: equal(ids.out_of_order(starts, rows=new), 0, "ids stand in other rows"),
    )
    finite = bool(np.isfinite(chart.coordinates).all())
    yield judge("finite", lambda: Verdict(finite, "" if finite else "NaN or infinity in it"))
    with closing(ProjectionMap.open(previous.files)) as last:
        yield judge(
            "ids_match_source", lambda: changes.shown(MapRows.open(ids, files, built.details))
        )
        yield judge("unchanged_kept", lambda: changes.kept(chart, last))
        if finite and len(chart):
            yield judge("range", lambda: _in_range(chart))
            yield judge("not_collapsed", lambda: _spread(chart))
            guide = Guide.open(files, built.details)
            if guide is not None:
                with some_threads(job.threads):
                    yield judge("placed_well", lambda: guide.judge(*changes.placed(chart, last)))


def _same_ids(found: list[str], expected: list[str]) -> Verdict:
    pairs = enumerate(zip_longest(found, expected))
    wrong = next((row for row, (here, there) in pairs if here != there), None)
    detail = "" if wrong is None else f"the first other id is in row {wrong}"
    return Verdict(wrong is None, detail)


_SMALLEST_EXTENT = 1e-3
"""A map whose entries all lie within this is one point to every eye."""
_REACH = 1.0 + 1e-6


def _in_range(chart: ProjectionMap) -> Verdict:
    """No entry is beyond the edge."""
    reach = float(np.abs(chart.coordinates).max())
    return Verdict(reach <= _REACH, measured=reach, limit=1.0)


def _spread(chart: ProjectionMap) -> Verdict:
    """Entries that differ are not all in one place."""
    extent = float(np.ptp(chart.coordinates, axis=0).max())
    return Verdict(extent >= _SMALLEST_EXTENT, measured=extent, limit=_SMALLEST_EXTENT)


_SAMPLE = 500
"""Entries that trustworthiness is measured on: 0.1 s, and within 0.02 of the whole."""
_NEIGHBOURS = 5


def _trust(chart: ProjectionMap, points: Points, *, least: float, seed: int) -> Verdict:
    manifold = require("sklearn.manifold")
    neighbours = min(_NEIGHBOURS, (len(chart) - 1) // 2)
    rows = np.random.default_rng(seed).permutation(len(chart))[:_SAMPLE]
    measured = float(
        manifold.trustworthiness(
            points.vectors[rows], chart.coordinates[rows], n_neighbors=neighbours
        )
    )
    detail = f"{neighbours} neighbours of each of {len(rows)} entries"
    return Verdict(measured >= least, detail, measured=measured, limit=least)


@dataclass(frozen=True, slots=True)
class _Changed:
    """What changed since the version that is continued."""

    sources: tuple[SourceSnapshot, ...]
    previous: PreviousVersion

    def chunks(self) -> Iterator[tuple[int, Changes]]:
        """Every chunk, with the number of its input."""
        for number, source in enumerate(self.sources):
            after = self.previous.manifest.covers[source.collection]
            for chunk in changes_of(source, after):
                yield number, chunk

    def ids(self) -> set[str]:
        """Every id that came, changed or is deleted."""
        return {
            entry_id
            for _, chunk in self.chunks()
            for entry_id in (*chunk.upserts.ids, *chunk.deletes)
        }

    def shown(self, rows: MapRows) -> Verdict:
        """What came or changed is shown with its vector of now, and what is deleted is not."""
        wrong = 0
        for number, chunk in self.chunks():
            vectors = as_laid_out(chunk.upserts.vectors, self.sources[number].metric)
            wrong += len(rows.differing(number, replace(chunk.upserts, vectors=vectors)))
            states = map(rows.state, chunk.deletes)
            wrong += sum(state is not None and state[0] == number for state in states)
        return equal(wrong, 0, "entries that changed are not shown as the source has them")

    def kept(self, chart: ProjectionMap, last: ProjectionMap) -> Verdict:
        """Everything that did not change is where it was, bit for bit."""
        changed, here, there = self.ids(), chart.ids.layers, last.ids.layers
        gone = without(here.tombstones, there.tombstones)
        stays = np.ones(here.base, dtype=bool)  # as a mask: sets of a million rows take seconds
        stays[here.tombstones] = stays[there.tombstones] = False
        rows = np.flatnonzero(stays)
        base_alike = (
            chart.coordinates[here.base_positions(rows)]
            == last.coordinates[there.base_positions(rows)]
        ).all()
        placed_before = set(last.ids.delta or ()) - changed
        wrong = sum(
            one not in chart or bool((chart.get(one) != last.get(one)).any())
            for one in placed_before
        )
        lost = sum(one not in changed for one in last.ids.base.many(gone))
        back = len(without(there.tombstones, here.tombstones))
        if not base_alike:
            return Verdict(False, "entries that did not change have moved")
        return equal(wrong + lost + back, 0, "entries that did not change came, are gone, or moved")

    def placed(self, chart: ProjectionMap, last: ProjectionMap) -> tuple[Vectors, Coordinates]:
        """Vectors and places of the entries that are new, or not where they were."""
        vectors = [np.empty((0, self.sources[0].dimension), np.float32)]
        places = [np.empty((0, 2), np.float32)]
        for number, chunk in self.chunks():
            laid_out = as_laid_out(chunk.upserts.vectors, self.sources[number].metric)
            for one, vector in zip(chunk.upserts.ids, laid_out, strict=True):
                place = chart.get(one)
                if one not in last or (place != last.get(one)).any():
                    vectors.append(vector[None])
                    places.append(place[None])
        return np.concatenate(vectors), np.concatenate(places)
