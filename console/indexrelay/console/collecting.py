"""Gathers the facts of an overview: the catalog and the artifacts first, then what Redis adds.

Redis being away is one of the facts, not a failure: the truth does not live there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from redis.exceptions import RedisError

from indexrelay.console.advising import advised
from indexrelay.console.installation import Installation
from indexrelay.console.judging import judge
from indexrelay.console.overview import CollectionFacts, ComponentFacts, Condition, Overview
from indexrelay.producers.signals import present
from indexrelay.producers.standing import made_from
from indexrelay.schemas.definitions import ComponentDefinition
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.results import ReaderState, RebuilderState
from indexrelay.schemas.settings import CollectionSettings
from indexrelay.schemas.versions import Release, VersionManifest
from indexrelay.storage.catalog import Attempt, Collection, Pause
from indexrelay.streams.announcing import current_release


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What Redis says; ``error`` when it says nothing."""

    announced: int | None = None
    readers: Mapping[str, ReaderState] = field(default_factory=dict)
    rebuilders: Mapping[str, RebuilderState] = field(default_factory=dict)
    error: str | None = None
    """With what to do about it."""


def overview(installation: Installation) -> Overview:
    """Look at everything once.

    Raises:
        IndexRelayError: the catalog or the artifacts cannot be read.
    """
    collections = _collections(installation)
    release = installation.store.newest_release()
    signals = signals_of(installation)
    components = _components(installation, release, collections, signals)
    number = release.number if release is not None else 0
    dead_letters = installation.catalog.dead_letters.count()
    problems = judge(
        release=number,
        announced=signals.announced,
        redis_error=signals.error,
        collections=collections,
        components=components,
        readers=signals.readers,
        rebuilders=signals.rebuilders,
        dead_letters=dead_letters,
    )
    return Overview(
        healthy=not problems,
        release=number,
        announced=signals.announced,
        collections=collections,
        components=components,
        readers=dict(signals.readers),
        rebuilders=dict(signals.rebuilders),
        dead_letters=dead_letters,
        problems=problems,
    )


def signals_of(installation: Installation) -> Signals:
    """The announced release and everyone's presence."""
    try:
        connection, keys = installation.connection, installation.keys
        return Signals(
            announced=current_release(connection, keys),
            readers={
                state.reader: state for state in present(connection, keys, "reader", ReaderState)
            },
            rebuilders={
                state.rebuilder: state
                for state in present(connection, keys, "rebuilder", RebuilderState)
            },
        )
    except (RedisError, IndexRelayError, OSError) as error:
        return Signals(error=advised(error))


def _collections(installation: Installation) -> dict[str, CollectionFacts]:
    declared = installation.settings.collections
    facts = {
        name: CollectionFacts(
            dimension=settings.dimension,
            metric=settings.metric,
            source=settings.source.kind,
            generation=0,
            entries=0,
        )
        for name, settings in declared.items()
    }
    for collection in installation.catalog.collections.all():
        settings = declared.get(collection.name)
        facts[collection.name] = CollectionFacts(
            dimension=collection.dimension,
            metric=collection.metric,
            source=None if settings is None else settings.source.kind,
            epoch=collection.epoch,
            generation=collection.generation,
            entries=collection.count,
            conflict=_conflict(collection, settings),
        )
    return facts


def _conflict(collection: Collection, settings: CollectionSettings | None) -> str | None:
    """What the settings say otherwise; a collection keeps what it was made with."""
    if settings is None:
        return None
    parts = [
        f"its {what} is {there} in the catalog and {wanted} in the settings"
        for what, there, wanted in (
            ("dimension", collection.dimension, settings.dimension),
            ("metric", collection.metric, settings.metric),
        )
        if there != wanted
    ]
    return ", ".join(parts) or None


def _components(
    installation: Installation,
    release: Release | None,
    collections: Mapping[str, CollectionFacts],
    signals: Signals,
) -> dict[str, ComponentFacts]:
    catalog, store = installation.catalog, installation.store
    versions = {} if release is None else dict(release.components)
    declared = installation.settings.components
    attempts, paused = catalog.attempts.all(), catalog.attempts.paused()
    building = {name for state in signals.rebuilders.values() for name in state.building}
    roots = {name: made_from(name, declared) for name in collections}
    facts = {}
    for name in sorted({*declared, *versions}):
        manifest = store.version(name, versions[name]) if name in versions else None
        covers = {} if manifest is None else manifest.covers
        definition = declared.get(name)
        behind = {
            root: missing
            for root, seen in collections.items()
            if (root in covers or name in roots[root])
            and (missing := _missing(manifest, root, seen))
        }
        held = release.holds.get(name) if release is not None else None
        condition = _condition(
            name,
            definition=definition,
            manifest=manifest,
            held=held is not None,
            paused=paused,
            building=name in building,
            attempts=attempts,
            behind=bool(behind),
        )
        attempt, pause = attempts.get(name), paused.get(name)
        facts[name] = ComponentFacts(
            kind=definition.kind if definition else manifest.kind if manifest else "?",
            condition=condition,
            version=versions.get(name),
            covers=covers,
            behind=behind,
            entries=0 if manifest is None else manifest.entries,
            bytes=0 if manifest is None else manifest.size,
            built_at=None if manifest is None else manifest.created_at,
            failures=0 if attempt is None else attempt.failures,
            error=(held.reason if held else None)
            or (pause.reason if pause else None)
            or (attempt.error if attempt else None),
        )
    return facts


def _missing(manifest: VersionManifest | None, root: str, seen: CollectionFacts) -> int:
    """How many generations of a collection a version does not cover: all, those of a new epoch."""
    if manifest is None or (seen.epoch is not None and manifest.epochs.get(root) != seen.epoch):
        return seen.generation
    return max(0, seen.generation - manifest.covers.get(root, 0))


def _condition(
    name: str,
    *,
    definition: ComponentDefinition | None,
    manifest: VersionManifest | None,
    held: bool,
    paused: Mapping[str, Pause],
    building: bool,
    attempts: Mapping[str, Attempt],
    behind: bool,
) -> Condition:
    """The first that is true, in the order of `Condition`."""
    candidates = (
        (definition is None, Condition.UNDECLARED),
        (held, Condition.HELD),
        (name in paused, Condition.PAUSED),
        (building, Condition.BUILDING),
        (name in attempts, Condition.FAILED),
        (manifest is None, Condition.MISSING),
        (
            manifest is not None
            and definition is not None
            and manifest.definition != definition.digest,
            Condition.CHANGED,
        ),
        (behind, Condition.BEHIND),
    )
    return next((condition for true, condition in candidates if true), Condition.CURRENT)
