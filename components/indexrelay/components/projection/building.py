"""Writes a map of which all is laid out, beginning from the last one where there is one."""

from contextlib import closing
from typing import Any

from indexrelay.components.continuing import InFull, told
from indexrelay.components.errors import DamagedFileError
from indexrelay.components.id_table import IdTable
from indexrelay.components.kind import Built, Job
from indexrelay.components.layered_ids import IDS
from indexrelay.components.mapped_array import save_array
from indexrelay.components.projection.fingerprints import FINGERPRINTS, fingerprints
from indexrelay.components.projection.framing import Drift, frame, measure_drift
from indexrelay.components.projection.guiding import guide_of
from indexrelay.components.projection.layouts import lay_out
from indexrelay.components.projection.parameters import ProjectionParameters
from indexrelay.components.projection.reading import read_points
from indexrelay.components.projection.served import COORDINATES, ProjectionMap
from indexrelay.components.projection.starting import LastMap, look_up


def build_in_full(job: Job, parameters: ProjectionParameters, mode: InFull) -> Built:
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
        "build": told(mode),
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
