"""What is judged of readers and rebuilders."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from indexrelay.health.judge import judge
from indexrelay.health.status import Actor, Code
from indexrelay.schemas.declarations import declared_to_build, declared_to_serve
from indexrelay.schemas.messages import (
    ComponentState,
    ForeignWrites,
    LiveState,
    LiveStatus,
    LoadOutcome,
)
from indexrelay.schemas.schedules import ScheduleSettings
from indexrelay.schemas.settings import CollectionSettings, ComponentDefinition, ReaderSettings
from indexrelay.storage.catalog import ScheduleState
from tests.health.healthy_facts import (
    DEFINITIONS,
    NAMES,
    NOW,
    OLD,
    Cases,
    check_reported_once,
    codes,
    declaring,
    healthy,
    problems,
    reader,
    rebuilder,
    redis,
    release,
    served,
    with_reader,
    without,
)

OPTIONAL = ComponentDefinition.of("text_index", "tracks", required=False)
FAILED_LOAD = {"map": served("map", outcome=LoadOutcome.FAILED, error="no memory")}


def foreign_writes(times: int, last: str) -> ForeignWrites:
    began = NOW - timedelta(minutes=times)
    at = NOW - timedelta(seconds=9 - times)
    return ForeignWrites(label="web", times=times, first_at=began, last_at=at, last=last)


WEEKLY = ScheduleSettings(cron="0 2 * * 0")
CASES: Cases = {
    "no rebuilder": (
        {"redis": redis(rebuilders={})},
        Code.NO_REBUILDER,
        "no rebuilder is running",
        "indexrelay rebuilder",
        Actor.PERSON,
    ),
    "schedule without an operator": (
        {"schedules": {"weekly": ScheduleSettings(cron="0 2 * * 0")}},
        Code.SCHEDULE_OVERDUE,
        "no operator looks at schedule weekly, as it is declared",
        "indexrelay operator",
        Actor.PERSON,
    ),
    "schedule under a clock that was wrong": (
        {
            "schedules": {"weekly": WEEKLY},
            "schedule_states": {
                "weekly": ScheduleState(
                    schedule="weekly",
                    definition=WEEKLY.definition,
                    decided=NOW + timedelta(days=1000),
                    slot=None,
                    fired_at=None,
                    request=None,
                    missed=None,
                    next_at=NOW + timedelta(days=1007),
                )
            },
        },
        Code.SCHEDULE_OVERDUE,
        "which is still to come: the clock of an operator was wrong",
        "indexrelay operator",
        Actor.PERSON,
    ),
    "no reader": (
        {"redis": redis(readers={})},
        Code.NO_READER,
        "no reader is running",
        "indexrelay reader --id ",
        Actor.PERSON,
    ),
    "reader on its way": (
        {**with_reader(release=6), "release": release(created_at=NOW)},
        Code.READER_BEHIND,
        "reader one (h:1) is at release 6, 7 is the newest",
        "it follows within 5 s",
        Actor.PROCESS,
    ),
    "reader behind": (
        with_reader(release=6),
        Code.READER_BEHIND,
        "reader one (h:1) is at release 6, 7 is the newest",
        "see its log",
        Actor.PERSON,
    ),
    "reader without some live changes": (
        with_reader(
            live={
                "tracks": LiveState(
                    status=LiveStatus.WAITING, generation=5, reason="changes are missing"
                )
            }
        ),
        Code.READER_LIVE_BEHIND,
        "reader one (h:1) is at generation 5 of tracks: changes are missing",
        "access to the catalog",
        Actor.PROCESS,
    ),
    "reader with too many live changes": (
        with_reader(
            live={"tracks": LiveState(status=LiveStatus.FULL, generation=5, reason="too many")}
        ),
        Code.READER_LIVE_BEHIND,
        "reader one (h:1) is at generation 5 of tracks: too many",
        "raise live.max_entries",
        Actor.PROCESS,
    ),
    "failed load": (
        with_reader(components={name: served(name) for name in NAMES} | FAILED_LOAD),
        Code.READER_LOAD_FAILED,
        "reader one (h:1) could not load map, it serves the last good version: no memory",
        "indexrelay rebuild map",
        Actor.PERSON,
    ),
    "not ready": (
        with_reader(ready=False),
        Code.READER_NOT_READY,
        "reader one (h:1) is not ready: its own settings require a component that is not released",
        "start it again",
        Actor.PERSON,
    ),
    "silent service": (
        with_reader(ready=False, service_silent_since=NOW - timedelta(seconds=30)),
        Code.READER_SERVICE_SILENT,
        "the event loop of its service stands still since 2026-01-01 11:59:30 UTC",
        "its log names the call that does not return",
        Actor.PERSON,
    ),
    "strange reader": (
        {"redis": redis(readers={"one": reader(), "two": None})},
        Code.READER_UNREADABLE,
        "reader two reports in a form",
        "the same major version",
        Actor.PERSON,
    ),
    "strange rebuilder": (
        {"redis": redis(rebuilders={"r1": rebuilder(), "r2": None})},
        Code.REBUILDER_UNREADABLE,
        "rebuilder r2 reports in a form",
        "the same major version",
        Actor.PERSON,
    ),
    "a state in another's place": (
        {"redis": redis(dropped={"reader:two:0b": "its state says that it is one:0a"})},
        Code.MEMBER_DROPPED,
        "the presence of reader two:0b counts for nobody: its state says that it is one:0a",
        "who has its password",
        Actor.PERSON,
    ),
    "more members than are looked at": (
        {"redis": redis(crowded=frozenset({"reader:web"}))},
        Code.MEMBERS_CROWDED,
        "more than 1,000 readers are present under the id web",
        "give the processes several ids",
        Actor.PERSON,
    ),
    "silent reader": (
        {"redis": redis(seconds_left={"reader:one": 2.0})},
        Code.READER_SILENT,
        "reader one (h:1) was last heard of 13 s ago",
        "it counts as gone in 2 s",
        Actor.PERSON,
    ),
    "silent rebuilder": (
        {"redis": redis(seconds_left={"rebuilder:r1": 2.0})},
        Code.REBUILDER_SILENT,
        "rebuilder r1 (h:2) was last heard of 13 s ago",
        "it counts as gone in 2 s",
        Actor.PERSON,
    ),
    "two rebuilders under one id": (
        {"redis": redis(rebuilders={"r1:0a": rebuilder(namesakes=("other:17",))})},
        Code.REBUILDER_NOT_ALONE,
        "rebuilder r1 (h:2) has its id in common with other:17",
        "end all of them but one, and start each of the others again: indexrelay rebuilder",
        Actor.PERSON,
    ),
    "a rebuilder with other settings": (
        {"redis": redis(rebuilders={"r1": rebuilder(declares=declaring(old=OLD, similar=OLD))})},
        Code.REBUILDER_OTHER_SETTINGS,
        (
            "rebuilder r1 (h:2) runs with other settings than these: old is declared there and no "
            "longer here, similar is declared differently there"
        ),
        "have it read its settings again (SIGHUP), or start it again, with these",
        Actor.PERSON,
    ),
    "a reader with other settings": (
        with_reader(declares=declared_to_serve({**DEFINITIONS, "old": OPTIONAL})),
        Code.READER_OTHER_SETTINGS,
        (
            "reader one (h:1) runs with other settings than these: old is declared there and no "
            "longer here"
        ),
        "have it read its settings again (SIGHUP), or start it again, with these",
        Actor.PERSON,
    ),
    "a reader that refused its settings": (
        with_reader(settings_refused="indexrelay.toml: 1 mistake(s)"),
        Code.SETTINGS_REFUSED,
        "reader one (h:1) keeps the settings that it had: indexrelay.toml: 1 mistake(s)",
        "correct them on its host, and have it read them again (SIGHUP): indexrelay config check",
        Actor.PERSON,
    ),
    "a rebuilder that refused its settings": (
        {"redis": redis(rebuilders={"r1": rebuilder(settings_refused="it cannot be read")})},
        Code.SETTINGS_REFUSED,
        "rebuilder r1 (h:2) keeps the settings that it had: it cannot be read",
        "correct them on its host, and have it read them again (SIGHUP): indexrelay config check",
        Actor.PERSON,
    ),
    "what somebody wrote in a reader's place": (
        {
            "redis": redis(
                rebuilders={
                    "r1:0a": rebuilder(foreign_writes=(foreign_writes(3, "an older thing"),)),
                    "r2:0b": rebuilder(foreign_writes=(foreign_writes(9, "a huge state"),)),
                }
            )
        },
        Code.FOREIGN_WRITES,
        "what no reader writes, 9 times since 2026-01-01 11:51 UTC; at 12:00:00 it was: a huge st",
        "who has its password",
        Actor.PERSON,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_problem_of_a_process_is_reported_once_with_what_to_do_and_who_acts(case: str) -> None:
    check_reported_once(CASES[case])


def test_a_thousand_processes_under_one_label_are_reported_in_a_few_sentences() -> None:
    crowd: dict[str, Any] = {f"web:{number:04}": None for number in range(1000)}
    dropped = {f"reader:evil:{number:04}": "it lies" for number in range(300)}
    others = {"one": reader(), "two:0a": None}
    problems = judge(healthy(redis=redis(readers={**others, **crowd}, dropped=dropped))).problems
    unreadable = [each for each in problems if each.code is Code.READER_UNREADABLE]
    assert [each.subject for each in unreadable if each.subject != "two:0a"] == [
        *(f"web:{number:04}" for number in range(5)),
        "web",
    ]
    assert "two:0a" in {each.subject for each in unreadable}
    assert "the same of 995 more under the id web" in unreadable[-1].what
    lies = [each for each in problems if each.code is Code.MEMBER_DROPPED]
    assert len(lies) == 6
    assert "the same of 295 more under the id evil" in lies[-1].what


def test_of_a_reader_that_cannot_load_anything_a_few_components_are_named() -> None:
    failed = {
        f"c{number:03}": ComponentState(outcome=LoadOutcome.FAILED, error="no room")
        for number in range(200)
    }
    problems = judge(healthy(redis=redis(readers={"one": reader(components=failed)}))).problems
    found = [each for each in problems if each.code is Code.READER_LOAD_FAILED]
    assert len(found) == 6
    assert found[-1].what.endswith("could not load 195 more components")


def test_a_place_is_compared_on_the_same_host_only() -> None:
    def folder(path: str) -> dict[str, CollectionSettings]:
        source = {"kind": "folder", "path": path}
        return {"tracks": CollectionSettings.model_validate({"dimension": 2, "source": source})}

    elsewhere = rebuilder(declares=declared_to_build(DEFINITIONS, folder("/old")))
    facts = healthy(collections=folder("/new"), redis=redis(rebuilders={"r1": elsewhere}))
    assert Code.REBUILDER_OTHER_SETTINGS not in codes(replace(facts, host="another"))
    (problem,) = problems(replace(facts, host="h"))
    assert problem.what.endswith("than these: collection tracks lies elsewhere")


def test_a_reader_that_serves_some_of_it_by_choice_is_well() -> None:
    some = reader(reader="two", components={"map": served("map")})
    assert problems(healthy(redis=redis(readers={"one": reader(), "two": some}))) == []


def test_a_reader_that_does_not_follow_in_time_is_late() -> None:
    facts = healthy(**with_reader(release=6), release=release(created_at=NOW))
    assert problems(facts)[0].acts is Actor.PROCESS
    late = replace(facts, now=NOW + timedelta(seconds=60))
    assert problems(late)[0].acts is Actor.PERSON


@pytest.mark.parametrize("chosen", [None, ("map", "similar"), ("map",)])
def test_a_reader_that_is_not_ready_is_reported_with_what_it_requires_and_who_acts(
    chosen: tuple[str, ...] | None,
) -> None:
    facts = healthy(
        **{
            **without("similar"),
            "redis": redis(readers={"one": reader(ready=False)}),
            "reader": ReaderSettings(components=chosen),
        }
    )
    [problem] = [each for each in judge(facts).problems if each.code is Code.READER_NOT_READY]
    of_these_settings = chosen is None or "similar" in chosen
    assert ("requires similar, of which nothing is released yet" in problem.what) is (
        of_these_settings
    )
    assert problem.acts is (Actor.PROCESS if of_these_settings else Actor.PERSON)
