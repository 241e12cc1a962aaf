"""Builds a map: a full layout, or a few entries placed into the map that is there.

A layout looks at everything and so costs what the collection costs, and entries creep with it. As
long as less than `max_placed` has changed since the layout, entries that are new, or whose vector
changed, are placed by the guide (`guide`), deleted ones are left out, and all others keep their
coordinates to the last bit. A map keeps no vectors, only 8 bytes of a hash of each, so that an
entry with a new payload and the same vector stays where it is. New places are checked before
anything is written: if they are bad, the map is laid out from scratch.
"""

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.errors import DamagedFileError
from indexrelay.components.formats.id_table import IdTable
from indexrelay.components.formats.mapped_array import mapped_array, save_array
from indexrelay.components.kind import Built, Job, PreviousVersion
from indexrelay.components.layered.build import Full, Increment, build_details, inherit_all
from indexrelay.components.layered.layers import IDS, LayeredIds
from indexrelay.components.layered.succession import ChangedIds, InputRows, Succession, succeed
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
from indexrelay.storage.entries import Changes, SourceSnapshot, Vectors

FINGERPRINTS: Final = "fingerprints.npy"
"""Of the entries that the map was laid out from."""
DELTA_FINGERPRINTS: Final = "delta_fingerprints.npy"
"""Of those that were placed since."""

Fingerprints = NDArray[np.uint64]


def fingerprints(vectors: Vectors) -> Fingerprints:
    """One for each row of ``vectors``, shape ``(n,)``; a microsecond each."""
    digests = (
        blake2b(row, digest_size=8).digest() for row in np.ascontiguousarray(vectors, dtype="<f4")
    )
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What changed in all inputs."""

    changed: tuple[ChangedIds, ...]
    """For each input."""
    vectors: Vectors
    """Of all upserts, input after input, as they are laid out."""
    fingerprints: Fingerprints
    """Of the same."""

    @property
    def empty(self) -> bool:
        """Whether the map stays what it is."""
        return not any(one.upserts or one.deletes for one in self.changed)


@dataclass(frozen=True, kw_only=True)
class Held:
    """What the last map holds."""

    ids: LayeredIds
    base: Fingerprints
    delta: Fingerprints
    inputs: InputRows

    @classmethod
    def open(cls, ids: LayeredIds, files: Mapping[str, Path], details: Mapping[str, Any]) -> "Held":
        """That of a version with these files, details, and ids.

        Raises:
            DamagedFileError: a file is not what was written.
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


def read_batch(
    held: Held,
    collections: Iterable[SourceSnapshot],
    changes: Mapping[str, Iterable[Changes]],
    *,
    most: int,
) -> Batch | None:
    """Read ``changes``; ``None`` once more than ``most`` entries are to be placed."""
    changed: list[ChangedIds] = []
    vectors: list[Vectors] = []
    prints: list[Fingerprints] = [np.empty(0, np.uint64)]
    placed = 0
    for number, source in enumerate(collections):
        vectors.append(np.empty((0, source.dimension), np.float32))
        upserts: list[str] = []
        deletes: list[str] = []
        for chunk in changes[source.collection]:
            given = as_laid_out(chunk.upserts.vectors, source.metric)
            new = fingerprints(given)
            states = zip(chunk.upserts.ids, new.tolist(), strict=True)
            rows = [
                row for row, (one, mark) in enumerate(states) if held.state(one) != (number, mark)
            ]
            upserts += (chunk.upserts.ids[row] for row in rows)
            vectors.append(given[rows])
            prints.append(new[rows])
            deletes += (one for one in chunk.deletes if (held.state(one) or (-1,))[0] == number)
            if placed + len(upserts) > most:
                return None
        placed += len(upserts)
        changed.append(ChangedIds(upserts=upserts, deletes=deletes))
    return Batch(
        changed=tuple(changed),
        vectors=np.concatenate(vectors),
        fingerprints=np.concatenate(prints),
    )


def in_two_inputs(held: Held, batch: Batch) -> bool:
    """Whether an entry that came is in another input as well."""
    seen: set[str] = set()
    for number, one in enumerate(batch.changed):
        for entry_id in one.upserts:
            there, _ = held.state(entry_id) or (number, 0)
            leaves = there != number and entry_id in batch.changed[there].deletes
            if entry_id in seen or (there != number and not leaves):
                return True
            seen.add(entry_id)
    return False


