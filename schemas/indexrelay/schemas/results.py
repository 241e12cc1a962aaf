"""What came of it: the outcome of a rebuild, and the state of a reader."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from indexrelay.schemas.names import BatchId, Digest, Name, ReaderId
from indexrelay.schemas.versions import Check, Generation, Seconds


class _Fact(BaseModel):
    """A frozen fact; fields that a newer minor version added are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class RebuildStatus(StrEnum):
    """How a rebuild as a whole ended."""

    SUCCESS = "SUCCESS"
    PARTIAL_SUCCESS = "PARTIAL_SUCCESS"
    FAILURE = "FAILURE"


class BuildOutcome(StrEnum):
    """How one component fared in a rebuild."""

    REBUILT = "rebuilt"
    FAILED = "failed"
    SKIPPED = "skipped"
    """Not built, because one that it is made from failed."""


class BuildMode(StrEnum):
    """What a build started from."""

    FULL = "full"
    """From scratch."""
    INCREMENTAL = "incremental"
    """It continues the version before it."""


class LoadOutcome(StrEnum):
    """How one component fared in a reader's last reload."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    """The last good version still serves."""
    SUPERSEDED = "superseded"
    """A newer release arrived before this one was in place."""


class ComponentResult(_Fact):
    """One component's part in a rebuild."""

    outcome: BuildOutcome
    version: Digest | None = None
    """The new version; for a failed or skipped one the version that still serves, if any."""
    covers: dict[Name, Generation] = Field(default_factory=dict)
    entries: NonNegativeInt = 0
    bytes: NonNegativeInt = 0
    mode: BuildMode | None = None
    """How it was built; ``None``: it was not, or by a rebuilder that did not say."""
    started_at: datetime | None = None
    seconds: Seconds = 0.0
    """Build, verification and storing together, without the start of the child process."""
    build_seconds: Seconds = 0.0
    """Until the new files were hashed."""
    verify_seconds: Seconds = 0.0
    """The gates alone; the disk takes the files meanwhile."""
    checks: tuple[Check, ...] = ()
    error: str | None = None
    passing: bool = False
    """For a failed one: whether the cause lies outside (no room, no database, no network), so that
    it is tried again for as long as it lasts."""


class RebuildResult(_Fact):
    """What operators read first; its first four names are known to them and stay."""

    status: RebuildStatus
    message: str
    indexes_rebuilt: tuple[Name, ...] = ()
    indexes_failed: tuple[Name, ...] = ()
    components: dict[Name, ComponentResult] = Field(default_factory=dict)
    release: NonNegativeInt | None = None
    """The number of the release that came of it; ``None`` when nothing was rebuilt."""
    batch_ids: tuple[BatchId, ...] = ()
    """The batches that the rebuilt components newly cover, oldest first."""
    request_ids: tuple[str, ...] = ()
    """The requests of people and schedules that this rebuild answers."""
    woken_at: datetime | None = None
    """When the first signal of this pass was seen."""
    started_at: datetime
    """When the quiet wait was over and the pass began."""
    finished_at: datetime


class ComponentState(_Fact):
    """What one reader serves of one component, and how it came to it."""

    outcome: LoadOutcome
    version: Digest | None = None
    """The version that is served now; ``None``: none yet."""
    wanted: Digest | None = None
    """The version that the newest release names."""
    covers: dict[Name, Generation] = Field(default_factory=dict)
    epochs: dict[Name, str] = Field(default_factory=dict)
    entries: NonNegativeInt = 0
    seconds: Seconds = 0.0
    """How long its load took, warm-up included."""
    error: str | None = None
    applied_at: datetime | None = None


class ReaderState(_Fact):
    """The whole current state of one reader, as its presence key holds it."""

    reader: ReaderId
    host: str
    pid: int
    address: str | None = None
    """Where its HTTP service answers, if it has one."""
    started_at: datetime
    updated_at: datetime
    ready: bool
    release: NonNegativeInt
    """The newest release that it has worked through; 0: none yet."""
    cursor: Annotated[str, Field(pattern=r"^[0-9]{1,20}-[0-9]{1,20}$")] | None = None
    """How far it has read the reload messages, kept from there on; ``None``: not at all."""
    components: dict[Name, ComponentState] = Field(default_factory=dict)


class ComponentFailure(_Fact):
    """A component whose last build failed, as the rebuilder remembers it."""

    error: str
    failures: NonNegativeInt
    """How many times in a row."""
    targets: dict[Name, Generation] = Field(default_factory=dict)
    """The generations that the failed build was to cover."""
    failed_at: datetime
    retry_at: datetime | None = None


class RebuilderState(_Fact):
    """The whole current state of one rebuilder, as its presence key holds it."""

    rebuilder: ReaderId
    host: str
    pid: int
    started_at: datetime
    updated_at: datetime
    release: NonNegativeInt
    building: tuple[Name, ...] = ()
    failures: dict[Name, ComponentFailure] = Field(default_factory=dict)
    kept_back: dict[Name, str] = Field(default_factory=dict)
    """Components that follow no batch because a person holds or paused them, and why."""
    last_result: RebuildResult | None = None
