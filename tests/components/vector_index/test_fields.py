"""Filterable fields of a vector index: their columns follow the payloads, batch by batch."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexrelay.components.formats.field_columns import FieldColumns, FieldColumnsWriter
from indexrelay.components.vector_index import VectorIndex, VectorIndexParameters
from indexrelay.components.vector_index.version import DELTA_FIELDS, FIELDS
from indexrelay.schemas.filters import FieldType
from tests.components.jobs import Row, as_previous, make_job, make_snapshot, run
from tests.components.vector_index.histories import History

ROWS, DIMENSION = 300, 8
DECLARED = {"year": FieldType.NUMBER, "genre": FieldType.KEYWORD}


def history(folder: Path, *, payload: Any = None, **keys: Any) -> History:
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((ROWS, DIMENSION)).astype(np.float32)
    made = [payload or {"year": row, "genre": "jazz" if row % 2 else "rock"} for row in range(ROWS)]
    source = make_snapshot(vectors, payloads=list(map(json.dumps, made)))
    return History(folder, source, index="Flat", filterable=DECLARED, **keys)


def upserts(count: int, payload: Any, *, seed: int = 5) -> dict[str, Row]:
    vectors = np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)
    return {
        f"new{row}": Row(vector=vectors[row], payload=json.dumps(payload)) for row in range(count)
    }


def test_a_small_batch_writes_the_columns_of_the_delta_only(tmp_path: Path) -> None:
    builds = history(tmp_path)
    first = builds.done.files[FIELDS]
    done = builds.commit(upserts(3, {"year": 7, "genre": "folk"}), ["e000001"])
    assert done.failed == []
    assert done.files[FIELDS] == first
    assert FieldColumns(done.files[DELTA_FIELDS]).rows == 3
    assert "delta_fields_match_payloads" in {check.name for check in done.checks}
    search = builds.open()
    assert search.count({"genre": "folk"}) == 3
    assert search.count({"year": 7}) == 4
    assert search.count({"genre": "jazz"}) == ROWS // 2 - 1


def test_details_count_what_holds_another_type(tmp_path: Path) -> None:
    builds = history(tmp_path, payload={"year": "unknown", "genre": "jazz"})
    assert builds.done.built.details["filterable"] == {
        "genre": {"type": "keyword", "entries": ROWS, "of_another_type": 0},
        "year": {"type": "number", "entries": 0, "of_another_type": ROWS},
    }
    done = builds.commit(upserts(2, {"year": 1}), ["e000000"])
    assert done.built.details["filterable"] == {
        "genre": {"type": "keyword", "entries": ROWS - 1, "of_another_type": 0},
        "year": {"type": "number", "entries": 2, "of_another_type": ROWS - 1},
    }
    assert builds.open().count({"year": {"$exists": False}}) == ROWS - 1


def other_columns(path: Path, count: int) -> None:
    """Columns of the same form, of other payloads."""
    writer = FieldColumnsWriter(DECLARED)
    writer.extend(0, [json.dumps({"year": row + 1, "genre": "rock"}) for row in range(count)])
    writer.write(path, count)


def test_columns_that_are_not_the_payloads_are_not_released(tmp_path: Path) -> None:
    builds = history(tmp_path)
    other_columns(builds.done.files[FIELDS], ROWS)
    checks = builds.kind.verify(builds.job, builds.done.built, builds.done.files)
    assert [check.name for check in checks if not check.passed] == ["fields_match_payloads"]


def test_columns_of_a_delta_that_are_not_its_payloads_are_not_released(tmp_path: Path) -> None:
    builds = history(tmp_path)
    done = builds.commit(upserts(3, {"year": 7}))
    other_columns(done.files[DELTA_FIELDS], 3)
    checks = builds.kind.verify(builds.job, done.built, done.files)
    assert [check.name for check in checks if not check.passed] == ["delta_fields_match_payloads"]


@pytest.mark.parametrize("name", [FIELDS, DELTA_FIELDS])
def test_a_version_that_lacks_columns_is_corrupt(tmp_path: Path, name: str) -> None:
    builds = history(tmp_path)
    done = builds.commit(upserts(3, {"year": 7}))
    files = {label: file for label, file in done.files.items() if label != name}
    checks = list(builds.kind.verify(builds.job, done.built, files))
    assert [check.name for check in checks if not check.passed] == ["reads_back"]


def test_columns_of_another_number_of_rows_are_corrupt(tmp_path: Path) -> None:
    builds = history(tmp_path)
    other_columns(builds.done.files[FIELDS], ROWS - 1)
    checks = list(builds.kind.verify(builds.job, builds.done.built, builds.done.files))
    assert [check.name for check in checks if not check.passed] == ["reads_back"]


def test_a_base_whose_columns_were_never_judged_is_not_continued(tmp_path: Path) -> None:
    builds = history(tmp_path)
    previous = as_previous(builds.job, builds.done)
    known = tuple(c for c in previous.manifest.checks if c.name != "fields_match_payloads")
    manifest = previous.manifest.model_copy(update={"checks": known})
    source = builds.source.commit(upserts(3, {"year": 7}))
    job = make_job(tmp_path / "next", source, previous=replace(previous, manifest=manifest))
    assert run(builds.kind, job).failed == ["base_was_judged"]


def test_other_fields_are_a_full_build(tmp_path: Path) -> None:
    builds = history(tmp_path)
    kind = VectorIndex(VectorIndexParameters.model_validate({"index": "Flat"}))
    source = builds.source.commit(upserts(3, {"year": 7}))
    previous = as_previous(builds.job, builds.done)
    done = run(kind, make_job(tmp_path / "next", source, previous=previous))
    assert done.failed == []
    assert not done.built.extends
    assert "other filterable fields" in done.built.details["build"]["reason"]
    assert FIELDS not in done.files


def test_without_fields_nothing_is_written(tmp_path: Path) -> None:
    plain = History(tmp_path, make_snapshot(np.eye(4, dtype=np.float32)), index="Flat")
    assert FIELDS not in plain.done.files
    assert "filterable" not in plain.done.built.details
    assert plain.open().fields == {}
