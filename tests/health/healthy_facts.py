"""Facts of an installation in which all is well, to be changed one at a time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from indexrelay.health.due import inputs_digest
from indexrelay.health.facts import Facts, RedisFacts, SourceFact
from indexrelay.health.judge import judge
from indexrelay.health.status import Actor, Code, Problem
from indexrelay.schemas.declarations import Declaration, declared_to_build
from indexrelay.schemas.messages import ComponentState, LoadOutcome, ReaderState, RebuilderState
from indexrelay.schemas.settings import CollectionSettings, ComponentDefinition, Metric
from indexrelay.schemas.versions import Hold, Release, VersionManifest
from indexrelay.storage.catalog import Attempt, Collection, Pause

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
EPOCH = "e1"
DEFINITIONS = {
    "map": ComponentDefinition.of("projection", "tracks"),
    "map_cache": ComponentDefinition.of("json_cache", "map", function="a:b"),
    "similar": ComponentDefinition.of("vector_index", "tracks"),
}
NAMES = tuple(DEFINITIONS)


def manifest(name: str, **changes: Any) -> VersionManifest:
    """A version of ``name`` that covers generation 3."""
    fields: dict[str, Any] = {
        "component": name,
        "kind": DEFINITIONS[name].kind,
        "definition": DEFINITIONS[name].digest,
        "covers": {"tracks": 3},
        "epochs": {"tracks": EPOCH},
        "files": {},
        "entries": 10,
        "created_at": NOW - timedelta(hours=1),
    }
    return VersionManifest(**{**fields, **changes})


_MAP = manifest("map")
VERSIONS = {
    "map": _MAP,
    "map_cache": manifest("map_cache", parents={"map": _MAP.id}),
    "similar": manifest("similar"),
}


def release(**changes: Any) -> Release:
    """The newest one; it names `VERSIONS`."""
    fields: dict[str, Any] = {
        "number": 7,
        "components": {name: each.id for name, each in VERSIONS.items()},
        "created_at": NOW - timedelta(minutes=10),
        "reason": "test",
        "previous": 6,
    }
    return Release(**{**fields, **changes})


def reader(**changes: Any) -> ReaderState:
    """One that serves everything."""
    fields: dict[str, Any] = {
        "reader": "one",
        "host": "h",
        "pid": 1,
        "started_at": NOW - timedelta(hours=2),
        "updated_at": NOW,
        "ready": True,
        "release": 7,
        "components": {name: served(name) for name in NAMES},
    }
    return ReaderState(**{**fields, **changes})


def served(name: str, **changes: Any) -> ComponentState:
    """One component as a reader serves it."""
    fields: dict[str, Any] = {
        "outcome": LoadOutcome.UNCHANGED,
        "version": VERSIONS[name].id,
        "wanted": VERSIONS[name].id,
        "covers": VERSIONS[name].covers,
        "epochs": VERSIONS[name].epochs,
    }
    return ComponentState(**{**fields, **changes})


def rebuilder(**changes: Any) -> RebuilderState:
    """One that has nothing to do."""
    fields: dict[str, Any] = {
        "rebuilder": "r1",
        "host": "h",
        "pid": 2,
        "started_at": NOW - timedelta(minutes=30),
        "updated_at": NOW,
        "release": 7,
    }
    return RebuilderState(**{**fields, **changes})


def declaring(**components: ComponentDefinition) -> Declaration:
    """What a rebuilder declares that was started with these changes to `DEFINITIONS`."""
    return declared_to_build(
        {**DEFINITIONS, **components}, {"tracks": CollectionSettings(dimension=2)}
    )


def redis(**changes: Any) -> RedisFacts:
    """One reader, one rebuilder, and nothing that waits."""
    healthy = RedisFacts(
        announced=7,
        readers={"one": reader()},
        rebuilders={"r1": rebuilder()},
        seconds_left={"reader:one": 14.0, "rebuilder:r1": 14.0},
        eviction="noeviction",
    )
    return replace(healthy, **changes)


def attempt(name: str, **changes: Any) -> Attempt:
    """A failure of what would be built now."""
    fields: dict[str, Any] = {
        "component": name,
        "failures": 1,
        "error": "it broke",
        "inputs": inputs_digest(DEFINITIONS[name], {}),
        "targets": {"tracks": 4},
        "transient": False,
        "failed_at": NOW,
        "first_failed_at": NOW,
    }
    return Attempt(**{**fields, **changes})


def stored(**changes: Any) -> Collection:
    """The collection, as the catalog has it."""
    fields: dict[str, Any] = {
        "name": "tracks",
        "epoch": EPOCH,
        "dimension": 2,
        "metric": Metric.COSINE,
        "generation": 3,
        "count": 10,
    }
    return Collection(**{**fields, **changes})


def pause(name: str) -> Pause:
    """What a person asked for."""
    return Pause(component=name, reason="cost", since=NOW)


def hold(refused: str | None = None) -> Hold:
    """What a person asked for; ``refused``: what a rebuilder took back instead."""
    return Hold(reason="bad maps", since=NOW, refused=refused)


def healthy(*, generation: int = 3, **changes: Any) -> Facts:
    """All is well, but for what ``changes`` say."""
    facts = Facts(
        definitions=DEFINITIONS,
        collections={"tracks": CollectionSettings(dimension=2)},
        stored={"tracks": stored(generation=generation)},
        sources={"tracks": SourceFact(epoch=EPOCH, generation=generation, entries=10)},
        release=release(),
        versions=VERSIONS,
        highest_release=7,
        redis=redis(),
        since=NOW,
        now=NOW,
    )
    return replace(facts, **changes)


OLD = ComponentDefinition.of("text_index", "tracks")
TRACKS = {"tracks": CollectionSettings(dimension=2)}
NEXT = {"tracks": SourceFact(epoch=EPOCH, generation=4)}
Cases = dict[str, tuple[dict[str, Any], Code, str, str, Actor]]
"""By name: what differs from the healthy facts; and of the problem that follows its code, a part of
its sentence and of the advice, and who acts."""


def problems(facts: Facts) -> list[Problem]:
    verdict = judge(facts)
    assert verdict.well == (not verdict.problems)
    return list(verdict.problems)


def codes(facts: Facts) -> list[Code]:
    return [problem.code for problem in problems(facts)]


def check_reported_once(case: tuple[dict[str, Any], Code, str, str, Actor]) -> None:
    """One case of `Cases`: its problem is the only one, with what to do and who acts."""
    changes, code, what, advice, acts = case
    found = problems(healthy(**changes))
    problem = next(each for each in found if each.code is code)
    assert what in problem.what
    assert advice in problem.advice
    assert problem.acts is acts
    # Only a component that is made from it may be told of besides.
    alone = {Code.COMPONENT_CORRUPT, Code.GROUP_WAITS, Code.GROUP_SPLIT}
    assert len(found) == 1 or code in alone, found


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