def build_in_full(job: Job, parameters: ProjectionParameters, mode: Full) -> Built:
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
        "build": build_details(mode),
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
        details["drift"] = drift_details(measure_drift(framed.coordinates, last))
    job.progress(1.0)
    return Built(
        files={**files, **guide.write(job.workdir)}, entries=len(points.ids), details=details
    )


def drift_details(drift: Drift) -> dict[str, Any]:
    """How far entries moved, for the version's details."""
    return {"shared": drift.shared, "median": drift.median, "maximum": drift.maximum}


def _last_map(job: Job, ids: list[str]) -> LastMap | None:
    if job.previous is None:
        return None
    try:
        chart = ProjectionMap.open(job.previous.files)
    except DamagedFileError:
        return None  # a map that cannot be read keeps nothing still, and is no reason to have none
    with closing(chart):
        return look_up(chart, job.previous.manifest.details, ids)


_REACH = 1.0


def extend(job: Job, continued: Increment, parameters: ProjectionParameters) -> Built | Full:
    """Place what came or changed into the last map.

    Raises:
        UnusableInputError: the collections do not go together.
        DamagedFileError: a file of the previous version is not what was written.
    """
    previous, sources = continued.previous, list(job.collections.values())
    check_alike(sources)
    guide = Guide.open(previous.files, previous.manifest.details)
    if guide is None:
        return Full("the last map has no landmarks")
    with closing(ProjectionMap.open(previous.files)) as last:
        held = Held.open(last.ids, previous.files, previous.manifest.details)
        most = int(parameters.max_placed * last.ids.layers.base)
        batch = read_batch(held, sources, continued.changes, most=most)
        if batch is None:
            return _outgrown(parameters)
        if batch.empty:
            return inherit_all(previous)
        if in_two_inputs(held, batch):
            return Full("an entry is in two of the collections")
        next_ = succeed(last.ids, held.inputs, batch.changed)
        if max(len(next_), len(next_.layers.tombstones)) > most:
            return _outgrown(parameters)
        with some_threads(job.threads):
            places = guide.place(batch.vectors)
            verdict = guide.judge(batch.vectors, places)
        if not verdict.passed:
            return Full(f"{verdict.detail} ({verdict.measured:.2f}, at least {verdict.limit:.2f})")
        if np.abs(places).max(initial=0.0) > _REACH:
            return Full("a new entry lies beyond the edge of the map")
        coordinates = _coordinates(last, next_, places)
        return _written(job, previous, held, batch, next_, coordinates)


def _coordinates(last: ProjectionMap, next_: Succession, places: Coordinates) -> Coordinates:
    """All places, in the order of the next version's rows."""
    before, after = last.ids.layers, next_.layers
    coordinates = np.empty((len(after), 2), np.float32)
    rows = after.live_base_rows
    coordinates[after.base_positions(rows)] = last.coordinates[before.base_positions(rows)]
    last_delta = last.coordinates[before.delta_positions(before.delta_rows)]
    coordinates[after.delta_positions(after.delta_rows)] = next_.column(last_delta, places)
    return coordinates


def _written(
    job: Job,
    previous: PreviousVersion,
    held: Held,
    batch: Batch,
    next_: Succession,
    coordinates: Coordinates,
) -> Built:
    prints = next_.column(held.delta, batch.fingerprints)
    save_array(job.workdir / COORDINATES, coordinates)
    save_array(job.workdir / DELTA_FINGERPRINTS, prints)
    same = (IDS, FINGERPRINTS, LANDMARKS, LINEAR)
    files = previous.manifest.files
    details = previous.manifest.details
    job.progress(1.0)
    return Built(
        files={
            **{name: files[name] for name in same if name in files},
            **next_.write(job.workdir),
            COORDINATES: job.workdir / COORDINATES,
            DELTA_FINGERPRINTS: job.workdir / DELTA_FINGERPRINTS,
        },
        entries=len(coordinates),
        extends=True,
        details={
            **{name: details[name] for name in ("method", "unit", "guide")},
            "build": build_details(None),
            "rescaled": False,
            "placed": len(batch.vectors),
            "inputs": {"base": list(next_.inputs.base), "delta": list(next_.inputs.delta)},
            "drift": drift_details(
                Drift(shared=len(coordinates) - len(batch.vectors), median=0.0, maximum=0.0)
            ),
        },
    )


def _outgrown(parameters: ProjectionParameters) -> Full:
    return Full(
        f"more than {parameters.max_placed:.0%} of the map would be placed or gone since it was "
        "laid out (max_placed)"
    )
