"""What was released: one release after another, what two differ in, the versions of a component.

A release contains who made it, when and why. What it changed follows from the release before it;
what a change means (entries, covered generations) is in the manifests that both name. The kept
releases are the history: a version that its gates refused is in no release, and a version that a
rollback served again is there twice. A list names an unreadable release; elsewhere it is skipped.
"""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict

from indexrelay.schemas.versions import Hold, Release, VersionManifest
from indexrelay.storage.artifacts.store import ArtifactStore
from indexrelay.storage.errors import ArtifactError, ReleaseUnreadableError

MOST_VERSIONS: Final = 10
"""What fits on a screen beside the rest; releases are kept for longer."""


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
    """``None``, as everything below it: the manifest is corrupt, or gone."""
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


class ReleaseFacts(_Fact):
    """One release in a list."""

    number: int
    made_at: datetime | None = None
    """``None``: it cannot be read, and `reason` is why."""
    by: str = ""
    reason: str
    components: int = 0
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    canary: tuple[str, ...] = ()
    """The readers that take it first; empty: it is for everyone."""


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


def manifest_of(store: ArtifactStore, component: str, version: str) -> VersionManifest | None:
    """A version's manifest; ``None``: it is corrupt, or garbage collected since the release."""
    try:
        return store.version(component, version)
    except ArtifactError:
        return None


class HistoricalVersion(BaseModel):
    """One version, and the releases in a row that named it."""

    model_config = ConfigDict(frozen=True)

    version: str
    first_release: int
    last_release: int
    reason: str
    """Why the first of them was made."""
    manifest: VersionManifest | None
    """``None``: it is corrupt, or garbage collected."""


def release_history(
    store: ArtifactStore, *, most: int, before: int | None = None
) -> list[ReleaseFacts]:
    """At most ``most`` releases, the newest first.

    Args:
        before: only those below this number; ``None``: all.

    Raises:
        StoreAccessError: the store cannot be read.
    """
    numbers = [each for each in store.release_numbers() if before is None or each < before]
    found = []
    for position, each in enumerate(numbers[:most]):
        try:
            release = store.release(each)
        except ReleaseUnreadableError as error:
            found.append(ReleaseFacts(number=each, reason=f"cannot be read: {error.reason}"))
            continue
        found.append(_facts(release, newest_readable(store, numbers[position + 1 :])))
    return found


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


def version_history(
    store: ArtifactStore, component: str, *, most: int = MOST_VERSIONS
) -> list[HistoricalVersion]:
    """At most ``most``, from the newest release backwards.

    Raises:
        StoreAccessError: the store cannot be read.
    """
    runs: list[list[tuple[Release, str]]] = []
    for release in _releases(store):
        version = release.components.get(component)
        if version is None:
            continue
        if runs and runs[-1][0][1] == version:
            runs[-1].append((release, version))
        elif len(runs) == most:
            break
        else:
            runs.append([(release, version)])
    return [
        HistoricalVersion(
            version=version,
            first_release=first.number,
            last_release=last.number,
            reason=first.reason,
            manifest=manifest_of(store, component, version),
        )
        for (last, version), (first, _) in ((run[0], run[-1]) for run in runs)
    ]


def checked_files(manifest: VersionManifest) -> list[str]:
    """For each check the file that it concerns, or nothing.

    Files of equal content are one blob with a check for each, in the order of their names.
    """
    names: defaultdict[str, list[str]] = defaultdict(list)
    for name, blob in sorted(manifest.files.items()):
        names[blob.digest].append(name)
    seen: Counter[tuple[str, str]] = Counter()
    found = []
    for check in manifest.checks:
        these = names.get(check.blob or "", [""])
        nth = seen[check.name, check.blob or ""]
        seen[check.name, check.blob or ""] += 1
        found.append(these[min(nth, len(these) - 1)])
    return found


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
        canary=() if release.canary is None else release.canary.readers,
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


def newest_readable(store: ArtifactStore, numbers: list[int]) -> Release | None:
    """The first of ``numbers`` that can be read."""
    for each in numbers:
        try:
            return store.release(each)
        except ReleaseUnreadableError:
            continue
    return None


def _releases(store: ArtifactStore) -> Iterator[Release]:
    """Those that are kept and readable, from the newest, read as they are asked for."""
    for number in store.release_numbers():
        with contextlib.suppress(ReleaseUnreadableError):
            yield store.release(number)
