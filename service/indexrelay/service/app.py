"""The reader as a service of its own: what is served, over HTTP.

    GET  /health                        the process is alive; whether it is well, and if not why
    GET  /ready                         200 when every required component is served, else 503
    GET  /state                         what this reader says of itself (`ReaderState`)
    GET  /components                    what is served, version by version
    POST /components/{name}/search      {"vector": […]} | {"id": "…"} | {"text": "…"}, and "k"
    GET  /components/{name}/document    a JSON cache, gzipped for those who accept that
    POST /retry                         load again what failed

A search names the version that answered it. Every error is a problem (RFC 9457) whose ``detail``
says what would be right. Searches run on threads of their own, a few at a time; everything else is
answered from memory on the event loop, whatever searches do.
"""

import json
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from fastapi import FastAPI, Header, Request, Response
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from indexrelay.health.status import Problem
from indexrelay.reloaders import Reloader
from indexrelay.reloaders.fastapi import reloader_lifespan
from indexrelay.schemas.http_settings import HttpSettings
from indexrelay.schemas.messages import ReaderState
from indexrelay.schemas.versions import VersionManifest
from indexrelay.service.answers import (
    Answering,
    LargeResponse,
    SearchAnswer,
    SharedResponse,
    document_response,
    encoded,
)
from indexrelay.service.connections import connection_of
from indexrelay.service.hosts import HostCheck
from indexrelay.service.limits import BodyLimit, SearchThreads
from indexrelay.service.problems import MEDIA_TYPE, ProblemDetails, RefusedError, answer_problems
from indexrelay.service.query import SearchRequest, search, search_request
from indexrelay.service.requests import HeadAsGet

_OUR_KINDS: Final = "indexrelay.components."
"""What kinds of our own serve has the payloads of entries."""


def create_app(
    reloader: Reloader, limits: HttpSettings | None = None, *, is_local: bool = False
) -> FastAPI:
    """The service on ``reloader``, which is started and stopped with the application.

    Args:
        reloader: whose components are served.
        limits: of bodies, answers and searches; ``None``: the default ones. The limits of
            connections are `serve`'s: another server has its own.
        is_local: whether it listens on a loopback address: it answers to names of that, and to
            ``http.hosts``, only.
    """
    limits = limits or HttpSettings()
    app = FastAPI(
        title="A reader of indexrelay",
        lifespan=reloader_lifespan(reloader, wait_ready_seconds=0),
        docs_url=None,  # such pages fetch their scripts from elsewhere
        redoc_url=None,
        openapi_url=None,  # it would render the description for each request
        redirect_slashes=False,  # it would send people to whatever host the request names
    )
    answer_problems(app, reloader)
    app.add_middleware(HeadAsGet)
    app.add_middleware(BodyLimit, max_bytes=limits.max_body_bytes)
    if is_local:
        app.add_middleware(HostCheck, hosts=limits.hosts)
    _add_states(app, reloader)
    _add_components(app, reloader, limits)
    describe(app)
    description = json.dumps(app.openapi()).encode()

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return SharedResponse(description, media_type="application/json")

    return app


def _add_states(app: FastAPI, reloader: Reloader) -> None:
    """The routes about the reader itself: answered on the event loop, from memory."""

    @app.get("/health", responses=refusals())
    async def health() -> Health:
        problems = reloader.problems
        return Health(well=not problems, problems=problems)

    @app.get("/ready", responses=refusals(or_else=(503, Ready)))
    async def ready(response: Response) -> Ready:
        if not reloader.ready:
            response.status_code = 503
        return Ready(ready=reloader.ready)

    @app.get("/state", response_model=ReaderState, responses=refusals())
    async def state() -> Response:
        return Response(reloader.state.model_dump_json(), media_type="application/json")

    @app.post("/retry", status_code=202, responses=refusals())
    async def retry() -> Accepted:
        reloader.retry_failed()
        return Accepted()


