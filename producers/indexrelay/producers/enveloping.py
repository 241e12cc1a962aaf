"""What events say, and their bytes: envelopes that differ in nothing but the id are written once.

An event's envelope costs five times what its data costs. A job with many batches says the same in
nearly all of them, so the first event of each kind is made and validated whole, and its text serves
the others: their ids are drawn here and their data are models that were validated when they were
made.
"""

import secrets
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from pydantic_core import to_json

from indexrelay.schemas.events import Event, EventData

_ID_BYTES = 16


class Said(NamedTuple):
    """What one event is to say."""

    data: EventData
    subject: str
    event_id: str | None = None
    """Makes it a repeat of a row that is in the inbox already; ``None``: drawn."""
    traceparent: str | None = None


def enveloped(said: Sequence[Said], *, source: str, time: datetime) -> Iterator[bytes]:
    """The bytes of each event, as `Event.to_bytes` would give them but for the order of names."""
    envelopes: dict[tuple[str, str, str | None], bytes] = {}
    ids = secrets.token_hex(_ID_BYTES * len(said))
    for number, (data, subject, event_id, traceparent) in enumerate(said):
        if event_id is not None:
            yield Event.of(
                data,
                source=source,
                time=time,
                id=event_id,
                subject=subject,
                traceparent=traceparent,
            ).to_bytes()
            continue
        kind = (data.TYPE, subject, traceparent)
        envelope = envelopes.get(kind)
        if envelope is None:
            event = Event.of(
                data, source=source, time=time, subject=subject, traceparent=traceparent
            )
            envelope = to_json(event, exclude={"id", "data"}, exclude_none=True)[:-1]
            envelopes[kind] = envelope
        drawn = ids[2 * _ID_BYTES * number : 2 * _ID_BYTES * (number + 1)]
        yield b'%b,"id":"%b","data":%b}' % (envelope, drawn.encode(), to_json(data))
