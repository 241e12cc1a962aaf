"""A map: two coordinates for each entry of a collection, or of several.

People learn their way around in a map, so a rebuild must not move it. A small batch does not: its
entries are placed into the map that is there, and nothing else moves at all
(`build`). Only when a tenth has changed, or new entries resemble nothing on it, everything is
laid out from scratch, and then three things keep it still (`layout`):

* **The start.** t-SNE begins from the last map's coordinates; an entry that is new begins at the
  mean of its nearest neighbours that are on that map.
* **The frame.** Whatever the method did, the result is turned, mirrored and moved onto the last
  map by the entries that both show, and keeps its scale. Principal axes may flip their
  sign from one build to the next; the map does not.
* **The range.** Coordinates lie in [-1, 1]. A new map fills 80 % of that, and is only scaled again
  when it has outgrown the range or shrunk below half of where it began.

What moved all the same is measured and recorded as ``drift``.
"""

from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np

from indexrelay.components.errors import CorruptFileError, UnusableInputError
from indexrelay.components.kind import Built, Job, Kind
from indexrelay.components.layered.build import incremental_or_full
from indexrelay.components.projection.build import build_in_full, extend
from indexrelay.components.projection.gates import full_gates, incremental_gates
from indexrelay.components.projection.layout import ProjectionParameters
from indexrelay.components.projection.map import COORDINATES, ProjectionMap
from indexrelay.schemas.versions import Check

__all__ = ["Projection", "ProjectionMap", "ProjectionParameters"]


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
            lambda increment: extend(job, increment, self.parameters),
            lambda full: build_in_full(job, self.parameters, full),
        )

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:
        """Shows the source, each entry once; finite; in range; not collapsed; trustworthy."""
        with closing(ProjectionMap.open(files)) as chart:
            if built.extends and job.previous is not None:
                yield from incremental_gates(chart, job, built, job.previous, files)
            else:
                yield from full_gates(
                    chart,
                    job.collections,
                    min_trustworthiness=self.parameters.min_trustworthiness,
                    seed=self.parameters.seed,
                )

    def load(self, files: Mapping[str, Path]) -> ProjectionMap:
        """Map the files of a version, and touch every coordinate, as a first look would.

        Raises:
            CorruptFileError: one of them is not what was written.
        """
        chart = ProjectionMap.open(files)
        if not np.isfinite(chart.coordinates).all():  # a sum of infinities makes NumPy warn
            chart.close()
            raise CorruptFileError(files[COORDINATES], "a coordinate is no number")
        return chart
