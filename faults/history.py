"""What happened in one run, as facts: the only thing that the checker looks at.

The facts come from different witnesses (the catalog, the artifact store, the streams, the readers'
own logs), which are independent of each other: what one of them lost, another one has.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


def content_digest(ids: Iterable[str]) -> str:
    """One name for a set of entries: what a build counted, and what the batches add up to."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One commit, by the catalog; what was in it, by who committed it."""

    batch_id: str
    generation: int
    upserts: tuple[str, ...]
    deletes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Version:
    """One build, by its manifest and its file."""

    component: str
    id: str
    covers: int
    content: str
    """`content_digest` of the entries that its file names."""
    blob: str
    """The digest of its file."""
    parents: Mapping[str, str] = field(default_factory=dict)
    """By component that it was made from: the id of the version."""
    entries: int = 0
    definition: str = ""
    """What it was declared as, by its digest."""


@dataclass(frozen=True, kw_only=True)
class AskedFor:
    """One request, by the catalog."""

    components: tuple[str, ...]
    """Empty: whatever is due."""
    force: bool


@dataclass(frozen=True, kw_only=True)
class Released:
    """One release, by its file."""

    number: int
    components: Mapping[str, str]
    groups: Mapping[str, str] = field(default_factory=dict)
    holds: frozenset[str] = frozenset()
    digest: str = ""
    seen: frozenset[str] = frozenset()
    """The digests of the file's bytes, whenever someone looked."""


@dataclass(frozen=True, kw_only=True)
class Announced:
    """One reload message."""

    number: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """One component in a sample."""

    version: str
    covers: int
    content: str
    """`content_digest` of the entries that it answers from."""
    blob: str
    """The digest of the bytes that were loaded."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one query saw in one snapshot."""

    reader: str
    process: int
    thread: str
    release: int
    release_after: int
    """The release of the same snapshot, asked once more when the query was through."""
    parts: Mapping[str, Part]


@dataclass(frozen=True, kw_only=True)
class QueryFailed:
    """A query that got an error instead of an answer."""

    reader: str
    error: str


@dataclass(frozen=True, kw_only=True)
class Reported:
    """One message of a reader that it worked through a release."""

    reader: str
    release: int


@dataclass(frozen=True, kw_only=True)
class Told:
    """A generation that a client knows of: it committed that, or got another client's session."""

    client: str
    generation: int


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What a client got from one reader, which it asked with its session."""

    client: str
    reader: str
    level: str
    """``eventual``, ``session`` or ``strong``."""
    generation: int
    """What the answer contains, as the reader says."""
    content: str
    """`content_digest` of the entries in it."""
    committed: int
    """The newest commit that anybody was told of before the client asked."""


@dataclass(frozen=True, kw_only=True)
class SaidWell:
    """A moment at which the judge found that all is well, and what there was then."""

    newest: int
    """The newest release in the store."""
    components: Mapping[str, str]
    """What it names."""
    readers: Mapping[str, tuple[int, Mapping[str, str | None]]]
    """By process: the release that it is at, and the version of each component that it serves."""


@dataclass(frozen=True, kw_only=True)
class Left:
    """What was still to do at the end."""

    unread: int = 0
    """Groups that have not read to the stream's end."""
    pending: int = 0
    inbox: int = 0
    retries: int = 0
    leases: int = 0


@dataclass(frozen=True, kw_only=True)
class History:
    """One run."""

    components: tuple[str, ...]
    """All that are made from the collection."""
    batches: tuple[Batch, ...] = ()
    emitted: tuple[int, ...] = ()
    """Generations, one for each event in the stream."""
    versions: tuple[Version, ...] = ()
    releases: tuple[Released, ...] = ()
    announced: tuple[Announced, ...] = ()
    samples: tuple[Sample, ...] = ()
    """Those of one thread in the order in which it took them, processes in order of their start."""
    query_failures: tuple[QueryFailed, ...] = ()
    reports: tuple[Reported, ...] = ()
    clients: tuple[Told | Answered, ...] = ()
    """Those of one client in the order in which they happened to it."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """By component that failed: the generation that it was to cover."""
    dead: frozenset[int] = frozenset()
    """Generations whose events are among the dead letters."""
    said_well: tuple[SaidWell, ...] = ()
    left: Left = Left()
    requests: tuple[AskedFor, ...] = ()
    max_shrink: Mapping[str, float] = field(default_factory=dict)
    """By component: how much of its entries a version may lose unless a person forces it."""
    corrupt: frozenset[str] = frozenset()
    """The ids of versions whose files were corrupted: a reader may have to leave them."""
