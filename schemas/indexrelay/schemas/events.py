"""The messages: CloudEvents 1.0 in JSON, one class for what each type says.

An event never carries truth, it says "look now": whoever reads one goes to the catalog or to the
artifacts. The envelope follows the CloudEvents JSON event format 1.0 (attribute names in lower
case, ``data`` as a JSON object), with two extension attributes: ``schemaversion`` (major.minor of
``data``) and ``traceparent`` (W3C Trace Context, carried along untouched).

A type ends in its major version. A newer minor version's unknown fields are ignored; another major
version, or an unknown type, is unreadable here and goes to the dead letters.
"""

import reprlib
import secrets
from datetime import datetime
from typing import Annotated, ClassVar, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError
from pydantic_core import from_json, to_json

from indexrelay.schemas.errors import UnreadableEventError
from indexrelay.schemas.limits import MAX_COMPONENTS, MAX_TRACEPARENT, Attribute
from indexrelay.schemas.names import BatchId, Digest, Instance, Name, ReaderId
from indexrelay.schemas.results import ComponentState, RebuildResult
from indexrelay.schemas.versions import SCHEMA_VERSION, Generation

FIELD: Final = b"event"
"""The one field of a stream entry; its value is the event's JSON."""

MAX_EVENT_BYTES: Final = 1024 * 1024
"""Larger entries are not parsed: an event says "look now" and never needs this much."""

_MAX_SHOWN: Final = 10


class EventData(BaseModel):
    """What an event says; each subclass belongs to one ``type``."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

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
    force: bool = False
    """Release it although it lost more entries than ``max_shrink`` allows."""
    full: bool = False
    """Build it from scratch, and check every file again, whatever the last version has."""
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


EVENT_TYPES: Final[dict[str, type[EventData]]] = {
    data.TYPE: data
    for data in (
        BatchCompleted,
        RebuildFinished,
        RebuildRequested,
        ReleaseApplied,
        ReleasePublished,
    )
}


class Event(BaseModel):
    """The envelope around one `EventData`."""

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
        return cls(
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
        try:
            # Four times as fast as json, and as strict as the format: UTF-8 only, no NaN.
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
            # The validators themselves: on the way through model_validate goes a fifth of the time.
            data = envelope.get("data")
            envelope["data"] = data_class.__pydantic_validator__.validate_python(data)
            event: Event = cls.__pydantic_validator__.validate_python(envelope)
        except ValidationError as error:
            raise UnreadableEventError(_shown(error), raw) from error
        return event


def _shown(error: ValidationError) -> str:
    """A validation error in one line, without the input (it may hold anything).

    The places hold keys that somebody else wrote, so their number and their length are bounded.
    """
    found = error.errors(include_url=False, include_input=False)
    shown = [
        f"{'.'.join(str(part) for part in item['loc'])[:200] or 'event'}: {item['msg']}"
        for item in found[:_MAX_SHOWN]
    ]
    if len(found) > _MAX_SHOWN:
        shown.append(f"and {len(found) - _MAX_SHOWN} more")
    return "; ".join(shown)
