"""What one request may take: the size of its body, and a thread for its search.

Bodies are received up to a size before anything looks into them. Searches run a few at a time:
Python runs one thread at a time, and forty of them that parse and encode would each take their turn
before the event loop has its own again.
"""

from collections.abc import Callable
from typing import Final, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from indexrelay.schemas.settings import HttpSettings
from indexrelay.service.connections import GuardedConnection, connection_of
from indexrelay.service.problems import OverloadedError, problem

_ROOM: Final = "this reader has no room for one more body; ask again in a moment, or another one"


class BodyLimit:
    """ASGI middleware; answers 413 to a body that is, or says that it is, larger than it may be."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read a body whole, up to the limit, and hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        connection = connection_of(scope)
        try:
            await self._answer(scope, receive, send)
        finally:
            if connection is not None:
                connection.let_go()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = connection_of(scope)
        body = bytearray()
        more = _announced(scope) <= self._max_bytes
        too_large = not more
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            piece = message.get("body", b"")
            if connection is not None and not connection.hold(len(piece)):
                await problem(503, _ROOM, close=True)(scope, receive, send)
                return
            body += piece
            too_large = len(body) > self._max_bytes
            more = message.get("more_body", False) and not too_large
        if too_large:
            detail = f"the body may have at most {self._max_bytes} bytes"
            await problem(413, detail, close=True)(scope, receive, send)
            return
        await self._app(scope, _replayed(bytes(body), receive), send)


def _announced(scope: Scope) -> int:
    """What the header says of the body's length; the server has checked that it is a number."""
    return next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Give the body once, then whatever comes."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


T = TypeVar("T")


class SearchThreads:
    """Runs searches; for one event loop."""

    def __init__(self, settings: HttpSettings) -> None:
        self._limiter = CapacityLimiter(settings.searches)
        self._most = settings.searches + settings.max_waiting_searches
        self._inside = 0

    async def run(
        self,
        function: Callable[[str, bytes], T],
        name: str,
        body: bytes,
        *,
        connection: GuardedConnection | None,
    ) -> T:
        """What ``function`` returns, from a thread.

        Raises:
            OverloadedError: as many as may are waiting, or whoever asked has left.
            Exception: what it raises.
        """
        if self._inside >= self._most:
            raise OverloadedError(f"{self._most} searches to answer")

        def work() -> T:
            if connection is not None and connection.gone:
                raise OverloadedError("nobody to answer")
            return function(name, body)

        self._inside += 1
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._limiter)
        finally:
            self._inside -= 1
