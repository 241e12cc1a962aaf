"""Holds and rollbacks: what a person's decision makes of the newest release.

Nothing is committed here. What those serve who wait for a canary is decided on as well.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress

from indexrelay.schemas.names import MAX_ERROR, shortened
from indexrelay.schemas.versions import Canary, Hold, Release, VersionManifest, disagreements
from indexrelay.storage.errors import (
    ComponentNotReleasedError,
    GroupTornError,
    VersionUnreadableError,
)


def with_holds(newest: Release, *, components: Collection[str], hold: Hold) -> Release | None:
    """``newest``, with these components held at the versions that they have; ``None``: all of them
    are, by a person and for that reason."""
    _check_released(components, newest)
    held = {
        name: hold
        for name in components
        if not all(_says(hold, each.get(name)) for each in _holds_for(name, newest))
    }
    if not held:
        return None
    reason = _decision(f"held {_listed(held)}", hold.reason)
    update = {"holds": newest.holds | held, "reason": reason}
    return newest.model_copy(update=update | _for_the_others(newest, lambda holds: holds | held))


def _holds_for(component: str, release: Release) -> Iterator[Mapping[str, Hold]]:
    """The holds that name a component: of most readers, and of those who wait for a canary."""
    yield release.holds
    if release.canary is not None and component in release.canary.components:
        yield release.canary.holds


def _says(hold: Hold, held: Hold | None) -> bool:
    """Whether what is held says the same, but for since when."""
    return held is not None and (held.reason, held.refused) == (hold.reason, hold.refused)


def without_holds(newest: Release, *, components: Collection[str], reason: str) -> Release | None:
    """``newest``, without the holds of these components; ``None``: there are none."""
    # A hold of a component that was dropped meanwhile can be lifted, too.
    _check_released([name for name in components if name not in newest.holds], newest)

    def without(holds: Mapping[str, Hold]) -> dict[str, Hold]:
        return {name: hold for name, hold in holds.items() if name not in components}

    holds = without(newest.holds)
    if len(holds) == len(newest.holds):
        return None
    reason = _decision(f"lifted {_listed(newest.holds.keys() - holds.keys())}", reason)
    update = {"holds": holds, "reason": reason}
    return newest.model_copy(update=update | _for_the_others(newest, without))


def _for_the_others(
    release: Release, change: Callable[[dict[str, Hold]], dict[str, Hold]]
) -> dict[str, Canary]:
    """The same change of holds for those who wait for a canary, as an update of the release."""
    canary = release.canary
    if canary is None:
        return {}
    holds = {name: hold for name, hold in change(canary.holds).items() if name in canary.components}
    return {"canary": canary.model_copy(update={"holds": holds})}


def _decision(what: str, reason: str) -> str:
    """Why a release was made that a person decided on: ``held clap, map: too loud``."""
    return shortened(f"{what}: {reason}", MAX_ERROR)


def _listed(components: Iterable[str]) -> str:
    return ", ".join(sorted(components))


def rolled_back(
    newest: Release,
    *,
    target: Release,
    named: set[str],
    hold: Hold,
    refused: Mapping[str, str],
    manifest: Callable[[str, str], VersionManifest],
) -> Release:
    """``newest``, with these components and the others of their groups as ``target`` has them.

    Args:
        refused: see `ArtifactStore.rollback`.
        manifest: reads the manifest of a component's version.
    """
    newest, target = newest.for_reader(""), target.for_reader("")  # no canary has this label
    _check_released(named, target)
    chosen = _with_groups(named, newest, target)
    groups = {name: group for name, group in newest.groups.items() if name not in chosen}
    groups |= {name: group for name, group in target.groups.items() if name in chosen}
    versions = {name: target.components[name] for name in chosen}
    release = newest.model_copy(
        update={
            "components": newest.components | versions,
            "groups": groups,
            "holds": newest.holds
            | {name: hold.model_copy(update={"refused": refused.get(name)}) for name in chosen},
            "reason": _decision(
                f"rolled back {_listed(chosen)} to release {target.number}", hold.reason
            ),
        }
    )
    for group in sorted({groups[name] for name in chosen if name in groups}):
        torn = _torn(group, release, manifest)
        if torn:
            raise GroupTornError(target.number, group, torn)
    return release


def _with_groups(names: set[str], newest: Release, target: Release) -> set[str]:
    """``names`` and, of what ``target`` has, all that are or were in a group with one of them."""
    found: set[str] = set()
    more = set(names)
    while more != found:
        found = set(more)
        for release in (newest, target):
            groups = {release.groups[name] for name in found if name in release.groups}
            more |= {name for name, group in release.groups.items() if group in groups}
        more &= target.components.keys()
    return found


def _torn(
    group: str, release: Release, manifest: Callable[[str, str], VersionManifest]
) -> tuple[str, ...]:
    """Why the members of a group would not be at one state, as far as they can be read."""
    versions = {}
    for name, theirs in release.groups.items():
        if theirs == group:
            with suppress(VersionUnreadableError):
                versions[name] = manifest(name, release.components[name])
    return disagreements(versions, release.components)


def _check_released(components: Collection[str], release: Release) -> None:
    for name in components:
        if name not in release.components:
            raise ComponentNotReleasedError(name, release.components)
