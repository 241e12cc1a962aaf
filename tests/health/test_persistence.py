"""When changes become a release: a function of facts, so that no restart changes it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from indexrelay.health.due import Due, find_due
from indexrelay.health.facts import Facts, RetryPolicy, SourceFact
from indexrelay.health.judge import judge
from indexrelay.health.persistence import policy_note, tombstones
from indexrelay.health.status import Condition
from indexrelay.schemas.settings import CollectionSettings
from indexrelay.storage.catalog import ChangeCount
from tests.health.healthy_facts import (
    DEFINITIONS,
    EPOCH,
    NOW,
    VERSIONS,
    attempt,
    healthy,
    manifest,
    pause,
    problems,
)

PATIENCE = RetryPolicy(cooldown_seconds=10, max_cooldown_seconds=600, max_consecutive_failures=3)
BUILT_AT = VERSIONS["similar"].created_at
PAIR = {
    **DEFINITIONS,
    **{name: DEFINITIONS[name].model_copy(update={"group": "pair"}) for name in ("map", "similar")},
}


def behind(persistence: str = "manual", *, live: bool = False, **changes: Any) -> Facts:
    """A generation was committed that no version covers."""
    declared = CollectionSettings.model_validate(
        {
            "dimension": 2,
            "persistence": persistence,
            "live": live,
            "save_interval_seconds": changes.pop("interval", 7200),
        }
    )
    facts = healthy(generation=4, collections={"tracks": declared})
    return replace(facts, **changes)


def due(facts: Facts) -> Due:
    return find_due(facts, PATIENCE)


def with_changes(upserts: int, deletes: int = 0, *, entries: int = 10) -> dict[str, Any]:
    """The source, of which so much changed since what the versions cover."""
    changed = {3: ChangeCount(upserts=upserts, deletes=deletes)}
    source = SourceFact(epoch=EPOCH, generation=4, entries=entries, changed=changed)
    return {"sources": {"tracks": source}}


def layered(*, base: int = 100, delta: int = 0, dead: int = 0, **parameters: Any) -> dict[str, Any]:
    """The versions, of which ``similar`` has tombstones."""
    similar = manifest(
        "similar",
        entries=base + delta - dead,
        details={"delta": delta, "tombstones": dead},
        parameters=parameters,
    )
    return {"versions": {**VERSIONS, "similar": similar}}


def without(name: str) -> dict[str, Any]:
    """The versions, but for that of one component."""
    return {each: version for each, version in VERSIONS.items() if each != name}


def test_at_once_everything_is_due_as_soon_as_it_is_committed() -> None:
    found = due(behind("immediate"))
    assert set(found.reasons) == set(DEFINITIONS)
    assert not found.deferred


def test_periodically_changes_are_due_when_the_interval_since_the_last_version_is_over() -> None:
    waiting = due(behind("periodic", interval=3601))
    until = BUILT_AT + timedelta(seconds=3601)
    assert not waiting.reasons
    assert {each.until for each in waiting.deferred.values()} == {until}
    assert waiting.look_at == until
    assert set(due(behind("periodic", interval=3601, now=until)).reasons) == set(DEFINITIONS)


def test_a_version_from_the_future_postpones_nothing() -> None:
    facts = behind("periodic", now=BUILT_AT - timedelta(seconds=1))
    assert set(due(facts).reasons) == set(DEFINITIONS)


def test_manually_changes_wait_without_an_end() -> None:
    found = due(behind(now=NOW + timedelta(days=365)))
    assert not found.reasons
    assert found.deferred.keys() == DEFINITIONS.keys()
    assert found.look_at is None


@pytest.mark.parametrize(
    ("wish", "built"),
    [
        ({"asked_for_due": True}, {"map", "map_cache", "similar"}),
        ({"requested": {"similar"}}, {"similar"}),
        ({"requested": {"map"}}, {"map", "map_cache"}),
        ({"requested": {"map_cache"}}, {"map", "map_cache"}),
    ],
)
def test_who_asks_gets_what_is_asked_for_with_what_it_is_made_from(
    wish: dict[str, Any], built: set[str]
) -> None:
    assert due(behind(**wish)).reasons.keys() == built


def test_what_ends_the_wait_of_one_ends_it_for_its_group() -> None:
    facts = behind(definitions=PAIR, requested={"similar"})
    assert due(facts).reasons.keys() == {"map", "map_cache", "similar"}
    assert not due(facts).waiting


def test_a_group_waits_until_the_last_of_it_may_be_built() -> None:
    later = manifest("similar", created_at=BUILT_AT + timedelta(seconds=30))
    facts = behind(
        "periodic",
        interval=3600,
        definitions=PAIR,
        versions={**VERSIONS, "similar": later},
    )
    assert not due(facts).reasons
    assert not due(facts).waiting
    assert due(facts).look_at == NOW + timedelta(seconds=30)
    after = replace(facts, now=NOW + timedelta(seconds=30))
    assert due(after).reasons.keys() == {"map", "map_cache", "similar"}


@pytest.mark.parametrize(
    "why",
    [
        {"outdated": {"similar": "it has an old format"}},
        {"corrupt": {"similar": "it has other bytes"}, "versions": without("similar")},
        {"versions": without("similar")},
        {"versions": {**VERSIONS, "similar": manifest("similar", definition="d" * 64)}},
    ],
)
def test_what_waits_for_nothing_takes_those_of_its_group_along(why: dict[str, Any]) -> None:
    found = due(behind(definitions=PAIR, **why))
    assert found.reasons.keys() == {"map", "map_cache", "similar"}
    assert not found.waiting
    assert not found.deferred
    stuck = due(behind(definitions=PAIR, paused={"map": pause("map")}, **why))
    assert not stuck.reasons
    assert stuck.waiting["similar"].held_back_by == {"map": "is paused"}


def test_what_was_begun_and_failed_is_tried_again() -> None:
    failed = attempt("similar", failed_at=NOW - timedelta(hours=1))
    assert due(behind(attempts={"similar": failed})).reasons.keys() == {"similar"}


@pytest.mark.parametrize(
    "changes",
    [
        {"versions": {name: VERSIONS[name] for name in ("map", "map_cache")}},
        {"corrupt": {"similar": "a bad file"}},
        {
            "definitions": {
                **DEFINITIONS,
                "similar": DEFINITIONS["similar"].of("text_index", "tracks"),
            }
        },
        {"outdated": {"similar": "its kind stores other values"}},
        {
            "versions": {
                **VERSIONS,
                "similar": manifest("similar", epochs={"tracks": "another life"}),
            }
        },
    ],
)
def test_what_is_not_right_is_built_whatever_the_policy_is(changes: dict[str, Any]) -> None:
    assert due(behind(**changes)).reasons.keys() == {"similar"}


def test_of_a_live_collection_half_of_what_readers_may_hold_is_a_release() -> None:
    for upserts, built in ((49, False), (50, True)):
        facts = behind(live=True, max_live_entries=100, **with_changes(upserts, entries=60))
        assert bool(due(facts).reasons) == built
    assert not due(behind(max_live_entries=100, **with_changes(50))).reasons  # none holds it


def test_tombstones_are_counted_with_those_that_live_changes_make() -> None:
    # 100 entries, of which 4 were replaced, 3 deleted, and 5 came.
    facts = behind(live=True, **layered(), **with_changes(9, 3, entries=102))
    found = tombstones(facts.versions["similar"], facts)
    assert found is not None
    assert (found.rows, found.base, found.limit) == (7, 100, 0.1)
    # In the version itself 2 rows of the base are dead already, for 1 in the delta.
    facts = behind(live=True, **layered(delta=1, dead=2), **with_changes(9, 3, entries=101))
    found = tombstones(facts.versions["similar"], facts)
    assert found is not None
    assert (found.rows, found.base) == (2 + 7, 100)


@pytest.mark.parametrize(("replaced", "built"), [(10, False), (11, True)])
def test_too_many_tombstones_of_live_changes_are_a_release(replaced: int, built: bool) -> None:
    facts = behind(live=True, **layered(), **with_changes(replaced, entries=100))
    assert bool(due(facts).reasons) == built


def test_the_limit_of_tombstones_is_that_of_the_component() -> None:
    facts = behind(live=True, **layered(max_tombstones=0.5), **with_changes(50, entries=100))
    assert not due(facts).reasons


def test_the_tombstones_of_a_search_are_those_of_its_vectors() -> None:
    details = {"parts": {"vector": {"details": {"delta": 0, "tombstones": 9}}, "text": {}}}
    version = manifest("similar", entries=91, details=details)
    found = tombstones(version, healthy())
    assert found is not None
    assert (found.rows, found.base) == (9, 100)
    assert tombstones(VERSIONS["map"], healthy()) is None


@pytest.mark.parametrize(("dead", "told"), [(7, False), (8, True), (10, True)])
def test_people_are_told_of_tombstones_before_a_build_in_full_is_due(dead: int, told: bool) -> None:
    verdict = judge(healthy(**layered(dead=dead)))
    assert verdict.well
    note = f"similar: {dead}.0% of the rows of its base are deleted or replaced; above 10%"
    assert any(each.startswith(note) for each in verdict.notes) == told
    health = verdict.components["similar"].tombstones
    assert health is not None
    assert (health.rows, health.share) == (dead, dead / 100)


def test_what_waits_on_purpose_is_told_of_and_is_no_problem() -> None:
    verdict = judge(behind("periodic"))
    assert verdict.well
    health = verdict.components["similar"]
    assert health.condition is Condition.DEFERRED
    assert health.behind == {"tracks": 1}
    assert health.deferred_until == BUILT_AT + timedelta(hours=2)
    [note] = verdict.notes
    assert note == (
        "map, map_cache, similar: 1 generation of tracks behind on purpose, until 2026-01-01 "
        "13:00:00 UTC (persistence: periodic)"
    )


def test_what_waits_for_somebody_says_how_to_ask() -> None:
    verdict = judge(behind())
    assert verdict.well
    assert verdict.components["map"].deferred_until is None
    assert verdict.notes[0].endswith("indexrelay rebuild map map_cache similar")


def test_a_wait_hides_no_problem() -> None:
    assert not problems(behind())
    for changes in (
        {"corrupt": {"similar": "a bad file"}},
        {"attempts": {"similar": attempt("similar")}},
        {"paused": {"similar": pause("similar")}},
    ):
        assert "similar" in {each.subject for each in problems(behind(**changes))}


@pytest.mark.parametrize(
    ("keys", "note"),
    [
        ({}, None),
        ({"persistence": "manual", "live": True}, None),
        ({"persistence": "manual"}, "when somebody asks for a rebuild (persistence: manual)"),
        ({"persistence": "periodic"}, "at most every 300 s (persistence: periodic)"),
    ],
)
def test_a_policy_by_which_readers_see_nothing_for_a_while_is_noted(
    keys: dict[str, Any], note: str | None
) -> None:
    said = policy_note("tracks", CollectionSettings.model_validate({"dimension": 2, **keys}))
    assert said is note is None or (said is not None and note is not None and note in said)
