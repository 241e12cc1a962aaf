"""What travels: results, the states of processes, and events as CloudEvents 1.0 in JSON.

An event never carries truth, it says "look now": its reader looks into the catalog or the
artifacts. The envelope follows the CloudEvents JSON event format 1.0 (attribute names in lower
case, ``data`` as a JSON object), with two extension attributes: ``schemaversion`` (major.minor of
``data``) and ``traceparent`` (W3C Trace Context, carried along untouched). A type ends in its major
version. A newer minor version's unknown fields are ignored; another major version, or an unknown
type, is unreadable here and goes to the dead letters.

A message above `MAX_EVENT_BYTES` is not read, so ours are never larger: one with too much leaves
out first what the log has, last what can be asked for elsewhere (`fitted_result` and the like).
"""

import hashlib
import hmac
import reprlib
import secrets
from collections.abc import Callable, Iterable
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias, TypeVar, Union, cast

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    TypeAdapter,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import SchemaValidator, from_json, to_json

from indexrelay.schemas.declarations import Declaration
from indexrelay.schemas.errors import UnreadableEventError
from indexrelay.schemas.gates import Refusal as Refusal  # noqa: PLC0414 - handed on with the states
from indexrelay.schemas.names import (
    MAX_COMPONENTS,
    MAX_TRACEPARENT,
    Attribute,
    BatchId,
    Digest,
    ErrorText,
    Instance,
    MessageText,
    Name,
    ReaderId,
    canonical_json,
    fitted,
    member_id,
    shortened,
)
from indexrelay.schemas.progress import ProgressByComponent
from indexrelay.schemas.versions import SCHEMA_VERSION, Check, Generation, Seconds


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
    """How it was built; ``None``: it was not, or by a rebuilder of an earlier version."""
    started_at: AwareDatetime | None = None
    seconds: Seconds = 0.0
    """Build, verification and storing together, without the start of the child process."""
    build_seconds: Seconds = 0.0
    """Until the new files were hashed."""
    verify_seconds: Seconds = 0.0
    """The gates alone; the disk takes the files meanwhile."""
    cpu_seconds: Seconds = 0.0
    """Of all processors, in the process of the build, its gates included; 0: unknown."""
    peak_memory_bytes: NonNegativeInt = 0
    """The most that process had in memory at a time, mapped files included; 0: unknown."""
    checks: tuple[Check, ...] = ()
    error: ErrorText | None = None
    transient: bool = False
    """For a failed one: whether it is retried while the cause lasts: no room, database, network."""

    @model_validator(mode="before")
    @classmethod
    def _with_names_of_today(cls, data: Any) -> Any:
        """Up to schema 1.1 ``transient`` was called ``passing``."""
        if isinstance(data, dict) and "passing" in data:
            return {"transient": data["passing"], **data}
        return data


class RebuildResult(_Fact):
    """The result of a rebuild; operators know its first four names, so they stay."""

    status: RebuildStatus
    message: MessageText
    indexes_rebuilt: tuple[Name, ...] = ()
    indexes_failed: tuple[Name, ...] = ()
    components: dict[Name, ComponentResult] = Field(default_factory=dict)
    release: NonNegativeInt | None = None
    """The number of its release; ``None``: nothing was rebuilt."""
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
    """What this message leaves out, since it would have been too large; the log has it."""


