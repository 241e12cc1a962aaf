"""Rollback, hold and lift: each is a new release, made from the newest one.

Each function says what the next release should be, given the newest; `commit_change` makes it one.
"""

from collections.abc import Collection
from datetime import datetime

from indexrelay.schemas.versions import Hold, Release
from indexrelay.storage.artifacts.changing import Change
from indexrelay.storage.artifacts.errors import ComponentNotReleasedError


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
    target: Release, components: Collection[str] | None, *, reason: str, now: datetime
) -> Change:
    """Serve what ``target`` served, and hold it.

    Components that ``target`` did not have yet stay as they are: it says nothing about them.
    """
    chosen = target.components if components is None else components

    def change(newest: Release) -> Release:
        _released(chosen, target)
        hold = Hold(reason=reason, since=now)
        groups = {name: group for name, group in newest.groups.items() if name not in chosen}
        groups |= {name: group for name, group in target.groups.items() if name in chosen}
        versions = {name: target.components[name] for name in chosen}
        return newest.model_copy(
            update={
                "components": newest.components | versions,
                "groups": groups,
                "holds": newest.holds | dict.fromkeys(chosen, hold),
                "reason": reason,
            }
        )

    return change


def _released(components: Collection[str], release: Release) -> None:
    for name in components:
        if name not in release.components:
            raise ComponentNotReleasedError(name, release.components)
