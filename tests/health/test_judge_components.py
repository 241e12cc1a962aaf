"""What is judged of components and groups, and what is promised of whoever builds them."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from indexrelay.health.facts import SourceFact
from indexrelay.health.judge import judge
from indexrelay.health.status import Actor, Code, Condition
from indexrelay.schemas.declarations import declared_to_build
from indexrelay.schemas.messages import RebuilderState
from indexrelay.schemas.settings import CollectionSettings, ComponentDefinition
from tests.health.healthy_facts import (
    DEFINITIONS,
    NAMES,
    NEXT,
    NOW,
    OLD,
    TRACKS,
    VERSIONS,
    Cases,
    attempt,
    check_reported_once,
    declaring,
    healthy,
    hold,
    manifest,
    pause,
    problems,
    rebuilder,
    redis,
    release,
    served,
    stored,
    with_reader,
    without,
)

PAIR = {name: DEFINITIONS[name].model_copy(update={"group": "pair"}) for name in ("map", "similar")}
SECOND_MAP = manifest("map", covers={"tracks": 2})
CASES: Cases = {
    "failed for good": (
        {
            "attempts": {
                "similar": attempt(
                    "similar",
                    failures=3,
                    targets={"tracks": 3},
                    first_failed_at=NOW - timedelta(hours=2),
                )
            }
        },
        Code.COMPONENT_FAILED,
        "failed 3 time(s) in a row, since 2026-01-01 10:00 UTC, the last time at 2026-01-01 12:00",
        "correct the cause, then: indexrelay rebuild similar",
        Actor.PERSON,
    ),
    "cooling down": (
        {"attempts": {"similar": attempt("similar", targets={"tracks": 3})}},
        Code.COMPONENT_FAILED,
        "similar failed 1 time(s) in a row, at 2026-01-01 12:00 UTC, the last good version serves",
        "a rebuilder tries again at 2026-01-01 12:00 UTC; or at once: indexrelay rebuild similar",
        Actor.PERSON,
    ),
    "corrupt": (
        {
            "versions": {name: VERSIONS[name] for name in NAMES if name != "similar"},
            "corrupt": {"similar": "a blob is corrupt"},
        },
        Code.COMPONENT_CORRUPT,
        "similar has corrupt files: a blob is corrupt",
        "a running rebuilder builds it",
        Actor.PROCESS,
    ),
    "never built": (
        without("similar"),
        Code.COMPONENT_MISSING,
        "similar was never built",
        "a running rebuilder builds it, if it was started with these settings",
        Actor.PROCESS,
    ),
    "declared differently": (
        {"versions": {**VERSIONS, "similar": manifest("similar", definition="b" * 64)}},
        Code.COMPONENT_CHANGED,
        "similar is declared differently than it was built",
        "a rebuilder that has these settings builds it: start those again",
        Actor.PERSON,
    ),
    "behind": (
        {"versions": {**VERSIONS, "similar": manifest("similar", covers={"tracks": 1})}},
        Code.COMPONENT_BEHIND,
        "similar is 2 generations of tracks behind: tracks is at generation 3, it covers 1",
        "a running rebuilder builds it",
        Actor.PROCESS,
    ),
    "undeclared": (
        {"definitions": {name: DEFINITIONS[name] for name in NAMES if name != "similar"}},
        Code.COMPONENT_UNDECLARED,
        "similar is released, and the settings do not declare it",
        "it leaves the next release of a rebuilder that has these settings: start those again",
        Actor.PERSON,
    ),
    "a kind that raises": (
        {"raising_kinds": {"similar": "KeyError: 'genre' (mine.py:3 in Mine.outdated)"}},
        Code.KIND_RAISES,
        "the kind of similar cannot say whether its version is outdated: KeyError: 'genre' (mine",
        "correct its method outdated",
        Actor.PERSON,
    ),
    "held": (
        {"release": release(holds={"similar": hold()})},
        Code.COMPONENT_HELD,
        "as asked: similar is held since 2026-01-01 12:00 UTC (bad maps)",
        "indexrelay lift similar",
        Actor.PERSON,
    ),
    "rolled back": (
        {"release": release(holds={"similar": hold(refused="a" * 64)})},
        Code.RELEASE_ROLLED_BACK,
        "similar went back to an earlier version on 2026-01-01 12:00 UTC: bad maps",
        "indexrelay lift similar",
        Actor.PERSON,
    ),
    "paused": (
        {"paused": {"similar": pause("similar")}},
        Code.COMPONENT_PAUSED,
        "as asked: similar is paused since 2026-01-01 12:00 UTC (cost)",
        "indexrelay resume similar",
        Actor.PERSON,
    ),
    "group waits": (
        {
            "definitions": {**DEFINITIONS, **PAIR},
            "sources": NEXT,
            "stored": {"tracks": stored(generation=4)},
            "paused": {"map": pause("map")},
        },
        Code.GROUP_WAITS,
        "group pair waits for map, which is paused, and keeps similar where it is",
        "the group moves as a whole once that one does: see map",
        Actor.PERSON,
    ),
    "group split": (
        {"definitions": {**DEFINITIONS, **PAIR}, "versions": {**VERSIONS, "map": SECOND_MAP}},
        Code.GROUP_SPLIT,
        "group pair is not at one state: map covers tracks up to 2, similar up to 3",
        "indexrelay rebuild map similar",
        Actor.PERSON,
    ),
    "not served": (
        with_reader(components={name: served(name) for name in NAMES if name != "map"}),
        Code.COMPONENT_NOT_SERVED,
        "map is released, and no reader serves it",
        "reader.components",
        Actor.PERSON,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_problem_of_a_component_is_reported_once_with_what_to_do_and_who_acts(case: str) -> None:
    check_reported_once(CASES[case])


def test_being_built_held_or_paused_is_reported_beside_the_condition_of_a_component() -> None:
    building = redis(rebuilders={"r1": rebuilder(building=("similar",))})
    behind = {**VERSIONS, "similar": manifest("similar", covers={"tracks": 2})}
    failed = {"similar": attempt("similar", failures=3)}
    cases: tuple[tuple[dict[str, Any], Condition, str], ...] = (
        ({"versions": behind}, Condition.BEHIND, "1 generation of tracks behind"),
        ({"attempts": failed}, Condition.FAILED, "failed 3 time(s)"),
        (without("similar"), Condition.MISSING, "was never built"),
        (
            {"versions": {**VERSIONS, "similar": manifest("similar", definition="b" * 64)}},
            Condition.CHANGED,
            "declared differently",
        ),
    )
    for changes, condition, said in cases:
        built = judge(healthy(**{**changes, "redis": building}))
        assert not built.well
        assert built.components["similar"].condition is condition
        assert built.components["similar"].building == ("r1",)
        (problem,) = (each for each in built.problems if each.subject == "similar")
        assert said in problem.what
        assert problem.advice == "rebuilder r1 builds it now"
        decided = judge(healthy(**{**changes, "paused": {"similar": pause("similar")}}))
        assert decided.components["similar"].condition is condition
        assert decided.components["similar"].paused is not None
        assert Code.COMPONENT_PAUSED in {each.code for each in decided.problems}
        told = " ".join(each.what for each in decided.problems if each.subject == "similar")
        assert said in told


def test_what_is_kept_back_says_by_what() -> None:
    behind = {name: manifest(name, covers={"tracks": 2}) for name in ("map", "map_cache")}
    behind["map_cache"] = manifest(
        "map_cache", covers={"tracks": 2}, parents={"map": behind["map"].id}
    )
    versions = {**VERSIONS, **behind}
    components = {name: each.id for name, each in versions.items()}
    behind_by = "map_cache is 1 generation of tracks behind"
    asked = f"as asked: {behind_by}: it waits for map, which it is made from and which is"
    for changes, what, advice in (
        (
            {"paused": {"map": pause("map")}},
            f"{asked} paused (cost)",
            "when that may move on: indexrelay resume map",
        ),
        (
            {"release": release(components=components, holds={"map": hold()})},
            f"{asked} held (bad maps)",
            "when that may move on: indexrelay lift map",
        ),
        (
            {"attempts": {"map": attempt("map", failures=3, targets={"tracks": 3})}},
            f"{behind_by}, since map, which it is made from, failed",
            "it is built once that is put right",
        ),
    ):
        given: dict[str, Any] = {"release": release(components=components), **changes}
        facts = healthy(versions=versions, **given)
        (child,) = (each for each in problems(facts) if each.subject == "map_cache")
        assert (child.what, child.advice) == (what, advice)
        assert child.asked == what.startswith("as asked")


def started_with(**components: ComponentDefinition) -> dict[str, Any]:
    """A rebuilder that was started with these changes to the definitions."""
    return {"redis": redis(rebuilders={"r1": rebuilder(declares=declaring(**components))})}


CHANGED = {"similar": ComponentDefinition.of("vector_index", "tracks", index="Flat")}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"definitions": {**DEFINITIONS, **CHANGED}}, Code.COMPONENT_CHANGED),
        (without("similar"), Code.COMPONENT_MISSING),
        (
            {"versions": {**VERSIONS, "similar": manifest("similar", covers={"tracks": 2})}},
            Code.COMPONENT_BEHIND,
        ),
        ({"corrupt": {"similar": "rotten"}}, Code.COMPONENT_CORRUPT),
        (
            {"attempts": {"similar": attempt("similar", transient=True)}, "sources": NEXT},
            Code.COMPONENT_FAILED,
        ),
    ],
)
def test_nothing_is_promised_of_a_rebuilder_that_was_started_with_other_settings(
    changes: dict[str, Any], code: Code
) -> None:
    declared = {**DEFINITIONS, **changes.get("definitions", {})}
    for rebuilders, acts, advice in (
        (started_with(similar=OLD), Actor.PERSON, "start rebuilder r1 (h:2) again with these"),
        (started_with(**declared), Actor.PROCESS, ""),
    ):
        facts = replace(healthy(**changes), **rebuilders)
        (found,) = (each for each in problems(facts) if each.code is code)
        assert found.acts is acts
        assert advice in found.advice
        others = [each.code for each in problems(facts)].count(Code.REBUILDER_OTHER_SETTINGS)
        assert others == (acts is Actor.PERSON)
    # A second one that has them, or that does not say, is enough.
    for second in (rebuilder(declares=declaring(**declared)), rebuilder()):
        both = {"r1": rebuilder(declares=declaring(similar=OLD)), "r2": second}
        facts = healthy(**{**changes, "redis": redis(rebuilders=both)})
        (found,) = (each for each in problems(facts) if each.code is code)
        assert "start rebuilder" not in found.advice


NEWER = manifest("map", definition="b" * 64, created_at=NOW - timedelta(minutes=9))


@pytest.mark.parametrize(
    ("changes", "runs", "why"),
    [
        (
            {"collections": {"tracks": CollectionSettings(dimension=3)}},
            rebuilder(declares=declaring()),
            "collection tracks is declared differently there",
        ),
        (
            {"definitions": {**DEFINITIONS, **PAIR}},
            rebuilder(declares=declaring(**{**PAIR, "map": OLD})),
            "map is declared differently there",
        ),
        (
            {"definitions": {**DEFINITIONS, **PAIR}, "versions": {**VERSIONS, "map": NEWER}},
            rebuilder(declares=declaring(**PAIR)),
            "it leaves map, which was built with other settings after it had started",
        ),
    ],
    ids=["another collection", "another member of the group", "a later version is left"],
)
def test_nothing_is_promised_of_a_rebuilder_that_something_else_keeps_from_building(
    changes: dict[str, Any], runs: RebuilderState, why: str
) -> None:
    facts = healthy(sources=NEXT, **changes, redis=redis(rebuilders={"r1": runs}))
    (behind,) = (each for each in problems(facts) if each.subject == "similar")
    assert behind.advice == f"start rebuilder r1 (h:2) again with these settings: {why}"
    assert behind.acts is Actor.PERSON


def test_a_failed_build_ends_by_itself_only_where_its_cause_may_pass() -> None:
    for transient, failures, acts in (
        (False, 1, Actor.PERSON),
        (True, 2, Actor.PROCESS),
        (True, 3, Actor.PERSON),
    ):
        failed = attempt("similar", transient=transient, failures=failures, targets={"tracks": 3})
        (problem,) = problems(healthy(attempts={"similar": failed}))
        assert problem.acts is acts
        due_again = healthy(attempts={"similar": failed}, now=NOW + timedelta(hours=1))
        (problem,) = (e for e in problems(due_again) if e.code is Code.COMPONENT_FAILED)
        if failures < 3:
            assert problem.advice.startswith("correct the cause; a rebuilder tries again now")
            assert problem.acts is acts


def test_what_is_made_of_a_collection_that_is_gone_is_not_current() -> None:
    components = judge(healthy(sources={}, stored={})).components
    assert {each.condition for each in components.values()} == {Condition.OUTRUN}


def test_what_is_declared_no_longer_says_who_keeps_it() -> None:
    fewer = {name: DEFINITIONS[name] for name in ("map", "map_cache")}
    anew = rebuilder(declares=declared_to_build(fewer, TRACKS))
    expected = (
        ({"redis": redis()}, Actor.PERSON, "declare it again; otherwise"),
        (started_with(), Actor.PERSON, "declare it again, or start that one again"),
        (
            {"redis": redis(rebuilders={"r1": anew})},
            Actor.PROCESS,
            "it leaves the next release, which a running rebuilder makes",
        ),
    )
    for changes, acts, advice in expected:
        found = problems(healthy(definitions=fewer, **changes))
        (problem,) = (each for each in found if each.code is Code.COMPONENT_UNDECLARED)
        assert problem.acts is acts
        assert problem.advice.startswith(advice)
    assert "since rebuilder r1 (h:2) does and would build it again" in " ".join(
        each.what for each in problems(healthy(definitions=fewer, **started_with()))
    )


def test_without_a_rebuilder_the_advice_is_how_to_build() -> None:
    behind = {**VERSIONS, "similar": manifest("similar", covers={"tracks": 2})}
    failed = attempt("similar", targets={"tracks": 3})
    for_good = attempt("similar", failures=3, targets={"tracks": 3})
    at = "2026-01-01 12:00 UTC"
    build_it = "indexrelay rebuild similar --here"
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {"versions": behind},
            "start a rebuilder, indexrelay rebuilder, or build here: indexrelay rebuild --here",
        ),
        (
            {"attempts": {"similar": failed}},
            f"correct the cause; it is retried at {at} if a rebuilder runs; or at once: {build_it}",
        ),
        ({"attempts": {"similar": for_good}}, f"correct the cause, then: {build_it}"),
    ]
    for changes, advice in cases:
        found = problems(healthy(**changes, redis=redis(rebuilders={})))
        (problem,) = (each for each in found if each.subject == "similar")
        assert (problem.advice, problem.acts) == (advice, Actor.PERSON)


def test_a_later_failure_of_what_changed_since_is_tried_again() -> None:
    facts = healthy(generation=4, attempts={"similar": attempt("similar", targets={"tracks": 3})})
    (problem,) = (each for each in problems(facts) if each.code is Code.COMPONENT_FAILED)
    assert problem.advice == "its input changed since, and a running rebuilder builds it"


def test_a_release_of_another_epoch_is_behind_all_of_it() -> None:
    facts = healthy(
        sources={"tracks": SourceFact(epoch="e2", generation=5)},
        stored={"tracks": stored(epoch="e2", generation=5)},
    )
    assert judge(facts).components["similar"].behind == {"tracks": 5}
    assert "tracks was created again" in problems(facts)[0].what