class ComponentState(_Fact):
    """What one reader serves of one component, and how its last load ended."""

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
    refusal: Refusal | None = None
    """Why it does not take the wanted version; ``None``: it does, it tries again by itself, or it
    waits for another member of its group."""
    overlap: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of a canary: the share of the best answers to recent queries that are those of the version
    before; ``None``: not measured."""
    applied_at: AwareDatetime | None = None


class LiveStatus(StrEnum):
    """How far a reader is with the changes of a live collection."""

    FOLLOWING = "following"
    """Every change that it knows of is laid over its release."""
    WAITING = "waiting"
    """Some are missing, and it waits for a release that covers them."""
    FULL = "full"
    """There are more than ``live.max_entries``: a release has to take some of them over."""
    IDLE = "idle"
    """It serves no component over which they can be laid."""


class LiveState(_Fact):
    """What one reader lays over its release of one live collection."""

    status: LiveStatus
    epoch: Attribute = ""
    floor: Generation = 0
    """Changes from here on are held; earlier ones are in every version that is served."""
    generation: Generation = 0
    """… up to this one."""
    entries: NonNegativeInt = 0
    """Entries that were written or deleted since ``floor``, each counted once."""
    ignored: NonNegativeInt = 0
    """Messages that nobody with a key wrote, or that could not be read."""
    reason: ErrorText | None = None
    """Why it does not follow, in words."""
    since: AwareDatetime | None = None
    """Since when; ``None`` while it follows."""


Role: TypeAlias = Literal["reader", "rebuilder"]


class ProcessState(_Fact):
    """Who a process is; several may have one label."""

    ROLE: ClassVar[Role]
    """What it is; also the name of the field that holds its label."""

    host: Attribute
    pid: Annotated[int, Field(ge=0, lt=2**32)]
    instance: Instance = ""
    """Tells this process from the others under its label; empty where schema 1.0 wrote it."""
    started_at: AwareDatetime
    updated_at: AwareDatetime
    declares: Declaration | None = None
    """What its settings declared when it read them; ``None``: it is of an earlier version."""
    settings_refused: ErrorText | None = None
    """Why it kept its settings when it read them again; ``None``: it did not, or never has."""

    @property
    def label(self) -> str:
        """The id that people gave, or the one that was made for it."""
        return str(getattr(self, self.ROLE))

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

    ROLE: ClassVar[Role] = "reader"

    reader: ReaderId
    """Its label."""
    address: Attribute | None = None
    """Where its HTTP service answers, if it has one."""
    ready: bool
    """Whether every required component is served, and its service, if it has one, answers."""
    service_silent_since: AwareDatetime | None = None
    """Since when the event loop of its service has stood still, so that nobody is answered;
    ``None``: it turns, there is none, or the reader is of an earlier version."""
    release: Annotated[int, Field(ge=0, lt=2**63)]
    """The newest release that it has worked through; 0: none yet."""
    cursor: Annotated[str, Field(pattern=r"^[0-9]{1,20}-[0-9]{1,20}$")] | None = None
    """How far it has read the reload messages, kept from there on; ``None``: not at all."""
    components: Annotated[dict[Name, ComponentState], Field(max_length=MAX_COMPONENTS)] = Field(
        default_factory=dict
    )
    live: Annotated[dict[Name, LiveState], Field(max_length=MAX_COMPONENTS)] = Field(
        default_factory=dict
    )
    """By live collection, what is laid over the release."""
    memory_bytes: NonNegativeInt | None = None
    """In memory, with the mapped files that it shares with others."""


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
    """Who holds it, if that is known."""


class ForeignWrites(_Fact):
    """Writes to readers' keys that no reader makes."""

    label: Attribute
    """The label of these readers."""
    times: NonNegativeInt
    """How often it was found."""
    first_at: AwareDatetime
    last_at: AwareDatetime
    last: ErrorText
    """What was found last, and how it was repaired."""


class RebuilderState(ProcessState):
    """The whole current state of one rebuilder process, as its presence key holds it."""

    ROLE: ClassVar[Role] = "rebuilder"

    rebuilder: ReaderId
    """Its label."""
    release: Annotated[int, Field(ge=0, lt=2**63)]
    building: tuple[Name, ...] = ()
    improving: tuple[Name, ...] = ()
    """Components of which it builds a better version behind the one that serves."""
    progress: ProgressByComponent = Field(default_factory=dict)
    """How far what it builds, or improves, is."""
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
    """What it found and repaired within the last hour where only a reader writes."""
    last_result: RebuildResult | None = None


FIELD: Final = b"event"
"""The one field of a stream entry; its value is the event's JSON."""

MAX_EVENT_BYTES: Final = 1024 * 1024
"""Larger entries are not parsed: an event says "look now" and never needs this much."""
_MAX_SHOWN: Final = 10


class EventData(_Fact):
    """The data of an event; each subclass belongs to one ``type``."""

    TYPE: ClassVar[str]


class BatchCompleted(EventData):
    """A job committed a batch: its collection has a new generation."""

    TYPE: ClassVar[str] = "batch.completed.v1"

    collection: Name
    epoch: Attribute
    batch_id: BatchId
    generation: Generation
    upserts: NonNegativeInt = 0
    deletes: NonNegativeInt = 0


