"""`LayeredKind`, by the kind that docs/kinds.md shows: numbers and texts for each entry."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from examples.kinds.signs import PAYLOADS, SIGNS, SignIndex, SignParameters, SignSearch, signs_of
from indexrelay.components import Built, Check, Files, Job, equal, judge
from indexrelay.components.errors import ClosedVersionError, ContractError
from indexrelay.components.layered import (
    ArrayColumn,
    LayeredKind,
    LayeredParameters,
    LayeredTable,
    TextColumn,
)
from indexrelay.storage.entries import Entries
from tests.components.changing_collection import ChangingCollection
from tests.components.jobs import MemorySnapshot, Row, Run, as_previous, clustered, make_job, run
from tests.components.jobs import make_snapshot as snapshot_of

KIND = SignIndex(SignParameters())
LENGTHS = ArrayColumn("lengths", np.int32, shape=())
CHANGED = Row(vector=np.full(12, -1, dtype=np.float32), payload='"new"')


class SignMachine(ChangingCollection):
    """Whatever happened, a version holds what the collection holds, in the collection's order."""

    kind = SignIndex(SignParameters(max_delta=0.6, max_tombstones=0.6))

    def compare(self, done: Run) -> None:
        expected = self.snapshot
        rows = [expected.rows[name] for name in expected.ids]
        with closing(LayeredTable(done.files, (SIGNS, PAYLOADS))) as table:
            assert list(table.ids) == expected.ids
            np.testing.assert_array_equal(table[SIGNS].whole(), signs_of(expected.matrix, 0.0))
            assert table[PAYLOADS].at(np.arange(len(table))) == [row.payload for row in rows]
            assert table[PAYLOADS].count() == done.built.counts["payloads"] == len(rows)
            for name, row in zip(expected.ids, rows, strict=True):
                assert table[PAYLOADS].text(name) == row.payload
                np.testing.assert_array_equal(
                    table[SIGNS].row(name), signs_of(row.vector[None], 0.0)[0]
                )


SignMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=15, deadline=None, print_blob=True
)
test_any_sequence_of_changes_and_builds_gives_what_the_collection_holds = SignMachine.TestCase


@pytest.fixture
def source() -> MemorySnapshot:
    return snapshot_of(clustered(300, 12), payloads=[None, "1", '{"a": 2}'] * 100)


def next_of(folder: Path, source: MemorySnapshot, after: MemorySnapshot) -> tuple[Any, Run]:
    """Build the version of ``source``, then that of ``after`` which follows it."""
    job = make_job(folder / "1", source)
    following = make_job(folder / "2", after, previous=as_previous(job, run(KIND, job)))
    return following, run(KIND, following)


def test_a_small_batch_names_the_base_again(tmp_path: Path, source: MemorySnapshot) -> None:
    after = source.commit({"e000007": CHANGED, "new": CHANGED}, ["e000009"])
    job, done = next_of(tmp_path, source, after)
    assert (done.failed, done.built.extends, done.built.entries) == ([], True, 300)
    for name in ("signs.npy", "payloads.table", "ids.table"):
        assert done.built.files[name] == job.previous.manifest.files[name]
    assert np.load(done.files["delta_signs.npy"]).shape == (2, 2)


def test_a_kind_that_stores_other_values_builds_its_versions_from_scratch(
    tmp_path: Path, source: MemorySnapshot
) -> None:
    class Later(SignIndex):
        revision = 2

    job = make_job(tmp_path / "1", source)
    before = as_previous(job, run(KIND, job))
    assert SignIndex.outdated(before.manifest) is None
    assert Later.outdated(before.manifest) == "its kind stores other values since it was built"
    following = make_job(tmp_path / "2", source.commit({"new": CHANGED}), previous=before)
    done = run(Later(SignParameters()), following)
    assert (done.failed, done.built.extends) == ([], False)
    assert Later.outdated(as_previous(following, done).manifest) is None


def test_an_empty_collection_is_a_version_too(tmp_path: Path) -> None:
    empty = snapshot_of(np.empty((0, 12), dtype=np.float32))
    done = run(KIND, make_job(tmp_path / "0", empty))
    assert (done.failed, done.built.entries, done.built.counts) == ([], 0, {"payloads": 0})
    with closing(KIND.load(done.files)) as served:
        assert served.search(np.zeros(12)) == []


