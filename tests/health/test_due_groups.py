"""Groups: who is not built because another member stays where it is, and what is said of it."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from indexrelay.health.due import find_due, inputs_digest, judge_groups, parent_inputs
from indexrelay.health.facts import Facts, RetryPolicy, SourceFact
from indexrelay.schemas.settings import ComponentDefinition
from indexrelay.schemas.versions import Hold, Release, VersionManifest
from indexrelay.storage.catalog import Attempt, Pause

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PATIENCE = RetryPolicy(cooldown_seconds=10, max_cooldown_seconds=600, max_consecutive_failures=3)
MAIN = ComponentDefinition.of("projection", "tracks", group="maps")
CACHE = ComponentDefinition.of("json_cache", "main", group="maps", function="a:b")
INDEX = ComponentDefinition.of("vector_index", "tracks", group="maps")
DEFINITIONS = {"main": MAIN, "cache": CACHE, "index": INDEX}
BAD = Hold(reason="bad", since=NOW)
PAUSE = Pause(component="any", reason="cost", since=NOW)


def version(name: str, definition: ComponentDefinition, **other: Any) -> VersionManifest:
    fields: dict[str, Any] = {
        "component": name,
        "kind": definition.kind,
        "definition": definition.digest,
        "covers": {"tracks": 1},
        "epochs": {"tracks": "e1"},
        "files": {},
        "entries": 1,
        "created_at": NOW,
    }
    return VersionManifest(**(fields | other))


def versions(definitions: Mapping[str, ComponentDefinition]) -> dict[str, VersionManifest]:
    found: dict[str, VersionManifest] = {}
    for name, definition in definitions.items():
        parents = {each: found[each].id for each in definition.inputs if each in found}
        covers = {each: 1 for each in definition.inputs if each not in found} or {"tracks": 1}
        epochs = dict.fromkeys(covers, "e1")
        found[name] = version(name, definition, parents=parents, covers=covers, epochs=epochs)
    return found


def facts(
    definitions: Mapping[str, ComponentDefinition] = DEFINITIONS,
    *,
    holds: Mapping[str, Hold] | None = None,
    without: tuple[str, ...] = (),
    **other: Any,
) -> Facts:
    """A group that is whole at generation 1, and a source that is at 2."""
    there = {name: each for name, each in versions(definitions).items() if name not in without}
    release = Release(
        number=1,
        components={name: each.id for name, each in there.items()},
        holds=dict(holds or {}),
        created_at=NOW,
        reason="a test",
        previous=0,
    )
    given = Facts(
        definitions=definitions,
        sources={"tracks": SourceFact(epoch="e1", generation=2)},
        release=release if there else None,
        versions=there,
        since=NOW,
        now=NOW,
    )
    return replace(given, **other)


def failed(name: str, given: Facts) -> Facts:
    """The same facts after a build of ``name`` failed."""
    attempt = Attempt(
        component=name,
        failures=2,
        error="boom",
        inputs=find_inputs(name, given),
        targets={"tracks": given.sources["tracks"].generation},
        failed_at=NOW,
        first_failed_at=NOW,
        transient=False,
    )
    return replace(given, attempts={name: attempt})


def find_inputs(name: str, given: Facts) -> str:
    released = {} if given.release is None else given.release.components
    return inputs_digest(given.definitions[name], parent_inputs(name, given.definitions, released))


OUTSIDE = {
    "seed": ComponentDefinition.of("embedding_cache", "tracks"),
    "main": MAIN,
    "cache": ComponentDefinition.of("json_cache", "seed", group="maps", function="a:b"),
}
OTHER_COLLECTIONS = {
    "main": MAIN,
    "titles": ComponentDefinition.of("text_index", "songs", group="maps"),
}
ANEW = {**DEFINITIONS, "index": INDEX.model_copy(update={"parameters": {"index": "HNSW32"}})}

CASES: dict[str, tuple[Facts, set[str], str]] = {
    "all are free": (facts(), {"main", "cache", "index"}, ""),
    "one is held": (
        facts(holds={"index": BAD}),
        set(),
        "group maps waits for index, which is held (bad)",
    ),
    "all are held": (facts(holds=dict.fromkeys(DEFINITIONS, BAD)), set(), ""),
    "one is paused": (
        facts(paused={"cache": PAUSE}),
        set(),
        "group maps waits for cache, which is paused",
    ),
    "one failed": (
        failed("index", facts()),
        set(),
        "group maps waits for index, which failed 2 time(s) in a row: boom",
    ),
    "a child failed": (
        failed("cache", facts()),
        set(),
        "group maps waits for cache, which failed 2 time(s) in a row: boom",
    ),
    "a retry is due": (
        replace(failed("index", facts()), now=NOW + timedelta(hours=1)),
        {"main", "cache", "index"},
        "",
    ),
    "a parent outside the group failed": (
        failed("seed", facts(OUTSIDE)),
        set(),
        (
            "group maps waits for cache, which is made from seed, which failed 2 time(s) in a row: "
            "boom"
        ),
    ),
    "a parent outside the group is free": (facts(OUTSIDE), {"seed", "main", "cache"}, ""),
    "one is corrupt and held": (
        facts(
            holds={"index": BAD},
            corrupt={"index": "a blob is corrupt"},
            versions={
                name: each for name, each in versions(DEFINITIONS).items() if name != "index"
            },
        ),
        set(),
        "group maps waits for index, which is held (bad)",
    ),
    "one is corrupt, the others current": (
        facts(
            sources={"tracks": SourceFact(epoch="e1", generation=1)},
            corrupt={"index": "a blob is corrupt"},
            versions={
                name: each for name, each in versions(DEFINITIONS).items() if name != "index"
            },
        ),
        {"index"},
        "",
    ),
    "one is new, and failed": (failed("index", facts(without=("index",))), {"main", "cache"}, ""),
    "one is new, the others are held": (
        facts(without=("index",), holds=dict.fromkeys(("main", "cache"), BAD)),
        set(),
        "group maps waits for cache, which is held (bad), and for main, which is held (bad)",
    ),
    "the group is new, and one has nothing to be made from": (
        facts(OTHER_COLLECTIONS, without=("main", "titles")),
        set(),
        "group maps waits for titles, which is made from songs, to which nothing was committed yet",
    ),
    "they have no collection in common": (
        facts(OTHER_COLLECTIONS, paused={"titles": PAUSE}),
        {"main"},
        "",
    ),
    "one is declared anew and paused": (
        replace(facts(), definitions=ANEW, paused={"index": PAUSE}),
        set(),
        "group maps waits for index, which is paused",
    ),
    "the collection was created again, and one is held": (
        facts(holds={"index": BAD}, sources={"tracks": SourceFact(epoch="e2", generation=1)}),
        set(),
        "group maps waits for index, which is held (bad)",
    ),
    "someone asks for one while another is held": (
        facts(holds={"index": BAD}, requested={"main"}),
        set(),
        "group maps waits for index, which is held (bad)",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_built_that_its_group_would_keep_from_being_released(case: str) -> None:
    given, built, sentence = CASES[case]
    due = find_due(given, PATIENCE)
    assert set(due.reasons) == built
    state = judge_groups(given, due)["maps"]
    assert state.sentence == sentence
    assert state.whole
    assert bool(state.waiting) is bool(sentence)


def test_a_group_that_is_mixed_is_said_to_be_and_heals_with_the_member_that_is_behind() -> None:
    there = versions(DEFINITIONS)
    there["index"] = version("index", INDEX, covers={"tracks": 2})
    given = facts(versions=there)
    given = replace(
        given,
        release=given.release.model_copy(  # type: ignore[union-attr] # there is one
            update={"components": {name: each.id for name, each in there.items()}}
        ),
    )
    due = find_due(given, PATIENCE)
    state = judge_groups(given, due)["maps"]
    assert set(due.reasons) == {"main", "cache"}
    assert not state.whole
    assert "index covers tracks up to 2, main up to 1" in state.disagreements


def test_a_child_of_a_member_that_waits_waits_where_it_is() -> None:
    child = ComponentDefinition.of("json_cache", "main", function="c:d")
    given = facts({**DEFINITIONS, "child": child}, paused={"index": PAUSE})
    due = find_due(given, PATIENCE)
    assert due.reasons == {}
    assert set(due.waiting) == {"main", "cache"}