class RebuildRequested(EventData):
    """A person or a schedule asked for a rebuild; the request itself is a row in the inbox.

    From a stream it says "look now" and no more: ``components``, ``force`` and ``full`` count only
    in the row that was written into the catalog, and an event leaves them out.
    """

    TYPE: ClassVar[str] = "rebuild.requested.v1"

    request_id: Annotated[str, Field(min_length=1, max_length=200)]
    components: Annotated[tuple[Name, ...], Field(max_length=MAX_COMPONENTS)] = ()
    """What to build even if it is not due; empty: whatever is due."""
    requested_by: Annotated[str, Field(max_length=200)] = ""
    """Who asked, as the audit log names them; empty: a requester of an earlier version."""
    force: bool = False
    """Release it although it lost more entries than ``max_shrink`` allows."""
    full: bool = False
    """Build it from scratch, and check every file again, whatever the last version has."""
    failure_cooldown_seconds: Annotated[float, Field(gt=0)] | None = None
    """Leave out what is paused, and what failed ``max_consecutive_failures`` times in a row until
    so long after the last failure; ``None``: it is built all the same. A schedule gives it."""
    reason: Annotated[str, Field(max_length=1000)] = ""


class RebuildFinished(EventData, RebuildResult):
    """A rebuild ended; the result as operators read it."""

    TYPE: ClassVar[str] = "rebuild.finished.v1"


class ReleasePublished(EventData):
    """A release was committed: readers look for it."""

    TYPE: ClassVar[str] = "release.published.v1"

    release: Annotated[int, Field(gt=0)]
    digest: Digest
    components: dict[Name, Digest] = Field(default_factory=dict)


class ReleaseApplied(EventData):
    """A reader worked through a release; each component's own outcome."""

    TYPE: ClassVar[str] = "release.applied.v1"

    reader: ReaderId
    instance: Instance = ""
    """The process among those under that id; empty where schema 1.0 wrote it."""
    release: Annotated[int, Field(gt=0)]
    ready: bool
    seconds: Annotated[float, Field(ge=0)]
    """From taking up the release to the snapshot in place."""
    components: dict[Name, ComponentState]


class ChangedEntries(_Fact):
    """Entries that were written, column by column, and ids that were deleted; each id once."""

    ids: tuple[str, ...] = ()
    vectors: str = ""
    """Their vectors, row after row: float32, little-endian, in base64."""
    texts: tuple[str | None, ...] = ()
    """The text of each, or none at all where no entry has one."""
    payloads: tuple[str | None, ...] = ()
    """The payload of each as JSON, or none at all where no entry has one."""
    deletes: tuple[str, ...] = ()


class ChangesCommitted(EventData):
    """A live collection changed: what readers lay over their release until one covers it.

    It holds the state that everything which changed in (``after``, ``generation``] has as of
    ``generation``, whole. So it is the same as what the catalog answers, a reader that is anywhere
    between the two may take it, and one that is at ``generation`` has no use for it.

    Redis is not trusted, so the content counts only with a MAC by a key that jobs and readers have
    in their settings (`signed`, `is_signed`). Without one it says: look into the catalog.
    """

    TYPE: ClassVar[str] = "changes.committed.v1"

    collection: Name
    epoch: Attribute
    after: Generation
    generation: Generation
    changes: ChangedEntries | None = None
    """``None``: they are too many for a message, or nobody could sign them."""
    mac: Digest | None = None
    """HMAC-SHA256 over all of this and the namespace, in hexadecimal."""

    def signed(self, namespace: str, key: bytes) -> "ChangesCommitted":
        """The same with its MAC by ``key``."""
        return self.model_copy(update={"mac": self._mac(namespace, key)})

    def is_signed(self, namespace: str, keys: Iterable[bytes]) -> bool:
        """Whether one of the keys made its MAC, for this namespace."""
        given = self.mac
        if given is None:
            return False
        return any(hmac.compare_digest(given, self._mac(namespace, key)) for key in keys)

    def _mac(self, namespace: str, key: bytes) -> str:
        # The type comes first: a key that is used elsewhere, too, signs nothing of this form.
        said = [self.TYPE, namespace, self.model_dump(mode="json", exclude={"mac"})]
        return hmac.new(key, canonical_json(said), hashlib.sha256).hexdigest()


EVENT_TYPES: Final[dict[str, type[EventData]]] = {
    data.TYPE: data
    for data in (
        BatchCompleted,
        ChangesCommitted,
        RebuildFinished,
        RebuildRequested,
        ReleaseApplied,
        ReleasePublished,
    )
}