def _add_components(app: FastAPI, reloader: Reloader, limits: HttpSettings) -> None:
    """The routes about what is served."""
    threads = SearchThreads(limits)

    @app.get("/components", responses=refusals())
    async def components() -> Components:
        with reloader.acquire() as snapshot:
            return Components(
                release=snapshot.release,
                components={
                    name: Component.of(snapshot.versions[name], snapshot.manifest(name))
                    for name in sorted(snapshot)
                },
            )

    def found(name: str, body: bytes) -> bytes:
        with reloader.acquire() as snapshot:
            most, served = limits.max_answer_bytes, snapshot[name]
            hits = search(served, search_request(body), max_payload_bytes=most)
            answering = Answering(
                component=name, release=snapshot.release, version=snapshot.versions[name]
            )
            are_json = type(served).__module__.startswith(_OUR_KINDS)
            return encoded(hits, answering, max_bytes=most, are_json=are_json)

    @app.post(
        "/components/{name}/search",
        response_model=SearchAnswer,
        responses=refusals(404, 415, 422),
        openapi_extra=search_body(),
    )
    async def search_component(name: str, request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RefusedError(415, "send the question as application/json")
        body = await request.body()
        answer = await threads.run(found, name, body, connection=connection_of(request.scope))
        return LargeResponse(answer, media_type="application/json")

    @app.get(
        "/components/{name}/document",
        response_model=Any,
        responses={304: {"description": "The client has it"}, **refusals(404, 422)},
    )
    async def document(
        name: str,
        accept_encoding: Annotated[str, Header()] = "",
        if_none_match: Annotated[str, Header()] = "",
    ) -> Response:
        with reloader.acquire() as snapshot:
            return document_response(
                snapshot[name], accept_encoding=accept_encoding, if_none_match=if_none_match
            )


_EVERY_REQUEST: Final = (400, 405, 408, 413, 421, 500, 503)
"""No HTTP, another method, too slow, too large, another host, a fault of ours, no room."""
_REF: Final = "#/components/schemas/{model}"


class Health(BaseModel):
    """Whether the reader is well; an answer at all shows that it is alive."""

    status: Literal["alive"] = "alive"
    well: bool
    problems: tuple[Problem, ...]


class Ready(BaseModel):
    """Whether every required component is served."""

    ready: bool


class Accepted(BaseModel):
    """The request will be carried out."""

    accepted: Literal[True] = True


class Component(BaseModel):
    """One version that is served."""

    kind: str
    version: str
    covers: dict[str, int]
    entries: int
    bytes: int
    created_at: datetime

    @classmethod
    def of(cls, version: str, manifest: VersionManifest) -> "Component":
        """From its manifest, and the id that the release gives: a manifest of a newer minor version
        has fields that are unknown here, and would get another id."""
        return cls(
            kind=manifest.kind,
            version=version,
            covers=dict(manifest.covers),
            entries=manifest.entries,
            bytes=manifest.size,
            created_at=manifest.created_at,
        )


class Components(BaseModel):
    """All components, and the release that they are served of."""

    release: int
    components: dict[str, Component]


def refusals(
    *statuses: int, or_else: tuple[int, type[BaseModel]] | None = None
) -> dict[int | str, dict[str, Any]]:
    """The problems that a route may answer with, for its description.

    Args:
        statuses: beside those that every request may get.
        or_else: a status that also has an answer which is no problem.
    """
    schema = {"$ref": _REF.format(model=ProblemDetails.__name__)}
    found: dict[int | str, dict[str, Any]] = {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema}},
        }
        for status in sorted({*_EVERY_REQUEST, *statuses})
    }
    if or_else is not None:
        found[or_else[0]]["model"] = or_else[1]
    return found


def search_body() -> dict[str, Any]:
    """The body of a search: a thread reads it, and not the framework."""
    schema = {"$ref": _REF.format(model=SearchRequest.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def describe(app: FastAPI) -> None:
    """Add the models that no route names by itself."""
    described: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not described:
            described.update(get_openapi(title=app.title, version=app.version, routes=app.routes))
            models = [(SearchRequest, "validation"), (ProblemDetails, "serialization")]
            _, found = models_json_schema(models, ref_template=_REF)  # type: ignore[arg-type] # literals
            described["components"]["schemas"] |= found["$defs"]
        return described

    app.openapi = openapi  # type: ignore[method-assign] # as FastAPI's documentation has it
