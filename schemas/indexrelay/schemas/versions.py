"""What was built and what is to be served: blobs, versions, releases; and the order of components.

All three are immutable. A version's id is the sha256 of its manifest's canonical bytes; a release
carries a digest of its own content, because its name is a number only.

Two versions are at one state when they cover the same generation, in the same epoch, of every
collection that they have in common, and when they name the same version of every component that
both have to do with: a child names the parent that stands beside it, and two children of one parent
name the same version of it. Members of a group that have nothing in common agree about everything.

A release moves a group whole or leaves it whole. A member that was never released is not part of
what is served yet: it comes in with the first release in which it agrees with the others. Only
while nothing of a group was ever released, all of its members are needed.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from graphlib import TopologicalSorter
from itertools import combinations
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from indexrelay.schemas.gates import Doubt
from indexrelay.schemas.names import Digest, FileName, Name, ReaderId, canonical_json, sha256_hex
from indexrelay.schemas.settings import ComponentDefinition

SCHEMA_VERSION: Final = "1.5"
"""major.minor of every document and message that is written today."""
Seconds = Annotated[float, Field(ge=0)]
Generation = Annotated[int, Field(ge=0, lt=2**63)]
SchemaVersion = Annotated[str, Field(pattern=r"^1\.[0-9]{1,9}$")]
"""major.minor; a document of another major version would be misread, so it is refused."""
Definitions = Mapping[str, ComponentDefinition]
"""Declared components by their names."""


class _Document(BaseModel):
    """A frozen document; fields that a newer minor version added are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    def canonical(self) -> bytes:
        """The bytes that are written to disk and digested."""
        return canonical_json(self.model_dump(mode="json"))


class BlobRef(_Document):
    """An immutable file, by its content."""

    digest: Digest
    size: NonNegativeInt


class Check(_Document):
    """One gate's verdict on one version.

    ``measured`` and ``limit`` are in the unit that the name ends in (``_ms``), else plain ratios or
    counts. A check with a ``blob`` concerns only that blob's bytes: a later version that names
    the same blob inherits it instead of measuring again.
    """

    name: str
    passed: bool
    detail: str = ""
    measured: float | None = None
    limit: float | None = None
    seconds: Seconds = 0.0
    blob: Digest | None = None
    required: bool = True
    """``False``: the component's settings let a version be released that does not pass it."""

    @property
    def refuses(self) -> bool:
        """Whether it keeps the version from being released."""
        return self.required and not self.passed