class Event(BaseModel):
    """The envelope around one `EventData`; each event is of the `event_class` of its data."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    specversion: Annotated[str, Field(pattern=r"^1\.[0-9]{1,9}$")] = "1.0"
    id: Annotated[str, Field(min_length=1, max_length=200)]
    source: Annotated[Attribute, Field(min_length=1)]
    type: Attribute
    subject: Attribute | None = None
    time: AwareDatetime
    datacontenttype: Attribute = "application/json"
    schemaversion: Annotated[str, Field(pattern=r"^1\.[0-9]{1,9}$")] = SCHEMA_VERSION
    traceparent: Annotated[str, Field(max_length=MAX_TRACEPARENT)] | None = None
    data: EventData

    @classmethod
    def of(
        cls,
        data: EventData,
        *,
        source: str,
        time: datetime,
        id: str | None = None,  # noqa: A002 - CloudEvents calls it so
        subject: str | None = None,
        traceparent: str | None = None,
    ) -> "Event":
        """Wrap ``data``; ``id`` is drawn at random (128 bits) unless it is given."""
        return event_class(type(data))(
            id=id or secrets.token_hex(16),
            source=source,
            type=data.TYPE,
            subject=subject,
            time=time,
            traceparent=traceparent,
            data=data,
        )

    def to_bytes(self) -> bytes:
        """The JSON that travels; attributes without a value are left out."""
        # Two texts put together, since a dump of both at once would take `data` for its base class.
        envelope = to_json(self, exclude={"data"}, exclude_none=True)
        return b'%b,"data":%b}' % (envelope[:-1], to_json(self.data))

    @classmethod
    def from_bytes(cls, raw: bytes) -> "Event":
        """Read an event of any known type.

        Raises:
            UnreadableEventError: not JSON, not a CloudEvent, of an unknown type or another major
                version, larger than `MAX_EVENT_BYTES`, or with data that does not fit its type.
        """
        if len(raw) > MAX_EVENT_BYTES:
            raise UnreadableEventError(f"{len(raw)} bytes; at most {MAX_EVENT_BYTES}", raw)
        if not _may_hold_nan(raw):
            try:
                # In one go: two thirds of the work of reading it step by step.
                event: Event = _event_reader().validate_json(raw)
            except ValidationError:
                pass
            else:
                return event
        return cls._step_by_step(raw)

    @classmethod
    def _step_by_step(cls, raw: bytes) -> "Event":
        """The same, with an error that says at which step it ended."""
        try:
            # As strict as the format: UTF-8 only, no NaN.
            envelope = from_json(raw, allow_inf_nan=False)
        except ValueError as error:
            raise UnreadableEventError(f"not JSON: {error}", raw) from error
        if not isinstance(envelope, dict):
            raise UnreadableEventError("not a JSON object", raw)
        given = envelope.get("type")
        data_class = EVENT_TYPES.get(given) if isinstance(given, str) else None
        if data_class is None:
            shown = reprlib.repr(given)
            raise UnreadableEventError(f"unknown type {shown}", raw)
        try:
            envelope["data"] = data_class.model_validate(envelope.get("data"))
            return event_class(data_class).model_validate(envelope)
        except ValidationError as error:
            raise UnreadableEventError(_shown(error), raw) from error


@cache
def event_class(data: type[EventData]) -> type[Event]:
    """The envelope for one type: its ``data`` is of that type and no other."""
    kind: Any = Literal[data.TYPE]
    return create_model(
        f"{data.__name__}Event", __base__=Event, __doc__=data.__doc__, type=(kind, ...), data=data
    )


@cache
def _event_reader() -> SchemaValidator:
    """Reads an event of any known type, which its ``type`` selects."""
    classes: Any = tuple(event_class(data) for data in EVENT_TYPES.values())
    events: Any = Annotated[Union[classes], Field(discriminator="type")]  # noqa: UP007 - of a tuple
    adapter: TypeAdapter[Event] = TypeAdapter(events)
    return cast("SchemaValidator", adapter.validator)


def _may_hold_nan(raw: bytes) -> bool:
    """Whether a number may be none of JSON's, as pydantic takes. One letter is found fastest."""
    return (b"N" in raw and b"NaN" in raw) or (b"I" in raw and b"Infinity" in raw)


