"""The releases that are kept, and what changed from one to another.

A release says who made it, when and why. What it changed follows from the release before it, and
what a change means (entries, covered generations) from the manifests that both name.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from indexrelay.console.errors import CommandError
from indexrelay.schemas import commands
from indexrelay.schemas.versions import Hold, Release, VersionManifest
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore, ReleaseUnreadableError


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True)


class Changed(StrEnum):
    """What happened to a component between two releases."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    SAME = "same"


class VersionFacts(_Fact):
    """One version, as a release names it."""

    version: str
    kind: str | None = None
    """``None``, as everything below it: the manifest is damaged, or swept."""
    definition: str | None = None
    entries: int | None = None
    bytes: int | None = None
    covers: dict[str, int] = {}
    built_at: datetime | None = None

    @classmethod
    def of(cls, version: str, manifest: VersionManifest | None) -> "VersionFacts":
        """What a person compares."""
        if manifest is None:
            return cls(version=version)
        return cls(
            version=version,
            kind=manifest.kind,
            definition=manifest.definition,
            entries=manifest.entries,
            bytes=manifest.size,
            covers=manifest.covers,
            built_at=manifest.created_at,
        )


class ComponentChange(_Fact):
    """One component in two releases."""

    change: Changed
    before: VersionFacts | None
    after: VersionFacts | None
    redefined: bool = False
    """Whether its settings are others than before."""


class ReleaseDiff(_Fact):
    """What two releases have different."""

    before: int
    after: int
    components: dict[str, ComponentChange]
    """Those that differ."""
    same: tuple[str, ...]
    held: dict[str, Hold]
    """Holds that came."""
    lifted: tuple[str, ...]
    """Holds that went."""
    regrouped: dict[str, tuple[str | None, str | None]]
    """Components that flip with another group than before, and with which."""


class ReleaseFacts(_Fact):
    """One release in a list."""

    number: int
    made_at: datetime | None = None
    """``None``: it cannot be read, and `reason` says why."""
    by: str = ""
    reason: str
    components: int = 0
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()


def history(store: ArtifactStore, *, most: int) -> list[ReleaseFacts]:
    """At most ``most`` releases, the newest first.

    Raises:
        StoreAccessError: the store cannot be read.
    """
    numbers = store.release_numbers()
    found = []
    for position, number in enumerate(numbers[:most]):
        try:
            release = store.release(number)
        except ReleaseUnreadableError as error:
            found.append(ReleaseFacts(number=number, reason=f"cannot be read: {error.reason}"))
            continue
        found.append(_facts(release, _older(store, numbers[position + 1 :])))
    return found


def numbered(store: ArtifactStore, number: int | None) -> Release:
    """One release; ``None``: the newest.

    Raises:
        CommandError: there is none yet, or none of that number; says which there are.
        ReleaseUnreadableError: it is damaged.
    """
    if number is None:
        newest = store.newest_release()
        if newest is None:
            raise CommandError(
                "nothing was released yet: commit a batch while a rebuilder runs, "
                f"or build what is due now: {commands.rebuild(here=True)}"
            )
        return newest
    numbers = store.release_numbers()
    if number not in numbers:
        kept = f"there are {_spans(numbers)}" if numbers else "there is none"
        raise CommandError(f"there is no release {number}, or not any more; {kept}")
    return store.release(number)


def release_before(store: ArtifactStore, release: Release) -> Release:
    """The newest one below ``release`` that can be read.

    Raises:
        CommandError: it is the first of those that are kept.
    """
    older = _older(store, [each for each in store.release_numbers() if each < release.number])
    if older is None:
        raise CommandError(
            f"release {release.number} is the oldest that is kept: there is nothing to compare "
            f"it with; look at it: {commands.release(release.number)}"
        )
    return older


def difference(store: ArtifactStore, before: Release, after: Release) -> ReleaseDiff:
    """What changed from one to the other, whichever of them is the newer one.

    Raises:
        StoreAccessError: the store cannot be read.
    """
    changes = {
        name: _change(store, name, before.components.get(name), after.components.get(name))
        for name in sorted({*before.components, *after.components})
    }
    return ReleaseDiff(
        before=before.number,
        after=after.number,
        components={
            name: each for name, each in changes.items() if each.change is not Changed.SAME
        },
        same=tuple(name for name, each in changes.items() if each.change is Changed.SAME),
        held={name: hold for name, hold in after.holds.items() if name not in before.holds},
        lifted=tuple(sorted(set(before.holds) - set(after.holds))),
        regrouped={
            name: (before.groups.get(name), after.groups.get(name))
            for name in sorted({*before.components} & {*after.components})
            if before.groups.get(name) != after.groups.get(name)
        },
    )


def versions_of(store: ArtifactStore, release: Release) -> dict[str, VersionFacts]:
    """Each component of a release, by name."""
    return {
        name: VersionFacts.of(version, manifest_of(store, name, version))
        for name, version in sorted(release.components.items())
    }


def manifest_of(store: ArtifactStore, component: str, version: str) -> VersionManifest | None:
    """The manifest, if it can be read: an old release may name what was swept since."""
    try:
        return store.version(component, version)
    except ArtifactError:
        return None


def _facts(release: Release, previous: Release | None) -> ReleaseFacts:
    before: Mapping[str, str] = {} if previous is None else previous.components
    after = release.components
    return ReleaseFacts(
        number=release.number,
        made_at=release.created_at,
        by=release.by,
        reason=release.reason,
        components=len(after),
        added=tuple(sorted(set(after) - set(before))),
        changed=tuple(
            sorted(name for name in set(after) & set(before) if after[name] != before[name])
        ),
        removed=tuple(sorted(set(before) - set(after))),
        holds=tuple(sorted(release.holds)),
    )


def _change(
    store: ArtifactStore, name: str, before: str | None, after: str | None
) -> ComponentChange:
    old, new = (
        None if version is None else VersionFacts.of(version, manifest_of(store, name, version))
        for version in (before, after)
    )
    if old is None:
        return ComponentChange(change=Changed.ADDED, before=None, after=new)
    if new is None:
        return ComponentChange(change=Changed.REMOVED, before=old, after=None)
    return ComponentChange(
        change=Changed.SAME if before == after else Changed.CHANGED,
        before=old,
        after=new,
        redefined=None not in (old.definition, new.definition) and old.definition != new.definition,
    )


def _older(store: ArtifactStore, numbers: list[int]) -> Release | None:
    """The first of ``numbers`` that can be read."""
    for number in numbers:
        try:
            return store.release(number)
        except ReleaseUnreadableError:
            continue
    return None


def _spans(numbers: list[int]) -> str:
    """``3-7, 9``: of numbers in falling order, the runs."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)
