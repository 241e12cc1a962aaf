"""What was built and what is to be served: blobs, versions, releases.

All three are immutable. A version's id is the sha256 of its manifest's canonical bytes; a release
carries a digest of its own content, because its name is a number and says nothing about it.
"""

from datetime import datetime
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from indexrelay.schemas.canonical import canonical_json, sha256_hex
from indexrelay.schemas.names import Digest, FileName, Name

SCHEMA_VERSION: Final = "1.1"
"""major.minor of every document and message that is written today."""

Seconds = Annotated[float, Field(ge=0)]
Generation = Annotated[int, Field(ge=0, lt=2**63)]
SchemaVersion = Annotated[str, Field(pattern=r"^1\.[0-9]{1,9}$")]
"""major.minor; a document of another major version would be misread, so it is refused."""


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
    """Who made it: a rebuilder, or a person at a host; empty: an earlier version did not say."""
    reason: str
    previous: NonNegativeInt
    """The release that it was made from; 0 for the first."""
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
