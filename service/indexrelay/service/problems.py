"""Errors as HTTP says them: problem details (RFC 9457), of a bounded size.

Every refusal has the same shape: of a request that is no HTTP, of an unknown path, of a query that
cannot be answered, and of a fault of ours. The input is never given back whole: it may be large, or
hold a NaN.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from indexrelay.reloaders.errors import (
    HTTP_ERRORS,
    RETRY_AFTER_SECONDS,
    CollectionBehind,
    NotFreshError,
    http_error,
)
from indexrelay.reloaders.reloader import Reloader
from indexrelay.schemas.diagnostics import describe_error
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.loggers import get_logger
from indexrelay.service.bodies import mistakes_text
from indexrelay.service.dispatch import NotFilteredError

log = get_logger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
MAX_DETAIL: Final = 1000
"""Characters: our own sentences fit in, and what a client sent does not come back tenfold."""


class BehindDetails(BaseModel):
    """A collection of which a component does not have what was asked for."""

    component: str
    collection: str
    generation: int
    """What the component has."""
    wanted: int | None
    """What was asked for; null: nobody could say."""
    reason: str

    @classmethod
    def of(cls, behind: CollectionBehind) -> "BehindDetails":
        """As HTTP says it."""
        return cls(**asdict(behind))


class FieldMistake(BaseModel):
    """What is wrong with one field of a request."""

    model_config = ConfigDict(frozen=True)

    field: str
    """Its place: ``components.0``; empty: the request as a whole."""
    detail: str
    """What would be right."""


class ProblemDetails(BaseModel):
    """Why a request was refused; ``detail`` says what would be right."""

    model_config = ConfigDict(frozen=True)

    type: str = "about:blank"
    """The status and a sentence are enough."""
    title: str
    """The status in words."""
    status: int
    detail: str
    """At most `MAX_DETAIL` characters."""
    behind: tuple[BehindDetails, ...] | None = None
    """Of a request that asked for freshness: how far the reader is from it."""
    errors: tuple[FieldMistake, ...] | None = None
    """Of a request to the admin API: what is wrong with which field."""

    @classmethod
    def of(
        cls,
        status: int,
        detail: str,
        behind: Iterable[CollectionBehind] = (),
        *,
        errors: Iterable[FieldMistake] = (),
    ) -> "ProblemDetails":
        """The problem; a sentence that is too long is cut."""
        if len(detail) > MAX_DETAIL:
            detail = f"{detail[: MAX_DETAIL - 1]}…"
        return cls(
            title=HTTPStatus(status).phrase,
            status=status,
            detail=detail,
            behind=tuple(map(BehindDetails.of, behind)) or None,
            errors=tuple(errors) or None,
        )

    def to_bytes(self) -> bytes:
        """As JSON in ASCII: a name may hold a lone surrogate."""
        absent = {name for name in ("behind", "errors") if getattr(self, name) is None}
        given = self.model_dump(exclude=absent)
        return json.dumps(given).encode("ascii")


class RefusedError(IndexRelayError):
    """Raised to refuse a request with a status; the sentence says what would be right."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: Iterable[FieldMistake] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers
        self.errors = tuple(errors)


class OverloadedError(RefusedError):
    """Raised when there is no room for one more request now; ask again, or ask another reader."""

    def __init__(self, what: str) -> None:
        super().__init__(503, f"this reader has {what}; ask again in a moment, or another one")


def problem(
    status: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
    *,
    behind: Iterable[CollectionBehind] = (),
    errors: Iterable[FieldMistake] = (),
    close: bool = False,
) -> Response:
    """A response that refuses; ``close``: the connection ends with it."""
    given = dict(headers or {})
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        given.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
    if close:
        given["Connection"] = "close"
    body = ProblemDetails.of(status, detail, behind, errors=errors).to_bytes()
    return Response(body, status, given, media_type=MEDIA_TYPE)


def answer_problems(app: FastAPI, reloader: Reloader) -> None:
    """Answer every error that a route may raise with its status and its sentence."""

    def known(_request: Request, error: Exception) -> Response:
        found = http_error(error, ready=reloader.ready)
        behind = error.behind if isinstance(error, NotFreshError) else ()
        return problem(found.status, found.detail, found.headers, behind=behind)

    for each in HTTP_ERRORS:
        app.add_exception_handler(each, known)

    @app.exception_handler(NotFilteredError)
    def hidden(_request: Request, error: NotFilteredError) -> Response:
        return problem(403, str(error))

    @app.exception_handler(RequestValidationError)
    def invalid(_request: Request, error: RequestValidationError) -> Response:
        return problem(422, mistakes_text(error.errors()))

    answer_refusals(app)
    app.add_middleware(UnexpectedErrors)


def answer_refusals(app: FastAPI) -> None:
    """Answer a request that a route, or the framework, refuses, in any service."""

    @app.exception_handler(RefusedError)
    def refused(_request: Request, error: RefusedError) -> Response:
        return problem(error.status, str(error), error.headers, errors=error.errors)

    @app.exception_handler(HTTPException)
    def routed(_request: Request, error: HTTPException) -> Response:
        return problem(error.status_code, str(error.detail), error.headers)


class UnexpectedErrors:
    """ASGI middleware; answers 500 to any other error, and logs it without what was sent."""

    def __init__(self, app: ASGIApp, *, who: str = "the reader") -> None:
        """``who`` answers, as the sentence names it."""
        self._app = app
        self._who = who

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application."""
        began = False

        async def watched(message: Message) -> None:
            nonlocal began
            began = began or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if scope["type"] != "http":
                raise
            log.exception(
                "request.failed",
                method=scope["method"],
                path=str(scope["path"])[:200],
                error=describe_error(error),
            )
            if began:
                raise  # half an answer must not look like a whole one
            refusal = problem(500, f"this is a fault of {self._who}; its log says more")
            await refusal(scope, receive, send)
