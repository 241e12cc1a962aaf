"""The spans of loads: one for each release that a reader worked through.

It belongs to the trace of the message that announced the release. Of that message nothing else is
read, and where there was none, as after an outage, the load is a trace of its own.
"""

import contextlib
from collections.abc import Iterable
from datetime import datetime, timedelta

from indexrelay.reloaders.loader import Round
from indexrelay.schemas.errors import UnreadableEventError
from indexrelay.schemas.messages import MAX_EVENT_BYTES, Event, ReleasePublished
from indexrelay.schemas.tracing import Tracing
from indexrelay.streams import Delivery


class LoadTraces:
    """Makes the spans of one reader's loads; for use by one thread."""

    def __init__(self, tracing: Tracing, *, member: str) -> None:
        self._tracing = tracing
        self._member = member
        self._announced: tuple[int, str] | None = None
        """The newest release whose message carried a context, and that."""

    def note(self, deliveries: Iterable[Delivery]) -> None:
        """Remember what the newest message carries."""
        for delivery in deliveries:
            if delivery.raw is None or len(delivery.raw) > MAX_EVENT_BYTES:
                continue
            with contextlib.suppress(UnreadableEventError):
                event = Event.from_bytes(delivery.raw)
                if isinstance(event.data, ReleasePublished) and event.traceparent is not None:
                    self._announced = event.data.release, event.traceparent

    def loaded(self, done: Round, *, ended: datetime) -> None:
        """The span of a release that is served now, as far as it could be loaded."""
        number, announced = done.release.number, self._announced
        seconds = max(done.seconds, 0.0)
        self._tracing.record(
            "indexrelay.load",
            parent=announced[1] if announced is not None and announced[0] == number else None,
            began=ended - timedelta(seconds=seconds),
            seconds=seconds,
            failed=bool(done.failed),
            reader=self._member,
            release=number,
            applied=sorted(done.applied),
            refused=sorted(done.failed),
        )
