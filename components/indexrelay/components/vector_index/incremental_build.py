"""Continues the last version: names its base again, and writes delta and tombstones beside it.

Of a batch only what differs from the last version counts. The new delta is the last one with the
batch applied, so it holds every entry that came or changed since the base, once. Rows of the last
delta keep their vector, their payload and their inverted list. The cost of writing follows the size
of the delta, and only the batch is looked up in the base. When delta or tombstones have grown
beyond their limits, the build is a full one instead.
"""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from indexrelay.components.errors import UnbuildableIndexError
from indexrelay.components.formats.entry_tables import PayloadTable
from indexrelay.components.formats.field_columns import FieldColumnsWriter
from indexrelay.components.formats.string_table import Rows
from indexrelay.components.kind import Built, Goal, Job
from indexrelay.components.layered import (
    Batch,
    Full,
    Increment,
    InputRows,
    LayerLimits,
    Succession,
    build_details,
    inherit_all,
    read_batch,
    succeed,
)
from indexrelay.components.vector_index.delta_lists import is_indexed
from indexrelay.components.vector_index.index_build import add_to_lists
from indexrelay.components.vector_index.index_search import (
    lists_of_rows,
    openmp_threads,
    share_lists,
)
from indexrelay.components.vector_index.mapped_index import require_faiss
from indexrelay.components.vector_index.metrics import indexable
from indexrelay.components.vector_index.sample import SAMPLE, Moves, QuerySample, carry
from indexrelay.components.vector_index.selection import soonest
from indexrelay.components.vector_index.spec import (
    DeltaFacts,
    IndexFacts,
    IndexSpec,
    VectorIndexParameters,
)
from indexrelay.components.vector_index.version import (
    BASE_FILES,
    DELTA_FIELDS,
    DELTA_INDEX,
    DELTA_PAYLOADS,
    DELTA_VECTORS,
    FACTS,
    TRAINED,
    Contents,
    Delta,
)
from indexrelay.storage.entries import Vectors

OUTGROWN: Final = "outgrown"
"""Detail of a version whose delta or tombstones are larger than their limits: which, and by how
much."""
_PATIENCE: Final = 2
"""A base is extended up to so many times the limits of delta and tombstones while the next one is
built. Each query pays for what lies beside the base, and a new base takes minutes."""


def extend(job: Job, increment: Increment, parameters: VectorIndexParameters) -> Built | Full:
    """Write what the batch changed, or return why a full build is needed.

    Raises:
        UnusableInputError: a vector cannot be indexed.
        CorruptFileError: a file of the previous version is not what was written.
    """
    previous, source, folder = increment.previous, job.collection, job.workdir
    limits = LayerLimits(delta=parameters.max_delta, tombstones=parameters.max_tombstones)
    with closing(Contents(previous.files)) as last, openmp_threads(job.threads):
        facts, layers = last.facts, last.ids.layers
        if facts.refusal:
            return Full(f"{facts.factory} cannot be extended: {facts.refusal}")
        if last.fields != parameters.filterable:
            return Full("the last version has other filterable fields")
        spec = IndexSpec(
            parameters=parameters,
            metric=facts.metric,
            dimension=facts.dimension,
            count=facts.count,
            memory=job.memory,
        )
        most = patient(limits, job.goal, spec)
        batch = read_batch(
            source,
            increment.changes[source.collection],
            known=last.ids,
            differing=last.differing,
            most=most.most_changes(layers),
            prepare=lambda entries: replace(entries, vectors=indexable(entries, facts.metric)),
        )
        if batch is None:
            return most.too_many_changes
        if batch.empty:
            return inherit_all(previous)
        next_ = succeed(last.ids, InputRows.of_one(layers), [batch.ids])
        too_much = most.outgrown(next_.layers)
        if too_much is not None:
            return too_much
        outgrown = limits.outgrown(next_.layers)
        job.progress(0.3)
        files = _write_delta(folder, last, batch, next_, previous.files.get(TRAINED))
        index = files.get(DELTA_INDEX)
        delta = DeltaFacts(
            count=len(next_),
            dead=len(next_.layers.tombstones),
            index_bytes=None if index is None else index.stat().st_size,
        )
        new_facts = facts.model_copy(update={"delta": delta})
        new_facts.save(folder / FACTS)
        files[FACTS] = folder / FACTS
        job.progress(0.6)
        same = {
            name: blob
            for name, blob in previous.manifest.files.items()
            if name in BASE_FILES or name == TRAINED
        }
        laid = {name: previous.files[name] for name in same} | files
        with closing(Contents(laid, last)) as contents:
            sample = QuerySample.load(
                previous.files[SAMPLE], rows=facts.rows, dimension=facts.dimension
            )
            carry(sample, _moves(facts, next_), last, contents).save(folder / SAMPLE)
            payloads = contents.count_payloads()
            filterable = contents.columns.details() if contents.fields else {}
    job.progress(1.0)
    return Built(
        files={**same, **files, SAMPLE: folder / SAMPLE},
        entries=new_facts.entries,
        counts={"payloads": payloads},
        extends=True,
        details={
            **{key: each for key, each in previous.manifest.details.items() if key != OUTGROWN},
            **({} if outgrown is None else {OUTGROWN: outgrown.reason}),
            "build": build_details(None),
            "delta": delta.count,
            "tombstones": delta.dead,
            **filterable,
        },
    )


