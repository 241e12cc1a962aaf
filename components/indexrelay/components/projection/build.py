"""Builds a map: a full layout, or a few entries placed into the map that is there.

A layout looks at everything and so costs what the collection costs, and entries creep with it. As
long as less than `max_placed` has changed since the layout, entries that are new, or whose vector
changed, are placed by the guide (`guide`), deleted ones are left out, and all others keep their
coordinates to the last bit. A map keeps no vectors, only 8 bytes of a hash of each, so that an
entry with a new payload and the same vector stays where it is. New places are checked before
anything is written: if they are bad, the map is laid out from scratch.
"""

import functools
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.formats.entry_tables import IdTable
from indexrelay.components.formats.mapped_array import mapped_array, save_array
from indexrelay.components.kind import Built, Job, PreviousVersion
from indexrelay.components.layered.build import (
    Batch,
    Full,
    Increment,
    LayerLimits,
    build_details,
    inherit_all,
    read_batch,
)
from indexrelay.components.layered.layers import IDS, LayeredIds
from indexrelay.components.layered.succession import InputRows, Succession, succeed
from indexrelay.components.projection.guide import LANDMARKS, LINEAR, Guide, guide_of
from indexrelay.components.projection.layout import (
    Drift,
    LastMap,
    ProjectionParameters,
    as_laid_out,
    check_alike,
    frame,
    lay_out,
    look_up,
    measure_drift,
    read_points,
    some_threads,
)
from indexrelay.components.projection.map import COORDINATES, Coordinates, ProjectionMap
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Entries, SourceSnapshot, Vectors

FINGERPRINTS: Final = "fingerprints.npy"
"""Of the entries that the map was laid out from."""
DELTA_FINGERPRINTS: Final = "delta_fingerprints.npy"
"""Of those that were placed since."""

Fingerprints = NDArray[np.uint64]

_REACH: Final = 1.0
_OF_THE_LAYOUT: Final = (IDS, FINGERPRINTS, LANDMARKS, LINEAR)
"""Files that a map keeps from its layout on."""


def build_in_full(job: Job, parameters: ProjectionParameters, full: Full) -> Built:
    """Lay all entries out, beginning from the last map where there is one.

    Raises:
        UnusableInputError: the collections do not go together.
    """
    points = read_points(job.collections)
    last = _last_map(job, points.ids)
    job.progress(0.1)
    layout = lay_out(points, parameters, last, threads=job.threads)
    framed = frame(layout.raw, last)
    guide = guide_of(points, layout, framed.framing, framed.coordinates, seed=parameters.seed)
    job.progress(0.9)
    names = (COORDINATES, IDS, FINGERPRINTS)
    files = {name: job.workdir / name for name in names}
    save_array(files[COORDINATES], framed.coordinates)
    save_array(files[FINGERPRINTS], fingerprints(points.vectors))
    IdTable.write(files[IDS], points.ids).close()
    details: dict[str, Any] = {
        "build": build_details(full),
        "method": parameters.method,
        "unit": framed.unit,
        "rescaled": framed.rescaled,
        "guide": guide.details,
        "inputs": {
            "base": [snapshot.count for snapshot in job.collections.values()],
            "delta": [0] * len(job.collections),
        },
    }
    if last is not None:
        details["drift"] = measure_drift(framed.coordinates, last).details
    job.progress(1.0)
    return Built(
        files={**files, **guide.write(job.workdir)}, entries=len(points.ids), details=details
    )


def _last_map(job: Job, ids: list[str]) -> LastMap | None:
    if job.previous is None:
        return None
    try:
        chart = ProjectionMap.open(job.previous.files)
    except CorruptFileError:
        return None  # a map that cannot be read keeps nothing still, and is no reason to have none
    with closing(chart):
        return look_up(chart, job.previous.manifest.details, ids)


def extend(job: Job, increment: Increment, parameters: ProjectionParameters) -> Built | Full:
    """Place what came or changed into the last map.

    Raises:
        UnusableInputError: the collections do not go together.
        CorruptFileError: a file of the previous version is not what was written.
    """
    previous, sources = increment.previous, list(job.collections.values())
    check_alike(sources)
    guide = Guide.open(previous.files, previous.manifest.details)
    if guide is None:
        return Full("the last map has no landmarks")
    limits = LayerLimits(
        delta=parameters.max_placed,
        tombstones=parameters.max_placed,
        delta_key="max_placed",
        tombstones_key="max_placed",
    )
    with closing(ProjectionMap.open(previous.files)) as last:
        rows = MapRows.open(last.ids, previous.files, previous.manifest.details)
        batches = _read_batches(rows, sources, increment, limits)
        if batches is None:
            return limits.too_many_changes
        if all(batch.empty for batch in batches):
            return inherit_all(previous)
        if _in_two_inputs(rows, batches):
            return Full("an entry is in two of the collections")
        next_ = succeed(last.ids, rows.inputs, [batch.ids for batch in batches])
        outgrown = limits.outgrown(next_.layers)
        if outgrown is not None:
            return outgrown
        vectors = np.concatenate([batch.upserts.vectors for batch in batches])
        with some_threads(job.threads):
            places = guide.place(vectors)
            verdict = guide.judge(vectors, places)
        if not verdict.passed:
            return Full(f"{verdict.detail} ({verdict.measured:.2f}, at least {verdict.limit:.2f})")
        if np.abs(places).max(initial=0.0) > _REACH:
            return Full("a new entry lies beyond the edge of the map")
        arrays: dict[str, NDArray[Any]] = {
            COORDINATES: _coordinates(last, next_, places),
            DELTA_FINGERPRINTS: next_.column(rows.delta, fingerprints(vectors)),
        }
        for name, array in arrays.items():
            save_array(job.workdir / name, array)
        job.progress(1.0)
        return _placed(job, previous, next_, list(arrays), placed=len(vectors))


