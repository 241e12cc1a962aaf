"""Any filter over any history of a collection is answered as a look at every entry would.

Any sequence of upserts, deletes, rebuilds (most of them incremental) and reloads: by vector, by
text, by count, by id and page by page. Run it for long with ``INDEXRELAY_EXAMPLES=2000``.
"""

import json
import os
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from indexrelay.components.query import Entry
from indexrelay.components.text_index import TextIndex, TextIndexParameters, search
from indexrelay.components.vector_index import VectorIndex, VectorIndexParameters
from tests.components.changing_collection import DIMENSION, POOL, WORDS, ChangingCollection
from tests.components.filter_model import FIELDS, filters, fulfils
from tests.components.jobs import Row, Run

_EXAMPLES = int(os.environ.get("INDEXRELAY_EXAMPLES", "20"))
_YEARS = [-1, 0, 0.5, 2, 3, None]
_DATES = ["2024-05-01", "2024-05-01T02:00:00+02:00", "1960-01-01", None]
ks = st.integers(1, 12)
leave_out = st.lists(st.sampled_from([*POOL, "nobody", "\ud800"]), max_size=4)


class _Machine(ChangingCollection):
    """A reader beside the builds, which loads each version in turn."""

    reader: Any = None

    def row(self, text: str | None = None) -> Row:
        made = super().row(text)
        choose = self.rng.choice
        payload = {
            "year": _YEARS[self.rng.integers(len(_YEARS))],
            "genre": str(choose(["a", "jazz", "é"])),
            "tags": [str(each) for each in choose(["a", "b", "Z"], size=self.rng.integers(3))],
            "added": _DATES[self.rng.integers(len(_DATES))],
            "live": bool(self.rng.integers(2)),
            "album": {"label": str(choose(["", "a"]))},
        }
        for field in list(payload):
            if self.rng.integers(4) == 0:
                del payload[field]
        held = None if self.rng.integers(8) == 0 else json.dumps(payload)
        return Row(
            vector=made.vector, text=made.text or " ".join(choose(WORDS, size=2)), payload=held
        )

    def compare(self, done: Run) -> None:
        before, self.reader = self.reader, None
        if before is None:
            self.reader = self.kind.load(done.files)
        else:
            self.reader = self.kind.reload(done.files, before)
            before.close()
        present = sum(self.payload(each) is not None for each in self.built.rows)
        assert done.built.counts["payloads"] == present
        held = done.built.details["filterable"]["live"]
        assert held["entries"] == len(self.matching({"live": {"$exists": True}}))

    def rebuild(self) -> None:
        self.built = self.snapshot
        super().rebuild()

    def teardown(self) -> None:
        if self.reader is not None:
            self.reader.close()
        super().teardown()

    def payload(self, entry_id: str) -> Any:
        held = self.built.rows[entry_id].payload
        return None if held is None else json.loads(held)

    def matching(self, asked: dict[str, Any]) -> list[str]:
        """In the order of the ids."""
        return [each for each in self.built.ids if fulfils(self.payload(each), asked)]

    @rule(asked=filters())
    def count(self, asked: dict[str, Any]) -> None:
        assert self.reader.count(asked) == len(self.matching(asked))

    @rule(asked=filters() | st.none(), limit=st.integers(1, 7))
    def scroll(self, asked: dict[str, Any] | None, limit: int) -> None:
        found: list[Entry] = []
        page = self.reader.scroll(asked, limit=limit)
        found += page.entries
        while page.after is not None:
            assert len(page.entries) == limit
            page = self.reader.scroll(asked, after=page.after, limit=limit)
            found += page.entries
        assert [entry.id for entry in found] == self.matching(asked or {})
        assert [entry.payload for entry in found] == [self.payload(entry.id) for entry in found]

    @rule(asked=filters(), after=st.sampled_from([*POOL, "", "\U0001f600"]))
    def scroll_from_anywhere(self, asked: dict[str, Any], after: str) -> None:
        page = self.reader.scroll(asked, after=after, limit=3)
        behind = [each for each in self.matching(asked) if each.encode() > after.encode()]
        assert [entry.id for entry in page.entries] == behind[:3]
        assert (page.after is None) == (len(behind) <= 3)

    @rule(names=st.lists(st.sampled_from([*POOL, "nobody", "\ud800"]), max_size=5))
    def get(self, names: list[str]) -> None:
        for name, entry in zip(names, self.reader.get(names), strict=True):
            if name in self.built.rows:
                assert entry.id == name
                assert entry.payload == self.payload(name)
            else:
                assert entry is None

    @rule(
        names=st.lists(st.sampled_from([*POOL, "nobody", "\ud800"]), max_size=5),
        asked=filters(),
    )
    def get_filtered(self, names: list[str], asked: dict[str, Any]) -> None:
        there = set(self.matching(asked))
        found = self.reader.get(names, filter=asked)
        assert [entry and entry.id for entry in found] == [
            name if name in there else None for name in names
        ]


