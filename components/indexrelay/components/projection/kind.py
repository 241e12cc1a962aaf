"""The kind: read, lay out, frame, write; and open it again."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from indexrelay.components.errors import UnusableInputError
from indexrelay.components.kind import Built, Job, Kind
from indexrelay.components.projection.framing import frame, measure_drift
from indexrelay.components.projection.gates import judged
from indexrelay.components.projection.layouts import lay_out
from indexrelay.components.projection.parameters import ProjectionParameters
from indexrelay.components.projection.reading import read_points
from indexrelay.components.projection.served import ProjectionMap, write_map
from indexrelay.components.projection.starting import LastMap, look_up
from indexrelay.schemas.versions import Check


class Projection(Kind[ProjectionMap]):
    """A 2-D map of one or several collections, kept still from build to build."""

    Parameters = ProjectionParameters
    preload = ("sklearn.decomposition", "sklearn.manifold", "sklearn.neighbors", "threadpoolctl")

    def build(self, job: Job) -> Built:
        """Lay out all entries.

        Raises:
            UnusableInputError: an input is a component, or the collections do not go together.
        """
        if job.components:
            raise UnusableInputError(
                f"{', '.join(job.components)}: a map is made from collections, not from "
                "components; name in `from` the collections that those are made from"
            )
        points = read_points(job.collections)
        last = _last_map(job, points.ids)
        job.progress(0.1)
        raw = lay_out(points, self._parameters, last, threads=job.threads)
        framed = frame(raw, last)
        job.progress(0.9)
        files = write_map(job.workdir, points.ids, framed.coordinates)
        details: dict[str, Any] = {
            "method": self._parameters.method,
            "unit": framed.unit,
            "rescaled": framed.rescaled,
        }
        if last is not None:
            drift = measure_drift(framed.coordinates, last)
            details["drift"] = {
                "shared": drift.shared,
                "median": drift.median,
                "maximum": drift.maximum,
            }
        job.progress(1.0)
        return Built(files=files, entries=len(points.ids), details=details)

    def verify(
        self,
        job: Job,
        built: Built,  # noqa: ARG002 - the files say it all
        files: Mapping[str, Path],
    ) -> Iterable[Check]:
        """Shows the source, each entry once; finite; in range; not collapsed; trustworthy."""
        chart = self.load(files)
        try:
            yield from judged(
                chart,
                job.collections,
                min_trustworthiness=self._parameters.min_trustworthiness,
                seed=self._parameters.seed,
            )
        finally:
            chart.close()

    def load(self, files: Mapping[str, Path]) -> ProjectionMap:
        """Map both files."""
        return ProjectionMap.open(files)

    @property
    def _parameters(self) -> ProjectionParameters:
        return cast("ProjectionParameters", self.parameters)


def _last_map(job: Job, ids: list[str]) -> LastMap | None:
    if job.previous is None:
        return None
    chart = ProjectionMap.open(job.previous.files)
    try:
        return look_up(chart, job.previous.manifest.details, ids)
    finally:
        chart.close()
