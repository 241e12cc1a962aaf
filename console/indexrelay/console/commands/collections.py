"""``indexrelay collections``: a list, one in detail, its end, and its restart above a lost catalog.

A collection keeps the dimension and the metric that it was made with. To change them it is dropped:
its entries, batches and epoch go, and readers serve what was built from it until the collection is
filled again. After a catalog was restored from an older backup, *restore* continues above every
generation that a version or a reader covers.
"""

from collections.abc import Iterator
from typing import Annotated, Final

import typer
from pydantic import BaseModel, ConfigDict
from rich.console import Group, RenderableType
from rich.text import Text

from indexrelay.console.commands import Config, Json, alone, collection_names, confirm
from indexrelay.console.commands.status import (
    collections_table,
    components_table,
    counted,
    facts_table,
    problem_lines,
)
from indexrelay.console.errors import CommandError
from indexrelay.console.installation import Installation, verdict_of
from indexrelay.console.terminal import advice_line, print_json, stdout
from indexrelay.console.watch import Watch, show_again
from indexrelay.health.status import Code, CollectionHealth, ComponentHealth, Problem, Verdict
from indexrelay.schemas import commands
from indexrelay.schemas.errors import UnknownNameError, suggestion
from indexrelay.schemas.versions import made_from
from indexrelay.storage.artifacts import ArtifactError
from indexrelay.storage.audit import AuditAction
from indexrelay.storage.catalog import Collection

_OBSTACLES: Final = (
    Code.CATALOG_UNREADABLE,
    Code.ARTIFACTS_UNREADABLE,
    Code.COLLECTION_CONFLICT,
    Code.SOURCE_UNREADABLE,
)
"""Problems that hide whether a catalog went back in time."""
_LAST_BATCHES: Final = 5
_VERSIONS: Final = 20
"""Of each component: what was built and not released is among the newest."""
app = typer.Typer(add_completion=False)
Name = Annotated[
    str,
    typer.Argument(
        metavar="COLLECTION",
        help="As collections list shows it.",
        autocompletion=collection_names,
    ),
]


@app.callback(invoke_without_command=True)
def collections(context: typer.Context, config: Config = None, json: Json = False) -> None:
    """Each collection; the same as ``list``."""
    if alone(context, config=config, json=json):
        list_collections(config=config, json=json)


@app.command("list")
def list_collections(config: Config = None, json: Json = False, watch: Watch = False) -> None:
    """Each collection: where its entries come from, and how many there are."""
    with Installation.at(config) as installation:
        if watch:
            show_again(lambda: collections_table(verdict_of(installation).collections), json=json)
        seen = verdict_of(installation)
    if json:
        facts = {name: each.model_dump(mode="json") for name, each in seen.collections.items()}
        print_json({"collections": facts})
    else:
        stdout().print(collections_table(seen.collections))


@app.command()
def show(name: Name, config: Config = None, json: Json = False) -> None:
    """One collection, and the components that are made from it."""
    with Installation.at(config) as installation:
        found = details(installation, name)
    if json:
        print_json(found)
    else:
        stdout().print(collection_page(found))


