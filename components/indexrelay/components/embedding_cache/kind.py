"""The kind: write what the collection holds or what changed, hold it against the source, map it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from indexrelay.components.continuing import build_either_way
from indexrelay.components.embedding_cache.building import build_in_full, extend
from indexrelay.components.embedding_cache.gates import gates
from indexrelay.components.embedding_cache.parameters import EmbeddingCacheParameters
from indexrelay.components.embedding_cache.served import Embeddings
from indexrelay.components.inputs import only_collection
from indexrelay.components.kind import Built, Job, Kind
from indexrelay.schemas.versions import Check


class EmbeddingCache(Kind[Embeddings]):
    """The vectors of one collection, as they are."""

    Parameters = EmbeddingCacheParameters
    preload = ("numpy",)
    max_inputs = 1
    takes_components = False

    def build(self, job: Job) -> Built:
        """Write what changed beside the base of the previous version, or everything.

        Raises:
            UnusableInputError: it is not made from one collection, or a vector holds NaN or ±inf.
        """
        only_collection(job)
        parameters = cast("EmbeddingCacheParameters", self.parameters)
        return build_either_way(
            job,
            lambda continued: extend(job, continued, parameters),
            lambda mode: build_in_full(job, mode),
        )

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:
        """Open the files anew and hold them against the collection: every row, or what changed."""
        continued = job.previous if built.extends else None
        return gates(only_collection(job), built, files, continued)

    def load(self, files: Mapping[str, Path]) -> Embeddings:
        """Map a version for serving.

        Raises:
            DamagedFileError: one of its files is not what was written.
        """
        served = Embeddings(files)
        served.warm()
        return served
