"""What came of it: the outcome of a rebuild, and the state of each process that is present."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt

from indexrelay.schemas.declarations import Declaration
from indexrelay.schemas.limits import MAX_COMPONENTS, Attribute, ErrorText, MessageText
from indexrelay.schemas.names import (
    BatchId,
    Digest,
    Instance,
    Name,
    ReaderId,
    member_id,
)
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
    """Not built, because one that it is made from failed, or one for which its group waits."""


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
    started_at: AwareDatetime | None = None
    seconds: Seconds = 0.0
    """Build, verification and storing together, without the start of the child process."""
    build_seconds: Seconds = 0.0
    """Until the new files were hashed."""
    verify_seconds: Seconds = 0.0
    """The gates alone; the disk takes the files meanwhile."""
    checks: tuple[Check, ...] = ()
    error: ErrorText | None = None
    passing: bool = False
    """For a failed one: whether the cause lies outside (no room, no database, no network), so that
    it is tried again for as long as it lasts."""


class RebuildResult(_Fact):
    """What operators read first; its first four names are known to them and stay."""

    status: RebuildStatus
    message: MessageText
    indexes_rebuilt: tuple[Name, ...] = ()
    indexes_failed: tuple[Name, ...] = ()
    components: dict[Name, ComponentResult] = Field(default_factory=dict)
    release: NonNegativeInt | None = None
    """The number of the release that came of it; ``None`` when nothing was rebuilt."""
    waiting: dict[Name, ErrorText] = Field(default_factory=dict)
    """Components that wait for another member of their group, and for whom and why: some were
    rebuilt, are kept and released together with that one, the others were not built."""
    batch_ids: tuple[BatchId, ...] = ()
    """The batches that the released components newly cover, oldest first."""
    request_ids: tuple[str, ...] = ()
    """The requests of people and schedules that this rebuild answers."""
    woken_at: AwareDatetime | None = None
    """When the first signal of this pass was seen."""
    started_at: AwareDatetime
    """When the quiet wait was over and the pass began."""
    finished_at: AwareDatetime
    omitted: tuple[str, ...] = ()
    """What this message leaves out since it would have been too large with it; the log has it."""


class ComponentState(_Fact):
    """What one reader serves of one component, and how it came to it."""

    outcome: LoadOutcome
    version: Digest | None = None
    """The version that is served now; ``None``: none yet."""
    wanted: Digest | None = None
    """The version that the newest release names."""
    covers: dict[Name, Generation] = Field(default_factory=dict)
    epochs: dict[Name, str] = Field(default_factory=dict)
    stamps: dict[Name, str] = Field(default_factory=dict)
    """As in the version's manifest."""
    entries: NonNegativeInt = 0
    seconds: Seconds = 0.0
    """How long its load took, warm-up included."""
    error: ErrorText | None = None
    applied_at: AwareDatetime | None = None


class ProcessState(_Fact):
    """Who a process is; several may have one label."""

    _LABEL: ClassVar[str]
    """The field that holds the label."""

    host: Attribute
    pid: Annotated[int, Field(ge=0, lt=2**32)]
    instance: Instance = ""
    """Tells this process from the others under its label; empty where schema 1.0 wrote it."""
    started_at: AwareDatetime
    updated_at: AwareDatetime
    declares: Declaration | None = None
    """What its settings declared when it was started; ``None``: an earlier version does not say."""

    @property
    def label(self) -> str:
        """The id that people gave, or the one that was made for it."""
        return str(getattr(self, self._LABEL))

    @property
    def member(self) -> str:
        """The id of this one process, under which it is present."""
        return member_id(self.label, self.instance)

    @property
    def process(self) -> str:
        """For sentences: ``web-1 (host-a:4711)``."""
        return f"{self.label} ({self.host}:{self.pid})"


class ReaderState(ProcessState):
    """The whole current state of one reader process, as its presence key holds it."""

    _LABEL: ClassVar[str] = "reader"

    reader: ReaderId
    """Its label."""
    address: Attribute | None = None
    """Where its HTTP service answers, if it has one."""
    ready: bool
    release: Annotated[int, Field(ge=0, lt=2**63)]
    """The newest release that it has worked through; 0: none yet."""
    cursor: Annotated[str, Field(pattern=r"^[0-9]{1,20}-[0-9]{1,20}$")] | None = None
    """How far it has read the reload messages, kept from there on; ``None``: not at all."""
    components: Annotated[dict[Name, ComponentState], Field(max_length=MAX_COMPONENTS)] = Field(
        default_factory=dict
    )


class ComponentFailure(_Fact):
    """A component whose last build failed, as the rebuilder remembers it."""

    error: ErrorText
    failures: NonNegativeInt
    """How many times in a row."""
    targets: dict[Name, Generation] = Field(default_factory=dict)
    """The generations that the failed build was to cover."""
    failed_at: AwareDatetime
    failing_since: AwareDatetime | None = None
    """When it failed first since it was built; ``None``: a rebuilder of an earlier version."""
    retry_at: AwareDatetime | None = None


class LockWait(_Fact):
    """A lock that a process waits for, longer than it should."""

    lock: Attribute
    """What it is called: a file, the catalog, the lease of a component."""
    since: AwareDatetime
    holder: Attribute = ""
    """Who holds it, as far as one can tell."""


class ForeignWrites(_Fact):
    """What somebody wrote in a reader's place that no reader writes."""

    label: Attribute
    """The readers' label, whose place it is."""
    times: NonNegativeInt
    """How often it was found."""
    first_at: AwareDatetime
    last_at: AwareDatetime
    last: ErrorText
    """What was found last, and what became of it."""


class RebuilderState(ProcessState):
    """The whole current state of one rebuilder process, as its presence key holds it."""

    _LABEL: ClassVar[str] = "rebuilder"

    rebuilder: ReaderId
    """Its label."""
    release: Annotated[int, Field(ge=0, lt=2**63)]
    building: tuple[Name, ...] = ()
    failures: dict[Name, ComponentFailure] = Field(default_factory=dict)
    kept_back: dict[Name, ErrorText] = Field(default_factory=dict)
    """Components that follow no batch, and why: a person holds or paused them, or they wait for
    another member of their group."""
    namesakes: tuple[str, ...] = ()
    """Other processes that run under the same label, ``HOST:PID``: each rebuilder needs its own,
    since events that one took are handed to another of its label as its own."""
    lock_waits: tuple[LockWait, ...] = ()
    """Locks that it waits for longer than it should, or has given up for now."""
    foreign_writes: tuple[ForeignWrites, ...] = ()
    """What it found, and mended, within the last hour where only a reader writes."""
    last_result: RebuildResult | None = None
