"""A collection that changes at random, for machines that rebuild a component from its last version.

Ids come from a small pool, so that they go and come back, lie beside each other, and differ in how
many bytes their letters take. A machine derives from it, says how to build, and compares.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from indexrelay.components.kind import Job, Kind
from indexrelay.schemas.settings import Metric
from tests.components.jobs import MemorySnapshot, Row, Run, as_previous, make_job, run

POOL = [f"{letter}{row}" for letter in "am\u00e9\uffee\U0001d11e" for row in range(8)]
DIMENSION = 3
WORDS = ["sea", "blue", "song", "caf\u00e9", "row", "the"]

ids = st.lists(st.sampled_from(POOL), min_size=1, max_size=6, unique=True)
texts = st.none() | st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join)


class ChangingCollection(RuleBasedStateMachine):
    """Commits, half of them followed by a rebuild; now and then one continues no version."""

    kind: Kind[Any, Any]
    metric = Metric.L2
    first: int = 20
    """Entries of the first version."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.builds = 0
        self.rng = np.random.default_rng(0)
        rows = {name: self.row(f"text of {name}") for name in POOL[:: len(POOL) // self.first]}
        self.snapshot = MemorySnapshot(rows, dimension=DIMENSION, metric=self.metric)
        self.job: Job | None = None
        self.done: Run | None = None
        self.rebuild()

    def row(self, text: str | None = None) -> Row:
        vector = self.rng.standard_normal(DIMENSION).astype(np.float32)
        payload = f'{{"n": {self.rng.integers(1000)}}}'
        return Row(vector=vector, text=text, payload=payload)

    @rule(names=ids, text=texts, build=st.booleans())
    def upsert(self, names: list[str], text: str | None, *, build: bool) -> None:
        self.commit({name: self.row(text) for name in names}, [], build=build)

    @rule(names=ids, build=st.booleans())
    def give_again(self, names: list[str], *, build: bool) -> None:
        """A job hands over what is there already, as many do each time."""
        same = {name: self.snapshot.rows[name] for name in names if name in self.snapshot.rows}
        self.commit(same, [], build=build)

    @rule(names=ids, build=st.booleans())
    def delete(self, names: list[str], *, build: bool) -> None:
        self.commit({}, names, build=build)

    def commit(self, upserts: dict[str, Row], deletes: list[str], *, build: bool) -> None:
        self.snapshot = self.snapshot.commit(upserts, deletes)
        if build:
            self.rebuild()

    def rebuild(self) -> None:
        previous = None
        if self.job is not None and self.done is not None:
            previous = as_previous(self.job, self.done)
        job = make_job(self.folder / f"{self.builds}", self.snapshot, previous=previous)
        done = run(self.kind, job)
        assert done.failed == [], [check for check in done.checks if not check.passed]
        self.builds += 1
        self.compare(done)
        self.job, self.done = job, done

    @precondition(lambda self: self.builds % 5 == 4)
    @rule()
    def begin_from_scratch(self) -> None:
        """Someone forces a full build."""
        self.job = self.done = None
        self.rebuild()

    def built_in_full(self) -> Run:
        """The same collection, in a version that continues none."""
        folder = self.folder / "whole"
        shutil.rmtree(folder, ignore_errors=True)
        return run(self.kind, make_job(folder, self.snapshot))

    def compare(self, done: Run) -> None:
        raise NotImplementedError

    def teardown(self) -> None:
        shutil.rmtree(self.folder)