class _ByVector(_Machine):
    kind = VectorIndex(
        VectorIndexParameters.model_validate(
            {"min_recall": 1.0, "max_delta": 0.6, "max_tombstones": 0.5, "filterable": FIELDS}
        )
    )

    def nearest(self, query: Any, names: list[str]) -> list[float]:
        far = [np.linalg.norm(self.built.rows[name].vector - query) for name in names]
        return sorted(map(float, far))

    @rule(asked=filters() | st.none(), k=ks, gone=leave_out, seed=st.integers(0, 99))
    def search(self, asked: Any, k: int, gone: list[str], seed: int) -> None:
        query = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
        hits = self.reader.search(query, k=k, filter=asked, without=gone, explain=True)
        names = [each for each in self.matching(asked or {}) if each not in gone]
        assert {hit.id for hit in hits} <= set(names)
        assert np.allclose([hit.score for hit in hits], self.nearest(query, names)[:k], atol=1e-3)
        assert hits.explanation.matches in {None, len(names)}

    @rule(asked=filters(), k=ks, name=st.sampled_from(POOL))
    def search_by_id(self, asked: Any, k: int, name: str) -> None:
        if name not in self.built.rows:
            return
        hits = self.reader.search_by_id(name, k=k, filter=asked)
        names = [each for each in self.matching(asked) if each != name]
        far = self.nearest(self.built.rows[name].vector, names)
        assert np.allclose([hit.score for hit in hits], far[:k], atol=1e-3)
        [many] = self.reader.search_many(self.built.rows[name].vector[None, :], k=k, filter=asked)
        far = self.nearest(self.built.rows[name].vector, self.matching(asked))
        assert np.allclose([hit.score for hit in many], far[:k], atol=1e-3)


class _ByText(_Machine):
    kind = TextIndex(TextIndexParameters.model_validate({"filterable": FIELDS}))
    most_rows = 20_000

    def __init__(self) -> None:
        self.before = search._MOST_ROWS
        setattr(search, "_MOST_ROWS", self.most_rows)  # noqa: B010 - it is final for all others
        super().__init__()

    def teardown(self) -> None:
        setattr(search, "_MOST_ROWS", self.before)  # noqa: B010 - as above
        super().teardown()

    @rule(asked=filters() | st.none(), k=ks, gone=leave_out, words=st.sampled_from(WORDS))
    def search(self, asked: Any, k: int, gone: list[str], words: str) -> None:
        names = [each for each in self.matching(asked or {}) if each not in gone]
        everything = self.reader.search(f"{words} sea", k=len(POOL))
        hits = self.reader.search(f"{words} sea", k=k, filter=asked, without=gone, explain=True)
        assert hits == [hit for hit in everything if hit.id in names][:k]
        assert hits.explanation.matches in {None, len(self.matching(asked or {}))}


class _ByTextFromTheTop(_ByText):
    """As if there were too many matches to name them all in a query."""

    most_rows = 0


_settings = settings(
    max_examples=_EXAMPLES,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestFilteredByVector = _ByVector.TestCase
TestFilteredByVector.settings = _settings
TestFilteredByText = _ByText.TestCase
TestFilteredByText.settings = _settings
TestFilteredByTextFromTheTop = _ByTextFromTheTop.TestCase
TestFilteredByTextFromTheTop.settings = _settings