def test_rows_of_another_length_are_written_from_scratch(
    tmp_path: Path, source: MemorySnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path / "1", source)
    before = as_previous(job, run(KIND, job))
    monkeypatch.setattr(
        SignIndex, "rows_of", lambda _, one: (np.zeros((len(one), 3), np.uint8), one.payloads)
    )
    done = run(KIND, make_job(tmp_path / "2", source.commit({"new": CHANGED}), previous=before))
    assert done.built.extends is False
    assert done.built.details["build"]["mode"] == "full"


def wrong_payload(files: dict[str, Path]) -> None:
    table = files["delta_payloads.table"]
    table.write_bytes(table.read_bytes().replace(b'"new"', b'"old"'))


def wrong_sign(files: dict[str, Path]) -> None:
    signs = np.load(files["delta_signs.npy"])
    np.save(files["delta_signs.npy"], signs ^ 1)


def cut_short(files: dict[str, Path]) -> None:
    files["delta_payloads.table"].write_bytes(files["delta_payloads.table"].read_bytes()[:-1])


def lost_rows(files: dict[str, Path]) -> None:
    np.save(files["delta_signs.npy"], np.load(files["delta_signs.npy"])[:-1])


@pytest.mark.parametrize(
    ("corrupt", "gate"),
    [
        (wrong_payload, "rows_match_source"),
        (wrong_sign, "rows_match_source"),
        (cut_short, "reads_back"),
        (lost_rows, "reads_back"),
    ],
)
def test_a_delta_that_is_not_as_the_source_has_it_is_not_released(
    tmp_path: Path, source: MemorySnapshot, corrupt: Any, gate: str
) -> None:
    job, done = next_of(tmp_path, source, source.commit({"e000007": CHANGED, "new": CHANGED}))
    corrupt(done.files)
    checks = KIND.verify(job, done.built, done.files)
    assert [check.name for check in checks if not check.passed] == [gate]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (lambda entries: [entries.payloads], "rows_of gave 1 columns; Broken.columns names 2"),
        (
            lambda entries: [signs_of(entries.vectors[1:], 0.0), entries.payloads],
            "rows_of gave 299 values of signs for 300 entries",
        ),
    ],
)
def test_rows_that_are_not_one_for_each_entry_are_refused(
    tmp_path: Path, source: MemorySnapshot, rows: Any, said: str
) -> None:
    class Broken(SignIndex):
        def rows_of(self, entries: Entries) -> Any:
            return rows(entries)

    with pytest.raises(ContractError, match=said):
        Broken(SignParameters()).build(make_job(tmp_path, source))


@pytest.mark.parametrize(
    ("column", "given", "said"),
    [
        (
            ArrayColumn("codes", np.uint64),
            np.zeros((2, 3)),
            "rows_of gave float64 for codes, the column takes uint64, and numbers may be lost",
        ),
        (ArrayColumn("codes", np.int32), np.zeros((2, 3), np.int64), "gave int64 for codes"),
        (ArrayColumn("codes", np.float32), np.zeros((2, 3)), "gave float64 for codes"),
        (ArrayColumn("codes", np.int32, shape=()), [1, 2.5], "gave float64 for codes"),
        (ArrayColumn("codes", np.float32, shape=()), [1, 2**24 + 1], "gave int64 for codes"),
        (ArrayColumn("codes", np.uint8, shape=()), [1, 256], "codes is no array of uint8"),
        (ArrayColumn("codes", np.uint8), [[1], [1, 2]], "codes is no array of uint8"),
        (
            ArrayColumn("codes", np.uint8, shape=()),
            np.zeros((2, 1), np.uint8),
            r"rows_of gave codes in the shape \(2, 1\), the column takes \(n,\)",
        ),
        (
            ArrayColumn("codes", np.uint8),
            np.zeros(2, np.uint8),
            r"rows_of gave codes in the shape \(2,\), the column takes \(n, any\)",
        ),
        (
            ArrayColumn("codes", np.uint8, shape=(4,)),
            np.zeros((2, 3), np.uint8),
            r"rows_of gave codes in the shape \(2, 3\), the column takes \(n, 4\)",
        ),
    ],
)
def test_numbers_that_a_column_cannot_take_are_refused(
    column: ArrayColumn, given: Any, said: str
) -> None:
    with pytest.raises(ContractError, match=said):
        column.values(given)


