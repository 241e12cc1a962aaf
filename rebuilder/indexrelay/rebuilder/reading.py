"""From bytes to an event that a rebuilder can act upon: the one way in.

What arrives in the stream and what a person takes out of the dead letters are read alike, so that a
letter is readable when, and only when, the event would be.
"""

from datetime import datetime

from indexrelay.schemas.errors import UnreadableEventError
from indexrelay.schemas.events import BatchCompleted, Event, RebuildRequested
from indexrelay.storage.catalog import ReceivedEvent


def read_event(raw: bytes, *, received_at: datetime) -> ReceivedEvent:
    """The row that ``raw`` makes in the inbox.

    Raises:
        UnreadableEventError: no event, or one that does not belong into the events stream.
    """
    event = Event.from_bytes(raw)
    if not isinstance(event.data, BatchCompleted | RebuildRequested):
        raise UnreadableEventError(f"{event.type} does not belong into this stream", raw)
    return ReceivedEvent(event_id=event.id, type=event.type, body=raw, received_at=received_at)
