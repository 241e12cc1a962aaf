"""Backups by the clock: one for each slot, made up for when it was missed, and never given up."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from indexrelay.operations.backups.schedule import BackupDuty
from indexrelay.operations.service import DutyResources
from indexrelay.storage.audit import FILE_NAME
from indexrelay.testing.pipeline import Pipeline
from tests.fixtures.logs import capture_logs
from tests.operations.backups.conftest import Install, backups_of, commit

NIGHTLY = {"schedule": "0 3 * * *", "timezone": "Europe/Berlin", "keep_count": 3}
DAY = 86_400.0


def duty_of(pipeline: Pipeline) -> BackupDuty:
    nobody: Any = None  # a backup asks nothing of Redis
    return BackupDuty(
        DutyResources(
            settings=pipeline.settings,
            catalog=pipeline.catalog,
            store=pipeline.store,
            connection=nobody,
            clock=pipeline.clock,
        )
    )


def ids(pipeline: Pipeline) -> list[str]:
    return [each.id for each in backups_of(pipeline).folder.all()]


@pytest.fixture
def pipeline(install: Install) -> Pipeline:
    """Midnight in London, an hour later in Berlin."""
    pipeline = install(backups=NIGHTLY)
    assert pipeline.clock.now() == datetime(2026, 1, 1, tzinfo=UTC)
    return pipeline


def test_the_first_is_made_with_the_first_release_and_one_at_every_slot(
    pipeline: Pipeline,
) -> None:
    duty = duty_of(pipeline)
    assert duty.turn() == 30.0
    assert ids(pipeline) == []
    commit(pipeline, "first", range(5))
    pipeline.settle()
    duty.turn()
    assert ids(pipeline) == ["20260101_000000"]
    pipeline.clock.advance(2 * 3600 - 10)
    assert duty.turn() == 10.0  # at three in Berlin
    assert len(ids(pipeline)) == 1
    pipeline.clock.advance(10)
    duty.turn()
    assert ids(pipeline)[0] == "20260101_020000"
    assert duty.turn() == 30.0
    for _ in range(3):
        pipeline.clock.advance(DAY)
        duty.turn()
    assert ids(pipeline) == ["20260104_020000", "20260103_020000", "20260102_020000"]
    lines = (pipeline.settings.data_dir / FILE_NAME).read_text().splitlines()
    made = [each for each in map(json.loads, lines) if each["action"] == "backed_up"]
    assert {each["who"] for each in made} == {"operator"}
    assert len(made) == 5
    assert made[-1]["subject"] == "20260104_020000"
    assert made[-1]["removed"] == ["20260101_020000"]


def test_of_many_that_were_missed_one_is_made_up_for(pipeline: Pipeline) -> None:
    commit(pipeline, "first", range(5))
    pipeline.settle()
    backups_of(pipeline).create()  # by a person: it counts
    pipeline.clock.advance(3600)
    duty_of(pipeline).turn()
    assert len(ids(pipeline)) == 1
    pipeline.clock.advance(5.5 * DAY)
    later = duty_of(pipeline)
    later.turn()
    later.turn()
    assert ids(pipeline) == ["20260106_130000", "20260101_000000"]


def test_one_that_was_made_under_a_clock_years_ahead_keeps_none_from_being_made(
    install: Install,
) -> None:
    pipeline = install(backups={**NIGHTLY, "keep_count": 1})
    commit(pipeline, "first", range(5))
    pipeline.settle()
    pipeline.clock.advance(1000 * DAY)
    backups_of(pipeline).create()
    (ahead,) = ids(pipeline)
    pipeline.clock._start -= timedelta(days=1000)
    duty = duty_of(pipeline)
    duty.turn()
    duty.turn()
    assert ids(pipeline) == [ahead, "20260101_000000"]
    pipeline.clock.advance(2 * 3600)
    duty.turn()
    duty.turn()
    assert ids(pipeline) == [ahead, "20260101_020000"]


def test_several_operators_make_one(pipeline: Pipeline) -> None:
    commit(pipeline, "first", range(5))
    pipeline.settle()
    first, second = duty_of(pipeline), duty_of(pipeline)
    with backups_of(pipeline).folder.writing():
        assert second.turn() == 30.0  # another one is at it
    first.turn()
    second.turn()
    assert ids(pipeline) == ["20260101_000000"]
    pipeline.clock.advance(2 * 3600)
    first.turn()
    # The second had looked before the first one had made it.
    slot = datetime(2026, 1, 1, 2, tzinfo=UTC)
    assert backups_of(pipeline).create_due(slot) is None
    second.turn()
    assert ids(pipeline) == ["20260101_020000", "20260101_000000"]


def test_one_that_fails_is_tried_again_less_and_less_often(pipeline: Pipeline) -> None:
    commit(pipeline, "first", range(5))
    pipeline.settle()
    pipeline.corrupt("cache")
    duty = duty_of(pipeline)
    with capture_logs() as events:
        waits = [duty.turn() for _ in range(12)]
    assert 40 < waits[0] < 80
    assert waits[0] < waits[1] < waits[2]
    assert 2800 < waits[-1] < 4400
    failed = [each for each in events if each["event"] == "backup.failed"]
    assert len(failed) == 12
    assert "blobs/sha256/" in failed[0]["error"]
    assert ids(pipeline) == []
    pipeline.producer.request_rebuild(["cache"], full=True)
    pipeline.settle()
    duty.turn()
    assert ids(pipeline) == ["20260101_000000"]


def test_an_operator_that_stops_ends_its_backup_and_leaves_nothing_of_it(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(pipeline, "first", range(5))
    pipeline.settle()
    duty = duty_of(pipeline)
    write_copy = pipeline.catalog.write_copy

    def stopped_meanwhile(*given: Any) -> None:
        write_copy(*given)
        duty.stop()

    monkeypatch.setattr(pipeline.catalog, "write_copy", stopped_meanwhile)
    duty.turn()
    left = [path.name for path in backups_of(pipeline).folder.path.iterdir()]
    assert left == [".indexrelay-lock"]
    duty.stop()
    assert duty.turn() == 30.0
