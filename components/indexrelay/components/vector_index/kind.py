"""The kind: read the collection, choose, build, tune; judge; open."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import cast

from indexrelay.components.inputs import only_collection
from indexrelay.components.kind import Built, Job, Kind
from indexrelay.components.vector_index.deciding import decide
from indexrelay.components.vector_index.facts import IndexFacts
from indexrelay.components.vector_index.gates import gates
from indexrelay.components.vector_index.lookup import write_lookup
from indexrelay.components.vector_index.opening import is_mapped
from indexrelay.components.vector_index.parameters import VectorIndexParameters
from indexrelay.components.vector_index.reading import IDS, PAYLOADS, read_columns
from indexrelay.components.vector_index.sample import SAMPLE, draw_sample
from indexrelay.components.vector_index.search import BASE, FACTS, VectorSearch
from indexrelay.components.vector_index.threads import openmp_threads
from indexrelay.schemas.versions import Check


class VectorIndex(Kind[VectorSearch]):
    """A FAISS index over the vectors of one collection, with ids and payloads beside it.

    Under cosine vectors are indexed at unit length. An index without entries is a valid one, and
    finds nothing.
    """

    Parameters = VectorIndexParameters
    preload = ("faiss", "numpy")
    max_inputs = 1

    def build(self, job: Job) -> Built:
        """Write a new index.

        Raises:
            UnusableInputError: it is not made from one collection, or a vector cannot be indexed.
            UnbuildableIndexError: FAISS refuses the index over these vectors.
            MemoryLimitError: ``max_bytes`` cannot be met.
        """
        parameters, snapshot = self._parameters, only_collection(job)
        metric = snapshot.metric
        base, sample_file, facts_file = (job.workdir / n for n in (BASE, SAMPLE, FACTS))
        with openmp_threads(job.threads):
            columns = read_columns(snapshot, job.workdir, progress=_part(job, 0.0, 0.3))
            sample = draw_sample(
                columns.vectors, metric, seed=parameters.seed, progress=_part(job, 0.3, 0.4)
            )
            decision = decide(
                base,
                columns.vectors,
                metric,
                parameters,
                sample=sample,
                progress=_part(job, 0.4, 0.9),
            )
        index = decision.index
        sample.save(sample_file)
        IndexFacts(
            factory=decision.chosen.choice.factory.text,
            metric=metric,
            dimension=snapshot.dimension,
            count=snapshot.count,
            base_bytes=base.stat().st_size,
            effort=decision.effort,
        ).save(facts_file)
        lookup = write_lookup(index, job.workdir, columns.matrix)
        if columns.matrix not in lookup.values():
            columns.matrix.unlink()
        job.progress(1.0)
        return Built(
            files={
                BASE: base,
                FACTS: facts_file,
                IDS: columns.ids,
                PAYLOADS: columns.payloads,
                SAMPLE: sample_file,
                **lookup,
            },
            entries=snapshot.count,
            details={
                **decision.details(),
                "mapped": is_mapped(index),
                "seed": parameters.seed,
            },
        )

    def verify(self, job: Job, built: Built, files: Mapping[str, Path]) -> Iterable[Check]:
        """Open the files anew and hold them against the collection."""
        with openmp_threads(job.threads):
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

    @property
    def _parameters(self) -> VectorIndexParameters:
        return cast("VectorIndexParameters", self.parameters)


def _part(job: Job, start: float, end: float) -> Callable[[float], None]:
    """Progress of one step, as progress of the whole."""
    return lambda share: job.progress(start + (end - start) * share)
