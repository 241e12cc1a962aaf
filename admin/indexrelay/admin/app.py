"""The admin API and the page that shows it, as one application.

    GET  /                  the page; its files beside it: /style.css, /main.js, /views/…, /vendor/…
    GET  /api/admin/health  the process is alive
    …    /api/admin/…       the routers of this portion, each in the file of its subject

Everything under ``/api/`` but the health and the login asks who it is (`indexrelay.admin.access`).
The page's files say nothing of the installation, and are anybody's. Every error is a problem
(RFC 9457). Nothing that this answers may be framed, sniffed or run from another place.
"""

import gzip
import hashlib
import json
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from indexrelay.admin.access import PREFIX, Access, AccessCheck, access_routes, describe_access
from indexrelay.admin.alerts import alert_routes
from indexrelay.admin.audit import audit_routes
from indexrelay.admin.backups import backup_routes
from indexrelay.admin.components import component_routes
from indexrelay.admin.dead_letters import dead_letter_routes
from indexrelay.admin.history import history_routes
from indexrelay.admin.lab import lab_routes
from indexrelay.admin.maps import map_routes
from indexrelay.admin.rebuilds import RebuildCovered, rebuild_routes
from indexrelay.admin.releases import release_routes
from indexrelay.admin.resources import AdminResources
from indexrelay.admin.schedules import schedule_routes
from indexrelay.admin.state import state_routes
from indexrelay.admin.stream import stream_routes
from indexrelay.schemas.diagnostics import describe_error, without_secrets
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.loggers import get_logger
from indexrelay.service.answers import accepts_gzip, matches
from indexrelay.service.bodies import mistakes_text
from indexrelay.service.limits import BodyLimit
from indexrelay.service.problems import (
    MEDIA_TYPE,
    FieldMistake,
    ProblemDetails,
    UnexpectedErrors,
    answer_refusals,
    problem,
)
from indexrelay.service.requests import Methods
from indexrelay.storage.artifacts import ArtifactError

_log = get_logger(__name__)

PAGE: Final = Path(__file__).parent / "page"
MAX_BODY_BYTES: Final = 1024 * 1024
"""Of one request (413)."""
CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""The last three are not of what ``default-src`` stands for."""
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every answer, whatever it is."""
_STREAM: Final = f"{PREFIX}/stream"
_COMPRESSED_FROM: Final = 1000
"""Bytes of an answer; what is smaller is sent as it is."""
_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
"""Of the page's files; not the host's own table, which differs from host to host."""


_PROBLEM: Final[dict[str, Any]] = {
    "description": "Why it was refused (RFC 9457)",
    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
}
"""As the OpenAPI document has it."""


def create_admin_app(resources: AdminResources, *, page: Path = PAGE) -> FastAPI:
    """The application; what it works with is started and stopped by its owner.

    Args:
        resources: what the routes work with.
        page: the folder of the page's files.
    """
    app = FastAPI(
        title="The admin API of indexrelay",
        docs_url=None,  # such pages fetch their scripts from elsewhere
        redoc_url=None,
        openapi_url=None,  # it would be rendered for each request
        redirect_slashes=False,  # it would send people to whatever host the request names
        responses={"4XX": _PROBLEM, "5XX": _PROBLEM},
    )
    _answer_errors(app)
    for router in (
        access_routes(resources.access),
        state_routes(resources.state),
        stream_routes(resources.events, resources.state.whole, resources.access),
        rebuild_routes(resources),
        map_routes(resources),
        lab_routes(resources),
        release_routes(resources),
        component_routes(resources),
        history_routes(resources),
        backup_routes(resources),
        dead_letter_routes(resources),
        schedule_routes(resources),
        alert_routes(resources),
        audit_routes(resources),
    ):
        app.include_router(router, prefix=PREFIX)

    @app.get(f"{PREFIX}/health")
    async def health() -> Health:
        """The process is alive; how the installation is says ``/state``."""
        last = resources.state.look()
        return Health(
            looked_at=None if last is None else last.look.seen.at, late=resources.state.late
        )

    @cache
    def description() -> bytes:
        return json.dumps(_described(app, resources.access)).encode()

    @app.get(f"{PREFIX}/openapi.json", include_in_schema=False)
    def openapi() -> Response:
        return Response(description(), media_type="application/json")

    # From the innermost to the outermost.
    app.add_middleware(PageFiles, folder=page)
    app.add_middleware(Compressed)
    app.add_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES)
    app.add_middleware(AccessCheck, access=resources.access)
    app.add_middleware(Methods, writes=True)
    app.add_middleware(UnexpectedErrors, who="the admin API")
    app.add_middleware(SafeHeaders)
    return app


class Health(BaseModel):
    """That an answer comes at all shows that it is alive."""

    status: Literal["alive"] = "alive"
    looked_at: datetime | None
    """When it looked at everything last; null: not yet."""
    late: bool
    """Whether the next look should long have ended: what ``/state`` says is then old."""


def _described(app: FastAPI, access: Access) -> dict[str, Any]:
    """The OpenAPI document of an application whose routes are all there."""
    described = get_openapi(title=app.title, version=app.version, routes=app.routes)
    _, models = models_json_schema(
        [(ProblemDetails, "serialization"), (RebuildCovered, "serialization")],
        ref_template="#/components/schemas/{model}",
    )
    described["components"]["schemas"] |= models["$defs"]
    describe_access(described, access)
    return described


