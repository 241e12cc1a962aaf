"""Continues the last version: names its base again, and writes delta and tombstones beside it.

Of a batch only what differs from the last version counts: a job that hands over everything each
time gives most entries again as they are. The new delta is the last one with the batch applied, so
it holds every entry that came or changed since the base, once. Rows of the last delta keep their
vector, their payload and their inverted list. What is written costs what the delta weighs; what is
looked up in the base is the batch. When delta or tombstones have grown beyond their limits, the
build is a full one instead.
"""

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexrelay.components.errors import UnbuildableIndexError
from indexrelay.components.formats.payload_table import PayloadTable
from indexrelay.components.formats.string_table import Rows
from indexrelay.components.kind import Built, Job
from indexrelay.components.layered.build import (
    Full,
    Increment,
    build_details,
    inherit_all,
    refuse_infinite,
)
from indexrelay.components.layered.succession import ChangedIds, InputRows, Succession, succeed
from indexrelay.components.optional import require_faiss
from indexrelay.components.vector_index.factory import parse_factory
from indexrelay.components.vector_index.index_build import add_to_lists
from indexrelay.components.vector_index.index_search import (
    lists_of_rows,
    openmp_threads,
    share_lists,
)
from indexrelay.components.vector_index.parameters import VectorIndexParameters
from indexrelay.components.vector_index.reading import indexable
from indexrelay.components.vector_index.sample import SAMPLE, Moves, QuerySample, carry
from indexrelay.components.vector_index.spec import DeltaFacts, IndexFacts
from indexrelay.components.vector_index.version import (
    BASE_FILES,
    DELTA_INDEX,
    DELTA_PAYLOADS,
    DELTA_VECTORS,
    FACTS,
    SCANNED_BESIDE_LISTS,
    SCANNED_ROWS,
    TRAINED,
    Contents,
    Delta,
)
from indexrelay.storage.entries import Changes, Vectors


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What differs from the last version."""

    ids: ChangedIds
    vectors: Vectors
    """Of the upserts, shape ``(n, dimension)``, as they are indexed."""
    payloads: list[str | None]
    """Of the upserts."""

    @property
    def empty(self) -> bool:
        """Whether nothing differs."""
        return not self.ids.upserts and not self.ids.deletes


def read_batch(changes: Iterable[Changes], last: Contents, *, most: int) -> Batch | None:
    """Read what changed since ``last``; ``None`` once that is more than ``most`` entries.

    Raises:
        UnusableInputError: a vector cannot be indexed.
    """
    upserts: list[str] = []
    deletes: list[str] = []
    payloads: list[str | None] = []
    vectors = [np.empty((0, last.facts.dimension), dtype=np.float32)]
    for chunk in changes:
        refuse_infinite(chunk.upserts)
        given = indexable(chunk.upserts, last.facts.metric)
        rows = [
            row
            for row, entry_id in enumerate(chunk.upserts.ids)
            if not _same(last, entry_id, given[row], chunk.upserts.payloads[row])
        ]
        upserts += (chunk.upserts.ids[row] for row in rows)
        payloads += (chunk.upserts.payloads[row] for row in rows)
        vectors.append(given[rows])
        deletes += (entry_id for entry_id in chunk.deletes if entry_id in last.ids)
        if len(upserts) + len(deletes) > most:
            return None
    return Batch(
        ids=ChangedIds(upserts=upserts, deletes=deletes),
        vectors=np.concatenate(vectors),
        payloads=payloads,
    )


def _same(last: Contents, entry_id: str, vector: Vectors, payload: str | None) -> bool:
    """Whether the last version holds this entry as it is given, bit for bit."""
    row = last.find(entry_id)
    return (
        row is not None
        and last.vector(row).tobytes() == vector.tobytes()
        and last.payload_texts_of(np.array([row]))[0] == payload
    )


def write_delta(
    folder: Path, last: Contents, batch: Batch, next_: Succession, trained: Path | None
) -> dict[str, Path]:
    """Write the delta's files and say which."""
    delta = last.delta
    none: Vectors = np.empty((0, last.facts.dimension), dtype=np.float32)
    files = {name: folder / name for name in (DELTA_VECTORS, DELTA_PAYLOADS)}
    kept = none if delta is None else delta.vectors
    vectors = next_.save_column(files[DELTA_VECTORS], kept, batch.vectors)
    with PayloadTable.writer(files[DELTA_PAYLOADS]) as payloads:
        for piece in next_.pieces:
            if piece.kept is None or delta is None:
                payloads.extend([batch.payloads[piece.given]])
            else:
                delta.payloads.copy(payloads, piece.kept)
    files |= next_.write(folder)
    if trained is not None and _is_indexed(last.facts, len(vectors)):
        files[DELTA_INDEX] = folder / DELTA_INDEX
        _write_index(files[DELTA_INDEX], trained, vectors, delta, next_)
    return files


