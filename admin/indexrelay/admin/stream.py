"""What changes, pushed to every open page: one sequence of events, and each client's place in it.

Events have numbers that strictly increase, also over a restart of the process (they begin at the
clock's milliseconds), and tell the process that made them from others beside it. The newest are
kept, up to a count and a size. A client has no queue of its own: it has the number of the event
that it got last, and reads on from there. So a slow one costs nothing, and one that comes back with
``Last-Event-ID`` gets what it missed. Where that is not kept any more, or was another process's, it
gets the whole state as of now instead, which contains
whatever the missed events said.

    event: state    the whole state document, as `GET /state` answers it
    event: patch    what changed of it since the state, or patch, whose number is ``base``
    event: …        what another part of the portion publishes: ``release``, ``map``

A stream ends when the session of its client has ended, and after a while in any case: its client
comes back at once, and is asked again who it is. The format is that of the HTML standard, section
9.2, written by `fastapi.sse`.
"""

import asyncio
import secrets
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from indexrelay.admin.access import Access, Viewer
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.names import canonical_json
from indexrelay.service.problems import RefusedError

MAX_EVENTS: Final = 500
MAX_BYTES: Final = 8 * 1024 * 1024
"""Of the events that are kept, however many they are."""
MAX_CLIENTS: Final = 100
"""Streams that are open at a time; one more is refused (503)."""
STREAM_SECONDS: Final = 900.0
"""After which a stream ends, and its client connects again."""
RETRY_MILLISECONDS: Final = 1000
_STEP: Final = 1024
"""From one number to the next: what a number leaves, divided by it, is drawn by each process. Until
the year 2248 they are exact as numbers of JavaScript."""


@dataclass(frozen=True, kw_only=True)
class PushedEvent:
    """One event, as it is sent."""

    number: int
    name: str
    text: str
    """JSON, in one line."""


class EventStream:
    """Takes events from any thread, and gives them to clients on the threads of event loops."""

    def __init__(
        self,
        clock: Clock,
        *,
        max_events: int = MAX_EVENTS,
        max_bytes: int = MAX_BYTES,
        stream_seconds: float = STREAM_SECONDS,
    ) -> None:
        self._clock = clock
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._stream_seconds = stream_seconds
        self._kept: deque[PushedEvent] = deque()
        self._bytes = 0
        self._own = secrets.randbelow(_STEP)
        self._number = int(clock.now().timestamp() * 1000) * _STEP + self._own
        self._before = self._number
        """Everything after this number is kept."""
        self._lock = threading.Lock()
        self._waiting: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._closed = False

    def __len__(self) -> int:
        """How many clients there are."""
        return len(self._waiting)

    @property
    def number(self) -> int:
        """That of the newest event."""
        return self._number

    def publish(self, name: str, data: object) -> int:
        """Send an event to every client, and keep it; its number.

        Args:
            name: in one line: ``release``.
            data: what becomes JSON.
        """
        return self.publish_made(name, lambda _number: canonical_json(data).decode())

    def publish_made(self, name: str, text: Callable[[int], str]) -> int:
        """As `publish`, of a text that is made for its number: JSON in one line.

        Clients wait while ``text`` runs.
        """
        with self._lock:
            number = self._number + _STEP
            event = PushedEvent(number=number, name=name, text=text(number))
            self._number = number
            self._kept.append(event)
            self._bytes += len(event.text)
            while len(self._kept) > self._max_events or self._bytes > self._max_bytes:
                gone = self._kept.popleft()
                self._bytes -= len(gone.text)
                self._before = gone.number
        self._wake()
        return number

    def after(self, number: int) -> list[PushedEvent] | None:
        """The events after one; ``None``: some of them are not kept, or it is not one of ours."""
        with self._lock:
            if number % _STEP != self._own or not self._before <= number <= self._number:
                return None
            return [event for event in self._kept if event.number > number]

    def close(self) -> None:
        """End every stream at once, and each that comes; safe twice."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        for woken, loop in list(self._waiting.items()):
            try:
                loop.call_soon_threadsafe(woken.set)
            except RuntimeError:  # its loop has ended
                self._waiting.pop(woken, None)

    async def events(
        self, last: int | None, whole: Callable[[], PushedEvent | None]
    ) -> AsyncIterator[PushedEvent]:
        """What comes after ``last``, until the stream ends; for one client.

        Args:
            last: the number of the last event that the client got; ``None``: it got none.
            whole: gives the whole state as an event that has the number as of which it is; ``None``
                while there is none yet.
        """
        woken = asyncio.Event()
        self._waiting[woken] = asyncio.get_running_loop()
        try:
            ends = self._clock.monotonic() + self._stream_seconds
            while not self._closed and (left := ends - self._clock.monotonic()) > 0:
                woken.clear()
                missed = None if last is None else self.after(last)
                if missed is None and (state := whole()) is not None:
                    # What is not kept any more was before it, or says no more than it does.
                    missed = [replace(state, number=max(state.number, self._before))]
                for event in missed or ():
                    yield event
                    last = event.number
                if not missed:
                    await _set_within(woken, left)
        finally:
            self._waiting.pop(woken, None)


async def _set_within(woken: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await woken.wait()
    except TimeoutError:
        return


def stream_routes(
    events: EventStream, whole: Callable[[], PushedEvent | None], access: Access
) -> APIRouter:
    """``GET /stream``; ``whole`` as in `EventStream.events`."""
    router = APIRouter()

    async def see_room() -> None:
        """Raises RefusedError: there are too many clients."""
        if len(events) >= MAX_CLIENTS:
            raise RefusedError(503, f"{MAX_CLIENTS} pages are open already; close one of them")

    @router.get("/stream", response_class=EventSourceResponse, dependencies=[Depends(see_room)])
    async def stream(
        request: Request,
        caller: Viewer,
        after: Annotated[str, Query(max_length=100)] = "",
    ) -> AsyncIterator[ServerSentEvent]:
        """What changes, as it changes (server-sent events).

        ``after`` is the number of a state that the client has; the header ``Last-Event-ID``, which
        browsers send when they connect again, goes before it.
        """
        yield ServerSentEvent(comment="indexrelay", retry=RETRY_MILLISECONDS)
        last = _number(request.headers.get("last-event-id", after))
        async for event in events.events(last, whole):
            if not access.still(caller):
                return
            yield ServerSentEvent(raw_data=event.text, event=event.name, id=str(event.number))

    return router


def _number(given: str) -> int | None:
    """The number that a client got last; what is none of ours is as if it had none."""
    return int(given) if given.isascii() and given.isdigit() and len(given) < 19 else None
