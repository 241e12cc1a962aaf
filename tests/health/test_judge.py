"""Whether all is well is a function of facts; here are the facts, one at a time."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from indexrelay.health.due import find_due, why_not
from indexrelay.health.facts import Area, Facts, SourceFact, Unknown, Untaken
from indexrelay.health.judge import judge
from indexrelay.health.status import Actor, Code, Condition, Problem
from indexrelay.schemas.declarations import declared_to_build, declared_to_serve
from indexrelay.schemas.messages import ComponentState, ForeignWrites, LoadOutcome, LockWait
from indexrelay.schemas.settings import CollectionSettings, ComponentDefinition, ReaderSettings
from indexrelay.schemas.versions import VersionManifest
from indexrelay.storage.catalog import CollectionLog
from indexrelay.streams.leases import HeldLease
from indexrelay.streams.repair import WrongKey
from indexrelay.streams.retention import ServerMemory
from tests.health.healthy_facts import (
    DEFINITIONS,
    NAMES,
    NOW,
    VERSIONS,
    attempt,
    declaring,
    healthy,
    hold,
    manifest,
    pause,
    reader,
    rebuilder,
    redis,
    release,
    served,
    stored,
)

UNKNOWN = Unknown(reason="it is away", advice="start it")
OLD = ComponentDefinition.of("text_index", "tracks")
OPTIONAL = ComponentDefinition.of("text_index", "tracks", required=False)
PAIR = {name: DEFINITIONS[name].model_copy(update={"group": "pair"}) for name in ("map", "similar")}
WRONG_KEY = WrongKey(key="{ns}:results", found="a list", wanted="a stream")
TRACKS = {"tracks": CollectionSettings(dimension=2)}
NEXT = {"tracks": SourceFact(epoch="e1", generation=4)}
SECOND_MAP = manifest("map", covers={"tracks": 2})


def problems(facts: Facts) -> list[Problem]:
    verdict = judge(facts)
    assert verdict.well == (not verdict.problems)
    return list(verdict.problems)


def codes(facts: Facts) -> list[Code]:
    return [problem.code for problem in problems(facts)]


def without(*names: str) -> dict[str, Any]:
    """The facts about versions when these were never built."""
    kept = {name: each for name, each in VERSIONS.items() if name not in names}
    components = {name: each.id for name, each in kept.items()}
    served_ones = {name: served(name) for name in kept}
    return {
        "versions": kept,
        "release": release(components=components),
        "redis": redis(readers={"one": reader(components=served_ones)}),
    }


def with_reader(**changes: Any) -> dict[str, Any]:
    return {"redis": redis(readers={"one": reader(**changes)})}


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


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"kind": "folder", "path": "songs"}, "no rebuilder has read the folder of tracks yet"),
        (
            {"kind": "table", "url": "sqlite:///a.db", "table": "songs"},
            "no job has called batch_completed() for the table of tracks yet",
        ),
        (
            {
                "kind": "table",
                "url": "sqlite:///a.db",
                "table": "songs",
                "updated_at_column": "changed",
            },
            "no rebuilder has read the table of tracks yet",
        ),
    ],
)
def test_a_table_or_folder_that_has_no_generation_yet_is_noted_as_what_it_is(
    source: dict[str, Any], said: str
) -> None:
    settings = CollectionSettings.model_validate({"dimension": 3, "source": source})
    unread = healthy(
        generation=0,
        collections={"tracks": settings},
        stored={},
        sources={},
        release=None,
        versions={},
        highest_release=0,
        redis=redis(announced=0, readers={"one": reader(release=0, components={})}),
    )
    verdict = judge(unread)
    assert verdict.well
    assert verdict.notes == (f"{said}; not built until then: map, map_cache, similar",)
    assert why_not("similar", unread) == said


LAST = {"tracks": SourceFact(epoch="e1", generation=2)}
LOG = CollectionLog(epoch="e1", generation=4, stamps={3: "new"}, batch_ids={}, whole=True)


def with_stamp(name: str) -> VersionManifest:
    """The same version, of a commit that `LOG` does not have."""
    return VERSIONS[name].model_copy(update={"stamps": {"tracks": "lost"}})


FAILED_LOAD = {"map": served("map", outcome=LoadOutcome.FAILED, error="no memory")}
MISMATCH = {"tracks": CollectionSettings(dimension=3)}


def foreign_writes(times: int, last: str) -> ForeignWrites:
    began = NOW - timedelta(minutes=times)
    at = NOW - timedelta(seconds=9 - times)
    return ForeignWrites(label="web", times=times, first_at=began, last_at=at, last=last)


ONE_TABLE: dict[str, tuple[dict[str, Any], Code, str, str, Actor]] = {
    "catalog away": (
        {"unknown": {Area.CATALOG: UNKNOWN}, "sources": {}, "stored": {}},
        Code.CATALOG_UNREADABLE,
        "the catalog cannot be read: it is away",
        "start it",
        Actor.PERSON,
    ),
    "artifacts away": (
        {"unknown": {Area.ARTIFACTS: UNKNOWN}, "definitions": {}, "release": None, "versions": {}},
        Code.ARTIFACTS_UNREADABLE,
        "the artifacts cannot be read: it is away",
        "start it",
        Actor.PERSON,
    ),
    "Redis away": (
        {"unknown": {Area.REDIS: UNKNOWN}, "redis": None},
        Code.REDIS_UNREADABLE,
        "Redis cannot be asked: it is away",
        "start it",
        Actor.PERSON,
    ),
    "conflict": (
        {"collections": MISMATCH},
        Code.COLLECTION_CONFLICT,
        "its dimension is 2 in the catalog and 3 in the settings",
        "indexrelay collections drop tracks",
        Actor.PERSON,
    ),
    "gone": (
        {"sources": {}, "stored": {}},
        Code.COLLECTION_GONE,
        "collection tracks is gone, and what was made of it still serves: map, map_cache, similar",
        "see that catalog.url is the right one",
        Actor.PERSON,
    ),
    "unreadable": (
        {"sources": {}, "unreadable": {"tracks": "no such folder"}},
        Code.SOURCE_UNREADABLE,
        "collection tracks cannot be read, and nothing that is made from it is built: no such",
        "repair the source",
        Actor.PERSON,
    ),
    "emptied": (
        {"sources": {"tracks": SourceFact(epoch="e1", generation=3, entries=0)}},
        Code.SOURCE_EMPTIED,
        "collection tracks is empty now, and map, map_cache, similar still serve",
        "indexrelay rebuild map map_cache similar --force",
        Actor.PERSON,
    ),
    "restored": (
        {"sources": LAST, "stored": {"tracks": stored(generation=2)}},
        Code.COLLECTION_OUTRUN,
        "collection tracks is at generation 2, and map covers 3 of it, which is more: the catalog",
        "indexrelay collections restore tracks",
        Actor.PERSON,
    ),
    "restored, and then passed": (
        {
            "versions": {name: with_stamp(name) for name in NAMES},
            "sources": {"tracks": SourceFact(epoch="e1", generation=4, log=LOG)},
            "stored": {"tracks": stored(generation=4)},
        },
        Code.COLLECTION_OUTRUN,
        "collection tracks is at generation 4, and map covers 3 of it, by commits that are not",
        "indexrelay collections restore tracks",
        Actor.PERSON,
    ),
    "two catalogs": (
        {"other_catalogs": {"tracks": "map"}},
        Code.CATALOGS_MIXED,
        "the artifacts are filled from another catalog as well: map was built from another",
        "the same catalog.url, and the others an artifacts.dir of their own",
        Actor.PERSON,
    ),
    "untrusted release": (
        {"untrusted_releases": {8: "it is not signed"}, "highest_release": 8},
        Code.RELEASE_UNTRUSTED,
        "release 8 is passed over: it is not signed",
        "indexrelay releases sign 8",
        Actor.PERSON,
    ),
    "corrupt release": (
        {"broken_releases": {8: "torn"}, "highest_release": 8},
        Code.RELEASE_CORRUPT,
        "release 8 is corrupt and is passed over: torn",
        "restore its file",
        Actor.PERSON,
    ),
    "unannounced": (
        {"redis": redis(announced=6)},
        Code.RELEASE_UNANNOUNCED,
        "release 7 is committed, and Redis was told of 6",
        "nothing to do",
        Actor.PROCESS,
    ),
    "lost releases": (
        {"redis": redis(announced=9)},
        Code.RELEASES_LOST,
        "release 9 was announced or is served, and the newest of the artifacts is 7",
        "artifacts.dir",
        Actor.PERSON,
    ),
    "a release that a reader made up": (
        {**with_reader(release=9), "known_release": 8},
        Code.RELEASE_MADE_UP,
        "reader one (h:1) says that it serves release 9, and none above 8 was ever committed here",
        "indexrelay reconcile --above 9",
        Actor.PERSON,
    ),
    "a release that Redis made up": (
        {"redis": redis(announced=9), "known_release": 8},
        Code.RELEASE_MADE_UP,
        "Redis was told of release 9, and none above 8 was ever committed here",
        "indexrelay reconcile",
        Actor.PROCESS,
    ),
    "no rebuilder": (
        {"redis": redis(rebuilders={})},
        Code.NO_REBUILDER,
        "no rebuilder is running",
        "indexrelay rebuilder",
        Actor.PERSON,
    ),
    "no reader": (
        {"redis": redis(readers={})},
        Code.NO_READER,
        "no reader is running",
        "indexrelay reader --id ",
        Actor.PERSON,
    ),
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
        Actor.PROCESS,
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
    "a lease without an end": (
        {"redis": redis(leases={"map": HeldLease(owner="r1:2:0a", seconds_left=None)})},
        Code.LEASE_ENDLESS,
        "the lease of map has no end, as no rebuilder takes it",
        "at its next comparison",
        Actor.PROCESS,
    ),
    "a lease that is far too long": (
        {"redis": redis(leases={"map": HeldLease(owner="r1:2:0a", seconds_left=151.0)})},
        Code.LEASE_ENDLESS,
        "the lease of map has 151 s left, as no rebuilder takes it",
        "indexrelay reconcile",
        Actor.PROCESS,
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
        "start it again, with these settings",
        Actor.PERSON,
    ),
    "a reader with other settings": (
        with_reader(declares=declared_to_serve({**DEFINITIONS, "old": OPTIONAL})),
        Code.READER_OTHER_SETTINGS,
        (
            "reader one (h:1) runs with other settings than these: old is declared there and no "
            "longer here"
        ),
        "start it again, with these settings",
        Actor.PERSON,
    ),
    "a lock that is not to be had": (
        {
            "redis": redis(
                rebuilders={
                    "r1": rebuilder(
                        lock_waits=(LockWait(lock="the catalog", since=NOW, holder="process 17"),)
                    )
                }
            )
        },
        Code.LOCK_WAITS,
        "waits for the catalog since 2026-01-01 12:00:00 UTC, which process 17 holds",
        "end it if it does nothing",
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
    "a server without memory that one label takes": (
        {
            "redis": redis(
                memory=ServerMemory(used=250_000_000, limit=256_000_000),
                held={"web": 200_000_000, "other": 1000},
            )
        },
        Code.REDIS_FULL,
        "what is new at that limit; readers that are called web take 200 MB of it",
        "indexrelay repair redis",
        Actor.PERSON,
    ),
    "a server without memory": (
        {"redis": redis(memory=ServerMemory(used=250_000_000, limit=256_000_000))},
        Code.REDIS_FULL,
        "Redis has 250 of 256 MB in use",
        "raise maxmemory",
        Actor.PERSON,
    ),
    "a key that only one reader writes": (
        {"redis": redis(wrong_keys=(replace(WRONG_KEY, key="{ns}:reader:web:0a"),))},
        Code.REDIS_KEY,
        "only readers that are called web write there",
        "who has its password",
        Actor.PROCESS,
    ),
    "events nobody takes": (
        {"redis": redis(untaken=(Untaken(count=4, seconds=31.0),))},
        Code.EVENTS_UNTAKEN,
        "4 event(s) wait for a rebuilder, for 31 s",
        "they run, and read nothing",
        Actor.PERSON,
    ),
    "events that were taken": (
        {"redis": redis(untaken=(Untaken(count=4, seconds=31.0, consumer="gone"),))},
        Code.EVENTS_UNTAKEN,
        "4 event(s) were taken by rebuilder gone, which has been silent for 31 s",
        "the next read of a running rebuilder takes them",
        Actor.PROCESS,
    ),
    "orphaned lease": (
        {"redis": redis(leases={"map": HeldLease(owner="gone:1:a", seconds_left=9.0)})},
        Code.LEASE_ORPHANED,
        "map is leased by a rebuilder that is gone",
        "the lease ends by itself in 9 s",
        Actor.NOBODY,
    ),
    "dead letters": (
        {"dead_letters": 2},
        Code.DEAD_LETTERS,
        "2 event(s) could not be read and are dead letters",
        "indexrelay dead list",
        Actor.PERSON,
    ),
    "key that is not ours": (
        {"redis": redis(wrong_keys=(WRONG_KEY,))},
        Code.REDIS_KEY,
        "the key {ns}:results holds a list, and should hold a stream",
        "indexrelay reconcile",
        Actor.PROCESS,
    ),
    "eviction": (
        {"redis": redis(eviction="allkeys-lru")},
        Code.REDIS_EVICTS,
        "with maxmemory-policy allkeys-lru Redis may drop events",
        "set maxmemory-policy noeviction",
        Actor.PERSON,
    ),
}


@pytest.mark.parametrize("case", ONE_TABLE)
def test_a_problem_is_reported_once_with_what_to_do_and_who_acts(case: str) -> None:
    changes, code, what, advice, acts = ONE_TABLE[case]
    found = problems(healthy(**changes))
    problem = next(each for each in found if each.code is code)
    assert what in problem.what
    assert advice in problem.advice
    assert problem.acts is acts
    # Only a component that is made from it may be told of besides.
    alone = {Code.COMPONENT_CORRUPT, Code.GROUP_WAITS, Code.GROUP_SPLIT}
    assert len(found) == 1 or code in alone, found


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


def test_every_code_has_a_case() -> None:
    assert {code for _, code, *_ in ONE_TABLE.values()} == set(Code)


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
        ({"attempts": {"similar": attempt("similar")}, "sources": NEXT}, Code.COMPONENT_FAILED),
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


def test_a_place_is_compared_on_the_same_host_only() -> None:
    def folder(path: str) -> dict[str, CollectionSettings]:
        source = {"kind": "folder", "path": path}
        return {"tracks": CollectionSettings.model_validate({"dimension": 2, "source": source})}

    elsewhere = rebuilder(declares=declared_to_build(DEFINITIONS, folder("/old")))
    facts = healthy(collections=folder("/new"), redis=redis(rebuilders={"r1": elsewhere}))
    assert Code.REBUILDER_OTHER_SETTINGS not in codes(replace(facts, host="another"))
    (problem,) = problems(replace(facts, host="h"))
    assert problem.what.endswith("than these: collection tracks lies elsewhere")


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


def test_a_reader_that_serves_some_of_it_by_choice_is_well() -> None:
    some = reader(reader="two", components={"map": served("map")})
    assert problems(healthy(redis=redis(readers={"one": reader(), "two": some}))) == []


def test_an_event_or_a_lease_on_its_way_is_no_problem() -> None:
    waiting = (Untaken(count=1, seconds=2.0), Untaken(count=1, seconds=2.0, consumer="r1"))
    leases = {"map": HeldLease(owner="r1:2:a", seconds_left=9.0)}
    assert problems(healthy(redis=redis(untaken=waiting, leases=leases))) == []


def test_a_release_of_another_epoch_is_behind_all_of_it() -> None:
    facts = healthy(
        sources={"tracks": SourceFact(epoch="e2", generation=5)},
        stored={"tracks": stored(epoch="e2", generation=5)},
    )
    assert judge(facts).components["similar"].behind == {"tracks": 5}
    assert "tracks was created again" in problems(facts)[0].what


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


def test_a_reader_that_does_not_follow_in_time_is_late() -> None:
    facts = healthy(**with_reader(release=6), release=release(created_at=NOW))
    assert problems(facts)[0].acts is Actor.PROCESS
    late = replace(facts, now=NOW + timedelta(seconds=60))
    assert problems(late)[0].acts is Actor.PERSON


def test_what_a_source_holds_beside_its_entries_is_noted_and_no_fault() -> None:
    read = manifest(
        "similar",
        left_out={"tracks": {"without_vector": 1200, "subfolders": 1}},
        created_at=NOW,
    )
    verdict = judge(healthy(versions={**VERSIONS, "similar": read}))
    assert verdict.well
    assert verdict.collections["tracks"].left_out == {"without_vector": 1200, "subfolders": 1}
    (note,) = verdict.notes
    assert note == "left out of tracks: 1,200 rows that have no vector yet, 1 subfolder"
    assert judge(healthy()).notes == ()


def test_what_a_wrong_key_hides_is_unknown_and_never_invented() -> None:
    wrong = WrongKey(key="{ns}:release", found="a list", wanted="a string")
    assert codes(healthy(redis=redis(wrong_keys=(wrong,), announced=0))) == [Code.REDIS_KEY]


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


def test_what_a_restored_collection_covered_before_is_behind_and_is_built_again() -> None:
    log = replace(LOG, generation=5, restored=5)
    facts = healthy(
        versions={name: with_stamp(name) for name in NAMES},
        sources={"tracks": SourceFact(epoch="e1", generation=5, log=log)},
        stored={"tracks": stored(generation=5)},
    )
    assert set(codes(facts)) == {Code.COMPONENT_BEHIND}
    assert find_due(facts, facts.retry_policy).reasons.keys() == set(NAMES)
