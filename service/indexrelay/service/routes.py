"""The routes ``/v1/…``: what a client asks of the components and of the reader.

    GET  /v1/components                            what is served, version by version
    GET  /v1/collections                           whose entries, and how they can be asked
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

Vectors may come as float32 values instead of JSON; the options stand in the address then. A batch
of vectors that differ in nothing else is searched at once, where the component can. A search of a
batch that cannot be answered has a problem in its place.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

import numpy as np
from fastapi import APIRouter, FastAPI, Header, Query, Request, Response
from fastapi.routing import APIRoute
from numpy.typing import NDArray
from pydantic import BaseModel
from starlette.routing import request_response

from indexrelay.components.query import Hits
from indexrelay.components.served import Hit
from indexrelay.reloaders import Consistency, Reloader
from indexrelay.reloaders.errors import HTTP_ERRORS, http_error
from indexrelay.schemas.messages import ReaderState
from indexrelay.schemas.versions import VersionManifest
from indexrelay.service import dispatch
from indexrelay.service.answers import SearchAnswer, document_response, encoded
from indexrelay.service.bodies import (
    JSON,
    MAX_IDS,
    VECTORS,
    BatchRequest,
    CountRequest,
    EntriesRequest,
    FreshnessOptions,
    NeighboursRequest,
    ScrollRequest,
    SearchRequest,
    checked,
    read_body,
    read_options,
    read_vectors,
)
from indexrelay.service.collections import collection_routes
from indexrelay.service.consistency import consistency_of
from indexrelay.service.description import body_of, body_or_vectors_of, refusals
from indexrelay.service.dispatch import NotFilteredError, Search
from indexrelay.service.entries import (
    CountAnswer,
    EntriesAnswer,
    NeighboursAnswer,
    ScrollAnswer,
    encoded_count,
    encoded_entries,
    encoded_neighbours,
)
from indexrelay.service.problems import ProblemDetails
from indexrelay.service.queries import Answered, Ask, Asking, Lent, Queries, sent
from indexrelay.service.tokens import see_admin, see_everything

if TYPE_CHECKING:  # needed where a collection has an embedder
    from indexrelay.components.embedder import TextFailure
    from indexrelay.storage.entries import Vectors

_ANSWERED: Final[tuple[type[Exception], ...]] = (*HTTP_ERRORS, NotFilteredError)
"""Errors of one search that are told in its place."""
PREFIX: Final = "/v1"
_ASKED: Final = refusals(404, 415, 422)
_OF_BOTH: Final = frozenset({"weights", "fusion", "rrf_k", "rerank"})
"""Options that say something of words and vectors together."""


class BatchAnswer(BaseModel):
    """An answer to each search, in their order; a problem where it cannot be answered."""

    answers: list[SearchAnswer | ProblemDetails]


class SearchRoute(APIRoute):
    """A route of the application that is nearly always asked for, so the way to it is short.

    FastAPI looks up routes of included routers twice on each level, and prepares for dependencies
    that these have none of: that takes as long as the search.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **described: Any) -> None:
        """``endpoint`` takes the component's name and the request, and returns the response."""
        super().__init__(path, endpoint, **described)

        async def answer(request: Request) -> Response:
            response: Response = await endpoint(request.path_params["name"], request)
            return response

        self.app = request_response(answer)


def add_search_routes(app: FastAPI, queries: Queries) -> None:
    """The routes that search a component, to an application that has no others yet."""

    async def search(name: str, request: Request) -> Response:
        body, kind, given = await sent(request, JSON, VECTORS)

        def read() -> tuple[Search, Consistency | None]:
            if kind == JSON:
                asked = read_body(body, SearchRequest)
                return Search.of(asked), consistency_of(asked, request)
            options = read_options(given, many=False)
            vector = read_vectors(body, 1)[0]
            return Search.by_vector(vector, options), consistency_of(options, request)

        ask = Ask(read=read, answer=_searched, words=_in_words)
        return await queries.answer(request, name, "search", ask)

    async def batch(name: str, request: Request) -> Response:
        body, kind, given = await sent(request, JSON, VECTORS)

        def read() -> tuple[Sequence[Search], Consistency | None]:
            if kind == JSON:
                asked = read_body(body, BatchRequest)
                return [Search.of(each) for each in asked.queries], consistency_of(asked, request)
            options = read_options(given, many=True)
            vectors = read_vectors(body, options.queries)
            searches = [Search.by_vector(vector, options) for vector in vectors]
            return searches, consistency_of(options, request)

        ask = Ask(read=read, answer=_searched_many, words=_all_in_words)
        return await queries.answer(request, name, "batch", ask)

    for endpoint, path, answer, asked in (
        (search, "/search", SearchAnswer, body_or_vectors_of(SearchRequest, many=False)),
        (batch, "/search/batch", BatchAnswer, body_or_vectors_of(BatchRequest, many=True)),
    ):
        app.router.add_api_route(
            f"{PREFIX}/components/{{name}}{path}",
            endpoint,
            methods=["POST"],
            response_model=answer,
            responses=_ASKED,
            openapi_extra=asked,
            route_class_override=SearchRoute,
        )


