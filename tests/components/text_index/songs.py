"""A small text index of songs, and versions that continue each other."""

from pathlib import Path

import numpy as np

from indexrelay.components.kind import Job
from indexrelay.components.text_index import TextIndex, TextIndexParameters
from tests.components.jobs import (
    MemorySnapshot,
    Row,
    Run,
    as_previous,
    make_job,
    make_snapshot,
    run,
)


class LongContinued(TextIndex):
    """Small collections change by more than a fifth at once; that limit has a test of its own."""

    most_changed = 100.0


KIND = LongContinued(TextIndexParameters())
NONE = np.ones(2, dtype=np.float32)


def row(text: str | None, payload: str | None = None) -> Row:
    return Row(vector=NONE, text=text, payload=payload)


def songs(count: int = 100) -> MemorySnapshot:
    texts = [f"song number {number} of {number % 7} seas" for number in range(count)]
    return make_snapshot(np.ones((count, 2), dtype=np.float32), texts=texts)


def next_of(folder: Path, job: Job, done: Run, after: MemorySnapshot) -> tuple[Job, Run]:
    following = make_job(folder, after, previous=as_previous(job, done))
    return following, run(KIND, following)
