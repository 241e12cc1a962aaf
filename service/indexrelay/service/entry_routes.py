"""What a component says of its entries: some by their ids, how many there are, a page of them, and
the neighbours of many."""

from collections.abc import Callable
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from indexrelay.service import dispatch
from indexrelay.service.bodies import (
    JSON,
    MAX_IDS,
    CountRequest,
    EntriesRequest,
    NeighboursRequest,
    ScrollRequest,
    checked,
    read_body,
)
from indexrelay.service.description import body_of, refusals
from indexrelay.service.entries import (
    CountAnswer,
    EntriesAnswer,
    NeighboursAnswer,
    ScrollAnswer,
    encoded_count,
    encoded_entries,
    encoded_neighbours,
)
from indexrelay.service.queries import Answered, Ask, Lent, Queries, sent

_ASKED: Final = refusals(404, 415, 422)


def entry_routes(queries: Queries) -> APIRouter:
    """The routes about entries."""
    router = APIRouter()

    @router.get("/entries", response_model=EntriesAnswer, responses=refusals(404, 422))
    async def entries(
        name: str,
        request: Request,
        id: Annotated[list[str], Query(min_length=1, max_length=MAX_IDS)],  # noqa: A002 - its name
    ) -> Response:
        asked = checked({"ids": id}, EntriesRequest)
        return await queries.answer(request, name, "entries", _getting(lambda: asked))

    @router.post(
        "/entries",
        response_model=EntriesAnswer,
        responses=_ASKED,
        openapi_extra=body_of(EntriesRequest),
    )
    async def many_entries(name: str, request: Request) -> Response:
        body, _, _ = await sent(request, JSON)
        ask = _getting(lambda: read_body(body, EntriesRequest))
        return await queries.answer(request, name, "entries", ask)

    @router.post(
        "/count",
        response_model=CountAnswer,
        responses=_ASKED,
        openapi_extra=body_of(CountRequest),
    )
    async def count(name: str, request: Request) -> Response:
        body, _, _ = await sent(request, JSON)

        def ask(lent: Lent) -> Answered:
            asked = read_body(body, CountRequest)
            found = dispatch.count(lent.served, asked.filter, forced=lent.forced)
            return Answered(body=encoded_count(found, lent.answering))

        return await queries.answer(request, name, "count", ask)

    @router.post(
        "/scroll",
        response_model=ScrollAnswer,
        responses=_ASKED,
        openapi_extra=body_of(ScrollRequest),
    )
    async def scroll(name: str, request: Request) -> Response:
        body, _, _ = await sent(request, JSON)

        def ask(lent: Lent) -> Answered:
            asked = read_body(body, ScrollRequest)
            page = dispatch.scroll(
                lent.served,
                asked.filter,
                after=asked.after,
                limit=asked.limit,
                forced=lent.forced,
                max_payload_bytes=lent.max_bytes,
            )
            answer = encoded_entries(
                page.entries, lent.answering, max_bytes=lent.max_bytes, after=(page.after,)
            )
            return Answered(body=answer, k=asked.limit)

        return await queries.answer(request, name, "scroll", ask)

    @router.post(
        "/neighbours",
        response_model=NeighboursAnswer,
        responses=_ASKED,
        openapi_extra=body_of(NeighboursRequest),
    )
    async def neighbours(name: str, request: Request) -> Response:
        body, _, _ = await sent(request, JSON)

        def ask(lent: Lent) -> Answered:
            asked = read_body(body, NeighboursRequest)
            found = dispatch.neighbours(
                lent.served,
                asked.ids,
                k=asked.k,
                forced=lent.forced,
                max_payload_bytes=lent.max_bytes,
            )
            answer = encoded_neighbours(
                found.items(),
                lent.answering,
                max_bytes=lent.max_bytes,
                are_json=lent.are_json,
                hold=lent.hold,
            )
            return Answered(body=answer, k=asked.k)

        return await queries.answer(request, name, "neighbours", ask)

    return router


def _getting(read: Callable[[], EntriesRequest]) -> Ask:
    def ask(lent: Lent) -> Answered:
        found = dispatch.get(
            lent.served, read().ids, forced=lent.forced, max_payload_bytes=lent.max_bytes
        )
        return Answered(body=encoded_entries(found, lent.answering, max_bytes=lent.max_bytes))

    return ask
