"""MCP at ``POST /mcp`` of a reader: streamable HTTP, in which every request stands for itself.

A call is one request and one answer in JSON. No session is kept and no stream is held open, so the
connections, bodies, access tokens and limits are those of every other request, and any instance
behind a load balancer answers any call. What a call asks, it asks of the same application, by the
same token: a tenant gets what is the tenant's.

A web page of another origin is refused, as the protocol demands.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from indexrelay.reloaders.fastapi import Lifespan
from indexrelay.schemas.settings import HttpSettings
from indexrelay.service.bodies import MAX_ELEMENTS
from indexrelay.service.limits import replayed
from indexrelay.service.mcp.api import Api, within
from indexrelay.service.mcp.server import Context, mcp_server
from indexrelay.service.problems import problem
from indexrelay.service.tokens import caller_of

PATH: Final = "/mcp"


class McpEndpoint:
    """ASGI application of the route; `lifespan` has to run around it."""

    def __init__(self, app: ASGIApp, limits: HttpSettings) -> None:
        """Nothing runs yet.

        Args:
            app: the service that is asked.
            limits: of bodies; and whether anything may be written.
        """
        self._app = app
        self._limits = limits
        self._sessions: StreamableHTTPSessionManager | None = None

    @property
    def route(self) -> Route:
        """The route; a GET would hold a stream open, and is refused (405)."""
        return Route(PATH, endpoint=self, methods=["POST"], include_in_schema=False)

    def around(self, lifespan: Callable[[Any], AbstractAsyncContextManager[Any]]) -> Lifespan:
        """A lifespan within which calls are answered, as often as it is entered."""

        @asynccontextmanager
        async def answering(app: Any) -> AsyncIterator[None]:
            async with lifespan(app):
                sessions = self._new_sessions()
                async with sessions.run():
                    self._sessions = sessions
                    try:
                        yield
                    finally:
                        self._sessions = None

        return answering

    def _new_sessions(self) -> StreamableHTTPSessionManager:
        server = mcp_server(
            api_of=self._api_of,
            may_write=_may_write,
            with_writes=self._limits.writes,
        )
        return StreamableHTTPSessionManager(
            server,
            json_response=True,
            stateless=True,
            max_request_body_size=self._limits.max_body_bytes,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one message."""
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        first = await receive()  # the whole body (`BodyLimit`)
        sessions = self._sessions
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            refusal = problem(403, f"a page of {origin!r:.100} may not ask here")
        elif _has_too_many_elements(first.get("body", b"")):
            refusal = problem(422, f"the body may have at most {MAX_ELEMENTS} elements")
        elif sessions is None:
            refusal = problem(503, "this reader is starting or stopping")
        else:
            await sessions.handle_request(scope, replayed(first, receive), send)
            return
        await refusal(scope, receive, send)

    def _api_of(self, context: Context) -> Api:
        """Asks as whoever sent the message."""
        request = _request_of(context)
        _, _, token = request.headers.get("authorization", "").partition(" ")
        return Api(
            within(self._app, request.scope), token=token.strip() or None, keeps_session=False
        )


def _has_too_many_elements(body: bytes) -> bool:
    """Whether what parses it would have to make more than any request of ours needs."""
    return body.count(b":") > MAX_ELEMENTS or sum(map(body.count, b",[{")) > MAX_ELEMENTS


def _may_write(context: Context) -> bool:
    return caller_of(_request_of(context)).scope != "read"


def _request_of(context: Context) -> Request:
    """The request that a message came with."""
    assert context.request is not None  # noqa: S101 - there is one wherever HTTP is the transport
    return Request(context.request.scope)