@app.command()
def drop(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Forget a collection with its entries and batches, for good; readers go on serving."""
    with Installation.at(config) as installation:
        dropped = droppable(installation, name)
        if not yes:
            confirm(what_goes(dropped))
        drop_collection(installation, name)
    if json:
        print_json({"dropped": dropped.model_dump(mode="json")})
    else:
        stdout().print(dropped_page(dropped))


@app.command()
def restore(name: Name, config: Config = None, json: Json = False) -> None:
    """After the catalog was restored from an older backup: continue above the numbers it lost."""
    with Installation.at(config) as installation:
        restored = restore_collection(installation, name)
    if json:
        print_json(restored)
    else:
        stdout().print(restored_page(restored))


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
            name, after=max(0, kept.generation - _LAST_BATCHES), upto=kept.generation
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


class Dropped(BaseModel):
    """What dropping a collection takes away."""

    model_config = ConfigDict(frozen=True)

    collection: str
    entries: int
    generation: int
    components: tuple[str, ...]
    """Those that are made from it: readers go on serving them."""


def droppable(installation: Installation, name: str) -> Dropped:
    """What dropping it takes away.

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


def drop_collection(installation: Installation, name: str) -> None:
    """Forget it with its entries and batches.

    Raises:
        UnknownCollectionError: it is gone already.
    """
    installation.catalog.collections.drop(name)
    installation.audit(AuditAction.DELETED, subject=name)


class Restored(BaseModel):
    """A collection whose catalog was restored from a backup: it continues above what was lost."""

    model_config = ConfigDict(frozen=True)

    collection: str
    generation: int
    """The number that it is at now."""
    above: int
    """The highest generation that a version or a reader covers, or the catalog has."""
    components: tuple[str, ...]
    """Those that are built again from what the catalog holds."""


def restore_collection(installation: Installation, name: str) -> Restored:
    """Go on above every generation that a version or a reader covers, so that nothing is dropped.

    Raises:
        UnknownCollectionError: the catalog has no such collection.
        ArtifactError: the artifacts cannot be read.
        CommandError: there is nothing to restore, or that cannot be seen now.
    """
    stored = installation.catalog.collections.get(name)
    verdict = verdict_of(installation)
    found = {each.code: each for each in verdict.problems if each.subject in (name, None)}
    if Code.COLLECTION_OUTRUN not in found:
        for code in _OBSTACLES:
            if code in found:
                raise CommandError(f"{found[code].what}; {found[code].advice}")
        raise CommandError(
            f"no version and no reader covers more of {name} than this catalog committed: "
            "there is nothing to restore"
        )
    above = max([stored.generation, *_covered(installation, verdict, stored)])
    generation = installation.catalog.collections.restore(name, above=above)
    installation.audit(AuditAction.RESTORED, subject=name, generation=generation)
    installation.producer.request_rebuild(reason=f"restored {name}")
    return Restored(
        collection=name,
        generation=generation,
        above=above,
        components=tuple(sorted(made_from(name, installation.settings.components))),
    )


def collection_page(details: CollectionDetails) -> RenderableType:
    """The facts, and a row for each component that is made from it."""
    facts = details.facts
    table = facts_table(
        {
            "collection": details.name,
            "source": facts.source or "not declared in the settings",
            "dimension": str(facts.dimension),
            "metric": str(facts.metric),
            "epoch": details.epoch or "none: nothing was committed yet",
            "generation": str(facts.generation),
            "entries": counted(facts.entries),
            "last batches": ", ".join(details.last_batches) or "none",
        }
    )
    parts: list[RenderableType] = [table, components_table(details.components)]
    parts += [line for problem in details.problems for line in problem_lines(problem)]
    return Group(*parts)


def what_goes(dropped: Dropped) -> str:
    """The sentence before the question."""
    return (
        f"{dropped.collection} has {dropped.entries:,} entries at generation "
        f"{dropped.generation}; they cannot be brought back."
    )


def dropped_page(dropped: Dropped) -> RenderableType:
    """That it is dropped, and what comes next."""
    lines = [Text(f"✓ {dropped.collection} is dropped, with {dropped.entries:,} entries")]
    if dropped.components:
        serving = ", ".join(dropped.components)
        lines.append(Text(f"  {serving}: served as before, until it is filled again"))
        again = commands.rebuild(*dropped.components, force=True)
        lines.append(advice_line(f"if it will have far fewer entries then: {again}"))
    return Group(*lines)


def restored_page(restored: Restored) -> RenderableType:
    """Where it continues, and what comes next."""
    at = f"generation {restored.generation}, above all that were given before"
    lines = [Text(f"✓ {restored.collection} continues at {at}")]
    if restored.components:
        lines.append(
            Text(f"  {', '.join(restored.components)}: built from scratch out of what it holds")
        )
        again = commands.rebuild(*restored.components, force=True)
        lines.append(advice_line(f"if it holds far fewer entries now: {again}"))
    lines.append(Text("  → commit again what the backup lacks"))
    return Group(*lines)


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
