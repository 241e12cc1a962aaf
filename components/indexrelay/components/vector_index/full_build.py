"""Builds an index over a whole collection: a new base, and nothing beside it."""

from collections.abc import Callable

from indexrelay.components.kind import Built, Job
from indexrelay.components.layered.build import Full, build_details
from indexrelay.components.layered.layers import IDS
from indexrelay.components.vector_index.factory import parse_factory
from indexrelay.components.vector_index.index_build import require_buildable
from indexrelay.components.vector_index.index_search import openmp_threads, refusal
from indexrelay.components.vector_index.mapped_index import is_mapped
from indexrelay.components.vector_index.parameters import AUTO, VectorIndexParameters
from indexrelay.components.vector_index.reading import PAYLOADS, read_columns
from indexrelay.components.vector_index.sample import SAMPLE, draw_sample
from indexrelay.components.vector_index.selection import decide
from indexrelay.components.vector_index.spec import IndexFacts
from indexrelay.components.vector_index.version import BASE, FACTS, TRAINED, write_lookup


def build_in_full(job: Job, mode: Full, parameters: VectorIndexParameters) -> Built:
    """Read the collection, choose, build, tune.

    Raises:
        UnusableInputError: a vector cannot be indexed.
        UnbuildableIndexError: FAISS refuses the index over these vectors.
        MemoryLimitError: ``max_bytes`` cannot be met.
    """
    snapshot = job.collection
    metric = snapshot.metric
    if parameters.index != AUTO:  # also while there are too few entries, and a scan serves
        asked = parse_factory(parameters.index)
        require_buildable(asked, dimension=snapshot.dimension, metric=metric)
    base, trained, sample_file, facts_file = (
        job.workdir / name for name in (BASE, TRAINED, SAMPLE, FACTS)
    )
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
            trained=trained,
            memory=job.memory,
        )
        index = decision.index
        refused = refusal(index, decision.effort, sample.vectors[:1])
    sample.save(sample_file)
    facts = IndexFacts(
        factory=decision.chosen.choice.factory.text,
        metric=metric,
        dimension=snapshot.dimension,
        count=snapshot.count,
        base_bytes=base.stat().st_size,
        effort=decision.effort,
        refusal=refused,
    )
    facts.save(facts_file)
    lookup = write_lookup(index, job.workdir, columns.matrix)
    if columns.matrix not in lookup.values():
        columns.matrix.unlink()
    # What cannot be extended, or is scanned however many rows there are, has no use for it.
    extra = {} if refused or facts.factory == "Flat" else {TRAINED: trained}
    if not extra:
        trained.unlink()
    job.progress(1.0)
    return Built(
        files={
            BASE: base,
            FACTS: facts_file,
            IDS: columns.ids,
            PAYLOADS: columns.payloads,
            SAMPLE: sample_file,
            **lookup,
            **extra,
        },
        entries=snapshot.count,
        counts={"payloads": columns.with_payload},
        details={
            **decision.details(),
            "build": build_details(mode),
            "base": snapshot.count,
            "delta": 0,
            "tombstones": 0,
            "refusal": refused,
            "mapped": is_mapped(index),
            "seed": parameters.seed,
        },
    )


def _part(job: Job, start: float, end: float) -> Callable[[float], None]:
    """Progress of one step, as progress of the whole."""
    return lambda share: job.progress(start + (end - start) * share)
