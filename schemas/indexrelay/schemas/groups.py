"""What it means that the members of a group are at one state: pure functions over manifests.

Two versions are at one state when they cover the same generation, in the same epoch, of every
collection that they have in common, and when they name the same version of every component that
both have to do with: a child names the parent that stands beside it, and two children of one parent
name the same version of it. Members that have nothing in common agree about everything.

A release moves a group whole or leaves it whole. A member that was never released is not part of
what is served yet: it comes in with the first release in which it agrees with the others. Only
while nothing of a group was ever released, all of its members are needed.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from itertools import combinations

from indexrelay.schemas.definitions import ComponentDefinition
from indexrelay.schemas.versions import VersionManifest


def groups_of(definitions: Mapping[str, ComponentDefinition]) -> dict[str, tuple[str, ...]]:
    """The declared groups that have two members or more, with their members."""
    found: dict[str, list[str]] = {}
    for name in sorted(definitions):
        group = definitions[name].group
        if group is not None:
            found.setdefault(group, []).append(name)
    return {group: tuple(names) for group, names in sorted(found.items()) if len(names) > 1}


def mates_of(name: str, definitions: Mapping[str, ComponentDefinition]) -> tuple[str, ...]:
    """The other members of its group."""
    group = definitions[name].group
    return tuple(
        other
        for other in sorted(definitions)
        if group is not None and other != name and definitions[other].group == group
    )


def disagreements(
    versions: Mapping[str, VersionManifest], ids: Mapping[str, str]
) -> tuple[str, ...]:
    """Why these versions of different components are not at one state; nothing where they are.

    Args:
        versions: by component.
        ids: the version id of each component; more than those of ``versions`` do no harm.
    """
    found: list[str] = []
    for one, other in combinations(sorted(versions), 2):
        found += _differences(one, other, versions, ids)
    return tuple(found)


def agree(one: tuple[str, str, VersionManifest], other: tuple[str, str, VersionManifest]) -> bool:
    """Whether two versions (component, id, manifest) are at one state."""
    ids = {component: version for component, version, _ in (one, other)}
    versions = {component: manifest for component, _, manifest in (one, other)}
    return not any(_differences(one[0], other[0], versions, ids))


def have_common_roots(one: str, other: str, definitions: Mapping[str, ComponentDefinition]) -> bool:
    """Whether two components are made from a collection that they have in common."""
    return not _roots(one, definitions).isdisjoint(_roots(other, definitions))


def _differences(
    one: str,
    other: str,
    versions: Mapping[str, VersionManifest],
    ids: Mapping[str, str],
) -> Iterable[str]:
    left, right = versions[one], versions[other]
    for collection in sorted(left.covers.keys() & right.covers.keys()):
        if left.epochs.get(collection) != right.epochs.get(collection):
            yield f"{one} and {other} cover {collection} of before and after it was created anew"
        elif left.covers[collection] != right.covers[collection]:
            yield (
                f"{one} covers {collection} up to {left.covers[collection]}, "
                f"{other} up to {right.covers[collection]}"
            )
    for child, parent in ((one, other), (other, one)):
        named = versions[child].parents.get(parent)
        if named is not None and named != ids.get(parent):
            yield f"{child} was made from another version of {parent} than the one beside it"
    for parent in sorted(left.parents.keys() & right.parents.keys()):
        if left.parents[parent] != right.parents[parent]:
            yield f"{one} and {other} were made from different versions of {parent}"


def _roots(name: str, definitions: Mapping[str, ComponentDefinition]) -> AbstractSet[str]:
    found: set[str] = set()
    for source in definitions[name].inputs:
        found |= _roots(source, definitions) if source in definitions else {source}
    return found
