"""Builds of a vector index, each continuing the one before, and what they should answer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from indexrelay.components.kind import Job
from indexrelay.components.vector_index import VectorIndex, VectorIndexParameters, VectorSearch
from indexrelay.schemas.settings import Metric
from tests.components.jobs import (
    MemorySnapshot,
    Row,
    Run,
    as_previous,
    clustered,
    make_job,
    make_snapshot,
    run,
)

ROWS, DIMENSION = 1100, 16


class History:
    """Builds of one index, each continuing the one before."""

    def __init__(self, folder: Path, source: MemorySnapshot, **keys: Any) -> None:
        self.kind = VectorIndex(VectorIndexParameters.model_validate(keys))
        self.folder = folder
        self.source = source
        self.job: Job = make_job(folder / "0", source)
        self.done: Run = run(self.kind, self.job)
        self.builds = 1
        assert self.done.failed == []

    def commit(self, upserts: Mapping[str, Row] | None = None, deletes: Sequence[str] = ()) -> Run:
        """The next version, after this batch."""
        self.source = self.source.commit(upserts, deletes)
        previous = as_previous(self.job, self.done)
        folder = self.folder / str(self.builds)
        self.job = make_job(folder, self.source, previous=previous)
        self.done = run(self.kind, self.job)
        self.builds += 1
        return self.done

    def open(self) -> VectorSearch:
        return self.kind.load(self.done.files)


def snapshot(metric: Metric = Metric.COSINE, rows: int = ROWS) -> MemorySnapshot:
    vectors = clustered(rows, DIMENSION, clusters=12, spread=0.8)
    payloads = [json.dumps({"row": row}) if row % 3 else None for row in range(rows)]
    return make_snapshot(vectors, metric=metric, payloads=payloads)


def rows(count: int, *, seed: int, like: str = "new") -> dict[str, Row]:
    """New entries."""
    vectors = clustered(count, DIMENSION, clusters=12, spread=0.8, seed=seed)
    return {
        f"{like}{number:04d}": Row(vector=vectors[number], payload=json.dumps({"new": number}))
        for number in range(count)
    }


def changed(source: MemorySnapshot, ids: Sequence[str], *, seed: int) -> dict[str, Row]:
    """Entries that are there, with other vectors."""
    vectors = clustered(len(ids), DIMENSION, clusters=12, spread=0.8, seed=seed)
    return {
        entry_id: replace(source.rows[entry_id], vector=vectors[number])
        for number, entry_id in enumerate(ids)
    }


def brute_force(source: MemorySnapshot, query: Any, k: int) -> list[float]:
    """The scores of the nearest, by the textbook."""
    matrix, wanted = source.matrix.astype(np.float64), np.asarray(query, dtype=np.float64)
    if source.metric is Metric.L2:
        return sorted(np.linalg.norm(matrix - wanted, axis=1))[:k]
    if source.metric is Metric.COSINE:
        matrix = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
        wanted = wanted / np.linalg.norm(wanted)
    return sorted(matrix @ wanted, reverse=True)[:k]
