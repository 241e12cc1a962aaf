"""Whether all is well is a function of facts; the cases stand beside what they are about."""

from indexrelay.health.judge import judge
from indexrelay.health.status import Code, Condition
from tests.health.healthy_facts import (
    VERSIONS,
    healthy,
    pause,
    reader,
    redis,
    without,
)
from tests.health.test_judge_components import CASES as COMPONENTS
from tests.health.test_judge_places import CASES as PLACES
from tests.health.test_judge_processes import CASES as PROCESSES
from tests.health.test_judge_redis import CASES as REDIS


def test_all_is_well_in_a_healthy_installation() -> None:
    verdict = judge(healthy())
    assert (verdict.well, verdict.problems, verdict.notes) == (True, (), ())
    assert {each.condition for each in verdict.components.values()} == {Condition.CURRENT}


def test_settings_without_any_component_are_no_fault_and_are_noted() -> None:
    verdict = judge(healthy(**without(*VERSIONS), definitions={}))
    assert verdict.well
    assert "the settings declare no component: nothing is built, and nothing is served" in (
        verdict.notes
    )


def test_nothing_committed_yet_is_no_fault_and_is_noted() -> None:
    empty = healthy(
        generation=0,
        stored={},
        sources={},
        release=None,
        versions={},
        highest_release=0,
        redis=redis(announced=0, readers={"one": reader(release=0, components={})}),
    )
    verdict = judge(empty)
    assert verdict.well
    assert verdict.notes == (
        (
            "nothing was committed to tracks yet, so there is nothing to build map, map_cache, "
            "similar from"
        ),
    )


def test_every_code_has_a_case() -> None:
    tables = (COMPONENTS, PLACES, PROCESSES, REDIS)
    assert {code for table in tables for _, code, *_ in table.values()} == set(Code)


def test_a_problem_that_a_command_is_not_about_is_left_out() -> None:
    facts = healthy(
        unreadable={"tracks": "gone"}, sources={}, paused={"map": pause("map")}, dead_letters=1
    )
    verdict = judge(facts)
    only = verdict.within({Code.SOURCE_UNREADABLE})
    assert [each.code for each in only.problems] == [Code.SOURCE_UNREADABLE]
    assert not only.well
    named = verdict.within(set(Code), subjects={"similar"})
    assert Code.COMPONENT_PAUSED not in {each.code for each in named.problems}
    assert verdict.within(set()).well
