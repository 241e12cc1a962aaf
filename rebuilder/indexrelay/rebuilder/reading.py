"""From bytes to an event that a rebuilder can act upon: the one way in.

What arrives in the stream and what a person takes out of the dead letters are read alike, so that a
letter is readable when, and only when, the event would be. What is kept of it is what it may say: a
request from a stream asks for a look, and what else it asks for is left out, as are fields that we
do not know where they make it large.
"""

from datetime import datetime
from typing import Final

from indexrelay.schemas.errors import UnreadableEventError
from indexrelay.schemas.events import BatchCompleted, Event, RebuildRequested
from indexrelay.storage.catalog import ReceivedEvent

_USUAL_BYTES: Final = 4096
"""Ten times what an event of ours takes."""


def read_event(raw: bytes, *, received_at: datetime) -> ReceivedEvent:
    """The row that ``raw`` makes in the inbox.

    Raises:
        UnreadableEventError: no event, or one that does not belong into the events stream.
    """
    event = Event.from_bytes(raw)
    if not isinstance(event.data, BatchCompleted | RebuildRequested):
        raise UnreadableEventError(f"{event.type} does not belong into this stream", raw)
    return ReceivedEvent(
        event_id=event.id, type=event.type, body=_kept(event, raw), received_at=received_at
    )


def _kept(event: Event, raw: bytes) -> bytes:
    """The bytes for the inbox: those that came, where they are few and claim nothing."""
    data = event.data
    if isinstance(data, RebuildRequested) and (data.components or data.force or data.full):
        look = RebuildRequested(request_id=data.request_id, reason=data.reason)
        return event.model_copy(update={"data": look}).to_bytes()
    return raw if len(raw) <= _USUAL_BYTES else event.to_bytes()
