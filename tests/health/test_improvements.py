"""What is improved, and what is not: a function of facts that changes nothing else."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexrelay.components.kind import Improvable
from indexrelay.health.due import find_due
from indexrelay.health.facts import Facts, SourceFact
from indexrelay.health.improvements import find_improvements
from indexrelay.health.judge import judge
from indexrelay.health.status import Condition
from tests.health.healthy_facts import (
    DEFINITIONS,
    EPOCH,
    NAMES,
    NOW,
    VERSIONS,
    attempt,
    healthy,
    hold,
    manifest,
    pause,
    rebuilder,
    redis,
    release,
)
from tests.health.test_judge_agreement import any_facts

BETTER = Improvable(reason="lists were ready soonest", since={"tracks": 1})
FAILED = attempt("similar", inputs=DEFINITIONS["similar"].digest)


def improvable(**changes: Any) -> Facts:
    """All is well, and one component may be improved; but for what ``changes`` say."""
    return healthy(**{"improvable": {"similar": BETTER}, **changes})


def reasons(facts: Facts) -> dict[str, str]:
    due = find_due(facts, facts.retry_policy)
    return dict(find_improvements(facts, due, facts.retry_policy).reasons)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"generation": 4},
        {"generation": 4, "paused": {"map": pause("map")}},
        {"attempts": {"map": attempt("map")}},
        {"failed_improvements": {"similar": replace(FAILED, inputs="of another definition")}},
        {"failed_improvements": {"similar": FAILED}, "now": NOW + timedelta(days=1)},
    ],
)
def test_a_version_is_improved_also_while_it_is_behind_or_others_are_not_well(
    changes: dict[str, Any],
) -> None:
    assert reasons(improvable(**changes)) == {"similar": BETTER.reason}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"paused": {"similar": pause("similar")}}, "it is paused (cost)"),
        ({"release": release(holds={"similar": hold()})}, "it is held (bad maps)"),
        ({"attempts": {"similar": attempt("similar")}}, "its last build failed"),
        ({"corrupt": {"similar": "rotten"}}, "it has no version that is whole"),
        (
            {"versions": {**VERSIONS, "similar": manifest("similar", definition="0" * 64)}},
            "it is declared differently than it was built",
        ),
        ({"outdated": {"similar": "it is old"}}, "it is built again first"),
        ({"requested": frozenset({"similar"})}, "it is built again first"),
        ({"sources": {}}, "what it is made from cannot be read"),
        (
            {"failed_improvements": {"similar": FAILED}},
            "that failed 1 time(s) in a row: it broke",
        ),
        (
            {
                "failed_improvements": {"similar": replace(FAILED, failures=99)},
                "now": NOW + timedelta(days=1),
            },
            "that failed 99 time(s) in a row: it broke",
        ),
    ],
)
def test_what_keeps_a_version_from_being_improved_is_named(
    changes: dict[str, Any], why: str
) -> None:
    facts = improvable(**changes)
    found = find_improvements(facts, find_due(facts, facts.retry_policy), facts.retry_policy)
    assert not found.reasons
    assert found.obstacles["similar"].why == why


def test_new_batches_do_not_end_the_cool_down_of_an_improvement() -> None:
    for generation in (3, 4, 5):
        facts = improvable(generation=generation, failed_improvements={"similar": FAILED})
        assert not reasons(facts)


def test_an_improvement_that_is_built_makes_its_component_due_unless_a_person_keeps_it() -> None:
    facts = improvable(improved={"similar": "f" * 64})
    assert not reasons(facts)  # it is not built twice
    due = find_due(facts, facts.retry_policy)
    assert due.reasons == {"similar": "a better version of it is built"}
    for kept in (
        replace(facts, paused={"similar": pause("similar")}),
        replace(facts, release=release(holds={"similar": hold()})),
    ):
        assert not find_due(kept, kept.retry_policy).reasons


def test_a_reason_that_concerns_what_is_contained_comes_before_an_improvement() -> None:
    facts = improvable(generation=4, improved={"similar": "f" * 64})
    due = find_due(facts, facts.retry_policy)
    assert due.reasons["similar"] == "tracks is at generation 4, it covers 3"


def test_an_improvement_is_well_current_and_told() -> None:
    facts = improvable(
        redis=redis(rebuilders={"r1": rebuilder(improving=("similar",))}),
        sources={"tracks": SourceFact(epoch=EPOCH, generation=3, entries=10)},
    )
    verdict = judge(facts)
    assert verdict.well
    health = verdict.components["similar"]
    assert health.condition is Condition.CURRENT
    assert health.improvement is not None
    assert health.improvement.building == ("r1",)
    (note,) = verdict.notes
    assert note == (
        "similar serves, and is to be improved: lists were ready soonest; "
        "rebuilder r1 builds a better version"
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "a rebuilder does it when it builds nothing else"),
        (
            {"redis": redis(rebuilders={})},
            "at once: indexrelay rebuild similar --full --here",
        ),
        (
            {"failed_improvements": {"similar": FAILED}},
            "it is tried again at 2026-01-01 12:00 UTC",
        ),
        (
            {"failed_improvements": {"similar": replace(FAILED, failures=99)}},
            "to try again: indexrelay rebuild similar --full",
        ),
        ({"paused": {"similar": pause("similar")}}, "not yet, since it is paused (cost)"),
    ],
)
def test_a_note_says_what_becomes_of_an_improvement(changes: dict[str, Any], told: str) -> None:
    (note,) = [each for each in judge(improvable(**changes)).notes if "similar serves" in each]
    assert note.endswith(told)


@settings(max_examples=150, deadline=None)
@given(any_facts(), st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES)))
def test_what_may_be_improved_changes_neither_what_is_due_nor_what_is_wrong(
    facts: Facts, some: set[str], failed: set[str]
) -> None:
    better = replace(
        facts,
        improvable=dict.fromkeys(some & facts.versions.keys(), BETTER),
        failed_improvements={name: attempt(name) for name in failed},
    )
    due = find_due(better, better.retry_policy)
    assert due == find_due(facts, facts.retry_policy)
    before, after = judge(facts), judge(better)
    assert after.problems == before.problems
    assert after.well == before.well
    found = find_improvements(better, due, better.retry_policy)
    assert {*found.reasons, *found.obstacles} == better.improvable.keys()
    assert found.reasons.keys().isdisjoint(
        {*facts.paused, *facts.holds, *facts.attempts, *facts.corrupt, *due.waiting}
    )
    for name in better.improvable:
        health = after.components[name].improvement
        assert health is not None
        assert (health.obstacle is None) == (name in found.reasons)
        assert any(note.startswith(f"{name} serves") for note in after.notes)
