"""The kind: write what the collection holds, hold it against the collection, map it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from indexrelay.components.embedding_cache.gates import gates
from indexrelay.components.embedding_cache.served import IDS, MATRIX, Embeddings
from indexrelay.components.id_table import IdTable
from indexrelay.components.inputs import numbered_chunks, only_collection, refuse_infinite
from indexrelay.components.kind import Built, Job, Kind
from indexrelay.schemas.versions import Check


class EmbeddingCache(Kind[Embeddings]):
    """The vectors of one collection, as they are."""

    preload = ("numpy",)
    max_inputs = 1

    def build(self, job: Job) -> Built:
        """Write matrix and ids in one pass.

        Raises:
            UnusableInputError: it is not made from one collection, or a vector holds NaN or ±inf.
        """
        source = only_collection(job)
        files = {MATRIX: job.workdir / MATRIX, IDS: job.workdir / IDS}
        shape = (source.count, source.dimension)
        matrix = open_memmap(files[MATRIX], mode="w+", dtype=np.float32, shape=shape)
        with IdTable.writer(files[IDS]) as ids:
            for first, chunk in numbered_chunks(source):
                refuse_infinite(chunk)
                matrix[first : first + len(chunk)] = chunk.vectors
                ids.extend(chunk.ids)
                job.progress((first + len(chunk)) / source.count)
        matrix.flush()
        return Built(files=files, entries=source.count)

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:
        """Open the files anew and hold every row against the collection."""
        return gates(only_collection(job), built, files)

    def load(self, files: Mapping[str, Path]) -> Embeddings:
        """Map a version for serving.

        Raises:
            DamagedFileError: one of its files is not what was written.
        """
        served = Embeddings(files)
        served.warm()
        return served
