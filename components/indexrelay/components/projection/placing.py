"""Puts a few entries into the map that is there, and moves no other by a hair.

A layout looks at everything, and so costs what the collection costs; and however it is turned back
onto the last map, entries creep. Most batches change little of what a map shows. So as long as they
came to less than `max_placed` since it was laid out, entries that are new, or whose vector changed,
are placed by its guide (`guiding`), those that went are left out, and all others keep their
coordinates to the last bit. Whether the new places are good is judged before anything is written:
if not, the map is laid out anew.
"""

from contextlib import closing

import numpy as np

from indexrelay.components.continuing import Continued, InFull, inherit_all, told
from indexrelay.components.kind import Built, Job, PreviousVersion
from indexrelay.components.layered_ids import IDS
from indexrelay.components.mapped_array import save_array
from indexrelay.components.projection.batches import Batch, Held, in_two_inputs, read_batch
from indexrelay.components.projection.building import drift_details
from indexrelay.components.projection.fingerprints import DELTA_FINGERPRINTS, FINGERPRINTS
from indexrelay.components.projection.framing import Drift
from indexrelay.components.projection.guiding import LANDMARKS, LINEAR, Guide
from indexrelay.components.projection.layouts import some_threads
from indexrelay.components.projection.parameters import ProjectionParameters
from indexrelay.components.projection.reading import check_alike
from indexrelay.components.projection.served import COORDINATES, Coordinates, ProjectionMap
from indexrelay.components.succession import Succession, succeed

_REACH = 1.0


def extend(job: Job, continued: Continued, parameters: ProjectionParameters) -> Built | InFull:
    """Place what came or changed into the last map.

    Raises:
        UnusableInputError: the collections do not go together.
        DamagedFileError: a file of the previous version is not what was written.
    """
    previous, sources = continued.previous, list(job.collections.values())
    check_alike(sources)
    guide = Guide.open(previous.files, previous.manifest.details)
    if guide is None:
        return InFull("the last map has no landmarks")
    with closing(ProjectionMap.open(previous.files)) as last:
        held = Held.open(last.ids, previous.files, previous.manifest.details)
        most = int(parameters.max_placed * last.ids.layers.base)
        batch = read_batch(held, sources, continued.changes, most=most)
        if batch is None:
            return _outgrown(parameters)
        if batch.empty:
            return inherit_all(previous)
        if in_two_inputs(held, batch):
            return InFull("an entry is in two of the collections")
        next_ = succeed(last.ids, held.inputs, batch.changed)
        if max(len(next_), len(next_.layers.tombstones)) > most:
            return _outgrown(parameters)
        with some_threads(job.threads):
            places = guide.place(batch.vectors)
            verdict = guide.judge(batch.vectors, places)
        if not verdict.passed:
            return InFull(
                f"{verdict.detail} ({verdict.measured:.2f}, at least {verdict.limit:.2f})"
            )
        if np.abs(places).max(initial=0.0) > _REACH:
            return InFull("a new entry lies beyond the edge of the map")
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
            "build": told(None),
            "rescaled": False,
            "placed": len(batch.vectors),
            "inputs": {"base": list(next_.inputs.base), "delta": list(next_.inputs.delta)},
            "drift": drift_details(
                Drift(shared=len(coordinates) - len(batch.vectors), median=0.0, maximum=0.0)
            ),
        },
    )


def _outgrown(parameters: ProjectionParameters) -> InFull:
    return InFull(
        f"more than {parameters.max_placed:.0%} of the map would be placed or gone since it was "
        "laid out (max_placed)"
    )
