"""Rollback, hold and lift: each is a new release, made from the newest one.

A hold keeps one component where it is, and with it whoever cannot move without it: the rest of its
group (see `indexrelay.health.groups`). A rollback of one member takes its group along.

Each function says what the next release should be, given the newest; `commit_change` makes it one.
"""

from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import datetime

from indexrelay.schemas.groups import disagreements
from indexrelay.schemas.versions import Hold, Release, VersionManifest
from indexrelay.storage.artifacts.changing import Change
from indexrelay.storage.artifacts.errors import (
    ComponentNotReleasedError,
    GroupTornError,
    VersionUnreadableError,
)


def holding(components: Collection[str], *, reason: str, now: datetime) -> Change:
    """Keep these components at the versions that they have."""

    def change(newest: Release) -> Release:
        _released(components, newest)
        hold = Hold(reason=reason, since=now)
        holds = newest.holds | dict.fromkeys(components, hold)
        return newest.model_copy(update={"holds": holds, "reason": reason})

    return change


def lifting(components: Collection[str], *, reason: str) -> Change:
    """Let these components follow their sources again."""

    def change(newest: Release) -> Release | None:
        # One that was dropped while it was held can be let go, too.
        _released([name for name in components if name not in newest.holds], newest)
        holds = {name: hold for name, hold in newest.holds.items() if name not in components}
        if len(holds) == len(newest.holds):
            return None
        return newest.model_copy(update={"holds": holds, "reason": reason})

    return change


def rolling_back(
    target: Release,
    components: Collection[str] | None,
    *,
    manifest: Callable[[str, str], VersionManifest],
    reason: str,
    now: datetime,
) -> Change:
    """Serve what ``target`` served, and hold it; of a group all members or none.

    Components that ``target`` did not have yet stay as they are: it says nothing about them.

    Args:
        components: those to go back, with the others of their groups; ``None``: all.
        manifest: reads the manifest of a component's version.
    """

    def change(newest: Release) -> Release:
        named = set(target.components if components is None else components)
        _released(named, target)
        chosen = _with_groups(named, newest, target)
        hold = Hold(reason=reason, since=now)
        groups = {name: group for name, group in newest.groups.items() if name not in chosen}
        groups |= {name: group for name, group in target.groups.items() if name in chosen}
        versions = {name: target.components[name] for name in chosen}
        release = newest.model_copy(
            update={
                "components": newest.components | versions,
                "groups": groups,
                "holds": newest.holds | dict.fromkeys(chosen, hold),
                "reason": reason,
            }
        )
        for group in sorted({groups[name] for name in chosen if name in groups}):
            torn = _torn(group, release, manifest)
            if torn:
                raise GroupTornError(target.number, group, torn)
        return release

    return change


def _with_groups(names: set[str], newest: Release, target: Release) -> set[str]:
    """``names`` and, of what ``target`` has, whoever is or was in a group with one of them."""
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
    """Why the members of a group would not be at one state, as far as one can read."""
    versions = {}
    for name, theirs in release.groups.items():
        if theirs == group:
            with suppress(VersionUnreadableError):
                versions[name] = manifest(name, release.components[name])
    return disagreements(versions, release.components)


def _released(components: Collection[str], release: Release) -> None:
    for name in components:
        if name not in release.components:
            raise ComponentNotReleasedError(name, release.components)