def _in_words(asked: Search) -> tuple[Search, Sequence[Search]] | None:
    """A search by its text alone; ``None``: it has none."""
    if asked.text is None:
        return None
    options = {name: each for name, each in asked.options.items() if name not in _OF_BOTH}
    by_words = replace(asked, vector=None, options=options)
    return by_words, (by_words,)


def _all_in_words(
    asked: Sequence[Search],
) -> tuple[Sequence[Search], Sequence[Search]] | None:
    found = [_in_words(each) for each in asked]
    searches = [each for each, _ in filter(None, found)]
    return (searches, searches) if len(searches) == len(found) else None


def _searched(lent: Lent, asked: Search) -> Asking:
    vectors = yield from lent.vectors_of([asked])
    own, question = lent.routed(asked, vectors.get(0))
    hits = _search(own, question, max_bytes=lent.max_bytes)
    body = _encoded(hits, own, max_bytes=lent.max_bytes)
    session = None if own is lent else own.answering.session
    return Answered(body=body, k=asked.k, plan=_plan(hits), session=session)


def _searched_many(lent: Lent, searches: Sequence[Search]) -> Asking:
    vectors = yield from lent.vectors_of(searches)
    together = _together(lent, _alike(lent, searches, vectors))
    head, tail = b'{"answers":[', b"]}"
    left = lent.max_bytes - len(head) - len(tail)
    pieces: list[bytes] = []
    answered: dict[str, None] = {}
    for number, asked in enumerate(searches):
        try:
            own, question = lent.routed(asked, vectors.get(number))
            hits = together[number] if together else _search(own, question, max_bytes=left)
            piece = _encoded(hits, own, max_bytes=left - 1)
            answered[own.answering.component] = None
        except _ANSWERED as error:
            piece = _refused(error)
        left -= len(piece) + 1
        pieces.append(piece)
        if not together:  # what all of them found would wait, too
            yield None
    body = b"".join((head, b",".join(pieces), tail))
    session = str(lent.snapshot.session(*answered)) if answered else None
    return Answered(body=body, k=max(each.k for each in searches), session=session)


def _alike(
    lent: Lent, searches: Sequence[Search], vectors: "Mapping[int, Vectors | TextFailure]"
) -> Sequence[Search]:
    """The searches with the vectors of their texts; none, where another component is asked."""
    if not vectors:
        return searches
    try:
        routed = [lent.routed(each, vectors.get(number)) for number, each in enumerate(searches)]
    except HTTP_ERRORS:
        return ()  # each is told by itself
    return [asked for _, asked in routed] if all(own is lent for own, _ in routed) else ()


def _together(lent: Lent, searches: Sequence[Search]) -> Sequence[Sequence[Hit]]:
    """The hits of searches by vector that differ in nothing else; empty: each goes by itself."""
    if not searches:
        return ()
    first = searches[0]
    vectors: list[NDArray[np.float32]] = [
        each.vector
        for each in searches
        if each.vector is not None and each.text is None and each.options == first.options
    ]
    if len(vectors) < max(2, len(searches)) or len({len(vector) for vector in vectors}) > 1:
        return ()
    try:
        found = dispatch.search_many(
            lent.served,
            np.stack(vectors),
            first.options,
            forced=lent.forced,
            max_payload_bytes=lent.max_bytes,
        )
    except HTTP_ERRORS:
        return ()  # each is told by itself
    return found or ()


def _search(lent: Lent, asked: Search, *, max_bytes: int) -> Sequence[Hit]:
    return dispatch.search(
        lent.served, asked, forced=lent.forced, max_payload_bytes=max(max_bytes, 0)
    )


def _encoded(hits: Sequence[Hit], lent: Lent, *, max_bytes: int) -> bytes:
    return encoded(
        hits, lent.answering, max_bytes=max_bytes, are_json=lent.are_json, hold=lent.hold
    )


def _refused(error: Exception) -> bytes:
    """The problem in the place of an answer."""
    if isinstance(error, NotFilteredError):
        return ProblemDetails.of(403, str(error)).to_bytes()
    found = http_error(error, ready=True)
    return ProblemDetails.of(found.status, found.detail).to_bytes()


def _plan(hits: Sequence[Hit]) -> str | None:
    explained = hits.explanation if isinstance(hits, Hits) else None
    return None if explained is None else explained.plan


