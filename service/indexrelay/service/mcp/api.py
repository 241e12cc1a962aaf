"""Asks the HTTP API: of this process without a network, or of a reader that runs elsewhere.

An `Api` is one caller: it shows one token, and keeps one session, so that whoever asks by it never
sees less than it has seen or written before.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final, Self

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from indexrelay.schemas.session import HEADER, SessionToken, SessionTokenError
from indexrelay.service.client.answers import BadAnswerError, ReaderError
from indexrelay.service.client.calls import Call, Target

DEADLINE_SECONDS: Final = 30.0
"""For one request; one that waits for its turn behind others takes a while."""
MAX_ANSWER_BYTES: Final = 2 * 1024 * 1024
"""To parse so many takes some 15 ms of the event loop, and a model reads a tenth of it at most."""
HERE: Final = "http://localhost"
"""Of the application in this process: a name that every reader answers to."""


class AnswerTooLongError(ReaderError):
    """Raised when an answer has more bytes than an agent could read; ask for less."""

    def __init__(self) -> None:
        super().__init__(
            f"the answer has more than {MAX_ANSWER_BYTES:,} bytes: ask for fewer hits (k) or ids"
        )


class Api:
    """Asks as one caller; for one event loop."""

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        *,
        address: str = HERE,
        token: str | None = None,
        keeps_session: bool = True,
    ) -> None:
        """Nothing is asked yet.

        Args:
            transport: what carries the requests.
            address: whom they are for.
            token: an access token, where one is needed.
            keeps_session: whether what was seen and written is sent along.

        Raises:
            ReaderError: this is no address, or no token.
        """
        self._transport = transport
        self._to = Target(
            address=address,
            token=token,
            deadline_seconds=DEADLINE_SECONDS,
            max_answer_bytes=MAX_ANSWER_BYTES,
        )
        self._keeps_session = keeps_session
        self._session = SessionToken()

    @classmethod
    def of_reader(cls, address: str, token: str | None) -> Self:
        """Asks a reader that runs: ``http://HOST:PORT``, ``https://HOST`` or ``unix:/PATH``.

        Raises:
            ReaderError: this is no address, or no token.
        """
        to = Target(
            address=address,
            token=token,
            deadline_seconds=DEADLINE_SECONDS,
            max_answer_bytes=MAX_ANSWER_BYTES,
        )
        transport = httpx.AsyncHTTPTransport(verify=to.verify, uds=to.socket, trust_env=False)
        return cls(transport, address=address, token=token)

    async def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """What is answered, a JSON object.

        Args:
            method: of the request.
            path: what is asked; each part quoted.
            body: sent as JSON; keys whose value is ``None`` are left out.

        Raises:
            RequestRefusedError: it is refused; the sentence says what would be right.
            ReaderError: there is no answer, or none of a reader.
        """
        sent_body = None
        if body is not None:
            given = {name: value for name, value in body.items() if value is not None}
            sent_body = json.dumps(given, allow_nan=False).encode()
        call: Call[dict[str, Any]] = Call(method=method, path=path, read=_object, body=sent_body)
        sent = self._session
        request = self._to.request(call, sent, seconds=DEADLINE_SECONDS)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                response = await self._transport.handle_async_request(request)
                try:
                    answer = await self._read(response)
                finally:
                    await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise self._to.unreachable(error) from error
        found = self._to.result(call, response, answer)
        self._keep(sent, response)
        return found

    async def close(self) -> None:
        """Close its connections; safe twice."""
        await self._transport.aclose()

    async def _read(self, response: httpx.Response) -> bytes:
        answer = bytearray()
        self._to.check(response, 0)
        async for piece in response.aiter_raw():
            answer += piece
            if len(answer) > MAX_ANSWER_BYTES:
                raise AnswerTooLongError
        return bytes(answer)

    def _keep(self, sent: SessionToken, response: httpx.Response) -> None:
        """Keep what this caller has seen by now."""
        text = response.headers.get(HEADER)
        if not self._keeps_session or text is None:
            return
        try:
            seen = SessionToken.from_text(text)
        except SessionTokenError as error:
            raise BadAnswerError(f"{self._to.address}: {error}") from error
        self._session = self._session.after(sent, seen)


def _object(answer: bytes) -> dict[str, Any]:
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise BadAnswerError("the answer is no JSON") from error
    if not isinstance(found, dict):
        raise BadAnswerError("the answer is no JSON object")
    return found


def within(app: ASGIApp, scope: Scope | None = None) -> httpx.AsyncBaseTransport:
    """Carries requests to an application in this process.

    Args:
        app: the service.
        scope: of the request that they are made for: what they hold counts for its connection.
    """

    async def asked(inner: Scope, receive: Receive, send: Send) -> None:
        if scope is not None and "state" in scope:
            inner["state"] = scope["state"]
        await app(inner, receive, send)

    return httpx.ASGITransport(asked, raise_app_exceptions=False)