def _read_batches(
    rows: "MapRows", sources: Sequence[SourceSnapshot], increment: Increment, limits: LayerLimits
) -> list[Batch] | None:
    """What changed in each input; ``None`` once that is more than can be placed."""
    batches: list[Batch] = []
    left = limits.most_changes(rows.ids.layers)
    for number, source in enumerate(sources):
        batch = read_batch(
            source,
            increment.changes[source.collection],
            known=_IdsOfInput(rows, number),
            differing=functools.partial(rows.differing, number),
            most=left,
            prepare=functools.partial(_laid_out, metric=source.metric),
        )
        if batch is None:
            return None
        left -= len(batch.upserts) + len(batch.deletes)
        batches.append(batch)
    return batches


def _laid_out(entries: Entries, metric: Metric) -> Entries:
    return replace(entries, vectors=as_laid_out(entries.vectors, metric))


def _coordinates(last: ProjectionMap, next_: Succession, places: Coordinates) -> Coordinates:
    """All places, in the order of the next version's rows."""
    before, after = last.ids.layers, next_.layers
    coordinates = np.empty((len(after), 2), np.float32)
    rows = after.live_base_rows
    coordinates[after.base_positions(rows)] = last.coordinates[before.base_positions(rows)]
    last_delta = last.coordinates[before.delta_positions(before.delta_rows)]
    coordinates[after.delta_positions(after.delta_rows)] = next_.column(last_delta, places)
    return coordinates


def _placed(
    job: Job, previous: PreviousVersion, next_: Succession, arrays: Sequence[str], *, placed: int
) -> Built:
    """The version whose ``arrays`` were written, with the layout's own files of the last one."""
    files, details = previous.manifest.files, previous.manifest.details
    count = len(next_.layers)
    return Built(
        files={
            **{name: files[name] for name in _OF_THE_LAYOUT if name in files},
            **next_.write(job.workdir),
            **{name: job.workdir / name for name in arrays},
        },
        entries=count,
        extends=True,
        details={
            **{name: details[name] for name in ("method", "unit", "guide")},
            "build": build_details(None),
            "rescaled": False,
            "placed": placed,
            "inputs": {"base": list(next_.inputs.base), "delta": list(next_.inputs.delta)},
            "drift": Drift(shared=count - placed, median=0.0, maximum=0.0).details,
        },
    )


@dataclass(frozen=True, kw_only=True)
class MapRows:
    """What a map holds of each entry: its input, and a fingerprint of its vector."""

    ids: LayeredIds
    base: Fingerprints
    delta: Fingerprints
    inputs: InputRows

    @classmethod
    def open(
        cls, ids: LayeredIds, files: Mapping[str, Path], details: Mapping[str, Any]
    ) -> "MapRows":
        """Those of a version with these files, details, and ids.

        Raises:
            CorruptFileError: a file is not what was written.
        """
        delta = np.empty(0, np.uint64)
        if DELTA_FINGERPRINTS in files:
            rows = len(ids.layers.places)
            delta = mapped_array(files[DELTA_FINGERPRINTS], (rows,), np.uint64)
        return cls(
            ids=ids,
            base=mapped_array(files[FINGERPRINTS], (ids.layers.base,), np.uint64),
            delta=delta,
            inputs=InputRows(
                base=tuple(details["inputs"]["base"]), delta=tuple(details["inputs"]["delta"])
            ),
        )

    def state(self, entry_id: str) -> tuple[int, int] | None:
        """The input that an entry is of, and its fingerprint; ``None``: it is not on the map."""
        found = self.ids.find(entry_id)
        if found is None:
            return None
        counts = self.inputs.delta if found.in_delta else self.inputs.base
        layer = self.delta if found.in_delta else self.base
        number = np.searchsorted(np.cumsum(counts), found.row, side="right")
        return int(number), int(layer[found.row])

    def differing(self, number: int, entries: Entries) -> list[int]:
        """The rows of ``entries``, of input ``number``, that are not as this map has them."""
        states = zip(entries.ids, fingerprints(entries.vectors).tolist(), strict=True)
        return [row for row, (one, mark) in enumerate(states) if self.state(one) != (number, mark)]


@dataclass(frozen=True, slots=True)
class _IdsOfInput:
    """The ids of one input, to look into."""

    rows: MapRows
    number: int

    def __contains__(self, entry_id: object) -> bool:
        state = self.rows.state(entry_id) if isinstance(entry_id, str) else None
        return state is not None and state[0] == self.number


def _in_two_inputs(rows: MapRows, batches: Sequence[Batch]) -> bool:
    """Whether an entry that came is in another input as well."""
    seen: set[str] = set()
    for number, one in enumerate(batches):
        for entry_id in one.upserts.ids:
            there, _ = rows.state(entry_id) or (number, 0)
            leaves = there != number and entry_id in batches[there].deletes
            if entry_id in seen or (there != number and not leaves):
                return True
            seen.add(entry_id)
    return False


def fingerprints(vectors: Vectors) -> Fingerprints:
    """One for each row of ``vectors``, shape ``(n,)``; a microsecond each."""
    digests = (
        blake2b(row, digest_size=8).digest() for row in np.ascontiguousarray(vectors, dtype="<f4")
    )
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)
