"""Continues the version before: names its base again, and writes delta and tombstones beside it.

The new delta is the last one with the batch applied, so that it holds every entry that came or
changed since the base, once. All that is written weighs what the delta weighs; all that is looked
up in the base is the batch. When delta or tombstones have grown beyond what a query should bear,
everything is built anew instead.
"""

from contextlib import closing
from pathlib import Path

import numpy as np

from indexrelay.components.continuing import Continued, InFull, inherit_all, told
from indexrelay.components.inputs import only_collection
from indexrelay.components.kind import Built, Job
from indexrelay.components.string_table import Rows
from indexrelay.components.succession import InputRows, Succession, succeed
from indexrelay.components.vector_index.base import BASE_FILES, TRAINED
from indexrelay.components.vector_index.batch import Batch, read_batch
from indexrelay.components.vector_index.carrying import Moves, carry
from indexrelay.components.vector_index.contents import FACTS, Contents
from indexrelay.components.vector_index.delta import DELTA_INDEX
from indexrelay.components.vector_index.delta_writing import write_delta
from indexrelay.components.vector_index.facts import DeltaFacts, IndexFacts
from indexrelay.components.vector_index.parameters import VectorIndexParameters
from indexrelay.components.vector_index.sample import SAMPLE, QuerySample
from indexrelay.components.vector_index.threads import openmp_threads


def extend(job: Job, continued: Continued, parameters: VectorIndexParameters) -> Built | InFull:
    """Write what the batch changed, or say why everything has to be built anew.

    Raises:
        UnusableInputError: a vector cannot be indexed.
        DamagedFileError: a file of the previous version is not what was written.
    """
    previous, source = continued.previous, only_collection(job)
    with closing(Contents(previous.files)) as last, openmp_threads(job.threads):
        facts = last.facts
        if facts.refusal:
            return InFull(f"{facts.factory} cannot be extended: {facts.refusal}")
        most_delta = int(parameters.max_delta * facts.count)
        most_dead = int(parameters.max_tombstones * facts.count)
        changes = continued.changes[source.collection]
        batch = read_batch(changes, last, most=most_delta + most_dead)
        if batch is None:
            return InFull("the batch changes more of the base than delta and tombstones may")
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
                "build": told(None),
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


def _outgrown(what: str, rows: int, limit: float, parameter: str) -> InFull:
    return InFull(f"{what} would be {rows}, more than {limit:.0%} of the base ({parameter})")