def _is_indexed(facts: IndexFacts, rows: int) -> bool:
    """Whether a delta of so many rows is searched as an index.

    Behind a transform the base measures other distances than a scan does, and answers of both could
    not be told which is nearer; a refinement measures the true ones again.
    """
    factory = parse_factory(facts.factory)
    scanned = SCANNED_BESIDE_LISTS if factory.lists else SCANNED_ROWS
    return rows > scanned or (rows > 0 and factory.transformed and not factory.refined)


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


def extend(job: Job, continued: Increment, parameters: VectorIndexParameters) -> Built | Full:
    """Write what the batch changed, or say why everything has to be built anew.

    Raises:
        UnusableInputError: a vector cannot be indexed.
        DamagedFileError: a file of the previous version is not what was written.
    """
    previous, source = continued.previous, job.collection
    with closing(Contents(previous.files)) as last, openmp_threads(job.threads):
        facts = last.facts
        if facts.refusal:
            return Full(f"{facts.factory} cannot be extended: {facts.refusal}")
        most_delta = int(parameters.max_delta * facts.count)
        most_dead = int(parameters.max_tombstones * facts.count)
        changes = continued.changes[source.collection]
        batch = read_batch(changes, last, most=most_delta + most_dead)
        if batch is None:
            return Full("the batch changes more of the base than delta and tombstones may")
        if batch.empty:
            return inherit_all(previous)
        next_ = _succession(last, batch)
        if len(next_) > most_delta:
            return _outgrown("the delta", len(next_), parameters.max_delta, "max_delta")
        dead = len(next_.layers.tombstones)
        if dead > most_dead:
            return _outgrown("tombstones", dead, parameters.max_tombstones, "max_tombstones")
        job.progress(0.3)
        files = write_delta(job.workdir, last, batch, next_, previous.files.get(TRAINED))
        new_facts = _facts(facts, next_, files.get(DELTA_INDEX))
        new_facts.save(job.workdir / FACTS)
        job.progress(0.6)
        same = {
            name: blob
            for name, blob in previous.manifest.files.items()
            if name in BASE_FILES or name == TRAINED
        }
        laid = {**{name: previous.files[name] for name in same}, **files}
        with closing(Contents({**laid, FACTS: job.workdir / FACTS}, last)) as contents:
            rows = facts.count + (facts.delta.count if facts.delta else 0)
            sample = QuerySample.load(previous.files[SAMPLE], rows=rows, dimension=facts.dimension)
            carry(sample, _moves(last, next_), last, contents).save(job.workdir / SAMPLE)
            payloads = contents.count_payloads()
        job.progress(1.0)
        return Built(
            files={
                **same,
                **files,
                FACTS: job.workdir / FACTS,
                SAMPLE: job.workdir / SAMPLE,
            },
            entries=new_facts.entries,
            counts={"payloads": payloads},
            extends=True,
            details={
                **previous.manifest.details,
                "build": build_details(None),
                "delta": len(next_),
                "tombstones": dead,
            },
        )


def _succession(last: Contents, batch: Batch) -> Succession:
    rows = InputRows(base=(last.facts.count,), delta=(len(last.ids.layers.places),))
    return succeed(last.ids, rows, [batch.ids])


def _facts(last: IndexFacts, next_: Succession, index: Path | None) -> IndexFacts:
    delta = DeltaFacts(
        count=len(next_),
        dead=len(next_.layers.tombstones),
        index_bytes=None if index is None else index.stat().st_size,
    )
    return last.model_copy(update={"delta": delta})


def _moves(last: Contents, next_: Succession) -> Moves:
    """Where the rows of the last version are now."""
    moved: Rows = np.full(len(last.ids.layers.places), -1, dtype=np.int64)
    kept = np.flatnonzero(next_.kept >= 0)
    moved[next_.kept[kept]] = kept
    return Moves(
        first_of_delta=last.facts.count,
        tombstones=next_.layers.tombstones,
        delta=moved,
        fresh=np.flatnonzero(next_.given >= 0),
    )


def _outgrown(what: str, rows: int, limit: float, parameter: str) -> Full:
    return Full(f"{what} would be {rows}, more than {limit:.0%} of the base ({parameter})")
