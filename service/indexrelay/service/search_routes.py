"""Searches of a component: one, or several of which each gets an answer of its own.

A batch of vectors that differ in nothing else is searched at once, where the component can. A
search of a batch that cannot be answered has a problem in its place.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray
from pydantic import BaseModel

from indexrelay.components.query import Hits
from indexrelay.components.served import Hit
from indexrelay.reloaders.errors import HTTP_ERRORS, http_error
from indexrelay.service import dispatch
from indexrelay.service.answers import SearchAnswer, encoded
from indexrelay.service.bodies import (
    JSON,
    VECTORS,
    BatchRequest,
    SearchRequest,
    read_body,
    read_options,
    read_vectors,
)
from indexrelay.service.description import body_or_vectors_of, refusals
from indexrelay.service.dispatch import NotFilteredError, Search
from indexrelay.service.problems import ProblemDetails
from indexrelay.service.queries import Answered, Ask, Lent, Queries, sent

_ANSWERED: Final[tuple[type[Exception], ...]] = (*HTTP_ERRORS, NotFilteredError)
"""Errors of one search that are told in its place."""
_ASKED: Final = refusals(404, 415, 422)


class BatchAnswer(BaseModel):
    """An answer to each search, in their order; a problem where it cannot be answered."""

    answers: list[SearchAnswer | ProblemDetails]


def search_routes(queries: Queries) -> APIRouter:
    """The routes that search a component."""
    router = APIRouter()

    @router.post(
        "/search",
        response_model=SearchAnswer,
        responses=_ASKED,
        openapi_extra=body_or_vectors_of(SearchRequest, many=False),
    )
    async def search(name: str, request: Request) -> Response:
        body, kind, given = await sent(request, JSON, VECTORS)

        def read() -> Search:
            if kind == JSON:
                return Search.of(read_body(body, SearchRequest))
            options = read_options(given, many=False)
            return Search.by_vector(read_vectors(body, 1)[0], options)

        return await queries.answer(request, name, "search", _searching(read))

    @router.post(
        "/search/batch",
        response_model=BatchAnswer,
        responses=_ASKED,
        openapi_extra=body_or_vectors_of(BatchRequest, many=True),
    )
    async def batch(name: str, request: Request) -> Response:
        body, kind, given = await sent(request, JSON, VECTORS)

        def read() -> Sequence[Search]:
            if kind == JSON:
                return [Search.of(each) for each in read_body(body, BatchRequest).queries]
            options = read_options(given, many=True)
            vectors = read_vectors(body, options.queries)
            return [Search.by_vector(vector, options) for vector in vectors]

        return await queries.answer(request, name, "batch", _searching_many(read))

    return router


def _searching(read: Callable[[], Search]) -> Ask:
    def ask(lent: Lent) -> Answered:
        asked = read()
        hits = _search(lent, asked, max_bytes=lent.max_bytes)
        body = _encoded(hits, lent, max_bytes=lent.max_bytes)
        return Answered(body=body, k=asked.k, plan=_plan(hits))

    return ask


def _searching_many(read: Callable[[], Sequence[Search]]) -> Ask:
    def ask(lent: Lent) -> Answered:
        searches = read()
        together = _together(lent, searches)
        head, tail = b'{"answers":[', b"]}"
        left = lent.max_bytes - len(head) - len(tail)
        pieces: list[bytes] = []
        for number, asked in enumerate(searches):
            try:
                hits = together[number] if together else _search(lent, asked, max_bytes=left)
                piece = _encoded(hits, lent, max_bytes=left - 1)
            except _ANSWERED as error:
                piece = _refused(error)
            left -= len(piece) + 1
            pieces.append(piece)
        body = b"".join((head, b",".join(pieces), tail))
        return Answered(body=body, k=max(each.k for each in searches))

    return ask


def _together(lent: Lent, searches: Sequence[Search]) -> Sequence[Sequence[Hit]]:
    """The hits of searches by vector that differ in nothing else; empty: each goes by itself."""
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