def _shown(error: ValidationError) -> str:
    """A validation error in one line, without the input (it may hold anything).

    The places hold keys that others wrote, so their number and their length are limited.
    """
    found = error.errors(include_url=False, include_input=False)
    shown = [
        f"{'.'.join(str(part) for part in item['loc'])[:200] or 'event'}: {item['msg']}"
        for item in found[:_MAX_SHOWN]
    ]
    if len(found) > _MAX_SHOWN:
        shown.append(f"and {len(found) - _MAX_SHOWN} more")
    return "; ".join(shown)


MAX_DATA_BYTES: Final = MAX_EVENT_BYTES - 16 * 1024
"""Of an event's data: its envelope has room beside it."""

_IN_PRESENCE: Final = MAX_EVENT_BYTES // 2
"""Of the last result, which is one part of a rebuilder's state."""

_SHORT: Final = 200
"""Characters of an error where there is no room for more."""

_SEE_LOG: Final = "see its log"
"""An error where there is room for none."""

_FEW: Final = 100
"""Things of a kind where there is no room for all."""

StatesT = TypeVar("StatesT", ReaderState, ReleaseApplied)
_ErrorT = TypeVar("_ErrorT", ComponentResult, ComponentState, ComponentFailure)

Step: TypeAlias = tuple[str, Callable[[Any], Any]]
"""What a step leaves out, and the step: from a message to a shorter one."""


def fitted_result(result: RebuildResult, most_bytes: int = MAX_DATA_BYTES) -> RebuildResult:
    """``result`` as it can be sent; ``omitted`` lists what is not in it."""
    fit, omitted = fitted(result, most_bytes, _RESULT_STEPS)
    return fit.model_copy(update={"omitted": omitted}) if omitted else result


def fitted_rebuilder(state: RebuilderState) -> RebuilderState:
    """``state`` as presence can hold it."""
    last = state.last_result
    if last is not None:
        last = fitted_result(last, _IN_PRESENCE)
        state = state.model_copy(update={"last_result": last})
    return fitted(state, MAX_DATA_BYTES, _REBUILDER_STEPS)[0]


def fitted_states(message: StatesT) -> StatesT:
    """A reader's state as presence can hold it, or its report as it can be sent."""
    return fitted(message, MAX_DATA_BYTES, _STATE_STEPS)[0]


def _with(**fields: object) -> Callable[[Any], Any]:
    return lambda model: model.model_copy(update=fields)


def _each(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Change each component of a message; ``None`` leaves it out."""

    def step(message: Any) -> Any:
        changed = {name: change(each) for name, each in message.components.items()}
        kept = {name: each for name, each in changed.items() if each is not None}
        return message.model_copy(update={"components": kept})

    return step


def _without_passed_checks(component: ComponentResult) -> ComponentResult:
    failed = tuple(check for check in component.checks if not check.passed)
    return component.model_copy(update={"checks": failed})


def _with_short_error(component: _ErrorT) -> _ErrorT:
    error = None if component.error is None else shortened(component.error, _SHORT)
    return component.model_copy(update={"error": error})


def _with_short_failures(state: RebuilderState) -> RebuilderState:
    failures = {name: _with_short_error(each) for name, each in state.failures.items()}
    kept_back = {name: shortened(why, _SHORT) for name, why in state.kept_back.items()}
    return state.model_copy(update={"failures": failures, "kept_back": kept_back})


_RESULT_STEPS: Final[tuple[Step, ...]] = (
    ("checks that passed", _each(_without_passed_checks)),
    ("older batch ids", lambda result: _with(batch_ids=result.batch_ids[-_FEW:])(result)),
    ("checks and long errors", _each(lambda each: _with_short_error(_with(checks=())(each)))),
    (
        "components that were rebuilt",
        _each(lambda each: None if each.outcome is BuildOutcome.REBUILT else each),
    ),
    (
        "all components, for what they wait, and later request ids",
        lambda result: _with(components={}, waiting={}, request_ids=result.request_ids[:_FEW])(
            result
        ),
    ),
)
_REBUILDER_STEPS: Final[tuple[Step, ...]] = (
    ("last result", _with(last_result=None)),
    ("long errors", _with_short_failures),
    ("failures, and what is kept back", _with(failures={}, kept_back={})),
)
_STATE_STEPS: Final[tuple[Step, ...]] = (
    ("long errors", _each(_with_short_error)),
    ("errors", _each(lambda each: _with(error=each.error and _SEE_LOG)(each))),
    ("stamps", _each(_with(stamps={}))),
    ("components", _with(components={})),
)
