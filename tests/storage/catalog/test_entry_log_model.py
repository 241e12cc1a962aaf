"""The entry log against the simplest thing that could be right: dicts."""

import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from indexrelay.schemas.settings import Metric
from indexrelay.storage.catalog import BatchChanges, Catalog, Commit
from indexrelay.storage.errors import BatchContentError
from tests.storage.rows import entries, ids_of, values_of

IDS = st.lists(st.sampled_from(["", *"abcdefÄ🎵"]).map(lambda tail: f"id{tail}"), max_size=6)

CHUNKS = st.lists(IDS, max_size=3)


class EntryLogModel(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.catalog = Catalog.open(f"sqlite:///{Path(self.folder.name) / 'catalog.db'}")
        self.declare()
        self.batches: dict[str, int] = {}
        self.contents: dict[str, object] = {}

    def declare(self) -> None:
        self.catalog.collections.declare("tracks", dimension=4, metric=Metric.L2)
        # What was live, and with which value, at each generation since the declaration.
        self.history: list[dict[str, float]] = [{}]
        self.written: dict[str, int] = {}
        self.floor = 0

    @rule(
        batch=st.integers(0, 12),
        chunks=CHUNKS,
        deletes=IDS,
        value=st.sampled_from([1.0, 2.0, 3.0]),
    )
    def commit(self, batch: int, chunks: list[list[str]], deletes: list[str], value: float) -> None:
        upserts = [entries(*ids, value=value) for ids in chunks]
        try:
            commit = self.catalog.entries.commit(
                "tracks", f"b{batch}", upserts=upserts, deletes=deletes
            )
        except BatchContentError:
            assert self.contents[f"b{batch}"] != self.content(chunks, deletes, value)
            return
        self.was_committed(commit, f"b{batch}", chunks, deletes, value)

    @staticmethod
    def content(chunks: list[list[str]], deletes: list[str], value: float) -> object:
        upserted = {id_ for ids in chunks for id_ in ids} - set(deletes)
        return upserted, set(deletes), value if upserted else None

    @rule(several=st.lists(st.tuples(st.integers(0, 12), CHUNKS, IDS), max_size=4))
    def commit_together(self, several: list[tuple[int, list[list[str]], list[str]]]) -> None:
        values = [1000.0 * len(self.history) + number for number in range(len(several))]
        contents = dict(self.contents)
        for (batch, chunks, deletes), value in zip(several, values, strict=True):
            content = self.content(chunks, deletes, value)
            if contents.setdefault(f"b{batch}", content) != content:
                self.refused_together(several, values)
                return
        commits = self.catalog.entries.commit_many(
            [
                BatchChanges(
                    collection="tracks",
                    batch_id=f"b{batch}",
                    upserts=[entries(*ids, value=value) for ids in chunks],
                    deletes=deletes,
                )
                for (batch, chunks, deletes), value in zip(several, values, strict=True)
            ]
        )
        for commit, given, value in zip(commits, several, values, strict=True):
            batch, chunks, deletes = given
            self.was_committed(commit, f"b{batch}", chunks, deletes, value)

    def refused_together(
        self, several: list[tuple[int, list[list[str]], list[str]]], values: list[float]
    ) -> None:
        """One of them has an id that stands for other content: none is written."""
        with pytest.raises(BatchContentError):
            self.catalog.entries.commit_many(
                [
                    BatchChanges(
                        collection="tracks",
                        batch_id=f"b{batch}",
                        upserts=[entries(*ids, value=value) for ids in chunks],
                        deletes=deletes,
                    )
                    for (batch, chunks, deletes), value in zip(several, values, strict=True)
                ]
            )

    def was_committed(
        self,
        commit: Commit,
        batch_id: str,
        chunks: list[list[str]],
        deletes: list[str],
        value: float,
    ) -> None:
        content = self.content(chunks, deletes, value)
        assert self.contents.setdefault(batch_id, content) == content
        if batch_id in self.batches:
            assert commit.repeated
            assert commit.generation == self.batches[batch_id]
            return
        before = self.history[-1]
        upserted = {id_ for ids in chunks for id_ in ids} - set(deletes)
        gone = set(deletes) & set(before)
        after = {id_: value for id_, value in before.items() if id_ not in gone}
        after |= dict.fromkeys(upserted, value)
        self.history.append(after)
        generation = len(self.history) - 1
        self.written |= dict.fromkeys(upserted | gone, generation)
        self.batches[batch_id] = generation
        assert not commit.repeated
        assert (commit.generation, commit.upserts, commit.deletes) == (
            generation,
            len(upserted),
            len(gone),
        )

    @rule(below=st.integers(0, 15))
    def forget_deletes(self, below: int) -> None:
        self.catalog.entries.forget_deletes("tracks", below=below)
        self.floor = max(self.floor, min(below, len(self.history) - 1))

    @rule()
    def drop(self) -> None:
        self.catalog.collections.drop("tracks")
        self.declare()
        self.batches = {}
        self.contents = {}

    @rule(after=st.integers(-1, 15), rows=st.integers(1, 5))
    def changes(self, after: int, rows: int) -> None:
        generation = len(self.history) - 1
        with self.catalog.entries.snapshot("tracks") as snapshot:
            changes = snapshot.changes(after, rows)
            if not self.floor <= after <= generation:
                assert changes is None
                return
            assert changes is not None
            found = list(changes)
        now = self.history[-1]
        upserts = values_of(change.upserts for change in found)
        deletes = [id_ for change in found for id_ in change.deletes]
        assert upserts == {id_: now[id_] for id_ in now if self.written[id_] > after}
        assert deletes == sorted(set(deletes))
        # Whoever has the state of `after` and applies the changes has the state of now.
        reached = {k: v for k, v in self.history[after].items() if k not in deletes} | upserts
        assert reached == now

    @invariant()
    def everything_is_what_the_model_says(self) -> None:
        if not hasattr(self, "catalog"):
            return
        with self.catalog.entries.snapshot("tracks") as snapshot:
            chunks = list(snapshot.chunks(rows=3))
            assert snapshot.generation == len(self.history) - 1
            assert snapshot.count == len(self.history[-1])
        assert values_of(chunks) == self.history[-1]
        assert ids_of(chunks) == sorted(self.history[-1], key=str.encode)

    def teardown(self) -> None:
        if hasattr(self, "catalog"):
            self.catalog.close()
            self.folder.cleanup()


TestEntryLog = EntryLogModel.TestCase
TestEntryLog.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
