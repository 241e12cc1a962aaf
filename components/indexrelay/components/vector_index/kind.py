"""The kind: continue the last version or build anew; judge; open."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from indexrelay.components.continuing import build_either_way
from indexrelay.components.errors import UnbuildableIndexError
from indexrelay.components.inputs import only_collection
from indexrelay.components.kind import Built, Job, Kind, Trial
from indexrelay.components.vector_index.base import BASE
from indexrelay.components.vector_index.delta import DELTA_INDEX
from indexrelay.components.vector_index.extending import extend
from indexrelay.components.vector_index.factory import parse_factory
from indexrelay.components.vector_index.full_build import build_in_full
from indexrelay.components.vector_index.gates import gates
from indexrelay.components.vector_index.gates_of_change import gates_of_change
from indexrelay.components.vector_index.inspection import inspect
from indexrelay.components.vector_index.parameters import AUTO, VectorIndexParameters
from indexrelay.components.vector_index.search import VectorSearch
from indexrelay.components.vector_index.threads import openmp_threads
from indexrelay.components.vector_index.trial import try_factory
from indexrelay.schemas.errors import MissingExtraError
from indexrelay.schemas.settings import CollectionSettings
from indexrelay.schemas.versions import Check


class VectorIndex(Kind[VectorSearch]):
    """A FAISS index over the vectors of one collection, with ids and payloads beside it.

    Under cosine vectors are indexed at unit length. An index without entries is a valid one, and
    finds nothing.
    """

    Parameters = VectorIndexParameters
    preload = ("faiss", "numpy")
    sandboxed = frozenset({BASE, DELTA_INDEX})
    max_inputs = 1
    takes_components = False

    def trial(self, collections: Mapping[str, CollectionSettings]) -> Trial:
        """Whether FAISS can make a named index of vectors of this length, and from when it does."""
        if self._parameters.index == AUTO:
            return Trial()
        factory = parse_factory(self._parameters.index)
        for collection in collections.values():
            try:
                try_factory(factory, dimension=collection.dimension, metric=collection.metric)
            except UnbuildableIndexError as error:
                return Trial(wrong=(str(error),))
            except MissingExtraError:  # a host that only reads settings need not have it
                continue
        if not factory.needed_rows:
            return Trial()
        note = (
            f"{factory.text} is trained on {factory.needed_rows:,} entries; while there are "
            "fewer, a scan (Flat) serves, and the version's details say so"
        )
        return Trial(notes=(note,))

    def build(self, job: Job) -> Built:
        """Write what changed beside the base of the previous version, or everything.

        Raises:
            UnusableInputError: it is not made from one collection, or a vector cannot be indexed.
            UnbuildableIndexError: FAISS refuses the index over these vectors.
            MemoryLimitError: ``max_bytes`` cannot be met.
        """
        only_collection(job)
        return build_either_way(
            job,
            lambda continued: extend(job, continued, self._parameters),
            lambda mode: build_in_full(job, mode, self._parameters),
        )

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:
        """Open the files anew and hold them against the collection: every row, or what changed."""
        with openmp_threads(job.threads):
            if built.extends and job.previous is not None:
                yield from gates_of_change(job, job.previous, built, files, self._parameters)
            else:
                yield from gates(only_collection(job), built, files, self._parameters)

    def load(self, files: Mapping[str, Path]) -> VectorSearch:
        """Map a version for serving.

        Raises:
            DamagedFileError: one of its files is not what was written.
            MissingExtraError: FAISS is not installed.
        """
        served = VectorSearch(files)
        served.warm()
        return served

    def inspect(self, value: Any) -> None:
        """Every row of the indexes, and some queries.

        Raises:
            DamagedFileError: an index is not what a build writes.
        """
        inspect(value)

    def reload(self, files: Mapping[str, Path], previous: Any) -> VectorSearch:
        """`load`, with the base that ``previous`` has open, and warmed by what that was asked."""
        served = VectorSearch(files, previous)
        served.warm(previous)
        return served

    @property
    def _parameters(self) -> VectorIndexParameters:
        return cast("VectorIndexParameters", self.parameters)
