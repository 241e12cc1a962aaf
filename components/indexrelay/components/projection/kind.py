"""The kind: lay out and frame, or place into the last map; judge it; open it again."""

from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np

from indexrelay.components.errors import DamagedFileError, UnusableInputError
from indexrelay.components.kind import Built, Job, Kind
from indexrelay.components.layered.build import incremental_or_full
from indexrelay.components.projection.build import build_in_full, extend
from indexrelay.components.projection.gates import judged, judged_placing
from indexrelay.components.projection.layout import ProjectionParameters
from indexrelay.components.projection.map import COORDINATES, ProjectionMap
from indexrelay.schemas.versions import Check


class Projection(Kind[ProjectionParameters, ProjectionMap]):
    """A 2-D map of one or several collections, kept still from build to build."""

    takes_components = False
    preload = ("sklearn.decomposition", "sklearn.manifold", "sklearn.neighbors", "threadpoolctl")

    def build(self, job: Job) -> Built:
        """Place what changed into the last map, or lay all entries out.

        Raises:
            UnusableInputError: an input is a component, or the collections do not go together.
        """
        if job.components:
            raise UnusableInputError(
                f"{', '.join(job.components)}: a map is made from collections, not from "
                "components; name in `from` the collections that those are made from"
            )
        return incremental_or_full(
            job,
            lambda continued: extend(job, continued, self.parameters),
            lambda mode: build_in_full(job, self.parameters, mode),
        )

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:
        """Shows the source, each entry once; finite; in range; not collapsed; trustworthy."""
        with closing(ProjectionMap.open(files)) as chart:
            if built.extends and job.previous is not None:
                yield from judged_placing(chart, job, built, job.previous, files)
            else:
                yield from judged(
                    chart,
                    job.collections,
                    min_trustworthiness=self.parameters.min_trustworthiness,
                    seed=self.parameters.seed,
                )

    def load(self, files: Mapping[str, Path]) -> ProjectionMap:
        """Map the files of a version.

        Raises:
            DamagedFileError: one of them is not what was written.
        """
        chart = ProjectionMap.open(files)
        if not np.isfinite(chart.coordinates.sum()):  # far beyond [-1, 1] it is no number either
            chart.close()
            raise DamagedFileError(files[COORDINATES], "a coordinate is no number")
        return chart
