"""How each collection and each component stands, and what is not well with it.

A collection is compared with its source, with the settings and with what was made from it; a
component with what is declared and committed. Whether a build would change something is asked of
`indexrelay.health.due`, which the rebuilder asks as well: what it would build is never well, and
what it would not build is a problem with the reason.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from indexrelay.health.advice import START_A_REBUILDER
from indexrelay.health.due import Due
from indexrelay.health.facts import Area, Facts
from indexrelay.health.improvements import improvement_health, improvement_note
from indexrelay.health.persistence import WARN_SHARE, Deferral, tombstones
from indexrelay.health.redis import builders_of, declaring, why_none_builds
from indexrelay.health.status import (
    Actor,
    Code,
    CollectionHealth,
    ComponentHealth,
    Condition,
    Decision,
    Problem,
    TombstoneHealth,
)
from indexrelay.schemas import commands
from indexrelay.schemas.messages import ReaderState
from indexrelay.schemas.settings import CollectionSettings
from indexrelay.schemas.versions import Release, VersionManifest, ancestors_of, root_collections

if TYPE_CHECKING:
    from indexrelay.storage.catalog import Collection

_LEFT_OUT: Final = {
    "without_vector": ("row that has no vector yet", "rows that have no vector yet"),
    "subfolders": ("subfolder", "subfolders"),
    "other_files": ("file of another kind", "files of another kind"),
    "other_arrays": ("array of another name", "arrays of another name"),
}


def collection_health(facts: Facts) -> dict[str, CollectionHealth]:
    """Each collection that is declared or in the catalog."""
    found = {}
    for name in sorted({*facts.collections, *facts.stored}):
        settings, stored = facts.collections.get(name), facts.stored.get(name)
        source = facts.sources.get(name)
        given = stored or settings
        if given is None:
            continue
        kept = settings is None or settings.source.kind == "catalog"
        entries = (0 if stored is None else stored.count) if kept else None
        found[name] = CollectionHealth(
            dimension=given.dimension,
            metric=given.metric,
            source=None if settings is None else settings.source.kind,
            epoch=None if stored is None else stored.epoch,
            generation=0 if stored is None else stored.generation,
            entries=source.entries if source is not None else entries,
            conflict=_conflict(stored, settings),
            unreadable=facts.unreadable.get(name),
            left_out=_left_out(name, facts),
        )
    return found


def _left_out(name: str, facts: Facts) -> dict[str, int]:
    """What its source held beside the entries when the newest released version read it."""
    readings = [
        (manifest.covers.get(name, 0), manifest.created_at, manifest.left_out.get(name, {}))
        for component, manifest in facts.versions.items()
        if component in facts.definitions and name in facts.definitions[component].inputs
    ]
    return max(readings, key=lambda reading: reading[:2])[2] if readings else {}


def left_out_note(name: str, health: CollectionHealth) -> str | None:
    """What of its source is no entry, in a sentence; ``None``: everything is one."""
    parts = [
        f"{count:,} {words[0] if count == 1 else words[1]}"
        for kind, words in _LEFT_OUT.items()
        if (count := health.left_out.get(kind, 0))
    ]
    return f"left out of {name}: {', '.join(parts)}" if parts else None


def _conflict(stored: "Collection | None", settings: CollectionSettings | None) -> str | None:
    """What the settings say otherwise; a collection keeps what it was made with."""
    if settings is None or stored is None:
        return None
    parts = [
        f"its {what} is {there} in the catalog and {wanted} in the settings"
        for what, there, wanted in (
            ("dimension", stored.dimension, settings.dimension),
            ("metric", stored.metric, settings.metric),
        )
        if there != wanted
    ]
    return ", ".join(parts) or None


def collection_problems(name: str, health: CollectionHealth, facts: Facts) -> Iterator[Problem]:
    """What is not well with one of them."""
    if name in facts.other_catalogs:
        component = facts.other_catalogs[name]
        yield Problem(
            code=Code.CATALOGS_MIXED,
            subject=name,
            what=f"the artifacts are filled from another catalog as well: {component} was built "
            f"from another collection {name} after it was built from the one of this catalog",
            advice="give every job and rebuilder of these artifacts the same catalog.url, and the "
            "others an artifacts.dir of their own; readers serve what was released last",
            acts=Actor.PERSON,
        )
    serving = [each for each, manifest in facts.versions.items() if name in manifest.covers]
    if health.conflict is not None:
        yield Problem(
            code=Code.COLLECTION_CONFLICT,
            subject=name,
            what=f"collection {name} cannot be used: {health.conflict}",
            advice="change the settings back, declare a collection of another name, "
            f"or drop it and fill it again: {commands.drop_collection(name)}",
            acts=Actor.PERSON,
        )
    elif health.unreadable is not None:
        yield Problem(
            code=Code.SOURCE_UNREADABLE,
            subject=name,
            what=f"collection {name} cannot be read, and nothing that is made from it is built: "
            f"{health.unreadable}",
            advice="repair the source, or change what the settings say of it; "
            "readers keep what they serve",
            acts=Actor.PERSON,
        )
    elif Area.CATALOG in facts.unknown:
        return
    elif outrun := facts.covering_lost(name):
        component, covered = max(outrun.items(), key=lambda each: each[1])
        yield Problem(
            code=Code.COLLECTION_OUTRUN,
            subject=name,
            what=f"collection {name} is at generation {health.generation}, and {component} covers "
            f"{covered} of it, "
            + ("which is more" if covered > health.generation else "by commits that are not here")
            + ": the catalog went back in time (an older backup?)",
            advice="to go on from what the catalog holds, and then commit again what it lacks: "
            f"{commands.restore_collection(name)}",
            acts=Actor.PERSON,
        )
    elif not health.generation and serving:
        yield Problem(
            code=Code.COLLECTION_GONE,
            subject=name,
            what=f"collection {name} is gone, and what was made of it still serves: "
            f"{', '.join(sorted(serving))}",
            advice="see that catalog.url is the right one; else fill it again, or take it and them "
            "out of the settings; jobs and rebuilders that run have to be started again",
            acts=Actor.PERSON,
        )
    elif health.entries == 0 and (kept := _entries_of(name, facts)):
        yield Problem(
            code=Code.SOURCE_EMPTIED,
            subject=name,
            what=f"collection {name} is empty now, and {', '.join(kept)} still serve(s) what it "
            "held",
            advice=f"fill it again; if it is to be empty: {commands.rebuild(*kept, force=True)}",
            acts=Actor.PERSON,
        )


def _entries_of(collection: str, facts: Facts) -> list[str]:
    """The components that are made of this collection alone, and hold entries of it."""
    return sorted(
        name
        for name, manifest in facts.versions.items()
        if name in facts.definitions
        and root_collections(name, facts.definitions) == {collection}
        and manifest.entries
    )


def missing_generations(manifest: VersionManifest | None, root: str, facts: Facts) -> int:
    """How many generations of a collection a version does not cover: all, those of a new epoch."""
    source = facts.sources.get(root)
    if source is None:
        return 0
    if manifest is None or manifest.epochs.get(root) != source.epoch:
        return source.generation
    return max(0, source.generation - manifest.covers.get(root, 0))


_RESTART = "start those again that were running when they changed"
_FOLLOWING = frozenset({Condition.BEHIND, Condition.OUTRUN, Condition.MISSING, Condition.CHANGED})
"""What a component is that was not built yet as it should be, by no fault of its own."""


def component_health(
    facts: Facts, collections: Mapping[str, CollectionHealth], due: Due
) -> dict[str, ComponentHealth]:
    """Each component that is declared or released; ``due``: what a rebuilder would build."""
    released = {} if facts.release is None else facts.release.components
    builders: dict[str, list[str]] = {}
    for rebuilder, state in sorted(facts.known_rebuilders.items()):
        for name in state.building:
            builders.setdefault(name, []).append(rebuilder)
    improvements = improvement_health(facts, due)
    found = {}
    for name in sorted({*facts.definitions, *released}):
        definition, manifest = facts.definitions.get(name), facts.versions.get(name)
        attempt = facts.attempts.get(name) if definition is not None else None
        hold, pause = facts.holds.get(name), facts.paused.get(name)
        found[name] = ComponentHealth(
            kind=definition.kind if definition else manifest.kind if manifest else "?",
            condition=_condition(name, facts, due),
            building=tuple(builders.get(name, ())),
            held=None
            if hold is None
            else Decision(reason=hold.reason, since=hold.since, automatic=hold.refused is not None),
            paused=None if pause is None else Decision(reason=pause.reason, since=pause.since),
            version=released.get(name),
            covers={} if manifest is None else manifest.covers,
            behind=_behind(name, manifest, facts, collections),
            entries=0 if manifest is None else manifest.entries,
            bytes=0 if manifest is None else manifest.size,
            built_at=None if manifest is None else manifest.created_at,
            failures=0 if attempt is None else attempt.failures,
            failing_since=None if attempt is None else attempt.first_failed_at,
            failed_at=None if attempt is None else attempt.failed_at,
            error=attempt.error if attempt is not None else facts.corrupt.get(name),
            retry_at=None if attempt is None else facts.retry_policy.retry_at(attempt),
            deferred_until=due.deferred[name].until if name in due.deferred else None,
            tombstones=None if manifest is None else _tombstone_health(manifest, facts),
            improvement=improvements.get(name),
        )
    return found


def _tombstone_health(manifest: VersionManifest, facts: Facts) -> TombstoneHealth | None:
    found = tombstones(manifest, facts)
    if found is None:
        return None
    return TombstoneHealth(rows=found.rows, share=round(found.share, 4), limit=found.limit)


def _condition(name: str, facts: Facts, due: Due) -> Condition:
    """The first that is true, in the order of `Condition`."""
    definition, manifest = facts.definitions.get(name), facts.versions.get(name)
    if definition is None:
        return Condition.UNDECLARED
    if name in facts.attempts:
        return Condition.FAILED
    if name in facts.corrupt:
        return Condition.CORRUPT
    if manifest is None:
        return Condition.MISSING
    if manifest.definition != definition.digest:
        return Condition.CHANGED
    roots = root_collections(name, facts.definitions)
    if any(name in facts.covering_lost(root) or _is_gone(root, manifest, facts) for root in roots):
        return Condition.OUTRUN
    behind = any(missing_generations(manifest, root, facts) for root in roots)
    if name in due.deferred:
        return Condition.DEFERRED
    wanted = behind or name in due.reasons or name in due.waiting
    return Condition.BEHIND if wanted else Condition.CURRENT


def _is_gone(collection: str, manifest: VersionManifest, facts: Facts) -> bool:
    """Whether a version covers a collection that was dropped, and not filled again since."""
    if Area.CATALOG in facts.unknown or collection in facts.unreadable:
        return False
    source = facts.sources.get(collection)
    committed = 0 if source is None else source.generation
    return not committed and manifest.covers.get(collection, 0) > 0


def _behind(
    name: str,
    manifest: VersionManifest | None,
    facts: Facts,
    collections: Mapping[str, CollectionHealth],
) -> dict[str, int]:
    roots = {*(root_collections(name, facts.definitions) if name in facts.definitions else ())}
    roots |= set() if manifest is None else manifest.covers.keys()
    return {
        root: missing
        for root in sorted(roots & collections.keys())
        if (missing := missing_generations(manifest, root, facts))
    }


def component_problems(
    components: Mapping[str, ComponentHealth], facts: Facts, due: Due
) -> Iterator[Problem]:
    """What is not well with them."""
    for name, health in components.items():
        decided = list(_decided(name, health))
        yield from decided
        problem = _of_condition(name, health, facts, due)
        # The decision reports how far it is behind, and the group reports who waits in it.
        reported = (decided and health.condition in {Condition.BEHIND, Condition.OUTRUN}) or (
            name in due.waiting and health.condition in _FOLLOWING
        )
        if problem is not None and not reported:
            yield problem
    for name, error in facts.raising_kinds.items():
        yield Problem(
            code=Code.KIND_RAISES,
            subject=name,
            what=f"the kind of {name} cannot say whether its version is outdated: {error}",
            advice="correct its method outdated, and start rebuilders again; readers keep what "
            "they serve",
            acts=Actor.PERSON,
        )
    if facts.redis is not None and facts.release is not None:
        yield from _unserved(facts.release, facts.known_readers)


def _decided(name: str, health: ComponentHealth) -> Iterator[Problem]:
    behind = f", and is {_generations(health.behind)} behind" if health.behind else ""
    if health.held is not None and health.held.automatic:
        yield Problem(
            code=Code.RELEASE_ROLLED_BACK,
            subject=name,
            what=f"{name} went back to an earlier version on {_moment(health.held.since)}"
            f"{behind}: {health.held.reason}",
            advice="correct the cause (its definition, its source, or the readers that refused "
            f"it); then: {commands.lift(name)}",
            acts=Actor.PERSON,
        )
    for decision, code, word, command in (
        (health.held, Code.COMPONENT_HELD, "held", commands.lift),
        (health.paused, Code.COMPONENT_PAUSED, "paused", commands.resume),
    ):
        if decision is not None and not decision.automatic:
            yield Problem(
                code=code,
                subject=name,
                what=f"as asked: {name} is {word} since {_moment(decision.since)} "
                f"({decision.reason}){behind}",
                advice=f"when it may move on: {command(name)}",
                acts=Actor.PERSON,
                asked=True,
            )


def _of_condition(name: str, health: ComponentHealth, facts: Facts, due: Due) -> Problem | None:
    match health.condition:
        case Condition.UNDECLARED:
            return _undeclared(name, facts)
        case Condition.FAILED:
            return _failed(name, health, facts, due)
        case Condition.MISSING:
            return _never_built(name, health, facts, due)
        case Condition.CORRUPT:
            code, what = Code.COMPONENT_CORRUPT, f"{name} has corrupt files: {health.error}"
        case Condition.CHANGED:
            code, what = Code.COMPONENT_CHANGED, f"{name} is declared differently than it was built"
        case Condition.BEHIND:
            return _behind_its_sources(name, health, facts, due)
        case Condition.OUTRUN | Condition.CURRENT:  # the collection says so
            return None
        case Condition.DEFERRED:  # a note says so: it is as declared
            return None
    return _to_be_built(name, health, facts, code=code, what=what, waits=name not in due.reasons)


def _undeclared(name: str, facts: Facts) -> Problem:
    what = f"{name} is released, and the settings do not declare it"
    keeping = declaring(name, facts.known_rebuilders)
    runs = builders_of(name, facts).values()
    if keeping:
        what += f"; it stays, since rebuilder {', '.join(keeping)} does and would build it again"
        advice, acts = "declare it again, or start that one again with these settings", Actor.PERSON
    elif runs and None not in runs:
        advice, acts = "it leaves the next release, which a running rebuilder makes", Actor.PROCESS
    else:
        advice = (
            "declare it again; otherwise it leaves the next release of a rebuilder that has these "
            f"settings: {_RESTART}"
        )
        acts = Actor.PERSON
    return Problem(
        code=Code.COMPONENT_UNDECLARED, subject=name, what=what, advice=advice, acts=acts
    )


def _failed(name: str, health: ComponentHealth, facts: Facts, due: Due) -> Problem:
    serving = "the last good version serves" if health.version else "nothing serves it"
    what = f"{name} {_failing(health)}, {serving}{_left_alone(name, facts)}: {health.error}"
    again = name in due.reasons or health.building or health.retry_at is not None
    here = not facts.has_rebuilder  # a request alone would wait for one
    at_once = commands.rebuild(name, here=here)
    # Its gate asks whether what vanished is meant to be gone.
    if commands.rebuild(name, force=True) in (health.error or ""):
        anyway = commands.rebuild(name, force=True, here=here)
        advice, acts = f"bring back what went, or if it is right so: {anyway}", Actor.PERSON
    elif not again:
        advice, acts = f"correct the cause, then: {at_once}", Actor.PERSON
    elif here:
        when = f" at {_moment(health.retry_at)}" if health.retry_at else ""
        advice = (
            f"correct the cause; it is retried{when} if a rebuilder runs; or at once: {at_once}"
        )
        acts = Actor.PERSON
    elif (others := why_none_builds(name, facts)) is not None:
        advice, acts = others, Actor.PERSON
    elif health.building:
        advice, acts = f"rebuilder {', '.join(health.building)} builds it now", Actor.PROCESS
    elif (why := _no_source(name, facts)) is not None:
        advice, acts = f"it is tried again once that is put right: {why}", Actor.PERSON
    elif name in due.reasons and (health.retry_at is None or health.retry_at > facts.now):
        advice, acts = "its input changed since, and a running rebuilder builds it", Actor.PROCESS
    else:
        # A time that is over: it waits for nothing but a rebuilder's next pass.
        retry_at = health.retry_at
        at = "now" if retry_at is None or retry_at <= facts.now else f"at {_moment(retry_at)}"
        advice = f"correct the cause; a rebuilder tries again {at}; or at once: {at_once}"
        acts = _who_ends(name, facts)
    return Problem(code=Code.COMPONENT_FAILED, subject=name, what=what, advice=advice, acts=acts)


def _left_alone(name: str, facts: Facts) -> str:
    """Until when the schedules that name it leave it alone, as the next part of a sentence."""
    attempt = facts.attempts[name]
    ends = [
        until
        for schedule in facts.schedules.values()
        if name in schedule.targets(facts.definitions)
        and (until := facts.retry_policy.rests_until(attempt, schedule.failure_cooldown_seconds))
    ]
    if not ends or min(ends) <= facts.now:
        return ""
    return f", and its schedule leaves it alone until {_moment(min(ends))}"


def _who_ends(name: str, facts: Facts) -> Actor:
    """Whether another attempt at the same build may be enough, or somebody has to do something.

    What is wrong with the component or its input is so at every attempt. A cause outside, such as
    a disk or a network, may pass by itself; one that has lasted for several attempts has not.
    """
    attempt = facts.attempts.get(name)
    if attempt is None or not attempt.transient:
        return Actor.PERSON
    return Actor.PERSON if facts.retry_policy.gives_up(attempt) else Actor.PROCESS


def _failing(health: ComponentHealth) -> str:
    """How often, since when, and when last."""
    if health.failing_since is None or health.failed_at is None:
        return "failed"
    since, last = _moment(health.failing_since), _moment(health.failed_at)
    when = f"at {last}" if since == last else f"since {since}, the last time at {last}"
    return f"failed {health.failures} time(s) in a row, {when}"


def _never_built(name: str, health: ComponentHealth, facts: Facts, due: Due) -> Problem | None:
    if name in due.reasons or health.building:
        what = f"{name} was never built"
        return _to_be_built(name, health, facts, code=Code.COMPONENT_MISSING, what=what)
    if _waits_for_entries(name, facts):
        return None
    what = f"{name} was never built"
    obstacle = _obstacle(name, facts) or _Obstacle(why="what it is made from is not there")
    return obstacle.problem(Code.COMPONENT_MISSING, name, what)


def _to_be_built(
    name: str, health: ComponentHealth, facts: Facts, *, code: Code, what: str, waits: bool = False
) -> Problem:
    """What a build puts right."""
    runs = set(builders_of(name, facts).values())
    if waits and not health.building:  # on what it is made from
        advice, acts = "it is built once that is put right", Actor.PERSON
    elif (others := why_none_builds(name, facts)) is not None:
        advice, acts = others, Actor.PERSON
    elif health.building:
        advice, acts = f"rebuilder {', '.join(health.building)} builds it now", Actor.PROCESS
    elif True in runs:
        advice, acts = "a running rebuilder builds it", Actor.PROCESS
    elif facts.has_rebuilder and code is Code.COMPONENT_CHANGED:
        # One of an earlier version does not say which settings it was started with.
        advice, acts = f"a rebuilder that has these settings builds it: {_RESTART}", Actor.PERSON
    elif facts.has_rebuilder and code is Code.COMPONENT_MISSING:
        advice = "a running rebuilder builds it, if it was started with these settings"
        acts = Actor.PROCESS
    elif facts.has_rebuilder:
        advice, acts = "a running rebuilder builds it", Actor.PROCESS
    elif facts.has_rebuilder is None:
        advice = (
            f"a rebuilder builds it, if one runs; else build here: {commands.rebuild(here=True)}"
        )
        acts = Actor.PERSON
    else:
        advice, acts = START_A_REBUILDER, Actor.PERSON
    return Problem(code=code, subject=name, what=what, advice=advice, acts=acts)


def _behind_its_sources(name: str, health: ComponentHealth, facts: Facts, due: Due) -> Problem:
    behind = f"{_generations(health.behind)} behind" if health.behind else "not up to date"
    what = f"{name} is {behind}"
    code = Code.COMPONENT_BEHIND
    if name in due.reasons:
        what = f"{what}: {due.reasons[name]}"
        return _to_be_built(name, health, facts, code=code, what=what)
    obstacle = _obstacle(name, facts) or _Obstacle(why="what it is made from is not up to date")
    if health.building:  # by one that sees other facts, or other settings
        return _to_be_built(name, health, facts, code=code, what=f"{what}, since {obstacle.why}")
    return obstacle.problem(code, name, what)


@dataclass(frozen=True, kw_only=True)
class _Obstacle:
    """What keeps a component from being built that is not its own fault."""

    why: str
    until: str | None = None
    """The command that ends it, where a person asked for it; ``None``: it is a fault."""

    def problem(self, code: Code, name: str, what: str) -> Problem:
        """What to say of the component that it keeps."""
        if self.until is not None:
            what = f"as asked: {what}: it waits for {self.why}"
            advice = f"when that may move on: {self.until}"
        else:
            what, advice = f"{what}, since {self.why}", "it is built once that is put right"
        asked = self.until is not None
        return Problem(
            code=code, subject=name, what=what, advice=advice, acts=Actor.PERSON, asked=asked
        )


def _obstacle(name: str, facts: Facts) -> _Obstacle | None:
    if (why := _no_source(name, facts)) is not None:
        return _Obstacle(why=why)
    for parent in ancestors_of(name, facts.definitions):
        it = f"{parent}, which it is made from"
        if parent in facts.holds:
            why = f"{it} and which is held ({facts.holds[parent].reason})"
            return _Obstacle(why=why, until=commands.lift(parent))
        if parent in facts.paused:
            why = f"{it} and which is paused ({facts.paused[parent].reason})"
            return _Obstacle(why=why, until=commands.resume(parent))
        if parent in facts.attempts:
            return _Obstacle(why=f"{it}, failed")
        if parent in facts.corrupt:
            return _Obstacle(why=f"{it}, is corrupt")
    return None


def _no_source(name: str, facts: Facts) -> str | None:
    """Which collection that it is made from gives nothing at the moment, and why."""
    for collection in sorted(root_collections(name, facts.definitions)):
        if collection in facts.unreadable:
            return f"collection {collection} cannot be read"
        if facts.covering_lost(collection):
            return f"the catalog of collection {collection} went back in time"
    return None


def _waits_for_entries(name: str, facts: Facts) -> bool:
    """Whether nothing was ever committed to something that it is made from."""
    return Area.CATALOG not in facts.unknown and any(
        root not in facts.unreadable
        and (root not in facts.sources or facts.sources[root].generation == 0)
        for root in root_collections(name, facts.definitions)
    )


def _unserved(release: Release, readers: Mapping[str, ReaderState]) -> Iterator[Problem]:
    """What no reader serves, although some are up to date."""
    following = [state for state in readers.values() if state.release >= release.number]
    if not following:
        return
    served = {name for state in readers.values() for name in state.components}
    # What only canaries are to serve may still be on its way to them.
    for name in sorted(release.for_reader("").components.keys() - served):
        yield Problem(
            code=Code.COMPONENT_NOT_SERVED,
            subject=name,
            what=f"{name} is released, and no reader serves it",
            advice="name it in reader.components of some reader, or take it out of the settings",
            acts=Actor.PERSON,
        )


def notes(facts: Facts, components: Mapping[str, ComponentHealth], due: Due) -> Iterator[str]:
    """What is no fault: a collection without a generation, and the components that wait for it;
    what is to be improved; what is behind on purpose; and where many entries are deleted."""
    for name, health in components.items():
        if health.improvement is not None:
            yield improvement_note(name, health.improvement, facts)
    yield from _canary_notes(facts.release)
    yield from _deferral_notes(components, due)
    yield from _tombstone_notes(components)
    if Area.CATALOG in facts.unknown:
        return
    for name in sorted(facts.collections):
        source = facts.sources.get(name)
        if name in facts.unreadable or (source is not None and source.generation):
            continue
        if any(name in manifest.covers for manifest in facts.versions.values()):
            continue  # a problem says so
        waiting = sorted(
            each
            for each, health in components.items()
            if health.condition is Condition.MISSING
            and name in root_collections(each, facts.definitions)
        )
        names = ", ".join(waiting)
        unread = facts.unread_source(name)
        if unread is None:
            of = f", so there is nothing to build {names} from" if waiting else ""
            yield f"nothing was committed to {name} yet{of}"
        else:
            yield unread + (f"; not built until then: {names}" if waiting else "")


def _canary_notes(release: Release | None) -> Iterator[str]:
    canary = None if release is None else release.canary
    if release is None or canary is None:
        return
    before = [f"{label} {doubt}" for label, doubt in sorted(canary.doubted.items())]
    doubted = f" (before them: {', '.join(before)})" if before else ""
    yield (
        f"release {release.number} is tried by {', '.join(canary.readers)}{doubted} since "
        f"{_moment(canary.since)}, with {', '.join(sorted(release.tried))}; the other readers "
        "follow when it was served without a failure"
    )


def _deferral_notes(components: Mapping[str, ComponentHealth], due: Due) -> Iterator[str]:
    """One for all that are behind by as much, for the same reason."""
    alike: dict[tuple[str, Deferral], list[str]] = {}
    for name, health in components.items():
        if health.condition is Condition.DEFERRED:
            key = _generations(health.behind), due.deferred[name]
            alike.setdefault(key, []).append(name)
    for (behind, deferral), names in alike.items():
        yield f"{', '.join(names)}: {behind} behind {deferral.sentence(names)}"


def _tombstone_notes(components: Mapping[str, ComponentHealth]) -> Iterator[str]:
    for name, health in components.items():
        found = health.tombstones
        if found is not None and found.rows and found.share >= round(WARN_SHARE * found.limit, 6):
            yield (
                f"{name}: {found.share:.1%} of the rows of its base are deleted or replaced; above "
                f"{found.limit:.0%} (max_tombstones) it is built in full by itself"
            )


def _generations(behind: Mapping[str, int]) -> str:
    """``2 generations of tracks, 1 generation of artists``."""
    return ", ".join(
        f"{count} generation{'s' * (count != 1)} of {name}" for name, count in behind.items()
    )


def _moment(moment: datetime) -> str:
    """To the minute."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"
