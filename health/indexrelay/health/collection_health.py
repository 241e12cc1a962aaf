"""How each collection stands: its source, against the catalog and against what was made of it."""

from collections.abc import Iterator
from typing import Final

from indexrelay.health.dependencies import root_collections
from indexrelay.health.facts import Area, Facts
from indexrelay.health.verdict import Actor, Code, CollectionHealth, Problem
from indexrelay.schemas import commands
from indexrelay.schemas.settings import CollectionSettings
from indexrelay.schemas.versions import VersionManifest
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
        if name in getattr(facts.definitions.get(component), "inputs", ())
    ]
    return max(readings, key=lambda reading: reading[:2])[2] if readings else {}


def left_out_note(name: str, health: CollectionHealth) -> str | None:
    """What of its source is no entry, in a sentence; ``None``: everything is one."""
    said = [
        f"{count:,} {words[0] if count == 1 else words[1]}"
        for kind, words in _LEFT_OUT.items()
        if (count := health.left_out.get(kind, 0))
    ]
    return f"left out of {name}: {', '.join(said)}" if said else None


def _conflict(stored: Collection | None, settings: CollectionSettings | None) -> str | None:
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
    elif outrun := facts.outrunning(name):
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
