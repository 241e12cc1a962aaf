"""Builds an index over a whole collection: a new base, and nothing beside it.

Training, adding, tuning and the query sample all need the vectors, in different orders. So the
collection is read once, into files of the work folder. The vectors lie in a mapped ``.npy`` file,
whose pages the kernel may drop from memory. Row numbers are positions in that one pass.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from indexrelay.components.formats.entry_tables import IdTable, PayloadTable
from indexrelay.components.formats.field_columns import FieldColumnsWriter, memory_of_columns
from indexrelay.components.formats.mapped_array import new_mapped_array
from indexrelay.components.kind import Built, Goal, Job
from indexrelay.components.layered import (
    IDS,
    Full,
    build_details,
    numbered_chunks,
    refuse_infinite,
)
from indexrelay.components.matches import fields_in
from indexrelay.components.vector_index.candidates import Candidate
from indexrelay.components.vector_index.delta_lists import has_delta_lists, train_delta_lists
from indexrelay.components.vector_index.index_build import IndexFiles, Progress, try_factory
from indexrelay.components.vector_index.index_search import is_graph, openmp_threads, refusal
from indexrelay.components.vector_index.lookups import VECTORS, write_lookup
from indexrelay.components.vector_index.mapped_index import is_mapped
from indexrelay.components.vector_index.metrics import indexable
from indexrelay.components.vector_index.products import numpy_threads
from indexrelay.components.vector_index.sample import SAMPLE, Dataset, draw_sample
from indexrelay.components.vector_index.selection import decide, soonest
from indexrelay.components.vector_index.sketches import SKETCHES, write_sketches
from indexrelay.components.vector_index.spec import (
    AUTO,
    IndexFacts,
    IndexSpec,
    VectorIndexParameters,
    parse_factory,
)
from indexrelay.components.vector_index.version import (
    BASE,
    FACTS,
    FIELDS,
    PAYLOADS,
    TRAINED,
)
from indexrelay.schemas.filters import Fields
from indexrelay.storage.entries import SourceSnapshot, Vectors

PROVISIONAL: Final = "provisional"
"""Detail of a version whose base was ready soonest: why a better one is worth its time."""
BASE_GENERATION: Final = "base_generation"
"""Detail: the generation of the collection at which the base was built."""


def build_in_full(job: Job, mode: Full, parameters: VectorIndexParameters) -> Built:
    """Read the collection, select an index, build and tune it.

    Raises:
        UnusableInputError: a vector cannot be indexed.
        UnbuildableIndexError: FAISS refuses the index over these vectors.
        MemoryLimitError: ``max_bytes`` cannot be met.
    """
    source, folder = job.collection, job.workdir
    spec = IndexSpec(
        parameters=parameters,
        metric=source.metric,
        dimension=source.dimension,
        count=source.count,
        memory=job.memory,
    )
    if parameters.index != AUTO:  # also while there are too few entries, and a scan serves
        named = parse_factory(parameters.index)
        try_factory(named, dimension=spec.dimension, metric=spec.metric)
    files = IndexFiles(index=folder / BASE, trained=folder / TRAINED)
    job.memory.hold(memory_of_columns(spec.count, parameters.filterable))
    columns = _read_columns(source, folder, parameters.filterable, _part(job, 0.0, 0.3))
    threads = job.free_threads
    with openmp_threads(threads), numpy_threads(threads):
        sample = draw_sample(
            columns.vectors, spec.metric, seed=parameters.seed, progress=_part(job, 0.3, 0.4)
        )
        dataset = Dataset(spec=spec, vectors=columns.vectors, sample=sample)
        quick = soonest(spec) if job.goal is Goal.QUICK else None
        decision = decide(files, dataset, _part(job, 0.4, 0.9), only=quick)
        effort = decision.effort
        refused = refusal(decision.index, effort, sample.vectors[:1])
        if not refused and has_delta_lists(decision.chosen.factory):
            effort = train_delta_lists(files, dataset, effort)
        sketched = None
        if parameters.filterable and (refused or is_graph(decision.index)):
            sketched = write_sketches(
                folder / SKETCHES,
                columns.vectors,
                queries=sample.vectors,
                neighbours=sample.neighbours,
                min_recall=parameters.min_recall,
            )
    sample.save(folder / SAMPLE)
    facts = IndexFacts(
        factory=decision.chosen.factory.text,
        metric=spec.metric,
        dimension=spec.dimension,
        count=spec.count,
        base_bytes=files.index.stat().st_size,
        effort=effort,
        refusal=refused,
        sketched=sketched,
    )
    facts.save(folder / FACTS)
    lookup = write_lookup(decision.index, folder, columns.matrix)
    if columns.matrix not in lookup.values():
        columns.matrix.unlink()
    # An index that cannot be extended, or whose delta is always scanned, never needs it.
    if refused or facts.factory == "Flat":
        files.trained.unlink()
    extra = {TRAINED: files.trained} if files.trained.exists() else {}
    if parameters.filterable:
        extra[FIELDS] = folder / FIELDS
    if sketched is not None:
        extra[SKETCHES] = folder / SKETCHES
    job.progress(1.0)
    written = (BASE, FACTS, IDS, PAYLOADS, SAMPLE)
    return Built(
        files={**{name: folder / name for name in written}, **lookup, **extra},
        entries=spec.count,
        counts={"payloads": columns.payloads},
        details={
            **decision.details(),
            **_provisional(quick, decision.chosen.candidate),
            BASE_GENERATION: source.generation,
            "build": build_details(mode),
            "base": spec.count,
            "delta": 0,
            "tombstones": 0,
            "refusal": refused,
            "mapped": is_mapped(decision.index),
            "seed": parameters.seed,
            **fields_in(parameters.filterable, folder / FIELDS),
        },
    )


def _provisional(quick: Candidate | None, chosen: Candidate) -> dict[str, str]:
    """The mark of a version whose index is ``quick``, the one that is ready soonest."""
    if chosen != quick:
        return {}
    return {PROVISIONAL: f"the first index is the one that is ready soonest: {chosen.reason}"}


@dataclass(frozen=True, slots=True)
class _Columns:
    """A collection in files."""

    vectors: Vectors
    """Mapped, shape ``(count, dimension)``, as `metrics.prepared` makes them."""
    matrix: Path
    """Their file."""
    payloads: int
    """How many entries have a payload."""


def _read_columns(
    source: SourceSnapshot, folder: Path, filterable: Fields, progress: Progress
) -> _Columns:
    """Write vectors, ids, payloads and the columns of filterable fields, a chunk at a time.

    Raises:
        UnusableInputError: a vector cannot be indexed (NaN, infinity, zero under cosine), or the
            source gave another number of entries than it says it has.
    """
    matrix, with_payload = folder / VECTORS, 0
    fields = FieldColumnsWriter(filterable)
    vectors = new_mapped_array(matrix, (source.count, source.dimension), np.float32)
    with (
        IdTable.writer(folder / IDS) as ids,
        PayloadTable.writer(folder / PAYLOADS) as payloads,
    ):
        for first, chunk in numbered_chunks(source):
            end = first + len(chunk)
            refuse_infinite(chunk)
            vectors[first:end] = indexable(chunk, source.metric)
            ids.extend(chunk.ids)
            payloads.extend(chunk.payloads)
            if filterable:
                fields.extend(first, chunk.payloads)
            with_payload += len(chunk) - chunk.payloads.count(None)
            progress(end / source.count)
    vectors.flush()
    if filterable:
        fields.write(folder / FIELDS, source.count)
    return _Columns(vectors, matrix, with_payload)


def _part(job: Job, start: float, end: float) -> Callable[[float], None]:
    """Progress of one step, as progress of the whole."""
    return lambda share: job.progress(start + (end - start) * share)