def entry_routes(queries: Queries) -> APIRouter:
    """The routes about entries."""
    router = APIRouter()

    @router.get("/entries", response_model=EntriesAnswer, responses=refusals(404, 422))
    async def entries(
        name: str,
        request: Request,
        id: Annotated[list[str], Query(min_length=1, max_length=MAX_IDS)],  # noqa: A002 - its name
        consistency: str | None = None,
        max_lag_seconds: float | None = None,
        session: str | None = None,
    ) -> Response:
        fresh = {
            "consistency": consistency,
            "max_lag_seconds": max_lag_seconds,
            "session": session,
        }
        asked = checked({"ids": id, **fresh}, EntriesRequest)
        return await queries.answer(request, name, "entries", _getting(request, lambda: asked))

    @router.post(
        "/entries",
        response_model=EntriesAnswer,
        responses=_ASKED,
        openapi_extra=body_of(EntriesRequest),
    )
    async def many_entries(name: str, request: Request) -> Response:
        body, _, _ = await sent(request, JSON)
        ask = _getting(request, lambda: read_body(body, EntriesRequest))
        return await queries.answer(request, name, "entries", ask)

    @router.post(
        "/count",
        response_model=CountAnswer,
        responses=_ASKED,
        openapi_extra=body_of(CountRequest),
    )
    async def count(name: str, request: Request) -> Response:
        body, _, _ = await sent(request, JSON)

        def answer(lent: Lent, asked: CountRequest) -> Answered:
            found = dispatch.count(lent.served, asked.filter, forced=lent.forced)
            return Answered(body=encoded_count(found, lent.answering))

        ask = _asking(request, lambda: read_body(body, CountRequest), answer)
        return await queries.answer(request, name, "count", ask)

    @router.post(
        "/scroll",
        response_model=ScrollAnswer,
        responses=_ASKED,
        openapi_extra=body_of(ScrollRequest),
    )
    async def scroll(name: str, request: Request) -> Response:
        body, _, _ = await sent(request, JSON)

        def answer(lent: Lent, asked: ScrollRequest) -> Answered:
            page = dispatch.scroll(
                lent.served,
                asked.filter,
                after=asked.after,
                limit=asked.limit,
                forced=lent.forced,
                max_payload_bytes=lent.max_bytes,
            )
            encoded_page = encoded_entries(
                page.entries, lent.answering, max_bytes=lent.max_bytes, after=(page.after,)
            )
            return Answered(body=encoded_page, k=asked.limit)

        ask = _asking(request, lambda: read_body(body, ScrollRequest), answer)
        return await queries.answer(request, name, "scroll", ask)

    @router.post(
        "/neighbours",
        response_model=NeighboursAnswer,
        responses=_ASKED,
        openapi_extra=body_of(NeighboursRequest),
    )
    async def neighbours(name: str, request: Request) -> Response:
        body, _, _ = await sent(request, JSON)

        def answer(lent: Lent, asked: NeighboursRequest) -> Answered:
            found = dispatch.neighbours(
                lent.served,
                asked.ids,
                k=asked.k,
                forced=lent.forced,
                max_payload_bytes=lent.max_bytes,
            )
            encoded_lists = encoded_neighbours(
                found.items(),
                lent.answering,
                max_bytes=lent.max_bytes,
                are_json=lent.are_json,
                hold=lent.hold,
            )
            return Answered(body=encoded_lists, k=asked.k)

        ask = _asking(request, lambda: read_body(body, NeighboursRequest), answer)
        return await queries.answer(request, name, "neighbours", ask)

    return router


RequestT = TypeVar("RequestT", bound=FreshnessOptions)


def _asking(
    request: Request, read: Callable[[], RequestT], answer: Callable[[Lent, RequestT], Answered]
) -> Ask[RequestT]:
    def read_both() -> tuple[RequestT, Consistency | None]:
        asked = read()
        return asked, consistency_of(asked, request)

    return Ask(read=read_both, answer=answer)


def _getting(request: Request, read: Callable[[], EntriesRequest]) -> Ask[EntriesRequest]:
    def answer(lent: Lent, asked: EntriesRequest) -> Answered:
        found = dispatch.get(
            lent.served, asked.ids, forced=lent.forced, max_payload_bytes=lent.max_bytes
        )
        return Answered(body=encoded_entries(found, lent.answering, max_bytes=lent.max_bytes))

    return _asking(request, read, answer)


def v1_routes(reloader: Reloader, queries: Queries, retry: Callable[[], None]) -> APIRouter:
    """All others; ``retry`` lets what failed be retried."""
    router = APIRouter(prefix=PREFIX)
    router.include_router(_reader_routes(reloader, retry))
    router.include_router(collection_routes(reloader))
    router.include_router(entry_routes(queries), prefix="/components/{name}")
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


def _reader_routes(reloader: Reloader, retry_failed: Callable[[], None]) -> APIRouter:
    """The routes about the reader itself: answered on the event loop, from memory."""
    router = APIRouter()

    @router.get("/state", response_model=ReaderState, responses=refusals())
    async def state(request: Request) -> Response:
        see_everything(request)
        return Response(reloader.state.model_dump_json(), media_type="application/json")

    @router.post("/retry", status_code=202, responses=refusals())
    async def retry(request: Request) -> Accepted:
        see_admin(request)
        retry_failed()
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
