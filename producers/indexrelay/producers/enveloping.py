"""What events say, and their bytes: what two envelopes share is written once.

An envelope costs ten times what its data costs. A job says the same in nearly all of them: source,
type, collection. So the first event of each kind is made and validated whole, and its text serves
the later ones, whose ids are drawn here, whose time is the clock's, and whose data are models that
were validated when they were made.
"""

import secrets
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from pydantic_core import to_json

from indexrelay.schemas.events import Event, EventData

_ID_BYTES: Final = 16
_MOST_KINDS: Final = 1000
"""A job has a few collections; whoever has more than this pays for some envelopes again."""


class Said(NamedTuple):
    """What one event is to say."""

    data: EventData
    subject: str
    event_id: str | None = None
    """Makes it a repeat of a row that is in the inbox already; ``None``: drawn."""
    traceparent: str | None = None


class Envelopes:
    """Writes the events of one source; safe to use from several threads."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._shared: dict[tuple[str, str], bytes] = {}

    def written(self, said: Sequence[Said], time: datetime) -> Iterator[bytes]:
        """The bytes of each event, as `Event.to_bytes` gives them but for the order of names."""
        ids = secrets.token_hex(_ID_BYTES * len(said)).encode()
        moment = to_json(time)
        for number, each in enumerate(said):
            if each.event_id is not None or each.traceparent is not None:
                yield self._event(each, time).to_bytes()
                continue
            shared = self._shared.get((each.data.TYPE, each.subject)) or self._share(each, time)
            drawn = ids[2 * _ID_BYTES * number : 2 * _ID_BYTES * (number + 1)]
            data = to_json(each.data)
            yield b'%b,"time":%b,"id":"%b","data":%b}' % (shared, moment, drawn, data)

    def _event(self, said: Said, time: datetime) -> Event:
        return Event.of(
            said.data,
            source=self._source,
            time=time,
            id=said.event_id,
            subject=said.subject,
            traceparent=said.traceparent,
        )

    def _share(self, said: Said, time: datetime) -> bytes:
        """Validate a whole event, and keep the text of what the next ones of its kind share."""
        event = self._event(said, time)
        shared = to_json(event, exclude={"id", "time", "data"}, exclude_none=True)[:-1]
        if len(self._shared) >= _MOST_KINDS:
            self._shared.clear()
        self._shared[said.data.TYPE, said.subject] = shared
        return shared
