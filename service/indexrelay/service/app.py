"""The reader as a service of its own: what is served, over HTTP.

    GET  /health        the process is alive; whether it is well, and if not why
    GET  /ready         200 when every required component is served, else 503
    GET  /metrics       for a monitoring system; docs/metrics.md lists them
    GET  /openapi.json  the description of everything
    …    /v1/…          `indexrelay.service.routes`, and where it may be written `….writes`
    …    /admin/…       `indexrelay.service.admin`

Every answer about a component names the version and the release that gave it. Every error is a
problem (RFC 9457) whose ``detail`` says what would be right. Queries run on threads of their own, a
few at a time; everything else is answered from memory on the event loop, whatever queries do.
"""

import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

from anyio import to_thread
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from indexrelay.health.status import Problem
from indexrelay.reloaders import Reloader
from indexrelay.reloaders.fastapi import Lifespan, reloader_lifespan
from indexrelay.schemas.settings import HttpSettings
from indexrelay.service.admin import IndexAdmin, admin_routes
from indexrelay.service.answers import SharedResponse
from indexrelay.service.description import describe, refusals
from indexrelay.service.limits import BodyLimit, HostCheck
from indexrelay.service.metrics import CONTENT_TYPE, MetricsPage, QueryCounts, WriteCounts
from indexrelay.service.problems import answer_problems
from indexrelay.service.queries import Observer, Queries, slow_query_log
from indexrelay.service.requests import Methods
from indexrelay.service.routes import PREFIX, add_search_routes, v1_routes
from indexrelay.service.tokens import NOBODY, Authentication, Tokens, caller_of, see_everything

if TYPE_CHECKING:
    from indexrelay.service.workers import WorkerPlace
    from indexrelay.service.writer import EntryWriter


def create_app(
    reloader: Reloader,
    limits: HttpSettings | None = None,
    *,
    is_local: bool = False,
    slow_query_ms: float | None = None,
    writer: "EntryWriter | None" = None,
    place: "WorkerPlace | None" = None,
) -> FastAPI:
    """The service on ``reloader``, which is started and stopped with the application.

    Args:
        reloader: whose components are served.
        limits: of bodies, answers and searches, and who may ask; ``None``: the default ones, and
            everybody. The limits of connections are `serve`'s: another server has its own.
        is_local: whether it listens on a loopback address: it answers to names of that, and to
            ``http.hosts``, only.
        slow_query_ms: a query that takes longer is logged; ``None``: none is.
        writer: what entries are written with, where ``limits`` allow that; ``None``: the catalog of
            the reloader's settings, which is opened with the first write.
        place: of this process among the workers of one address; ``None``: there are no others.

    Raises:
        EmbedderFunctionError: a collection names an embedder that cannot be imported here.
    """
    limits = limits or HttpSettings()
    if reloader.embedders is not None:
        reloader.embedders.start()
    counts, writes = QueryCounts(), WriteCounts()
    observers: list[Observer] = [counts.observe]
    if slow_query_ms is not None:
        observers.append(slow_query_log(slow_query_ms))
    queries = Queries(reloader, limits, observers)
    page = MetricsPage(reloader, counts, writes, lambda: queries.in_progress, place)
    admin = IndexAdmin(reloader)
    lifespan, retry = _lifespan(reloader, admin), reloader.retry_failed
    if place is not None:
        from indexrelay.service.workers import Worker

        worker = Worker(place, post=page.post, retry=reloader.retry_failed)
        lifespan, retry = worker.around(lifespan), worker.retry_everywhere
    if limits.writes:
        from indexrelay.service.writer import EntryWriter, closing
        from indexrelay.service.writes import write_routes

        writer = writer or EntryWriter(reloader.settings, max_waiting=limits.max_waiting_writes)
        lifespan = closing(writer, lifespan)
    app = FastAPI(
        title="A reader of indexrelay",
        lifespan=lifespan,
        docs_url=None,  # such pages fetch their scripts from elsewhere
        redoc_url=None,
        openapi_url=None,  # it would render the description for each request
        redirect_slashes=False,  # it would send people to whatever host the request names
    )
    answer_problems(app, reloader)
    app.add_middleware(Methods, writes=limits.writes)
    app.add_middleware(BodyLimit, max_bytes=limits.max_body_bytes)
    tokens = Tokens(limits.tokens)
    if tokens:
        app.add_middleware(Authentication, tokens=tokens)
    if is_local:
        app.add_middleware(HostCheck, hosts=limits.hosts)
    add_search_routes(app, queries)  # first: each request tries the routes in their order
    _add_health(app, reloader)
    _add_metrics(app, page)
    app.include_router(v1_routes(reloader, queries, retry))
    app.include_router(admin_routes(admin))
    if writer is not None and limits.writes:
        app.include_router(write_routes(writer, reloader, queries, writes), prefix=PREFIX)
    described = describe(app, with_tokens=bool(tokens), with_writes=limits.writes)
    description = json.dumps(described).encode()

    if limits.mcp:
        from indexrelay.service.mcp.http import McpEndpoint

        agents = McpEndpoint(app, limits)
        app.router.routes.append(agents.route)
        app.router.lifespan_context = agents.around(app.router.lifespan_context)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return SharedResponse(description, media_type="application/json")

    return app


def _lifespan(reloader: Reloader, admin: IndexAdmin) -> Lifespan:
    """Starts and stops the reloader, and closes what was opened for requests."""
    reading = reloader_lifespan(reloader, wait_ready_seconds=0)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with contextlib.closing(admin):
            async with reading(app):
                yield

    return lifespan


def _add_health(app: FastAPI, reloader: Reloader) -> None:
    """What a watchdog and a load balancer ask, without a token."""

    @app.get("/health", responses=refusals())
    async def health(request: Request) -> Health:
        problems = reloader.problems
        caller = caller_of(request)
        told = () if caller is NOBODY or caller.filter is not None else problems
        return Health(well=not problems, problems=told)

    @app.get("/ready", responses=refusals(or_else=(503, Ready)))
    async def ready(response: Response) -> Ready:
        if not reloader.ready:
            response.status_code = 503
        return Ready(ready=reloader.ready)


def _add_metrics(app: FastAPI, page: MetricsPage) -> None:
    """What a monitoring system reads."""

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses={200: {"description": "Of Prometheus, version 0.0.4"}, **refusals()},
    )
    async def metrics(request: Request) -> Response:
        see_everything(request)
        return Response(await to_thread.run_sync(page.to_bytes), media_type=CONTENT_TYPE)


class Health(BaseModel):
    """Whether the reader is well; an answer at all shows that it is alive."""

    status: Literal["alive"] = "alive"
    well: bool
    problems: tuple[Problem, ...]
    """Why not; told to those who have a token that shows everything, where there are tokens."""


class Ready(BaseModel):
    """Whether every required component is served."""

    ready: bool
