"""When the changes of a collection become a release: at once, from time to time, or when asked for.

Committed changes are in the catalog, whatever stands here, so none is ever lost: a policy
(``persistence`` of the collection) only says when versions take them over. Readers of a live
collection lay them over their release until then; to others they are unknown that long.

Every answer follows from generations, from the time at which the last version was built, and from
what is counted in the catalog. There is no timer: a rebuilder that starts anew, or another one,
concludes the same. These end a wait:

- ``periodic``: ``save_interval_seconds`` are over since the last version was built;
- somebody asks: for the component, for one that is made from it, or for whatever is due;
- what was begun failed, and is tried again;
- of a live collection: the changes are half as many as readers may lay over a release, or the
  tombstones that they make, with those that there are, are more than a component's
  ``max_tombstones``.

The members of a group wait until the last of them may be built, and what ends the wait of one ends
it for all. A first version is built at once, or there would be nothing to lay changes over; so is
one whose definition changed, or that is corrupt, and it takes those of its group along without
which it could not be released.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from indexrelay.health.facts import Facts
from indexrelay.schemas import commands
from indexrelay.schemas.settings import CollectionSettings
from indexrelay.schemas.versions import (
    VersionManifest,
    ancestors_of,
    mates_of,
    with_descendants,
)

WARN_SHARE: Final = 0.8
"""Of ``max_tombstones``: from there on people are told, before a build in full is due."""
_FULL_SHARE: Final = 0.5
"""Of the changes that readers may lay over a release: more come while it is built."""
_DEFAULT_LIMIT: Final = 0.10


@dataclass(frozen=True, kw_only=True)
class Deferral:
    """That a component does not contain what is committed, on purpose, and until when."""

    collection: str
    until: datetime | None
    """When its changes are built; ``None``: when somebody asks."""

    def sentence(self, components: list[str]) -> str:
        """What follows the names of components that are behind for this reason."""
        if self.until is not None:
            return f"on purpose, until {self.until:%Y-%m-%d %H:%M:%S} UTC (persistence: periodic)"
        return (
            "on purpose, until somebody asks (persistence: manual): "
            f"{commands.rebuild(*components)}"
        )


def deferral(name: str, collection: str, facts: Facts) -> Deferral | None:
    """Why a component that is made from a collection, and behind it, waits; ``None``: it does not.

    Nothing else is looked at: whether it is due for another reason, held or paused.
    """
    settings = facts.collections[collection]
    members = _moving_with(name, collection, facts)
    wanted = with_descendants(members, facts.definitions)
    wished = facts.requested | facts.not_deferred
    if facts.asked_for_due or wanted & wished or members & facts.attempts.keys():
        return None
    versions = [facts.versions[each] for each in sorted(members)]
    if settings.live and any(_is_full(version, collection, facts) for version in versions):
        return None
    if settings.persistence == "manual":
        return Deferral(collection=collection, until=None)
    built_at = max(version.created_at for version in versions)
    until = built_at + timedelta(seconds=settings.save_interval_seconds)
    # A version from the future was built by a clock that is wrong, and says nothing.
    return Deferral(collection=collection, until=until) if built_at <= facts.now < until else None


def deferral_of(name: str, facts: Facts) -> Deferral | None:
    """The wait of a component, or of one that it is made from; of several that ends last."""
    found = [
        waits
        for each in (name, *ancestors_of(name, facts.definitions))
        for collection in _collections_of(each, facts)
        if each in facts.versions
        and _is_behind(facts.versions[each], collection, facts)
        and (waits := deferral(each, collection, facts)) is not None
    ]
    return max(found, key=lambda waits: (waits.until is None, waits.until), default=None)


def _moving_with(name: str, collection: str, facts: Facts) -> set[str]:
    """It, and those of its group that are made from the collection and have versions."""
    members = {name, *mates_of(name, facts.definitions)} & facts.versions.keys()
    return {each for each in members if collection in facts.versions[each].covers} | {name}


def _collections_of(name: str, facts: Facts) -> Iterator[str]:
    """Those that it is made from directly, and whose changes may wait."""
    for source in facts.definitions[name].inputs:
        settings = facts.collections.get(source)
        if settings is not None and settings.persistence != "immediate":
            yield source


def _is_behind(version: VersionManifest, collection: str, facts: Facts) -> bool:
    source = facts.sources.get(collection)
    return (
        source is not None
        and version.epochs.get(collection) == source.epoch
        and version.covers.get(collection, 0) < source.generation
    )


def _is_full(version: VersionManifest, collection: str, facts: Facts) -> bool:
    """Whether there is more above a version of a live collection than may wait."""
    source = facts.sources[collection]
    changed = source.changed.get(version.covers.get(collection, 0))
    if changed is None:
        return False
    if changed.entries >= _FULL_SHARE * facts.max_live_entries:
        return True
    found = tombstones(version, facts)
    return found is not None and found.share > found.limit


@dataclass(frozen=True, kw_only=True)
class Tombstones:
    """The rows of a version's base that are not served any more: deleted or replaced."""

    rows: int
    """In the version, and by the changes since it was built, as far as these are counted."""
    base: int
    limit: float
    """The share (``max_tombstones``) above which everything is built in full."""

    @property
    def share(self) -> float:
        """Of the base."""
        return self.rows / self.base if self.base else 0.0


def tombstones(version: VersionManifest, facts: Facts) -> Tombstones | None:
    """The tombstones of a version; ``None``: its kind has none.

    Of the entries that a version holds, those that changed since cannot be told from new ones
    without reading both. Their number can: of ``n`` entries in a version, ``m`` in the collection
    now and ``u`` of these written since, ``n + u - m`` are gone or replaced.
    """
    layers = _layers(version)
    if layers is None:
        return None
    details, parameters = layers
    dead = _count(details.get("tombstones"))
    base = version.entries - _count(details.get("delta")) + dead
    for collection, covered in version.covers.items():
        source = facts.sources.get(collection)
        changed = None if source is None else source.changed.get(covered)
        if source is not None and changed is not None and source.entries is not None:
            dead += max(0, version.entries + changed.upserts - source.entries)
    limit = parameters.get("max_tombstones", _DEFAULT_LIMIT)
    return Tombstones(
        rows=min(dead, base),
        base=base,
        limit=float(limit) if isinstance(limit, int | float) else _DEFAULT_LIMIT,
    )


def _layers(version: VersionManifest) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The details and parameters of what has tombstones: a version, or its part of vectors."""
    details, parameters = version.details, version.parameters
    parts = details.get("parts")
    if isinstance(parts, dict) and isinstance(parts.get("vector"), dict):
        details = parts["vector"].get("details", {})
        parameters = parameters.get("vector", {})
    if not isinstance(details, dict) or "tombstones" not in details:
        return None
    return details, parameters if isinstance(parameters, dict) else {}


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def policy_note(name: str, settings: CollectionSettings) -> str | None:
    """What readers do not see for a while by the policy of a collection; ``None``: nothing."""
    if settings.persistence == "immediate" or settings.live:
        return None
    when = (
        f"at most every {settings.save_interval_seconds:g} s"
        if settings.persistence == "periodic"
        else "when somebody asks for a rebuild"
    )
    return (
        f"readers find what is committed to {name} only with the next release, which is made "
        f"{when} (persistence: {settings.persistence}); live = true has them find it at once"
    )