@pytest.mark.parametrize(
    ("column", "given"),
    [
        (ArrayColumn("codes", np.uint64), np.full((2, 3), 2**63 + 1, np.uint64)),
        (ArrayColumn("codes", np.uint64), [[2**63 + 1], [1]]),
        (ArrayColumn("codes", np.int32), np.zeros((2, 3), bool)),
        (ArrayColumn("codes", np.float64), np.full((2, 3), 0.1, np.float32)),
        (ArrayColumn("codes", np.uint8, shape=()), [0, 255]),
    ],
)
def test_numbers_that_a_column_holds_as_they_are_are_taken(column: ArrayColumn, given: Any) -> None:
    stored = column.values(given)
    assert stored.dtype == column.dtype
    assert stored.tolist() == (given if isinstance(given, list) else given.tolist())


def test_fractions_of_a_list_are_rounded_to_the_column() -> None:
    stored = ArrayColumn("codes", np.float32, shape=()).values([0.1, np.nan])
    np.testing.assert_array_equal(stored, np.array([0.1, np.nan], np.float32))


def test_an_empty_list_is_a_column_without_rows() -> None:
    assert ArrayColumn("codes", np.uint8).values([]).shape == (0, 0)


def test_use_after_close_raises_a_clear_error(tmp_path: Path, source: MemorySnapshot) -> None:
    served: SignSearch = KIND.load(run(KIND, make_job(tmp_path, source)).files)
    served.close()
    with pytest.raises(ClosedVersionError, match="SignSearch was closed"):
        served.search(np.zeros(12))


class WithDimension(SignIndex):
    """Stores a file of its own beside the columns, as docs/kinds.md says."""

    def build(self, job: Job) -> Built:
        built, path = super().build(job), job.workdir / "dimension.txt"
        path.write_text(f"{job.collection.dimension}")
        return replace(built, files={**built.files, path.name: path})

    def verify(self, job: Job, built: Built, files: Files) -> Iterator[Check]:
        yield from super().verify(job, built, files)
        found = int(files["dimension.txt"].read_text())
        yield judge("dimension_stored", lambda: equal(found, job.collection.dimension, "another"))
        if built.extends and job.previous is not None:
            source = job.collection
            changed = source.changes(job.previous.manifest.covers[source.collection])
            ids = [entry_id for chunk in changed or () for entry_id in chunk.upserts.ids]
            yield Check(name="changed", passed=ids == ["new"], measured=len(ids))


def test_a_file_of_ones_own_is_kept_beside_the_columns(
    tmp_path: Path, source: MemorySnapshot
) -> None:
    kind = WithDimension(SignParameters())
    job = make_job(tmp_path / "1", source)
    before = as_previous(job, run(kind, job))
    following = make_job(tmp_path / "2", source.commit({"new": CHANGED}), previous=before)
    done = run(kind, following)
    assert (done.failed, done.built.extends) == ([], True)
    assert done.files["dimension.txt"].read_text() == "12"
    assert done.check("changed").measured == 1
    assert done.check("dimension_stored").passed


class Lengths(LayeredKind[LayeredParameters, LayeredTable]):
    """A single number for each entry."""

    columns = (LENGTHS,)

    def rows_of(self, entries: Entries) -> Any:
        return [[len(payload or "") for payload in entries.payloads]]

    def load(self, files: Any) -> LayeredTable:
        return LayeredTable(files, self.columns)


def test_a_column_may_hold_single_numbers(tmp_path: Path, source: MemorySnapshot) -> None:
    kind = Lengths(LayeredParameters())
    job = make_job(tmp_path / "1", source)
    following = make_job(
        tmp_path / "2", source.commit({"new": CHANGED}), previous=as_previous(job, run(kind, job))
    )
    done = run(kind, following)
    assert (done.failed, done.built.extends) == ([], True)
    with closing(kind.load(done.files)) as table:
        assert table[LENGTHS].row_shape == ()
        assert [int(table[LENGTHS].row(name)) for name in ("e000001", "new")] == [1, 5]
        assert table[LENGTHS].whole().tolist() == [0, 1, 8] * 100 + [5]


@pytest.mark.parametrize(
    ("columns", "taken"),
    [
        ((TextColumn("ids"),), "ids.table, delta_ids.table"),
        ((ArrayColumn("tombstones", np.int64),), "tombstones.npy"),
        ((SIGNS, ArrayColumn("signs", np.int64)), "signs.npy, delta_signs.npy"),
    ],
)
def test_columns_that_would_write_one_file_are_refused(columns: Any, taken: str) -> None:
    with pytest.raises(TypeError, match=f"^Twice.columns: {taken} is taken; rename the column$"):
        type("Twice", (SignIndex,), {"columns": columns})
