"""Collections from a person's side: what there is, what is made of it, and an end to one.

Dropping one is the way to another dimension or metric: a collection keeps those that it was made
with. Its entries, its batches and its epoch go; what was built from it goes on being served, until
the collection is filled again and its components are built from that.
"""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from indexrelay.console.collecting import verdict_of
from indexrelay.console.errors import CommandError
from indexrelay.console.installation import Installation
from indexrelay.health.dependencies import made_from
from indexrelay.health.verdict import Code, CollectionHealth, ComponentHealth, Problem, Verdict
from indexrelay.schemas.errors import UnknownNameError
from indexrelay.schemas.mistakes import suggestion
from indexrelay.storage.artifacts import ArtifactError
from indexrelay.storage.catalog import Collection


class CollectionDetails(BaseModel):
    """One collection, and the components that are made from it, directly or not."""

    model_config = ConfigDict(frozen=True)

    name: str
    facts: CollectionHealth
    epoch: str | None
    """``None``: declared in the settings, and nothing was ever committed."""
    last_batches: tuple[str, ...] = ()
    """The ids of the newest, oldest first."""
    components: dict[str, ComponentHealth]
    problems: tuple[Problem, ...] = ()
    """What is not well with the collection itself, as `indexrelay status` has it."""


class Dropped(BaseModel):
    """What went with a collection."""

    model_config = ConfigDict(frozen=True)

    collection: str
    entries: int
    generation: int
    components: tuple[str, ...]
    """Those that are made from it: they serve what they have."""


_OBSTACLES = (
    Code.CATALOG_UNREADABLE,
    Code.ARTIFACTS_UNREADABLE,
    Code.COLLECTION_CONFLICT,
    Code.SOURCE_UNREADABLE,
)
"""What keeps anybody from seeing whether a catalog went back in time."""
_LAST = 5
_VERSIONS = 20
"""Of each component: what was built and not released is among the newest."""


def details(installation: Installation, name: str) -> CollectionDetails:
    """One collection.

    Raises:
        UnknownNameError: neither the settings nor the catalog have it.
    """
    seen = verdict_of(installation)
    facts = seen.collections.get(name)
    if facts is None:
        near = suggestion(name, seen.collections)
        raise UnknownNameError(f"there is no collection {name!r}{near}")
    kept = {each.name: each for each in installation.catalog.collections.all()}.get(name)
    last = (
        installation.catalog.entries.batch_ids(
            name, after=max(0, kept.generation - _LAST), upto=kept.generation
        )
        if kept is not None
        else []
    )
    of = made_from(name, installation.settings.components)
    return CollectionDetails(
        name=name,
        facts=facts,
        epoch=None if kept is None else kept.epoch,
        last_batches=tuple(last),
        components={
            component: each for component, each in seen.components.items() if component in of
        },
        problems=tuple(each for each in seen.problems if each.subject == name),
    )


def droppable(installation: Installation, name: str) -> Dropped:
    """What would go.

    Raises:
        UnknownNameError: the catalog has no such collection.
    """
    kept = {each.name: each for each in installation.catalog.collections.all()}
    if name not in kept:
        raise UnknownNameError(f"the catalog has no collection {name!r}{suggestion(name, kept)}")
    return Dropped(
        collection=name,
        entries=kept[name].count,
        generation=kept[name].generation,
        components=tuple(sorted(made_from(name, installation.settings.components))),
    )


def drop(installation: Installation, name: str) -> None:
    """Forget it with its entries and batches.

    Raises:
        UnknownCollectionError: somebody else was faster.
    """
    installation.catalog.collections.drop(name)


class Restored(BaseModel):
    """A collection whose catalog came back from a backup, and that goes on above what it lost."""

    model_config = ConfigDict(frozen=True)

    collection: str
    generation: int
    """The number that it is at now."""
    above: int
    """The highest that anybody covers, or had."""
    components: tuple[str, ...]
    """Those that are built again from what the catalog holds."""


def restore(installation: Installation, name: str) -> Restored:
    """Go on above every generation that a version or a reader covers, so that nothing is dropped.

    Raises:
        UnknownCollectionError: the catalog has no such collection.
        ArtifactError: the artifacts cannot be read.
        CommandError: nobody covers what this catalog did not commit, so that there is nothing to
            do; or that cannot be seen now.
    """
    stored = installation.catalog.collections.get(name)
    verdict = verdict_of(installation)
    found = {each.code: each for each in verdict.problems if each.subject in (name, None)}
    if Code.COLLECTION_OUTRUN not in found:
        for code in _OBSTACLES:
            if code in found:
                raise CommandError(f"{found[code].what}; {found[code].advice}")
        raise CommandError(
            f"nobody covers anything of {name} that this catalog did not commit: "
            "there is nothing to restore"
        )
    above = max([stored.generation, *_covered(installation, verdict, stored)])
    generation = installation.catalog.collections.restore(name, above=above)
    installation.producer.request_rebuild(reason=f"restored {name}")
    return Restored(
        collection=name,
        generation=generation,
        above=above,
        components=tuple(sorted(made_from(name, installation.settings.components))),
    )


def _covered(installation: Installation, verdict: Verdict, collection: Collection) -> Iterator[int]:
    """Every generation of this epoch that a version or a reader covers, released or not."""
    store, name = installation.store, collection.name
    released = {
        (component, version)
        for release in store.releases()
        for component, version in release.components.items()
    }
    built = {
        (component, version)
        for component in verdict.components
        for version in store.newest_versions(component, most=_VERSIONS)
    }
    for component, version in released | built:
        try:
            manifest = store.version(component, version)
        except ArtifactError:
            continue  # what cannot be read cannot be served
        if manifest.epochs.get(name) == collection.epoch:
            yield manifest.covers.get(name, 0)
    for reader in verdict.readers.values():
        for state in reader.components.values():
            if state.epochs.get(name) == collection.epoch:
                yield state.covers.get(name, 0)
