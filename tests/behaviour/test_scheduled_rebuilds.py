"""A schedule from its slot to its release: what it builds, and what it leaves alone."""

from typing import Any

import numpy as np
import pytest

from indexrelay.health.judge import judge
from indexrelay.health.status import Code, Problem
from indexrelay.health.survey import Survey
from indexrelay.operations.schedules import ScheduleDuty
from indexrelay.operations.service import DutyResources
from indexrelay.producers.events import JobConnection
from indexrelay.schemas.messages import RebuildResult, RebuildStatus
from indexrelay.schemas.schedules import schedule_of
from indexrelay.testing import MakePipeline, Pipeline

HOUR = 3600.0
IDS = [f"t{row:03d}" for row in range(50)]


def scheduled(make: MakePipeline, **component: Any) -> tuple[Pipeline, ScheduleDuty]:
    """A component that is built, and an operator that has it rebuilt every hour."""
    pipeline = make(
        collections={"tracks": {"dimension": 4}},
        components={"cache": {"kind": "embedding_cache", "from": "tracks", **component}},
        schedules={"hourly": {"cron": "0 * * * *", "components": ["cache"], "full": True}},
    )
    commit(pipeline)
    pipeline.settle()
    resources = DutyResources(
        settings=pipeline.settings,
        catalog=pipeline.catalog,
        store=pipeline.store,
        connection=JobConnection(pipeline.settings, pipeline.connection),
        clock=pipeline.clock,
    )
    duty = ScheduleDuty(resources)
    duty.turn()
    return pipeline, duty


def commit(pipeline: Pipeline) -> None:
    with pipeline.producer.batch("tracks") as batch:
        batch.upsert(IDS, np.random.default_rng().standard_normal((len(IDS), 4)))


def problems(pipeline: Pipeline) -> tuple[Problem, ...]:
    """What the judge finds."""
    survey = Survey.opened(
        pipeline.settings,
        catalog=pipeline.catalog,
        store=pipeline.store,
        connection=pipeline.connection,
        clock=pipeline.clock,
    )
    return judge(survey.whole()).problems


def an_hour_later(pipeline: Pipeline, duty: ScheduleDuty) -> RebuildResult | None:
    """The result that answers the slot of this hour; ``None``: there is none."""
    pipeline.clock.advance(HOUR)
    duty.turn()
    state = pipeline.catalog.schedules.all()["hourly"]
    assert state.request is not None
    pipeline.rebuild()
    answer = pipeline.catalog.inbox.answer(state.request)
    assert answer is not None
    assert answer.finished
    return answer.result


def test_a_slot_ends_in_a_release_whose_result_names_it(indexrelay_pipeline: MakePipeline) -> None:
    pipeline, duty = scheduled(indexrelay_pipeline)
    before = pipeline.store.newest_release()
    result = an_hour_later(pipeline, duty)
    assert result is not None
    assert result.status is RebuildStatus.SUCCESS
    assert result.indexes_rebuilt == ("cache",)
    assert [schedule_of(each) for each in result.request_ids] == ["hourly"]
    after = pipeline.store.newest_release()
    assert before is not None
    assert after is not None
    assert after.number == before.number + 1


@pytest.mark.parametrize("failures", [3, 2])
def test_what_failed_too_often_is_left_alone_for_a_day_by_schedules_alone(
    indexrelay_pipeline: MakePipeline, failures: int
) -> None:
    own = {} if failures == 3 else {"max_consecutive_failures": failures}
    pipeline, duty = scheduled(indexrelay_pipeline, **own)
    pipeline.fail_build("cache")
    for _ in range(failures):
        failed = an_hour_later(pipeline, duty)
        assert failed is not None
        assert failed.status is RebuildStatus.FAILURE

    for _ in range(23):
        refused = an_hour_later(pipeline, duty)
        assert refused is not None
        assert f"failed {failures} time(s) in a row, and schedules leave it alone until" in (
            refused.message
        )
        assert "indexrelay rebuild cache" in refused.message
    assert pipeline.catalog.attempts.all()["cache"].failures == failures
    (problem,) = (each for each in problems(pipeline) if each.code is Code.COMPONENT_FAILED)
    assert "and its schedule leaves it alone until 2026-" in problem.what

    again = an_hour_later(pipeline, duty)  # a day after the last failure
    assert again is not None
    assert again.status is RebuildStatus.FAILURE
    pipeline.heal_build("cache")
    pipeline.producer.request_rebuild(["cache"], reason="by hand")  # a person is not bound by it
    by_hand = pipeline.rebuild()
    assert by_hand is not None
    assert by_hand.indexes_rebuilt == ("cache",)
    resumed = an_hour_later(pipeline, duty)
    assert resumed is not None
    assert resumed.status is RebuildStatus.SUCCESS


def test_an_event_builds_what_schedules_leave_alone(indexrelay_pipeline: MakePipeline) -> None:
    pipeline, duty = scheduled(indexrelay_pipeline)
    pipeline.fail_build("cache", times=3)
    for _ in range(3):
        an_hour_later(pipeline, duty)
    commit(pipeline)
    result = an_hour_later(pipeline, duty)
    assert result is not None
    assert result.indexes_rebuilt == ("cache",)


def test_a_schedule_builds_nothing_that_a_person_paused(indexrelay_pipeline: MakePipeline) -> None:
    pipeline, duty = scheduled(indexrelay_pipeline)
    pipeline.catalog.attempts.pause("cache", "maps are moving")
    result = an_hour_later(pipeline, duty)
    assert result is not None
    assert result.indexes_rebuilt == ()
    assert "it is paused (maps are moving)" in result.message
    assert "indexrelay resume cache" in result.message


def test_the_judge_says_that_no_operator_looks_and_that_one_is_late(
    indexrelay_pipeline: MakePipeline,
) -> None:
    pipeline, duty = scheduled(indexrelay_pipeline)

    def sentences() -> list[str]:
        return [each.what for each in problems(pipeline) if each.code is Code.SCHEDULE_OVERDUE]

    pipeline.clock.advance(HOUR)
    assert sentences() == []
    pipeline.clock.advance(301)
    (late,) = sentences()
    assert "schedule hourly should have started a rebuild at" in late
    duty.turn()
    assert sentences() == []
    pipeline.settings.schedules["hourly"] = pipeline.settings.schedules["hourly"].model_copy(
        update={"cron": "30 * * * *"}
    )
    assert sentences() == ["no operator looks at schedule hourly, as it is declared"]
