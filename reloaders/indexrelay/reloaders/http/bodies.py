"""Receives request bodies, up to a size, before anything looks into them."""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from indexrelay.reloaders.http.connections import connection_of
from indexrelay.reloaders.http.problems import problem

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
