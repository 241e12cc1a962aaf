"""The routes ``/v1/…``: what a client asks of the components and of the reader.

    GET  /v1/components                            what is served, version by version
    POST /v1/components/{name}/search              one search
    POST /v1/components/{name}/search/batch        several, each with an answer of its own
    GET  /v1/components/{name}/entries?id=…&id=…   entries by their ids
    POST /v1/components/{name}/entries             the same, for many ids
    POST /v1/components/{name}/count               how many entries a filter matches
    POST /v1/components/{name}/scroll              entries in the order of their ids, page by page
    POST /v1/components/{name}/neighbours          the entries nearest to each of several
    GET  /v1/components/{name}/document            a JSON cache, gzipped for those who accept that
    GET  /v1/state                                 what this reader says of itself (`ReaderState`)
    POST /v1/retry                                 load again what failed

Vectors may come as float32 values instead of JSON; the options stand in the address then.
"""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Request, Response
from pydantic import BaseModel

from indexrelay.reloaders import Reloader
from indexrelay.schemas.messages import ReaderState
from indexrelay.schemas.versions import VersionManifest
from indexrelay.service.answers import document_response
from indexrelay.service.description import refusals
from indexrelay.service.entry_routes import entry_routes
from indexrelay.service.queries import Queries
from indexrelay.service.search_routes import search_routes
from indexrelay.service.tokens import see_admin, see_everything

PREFIX: Final = "/v1"


def v1_routes(reloader: Reloader, queries: Queries) -> APIRouter:
    """All of them."""
    router = APIRouter(prefix=PREFIX)
    router.include_router(_reader_routes(reloader))
    for of_components in (search_routes(queries), entry_routes(queries)):
        router.include_router(of_components, prefix="/components/{name}")
    return router


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


def _reader_routes(reloader: Reloader) -> APIRouter:
    """The routes about the reader itself: answered on the event loop, from memory."""
    router = APIRouter()

    @router.get("/state", response_model=ReaderState, responses=refusals())
    async def state(request: Request) -> Response:
        see_everything(request)
        return Response(reloader.state.model_dump_json(), media_type="application/json")

    @router.post("/retry", status_code=202, responses=refusals())
    async def retry(request: Request) -> Accepted:
        see_admin(request)
        reloader.retry_failed()
        return Accepted()

    @router.get("/components", responses=refusals())
    async def components(request: Request) -> Components:
        see_everything(request)
        with reloader.acquire() as snapshot:
            return Components(
                release=snapshot.release,
                components={
                    name: Component.of(snapshot.versions[name], snapshot.manifest(name))
                    for name in sorted(snapshot)
                },
            )

    @router.get(
        "/components/{name}/document",
        response_model=Any,
        responses={304: {"description": "The client has it"}, **refusals(404, 422)},
    )
    async def document(
        name: str,
        request: Request,
        accept_encoding: Annotated[str, Header()] = "",
        if_none_match: Annotated[str, Header()] = "",
    ) -> Response:
        see_everything(request)
        with reloader.acquire() as snapshot:
            return document_response(
                snapshot[name], accept_encoding=accept_encoding, if_none_match=if_none_match
            )

    return router
