"""What has to change for a release to be served, in parts that flip together or not at all.

A part is one group, or one component without a group. A component that left the release goes with
the group that it was served in, so that a group is never served half old and half new.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from indexrelay.reloaders.snapshot import Contents
from indexrelay.schemas.versions import Release


@dataclass(frozen=True, kw_only=True)
class Part:
    """Components that flip together."""

    name: str
    """The group, or the component."""
    wanted: Mapping[str, str | None]
    """For each member: the version to serve; ``None``: serve it no more."""
    changed: tuple[str, ...]
    """The members that are to be loaded or dropped, in the order of their names."""


def served_names(release: Release, chosen: Collection[str] | None) -> set[str]:
    """The components of a release that this reader serves; ``chosen`` is `None`: all of them."""
    names = set(release.components)
    return names if chosen is None else names & set(chosen)


def parts_of(
    release: Release,
    current: Contents,
    chosen: Collection[str] | None,
    *,
    doubted: Collection[str] = (),
) -> list[Part]:
    """Every part of the release and of what is served now, in the order of their names.

    Args:
        doubted: components that are to be loaded again although they are at the wanted version.
    """
    names = served_names(release, chosen)
    members: dict[tuple[str, str], list[str]] = {}
    for name in sorted(names | current.components.keys()):
        group = release.groups.get(name) if name in names else current.groups.get(name)
        # A component may be called like a group and still be a part of its own.
        key = ("group", group) if group is not None else ("component", name)
        members.setdefault(key, []).append(name)
    parts = []
    for (_, part_name), part_members in sorted(members.items()):
        wanted = {
            name: release.components[name] if name in names else None for name in part_members
        }
        changed = tuple(
            name
            for name in part_members
            if _version(current, name) != wanted[name] or name in doubted
        )
        parts.append(Part(name=part_name, wanted=wanted, changed=changed))
    return parts


def _version(current: Contents, name: str) -> str | None:
    served = current.components.get(name)
    return served.version if served is not None else None
