"""Collections from a person's side: what there is, what is made of it, and an end to one.

Dropping one is the way to another dimension or metric: a collection keeps those that it was made
with. Its entries, its batches and its epoch go; what was built from it goes on being served, until
the collection is filled again and its components are built from that.
"""

from pydantic import BaseModel, ConfigDict

from indexrelay.console.collecting import verdict_of
from indexrelay.console.installation import Installation
from indexrelay.health.dependencies import made_from
from indexrelay.health.verdict import CollectionHealth, ComponentHealth
from indexrelay.schemas.errors import UnknownNameError
from indexrelay.schemas.mistakes import suggestion


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


class Dropped(BaseModel):
    """What went with a collection."""

    model_config = ConfigDict(frozen=True)

    collection: str
    entries: int
    generation: int
    components: tuple[str, ...]
    """Those that are made from it: they serve what they have."""


_LAST = 5


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