def patient(limits: LayerLimits, goal: Goal, spec: IndexSpec) -> LayerLimits:
    """Up to where the base is extended: beyond ``limits`` where a new one is built behind it."""
    if goal not in {Goal.QUICK, Goal.CATCH_UP} or soonest(spec) is None:
        return limits
    return LayerLimits(
        delta=min(_PATIENCE * limits.delta, 1.0),
        tombstones=min(_PATIENCE * limits.tombstones, 1.0),
    )


def _moves(last: IndexFacts, next_: Succession) -> Moves:
    """Where the rows of the last version are now."""
    return Moves(
        first_of_delta=last.count,
        tombstones=next_.layers.tombstones,
        delta=next_.moved(last.rows - last.count),
        fresh=np.flatnonzero(next_.given >= 0),
    )


def _write_delta(
    folder: Path, last: Contents, batch: Batch, next_: Succession, trained: Path | None
) -> dict[str, Path]:
    """Write the delta's files, and return them."""
    delta = last.delta
    none: Vectors = np.empty((0, last.facts.dimension), dtype=np.float32)
    files = {name: folder / name for name in (DELTA_VECTORS, DELTA_PAYLOADS)}
    kept = none if delta is None else delta.vectors
    vectors = next_.save_column(files[DELTA_VECTORS], kept, batch.upserts.vectors)
    with PayloadTable.writer(files[DELTA_PAYLOADS]) as payloads:
        for piece in next_.pieces:
            if piece.kept is None or delta is None:
                payloads.extend([batch.upserts.payloads[piece.given]])
            else:
                delta.payloads.copy(payloads, piece.kept)
    files |= next_.write(folder)
    if last.base.columns is not None:
        files[DELTA_FIELDS] = folder / DELTA_FIELDS
        _write_fields(files[DELTA_FIELDS], last, batch, next_)
    if trained is not None and is_indexed(last.facts, len(vectors)):
        files[DELTA_INDEX] = folder / DELTA_INDEX
        _write_index(files[DELTA_INDEX], trained, vectors, delta, next_)
    return files


def _write_fields(path: Path, last: Contents, batch: Batch, next_: Succession) -> None:
    """The columns of the delta: those of the last one, and of the payloads that came."""
    fields = FieldColumnsWriter(last.fields)
    if last.delta is not None and last.delta.columns is not None:
        fields.copy(last.delta.columns, next_.moved(len(last.delta)))
    for row in np.flatnonzero(next_.given >= 0).tolist():
        fields.extend(row, [batch.upserts.payloads[next_.given[row]]])
    fields.write(path, len(next_))


def _write_index(
    path: Path, trained: Path, vectors: Vectors, last: Delta | None, next_: Succession
) -> None:
    """A copy of the trained index with these rows: its own centroids, and nothing borrowed."""
    faiss = require_faiss()
    try:
        index = faiss.read_index(str(trained))
        if last is not None and last.index is not None and share_lists(index, last.index):
            add_to_lists(index, vectors, _lists(index, vectors, last.index, next_))
        else:
            index.add(vectors)
        faiss.write_index(index, str(path))
    except RuntimeError as error:  # what every FAISS exception becomes
        raise UnbuildableIndexError(f"FAISS cannot index the delta: {error}") from error


def _lists(index: Any, vectors: Vectors, last: Any, next_: Succession) -> Rows:
    """The list of each row. Rows of the last delta stay in theirs, which the centroids decide."""
    lists = np.empty(len(vectors), dtype=np.int64)
    kept = next_.kept >= 0
    lists[kept] = lists_of_rows(last)[next_.kept[kept]]
    _, nearest = index.quantizer.search(np.ascontiguousarray(vectors[~kept]), 1)
    lists[~kept] = nearest[:, 0]
    return lists