def _answer_errors(app: FastAPI) -> None:
    answer_refusals(app)

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        found = error.errors()
        mistakes = [
            FieldMistake(
                field=".".join(str(step)[:100] for step in each["loc"][1:]), detail=each["msg"]
            )
            for each in found[:20]
        ]
        return problem(422, mistakes_text(found), errors=mistakes)

    async def away(_request: Request, error: Exception) -> Response:
        """What the answer is made from cannot be read now."""
        _log.warning("request.not_answered", error=describe_error(error))
        cause = getattr(error, "orig", None) or error
        sentence = str(cause).strip().partition("\n")[0] or type(error).__name__
        return problem(503, f"it cannot be answered now: {without_secrets(sentence)}")

    for each in (SQLAlchemyError, RedisError, ArtifactError, OSError):
        app.add_exception_handler(each, away)

    @app.exception_handler(IndexRelayError)
    async def known(_request: Request, error: IndexRelayError) -> Response:
        """What the same call says on the command line."""
        return problem(422 if error.is_misuse else 409, str(error))


class SafeHeaders:
    """ASGI middleware; gives every answer `HEADERS`, and keeps what the API says out of caches."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; a HEAD of what never ends is refused."""
        app = self._app
        if scope["type"] == "http" and scope["method"] == "HEAD" and scope["path"] == _STREAM:
            app = problem(405, "a stream is read with GET", {"Allow": "GET"})

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await app(scope, receive, with_headers if scope["type"] == "http" else send)


class Compressed:
    """ASGI middleware; compresses an answer of the API that comes whole, where the client takes it.

    A stream comes in pieces, and passes as it is. No answer repeats what another site had a browser
    send (requests from there are refused), so its size gives no secret away.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application."""
        takes = scope["type"] == "http" and accepts_gzip(
            Headers(scope=scope).get("accept-encoding", "")
        )
        if not takes:
            await self._app(scope, receive, send)
            return
        start: Message | None = None

        async def compressing(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            if start is not None:
                message = _compressed(start, message)
                await send(start)
                start = None
            await send(message)

        await self._app(scope, receive, compressing)


def _compressed(start: Message, message: Message) -> Message:
    """The body, compressed where it is whole, large enough and not compressed yet; the headers of
    ``start`` say so."""
    headers = MutableHeaders(scope=start)
    body = message.get("body", b"")
    if (
        message["type"] != "http.response.body"
        or message.get("more_body", False)
        or len(body) < _COMPRESSED_FROM
        or "content-encoding" in headers
    ):
        return message
    packed = gzip.compress(body, compresslevel=1, mtime=0)
    headers["Content-Encoding"] = "gzip"
    headers["Content-Length"] = str(len(packed))
    headers.add_vary_header("Accept-Encoding")
    return {**message, "body": packed}


@dataclass(frozen=True, kw_only=True)
class PageFile:
    """One file of the page, as it is sent."""

    stamp: tuple[int, int]
    """Of the file that it was read from."""
    kind: str
    body: bytes
    packed: bytes
    etag: str

    @classmethod
    def read(cls, path: Path, stamp: tuple[int, int]) -> "PageFile":
        """Read and compress it."""
        body = path.read_bytes()
        kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0]
        return cls(
            stamp=stamp,
            kind=kind or "application/octet-stream",
            body=body,
            packed=gzip.compress(body, mtime=0),
            etag=f'"{hashlib.sha256(body).hexdigest()[:32]}"',
        )


class PageFiles:
    """ASGI middleware; answers with the page's files, and hands everything under ``/api/`` on.

    Only files that were in the folder at start are ever opened: a path is looked up, never joined.
    """

    def __init__(self, app: ASGIApp, *, folder: Path) -> None:
        self._app = app
        self._paths = {
            f"/{path.relative_to(folder).as_posix()}": path
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        if (index := self._paths.get("/index.html")) is not None:
            self._paths["/"] = index
        self._read: dict[str, PageFile] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or run the application."""
        if scope["type"] != "http" or scope["path"].startswith("/api/"):
            await self._app(scope, receive, send)
            return
        await self._answer(scope)(scope, receive, send)

    def _answer(self, scope: Scope) -> Response:
        if scope["method"] != "GET":  # a HEAD has become one by now
            return problem(405, "the page's files are only read", {"Allow": "GET, HEAD"})
        path = self._paths.get(scope["path"])
        if path is None:
            return problem(404, "there is no such file of the page")
        file = self._file(scope["path"], path)
        headers = Headers(scope=scope)
        given = {"ETag": file.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if matches(headers.get("if-none-match", ""), file.etag):
            return Response(status_code=304, headers=given)
        if not accepts_gzip(headers.get("accept-encoding", "")):
            return Response(file.body, headers=given, media_type=file.kind)
        given["Content-Encoding"] = "gzip"
        return Response(file.packed, headers=given, media_type=file.kind)

    def _file(self, name: str, path: Path) -> PageFile:
        """As it is on disk now; read again only where it changed."""
        found = path.stat()
        stamp = found.st_mtime_ns, found.st_size
        known = self._read.get(name)
        if known is None or known.stamp != stamp:
            known = self._read[name] = PageFile.read(path, stamp)
        return known
