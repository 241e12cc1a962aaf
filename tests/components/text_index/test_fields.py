"""Filterable fields of a text index: their columns follow the rows of its database."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.formats.field_columns import FieldColumns, FieldColumnsWriter
from indexrelay.components.text_index import TextIndexParameters
from indexrelay.components.text_index.database import GAP
from indexrelay.components.text_index.fields import (
    DELTA_FIELD_ROWS,
    DELTA_FIELDS,
    FIELD_ROWS,
    FIELD_TOMBSTONES,
    FIELDS,
    TextFields,
)
from indexrelay.schemas.filters import FieldType
from tests.components.jobs import (
    MemorySnapshot,
    Row,
    Run,
    as_previous,
    make_job,
    make_snapshot,
    run,
)
from tests.components.text_index.songs import LongContinued, row

ROWS = 200
DECLARED = {"year": FieldType.NUMBER, "genre": FieldType.KEYWORD}
KIND = LongContinued(TextIndexParameters(filterable=DECLARED))


def source(count: int = ROWS) -> MemorySnapshot:
    return make_snapshot(
        np.ones((count, 2), dtype=np.float32),
        texts=[f"song number {number} of {number % 7} seas" for number in range(count)],
        payloads=[payload(number) for number in range(count)],
    )


def payload(number: int, genre: str = "jazz") -> str:
    return json.dumps({"year": number, "genre": genre})


class History:
    """Builds, each continuing the one before."""

    def __init__(self, folder: Path, count: int = ROWS) -> None:
        self.folder, self.builds = folder, 1
        self.source = source(count)
        self.job = make_job(folder / "0", self.source)
        self.done = run(KIND, self.job)
        assert self.done.failed == []

    def commit(self, upserts: dict[str, Row], deletes: list[str] | None = None) -> Run:
        self.source = self.source.commit(upserts, deletes or [])
        previous = as_previous(self.job, self.done)
        self.job = make_job(self.folder / str(self.builds), self.source, previous=previous)
        self.done = run(KIND, self.job)
        self.builds += 1
        return self.done

    def failed(self, **files: Path) -> list[str]:
        """The gates that fail over other files."""
        checks = KIND.verify(self.job, self.done.built, {**self.done.files, **files})
        return [check.name for check in checks if not check.passed]


def test_a_small_batch_writes_the_columns_of_what_changed(tmp_path: Path) -> None:
    builds = History(tmp_path)
    first = {name: builds.done.files[name] for name in (FIELDS, FIELD_ROWS)}
    changed = {
        "e000003": row("another song", payload(3, "folk")),
        "e000500": row("new", payload(1, "folk")),
        "e000004": builds.source.rows["e000004"],
    }
    done = builds.commit(changed, ["e000007"])
    assert done.failed == []
    assert done.built.extends
    assert {name: done.files[name] for name in first} == first
    assert FieldColumns(done.files[DELTA_FIELDS]).rows == 2, "one was given as it is"
    assert len(np.load(done.files[FIELD_TOMBSTONES])) == 2
    assert done.built.details["filterable"]["genre"]["entries"] == ROWS
    with closing(KIND.load(done.files)) as index:
        assert index.count({"genre": "folk"}) == 2
        assert index.count({"genre": "jazz"}) == ROWS - 2
        hits = index.search("song", k=300, filter={"genre": "folk"})
        assert [hit.id for hit in hits] == ["e000003"]


def test_rows_that_are_numbered_again_keep_their_fields(tmp_path: Path) -> None:
    builds = History(tmp_path, 600)
    crowd = {
        f"e000300-{number:03d}": row("crowd", payload(number, "folk")) for number in range(2 * GAP)
    }
    done = builds.commit(crowd)
    assert (done.failed, done.built.details["moved"] > 0) == ([], True)
    with closing(KIND.load(done.files)) as index:
        assert index.count({"genre": "folk"}) == len(crowd)
        assert index.count({"genre": "jazz"}) == 600
        page = index.scroll({"year": {"$gte": 295}}, after="e000294", limit=400)
        assert [entry.id for entry in page.entries] == [
            each
            for each in builds.source.ids
            if json.loads(builds.source.rows[each].payload or "")["year"] >= 295
        ]
        assert [each and each.text for each in index.get(["e000301", "e000300-001"])] == [
            "song number 301 of 0 seas",
            "crowd",
        ]


def columns(path: Path, payloads: list[str]) -> Path:
    writer = FieldColumnsWriter(DECLARED)
    writer.extend(0, payloads)
    writer.write(path, len(payloads))
    return path


def test_columns_that_are_not_the_payloads_are_not_released(tmp_path: Path) -> None:
    builds = History(tmp_path)
    wrong = columns(tmp_path / "wrong", [payload(number + 1) for number in range(ROWS)])
    assert builds.failed(**{FIELDS: wrong}) == ["fields_match_payloads"]
    rows = np.load(builds.done.files[FIELD_ROWS])
    np.save(tmp_path / "rows.npy", rows + 1)
    assert builds.failed(**{FIELD_ROWS: tmp_path / "rows.npy"}) == ["fields_match_payloads"]


def test_columns_that_a_batch_left_wrong_are_not_released(tmp_path: Path) -> None:
    builds = History(tmp_path)
    builds.commit({"e000003": row("another", payload(3, "folk"))}, ["e000007"])
    dead = np.load(builds.done.files[FIELD_TOMBSTONES])
    wrong: dict[str, Path] = {DELTA_FIELDS: columns(tmp_path / "wrong", [payload(3, "rock")])}
    assert builds.failed(**wrong) == ["fields_match_payloads"]
    np.save(tmp_path / "fewer.npy", dead[1:])
    assert builds.failed(**{FIELD_TOMBSTONES: tmp_path / "fewer.npy"}) == ["fields_match_payloads"]
    np.save(tmp_path / "rows.npy", np.load(builds.done.files[DELTA_FIELD_ROWS]) + 1)
    assert builds.failed(**{DELTA_FIELD_ROWS: tmp_path / "rows.npy"}) == ["fields_match_payloads"]


def test_a_base_that_answers_for_what_a_batch_changed_is_not_released(tmp_path: Path) -> None:
    """As if a build had overlooked that a payload changed, and taken no notice of its row."""
    builds = History(tmp_path)
    builds.commit({"e000003": row("song number 3 of 3 seas", payload(3, "folk"))})
    none: dict[str, Path] = {
        DELTA_FIELDS: columns(tmp_path / "none", []),
        DELTA_FIELD_ROWS: tmp_path / "none.npy",
        FIELD_TOMBSTONES: tmp_path / "none.npy",
    }
    np.save(tmp_path / "none.npy", np.empty(0, dtype=np.int64))
    assert builds.failed(**none) == ["fields_match_payloads"]


def test_other_fields_are_written_from_scratch(tmp_path: Path) -> None:
    builds = History(tmp_path)
    kind = LongContinued(TextIndexParameters(filterable={"year": FieldType.NUMBER}))
    after = builds.source.commit({"e000003": row("another", payload(3))})
    job = make_job(tmp_path / "next", after, previous=as_previous(builds.job, builds.done))
    done = run(kind, job)
    assert (done.failed, done.built.extends) == ([], False)
    assert "other filterable fields" in done.built.details["build"]["reason"]


@pytest.mark.parametrize("dead", [[-1], [ROWS], [2, 1], [1, 1]])
def test_tombstones_that_cannot_be_are_corrupt(tmp_path: Path, dead: Any) -> None:
    builds = History(tmp_path)
    done = builds.commit({"e000003": row("another", payload(3))})
    np.save(tmp_path / "dead.npy", np.array(dead, dtype=np.int64))
    with pytest.raises(CorruptFileError):
        TextFields({**done.files, FIELD_TOMBSTONES: tmp_path / "dead.npy"})


def test_an_explanation_says_what_was_ranked(tmp_path: Path) -> None:
    builds = History(tmp_path)
    with closing(KIND.load(builds.done.files)) as index:
        explained = index.search("song", filter={"year": {"$lt": 5}}, explain=True).explanation
        assert explained is not None
        assert (explained.plan, explained.matches, explained.rounds) == ("exact", 5, 1)
        [layer] = explained.layers
        assert (layer.name, layer.entries, layer.how) == ("texts", ROWS, "bm25")
        assert [stage.name for stage in explained.stages] == [
            "filter",
            "terms",
            "search",
            "payloads",
        ]
        none = index.search("song", filter={"year": -1}, explain=True)
        assert (none, none.explanation and none.explanation.plan) == ([], "nothing")
        every = index.search("song", explain=True).explanation
        assert every is not None
        assert (every.plan, every.matches) == ("unfiltered", None)


def test_a_base_without_its_rows_is_not_continued_blindly(tmp_path: Path) -> None:
    builds = History(tmp_path)
    previous = as_previous(builds.job, builds.done)
    short = tmp_path / "short.npy"
    np.save(short, np.load(builds.done.files[FIELD_ROWS])[:-1])
    broken = replace(previous, files={**previous.files, FIELD_ROWS: short})
    after = builds.source.commit({"e000003": row("another", payload(3))})
    done = run(KIND, make_job(tmp_path / "next", after, previous=broken))
    assert (done.failed, done.built.extends) == ([], False)
    assert "cannot be read" in done.built.details["build"]["reason"]