class VersionManifest(_Document):
    """One immutable build of one component."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    component: Name
    kind: str
    definition: Digest
    parameters: dict[str, Any] = Field(default_factory=dict)
    covers: dict[Name, Generation]
    """For each collection at its root: the generation that it contains."""
    epochs: dict[Name, str]
    """For each of those collections: the epoch that the generation counts in."""
    stamps: dict[Name, str] = Field(default_factory=dict)
    """For each of those collections: which commit made that generation. A catalog that was brought
    back from an older backup gives its number to another one."""
    parents: dict[Name, Digest] = Field(default_factory=dict)
    """The version of each component that it was made from."""
    files: dict[FileName, BlobRef]
    entries: NonNegativeInt
    counts: dict[str, NonNegativeInt] = Field(default_factory=dict)
    """How many of its entries have a text, a payload, or what else the kind counts; each is kept
    from shrinking as the entries themselves are."""
    left_out: dict[Name, dict[str, NonNegativeInt]] = Field(default_factory=dict)
    """For each collection that was read: what its source holds beside the entries, by its kind
    (rows ``without_vector``, ``subfolders``, ``other_files``, ``other_arrays``)."""
    checks: tuple[Check, ...] = ()
    details: dict[str, Any] = Field(default_factory=dict)
    """What the kind wishes to remember (the factory string that ``auto`` chose, seeds)."""
    created_at: datetime
    build_seconds: Seconds = 0.0
    """Until the new files were hashed."""
    verify_seconds: Seconds = 0.0
    """The gates alone; the disk takes the files meanwhile."""

    @property
    def id(self) -> str:
        """The id that it gets by being written: the sha256 of its canonical bytes.

        One that was read has the id under which it was asked for. Where another minor version wrote
        it, with fields more or fewer than we know, this one is none.
        """
        return sha256_hex(self.canonical())

    @property
    def size(self) -> int:
        """Bytes of all its blobs."""
        return sum(blob.size for blob in self.files.values())


class Hold(_Document):
    """Keeps one component at its version: it is not due, and nothing replaces it."""

    reason: str
    since: datetime
    refused: Digest | None = None
    """The definition of the version that readers refused, where a rebuilder went back to this one
    by itself: the same definition is not built again before the hold is lifted. ``None``: a person
    holds it."""


class Canary(_Document):
    """Few readers take a release first; the others stay where they are until it is promoted.

    The release itself says who they are, so that a reader needs nobody to know what to serve.
    """

    readers: Annotated[tuple[ReaderId, ...], Field(min_length=1)]
    """The labels of those that take it."""
    since: datetime
    components: dict[Name, Digest]
    """What the others serve meanwhile."""
    groups: dict[Name, Name] = Field(default_factory=dict)
    holds: dict[Name, Hold] = Field(default_factory=dict)
    doubted: dict[ReaderId, Doubt] = Field(default_factory=dict)
    """Labels that were to take it before, and why others do instead."""


class Release(_Document):
    """The complete map of what readers should serve."""

    schema_version: SchemaVersion = SCHEMA_VERSION
    number: PositiveInt
    components: dict[Name, Digest]
    groups: dict[Name, Name] = Field(default_factory=dict)
    """For each component that flips with others: its group."""
    holds: dict[Name, Hold] = Field(default_factory=dict)
    created_at: datetime
    by: str = ""
    """Who made it: a rebuilder, or a person at a host; empty: it is of an earlier version."""
    reason: str
    previous: NonNegativeInt
    """The release that it was made from; 0 for the first."""
    canary: Canary | None = None
    """Who takes it first, and what the others serve; ``None``: it is for everyone."""
    digest: str = ""

    def sealed(self) -> Self:
        """The same release with its digest filled in."""
        return self.model_copy(update={"digest": self.content_digest()})

    def content_digest(self) -> str:
        """The sha256 over everything but the digest itself."""
        return sha256_hex(canonical_json(self.model_dump(mode="json", exclude={"digest"})))

    @property
    def intact(self) -> bool:
        """Whether the digest that it carries is the digest of its content."""
        return self.digest == self.content_digest()

    @property
    def versions(self) -> frozenset[tuple[str, str]]:
        """Each component with each version of it that some reader should serve."""
        others = {} if self.canary is None else self.canary.components
        return frozenset([*self.components.items(), *others.items()])

    @property
    def tried(self) -> dict[str, str]:
        """The components of which canaries serve another version than the others, and theirs."""
        if self.canary is None:
            return {}
        others = self.canary.components
        return {name: each for name, each in self.components.items() if others.get(name) != each}

    def for_reader(self, label: str) -> Self:
        """What a reader under this label should serve of it; its number and digest are the same."""
        if self.canary is None or label in self.canary.readers:
            return self
        return self._of_the_others()

    def promoted(self, *, reason: str) -> Self:
        """The same for everyone."""
        return self.model_copy(update={"canary": None, "reason": reason})

    def refused(self, *, reason: str, holds: Mapping[str, Hold]) -> Self:
        """For everyone what the others serve, with these holds besides."""
        if self.canary is None:
            return self
        return self._of_the_others(reason=reason, holds={**self.canary.holds, **holds})

    def _of_the_others(self, **changes: Any) -> Self:
        stays = self.canary
        if stays is None:
            return self
        kept = {"components": stays.components, "groups": stays.groups, "holds": stays.holds}
        return self.model_copy(update={**kept, "canary": None, **changes})


def parents_of(definition: ComponentDefinition, definitions: Definitions) -> list[str]:
    """Those of its inputs that are components (the others are collections)."""
    return [name for name in definition.inputs if name in definitions]


def in_order(definitions: Definitions) -> list[str]:
    """Every component, parents first; equals in the order of their names."""
    graph = {
        name: sorted(parents_of(definitions[name], definitions)) for name in sorted(definitions)
    }
    return list(TopologicalSorter(graph).static_order())


def with_descendants(names: Iterable[str], definitions: Definitions) -> set[str]:
    """``names`` and everything that is made from them, directly or not."""
    found = set(names)
    for name in in_order(definitions):
        if found.intersection(definitions[name].inputs):
            found.add(name)
    return found


def ancestors_of(name: str, definitions: Definitions) -> list[str]:
    """The components that ``name`` is made from, directly or not; parents before children."""
    wanted = {name}
    for each in reversed(in_order(definitions)):
        if each in wanted:
            wanted.update(parents_of(definitions[each], definitions))
    return [each for each in in_order(definitions) if each in wanted - {name}]


def root_collections(name: str, definitions: Definitions) -> set[str]:
    """The collections that a component is made from, directly or through other components."""
    roots: set[str] = set()
    for source in definitions[name].inputs:
        roots |= root_collections(source, definitions) if source in definitions else {source}
    return roots


def made_from(collection: str, definitions: Definitions) -> frozenset[str]:
    """The components that are made from a collection, directly or through others."""
    return frozenset(with_descendants([collection], definitions) - {collection})


def have_common_roots(one: str, other: str, definitions: Definitions) -> bool:
    """Whether two components are made from a collection that they have in common."""
    return not root_collections(one, definitions).isdisjoint(root_collections(other, definitions))


def groups_of(definitions: Definitions) -> dict[str, tuple[str, ...]]:
    """The declared groups that have two members or more, with their members."""
    found: dict[str, list[str]] = {}
    for name in sorted(definitions):
        group = definitions[name].group
        if group is not None:
            found.setdefault(group, []).append(name)
    return {group: tuple(names) for group, names in sorted(found.items()) if len(names) > 1}


def mates_of(name: str, definitions: Definitions) -> tuple[str, ...]:
    """The other members of its group."""
    group = definitions[name].group
    return tuple(
        other
        for other in sorted(definitions)
        if group is not None and other != name and definitions[other].group == group
    )


def moving_with(names: Iterable[str], definitions: Definitions) -> set[str]:
    """``names`` and whatever cannot be released before them: what is made from them, their groups,
    what is made from those, and so on."""
    found: set[str] = set()
    more = set(names)
    while more != found:
        found = with_descendants(more, definitions)
        more = found.union(
            *(
                members
                for members in groups_of(definitions).values()
                if not found.isdisjoint(members)
            )
        )
    return found


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


def _differences(
    one: str,
    other: str,
    versions: Mapping[str, VersionManifest],
    ids: Mapping[str, str],
) -> Iterable[str]:
    left, right = versions[one], versions[other]
    for collection in sorted(left.covers.keys() & right.covers.keys()):
        if left.epochs.get(collection) != right.epochs.get(collection):
            yield f"{one} and {other} cover {collection} of before and after it was created again"
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
