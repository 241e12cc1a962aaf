"""What is judged of the places: the catalog, the artifacts, the sources, the releases."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from indexrelay.health.due import find_due, why_not
from indexrelay.health.facts import Area, BackupsFact, SourceFact, Unknown
from indexrelay.health.judge import judge
from indexrelay.health.status import Actor, Code
from indexrelay.schemas.messages import LockWait
from indexrelay.schemas.settings import CollectionSettings
from indexrelay.schemas.versions import Canary, VersionManifest
from indexrelay.storage.catalog import CollectionLog
from tests.health.healthy_facts import (
    NAMES,
    NOW,
    VERSIONS,
    Cases,
    check_reported_once,
    codes,
    healthy,
    manifest,
    reader,
    rebuilder,
    redis,
    release,
    stored,
    with_reader,
)

UNKNOWN = Unknown(reason="it is away", advice="start it")
MISMATCH = {"tracks": CollectionSettings(dimension=3)}
LAST = {"tracks": SourceFact(epoch="e1", generation=2)}
LOG = CollectionLog(epoch="e1", generation=4, stamps={3: "new"}, batch_ids={}, whole=True)


def with_stamp(name: str) -> VersionManifest:
    """The same version, of a commit that `LOG` does not have."""
    return VERSIONS[name].model_copy(update={"stamps": {"tracks": "lost"}})


CASES: Cases = {
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
    "no backup yet": (
        {"backups": BackupsFact(folder="/backups", max_age_seconds=691_200)},
        Code.BACKUP_OVERDUE,
        "there is no backup in /backups, and they are scheduled",
        "indexrelay backup create",
        Actor.PERSON,
    ),
    "an old backup": (
        {
            "backups": BackupsFact(
                folder="/backups", max_age_seconds=691_200, newest_at=NOW - timedelta(days=9)
            )
        },
        Code.BACKUP_OVERDUE,
        "the newest backup in /backups is 9.0 days old, and is to be younger than 8",
        "see that an operator runs",
        Actor.PERSON,
    ),
    "backups of a time to come": (
        {
            "backups": BackupsFact(
                folder="/backups",
                max_age_seconds=691_200,
                newest_at=NOW,
                ahead=("20300101_000000",),
            )
        },
        Code.BACKUP_AHEAD,
        "1 backup(s) in /backups bear a time that is still to come: 20300101_000000",
        "set the clock of the host that made them",
        Actor.PERSON,
    ),
    "backups out of sight": (
        {
            "backups": BackupsFact(
                folder="/backups", max_age_seconds=691_200, unreadable="not permitted"
            )
        },
        Code.BACKUP_OVERDUE,
        "it is not known whether there is a backup: not permitted",
        "see that an operator runs",
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
    "a canary that nobody decides on": (
        {
            "release": release(
                canary=Canary(readers=("one",), since=NOW - timedelta(hours=1), components={})
            )
        },
        Code.CANARY_WAITS,
        "release 7 is tried by one since 2026-01-01 11:00 UTC, and nobody decided on it",
        "indexrelay readers",
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
}


@pytest.mark.parametrize("case", CASES)
def test_a_problem_of_a_place_is_reported_once_with_what_to_do_and_who_acts(case: str) -> None:
    check_reported_once(CASES[case])


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


def test_what_a_restored_collection_covered_before_is_behind_and_is_built_again() -> None:
    log = replace(LOG, generation=5, restored=5)
    facts = healthy(
        versions={name: with_stamp(name) for name in NAMES},
        sources={"tracks": SourceFact(epoch="e1", generation=5, log=log)},
        stored={"tracks": stored(generation=5)},
    )
    assert set(codes(facts)) == {Code.COMPONENT_BEHIND}
    assert find_due(facts, facts.retry_policy).reasons.keys() == set(NAMES)


def test_backups_are_young_enough_where_nothing_was_released_or_none_are_scheduled() -> None:
    young = BackupsFact(folder="/backups", max_age_seconds=86_400, newest_at=NOW)
    assert judge(healthy(backups=young)).well
    none = BackupsFact(folder="/backups", max_age_seconds=86_400)
    assert Code.BACKUP_OVERDUE not in codes(healthy(backups=none, release=None, versions={}))
    assert judge(healthy(backups=None)).well
