"""Answers to searches, encoded up to a size, and the document of a JSON cache.

An answer is sent in pieces, as fast as its client reads them. A document is sent as it lies in
memory, gzipped or not, or not at all when the client has it already.
"""

import asyncio
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from indexrelay.components.errors import InvalidQueryError
from indexrelay.components.served import Hit, ServedDocument
from indexrelay.service.connections import connection_of
from indexrelay.service.problems import problem

PIECE_BYTES: Final = 64 * 1024
"""What is sent at a time: what a client does not read waits here, and not once more in a buffer."""
_ROOM: Final = "this reader has no room for one more answer; ask again in a moment, or another one"


class FoundEntry(BaseModel):
    """One hit."""

    id: str
    score: float
    payload: Any
    """The entry's JSON payload; null where it has none."""


class SearchAnswer(BaseModel):
    """What was found, and the version that answered."""

    component: str
    release: int
    version: str
    hits: list[FoundEntry]


class LargeResponse(Response):
    """A response that is sent as fast as its client reads it."""

    shared = False
    """Whether its body is in memory anyway, and is not counted."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        body = bytes(self.body)
        connection = connection_of(scope)
        if not self.shared and connection is not None and not connection.hold(len(body)):
            await problem(503, _ROOM)(scope, receive, send)
            return
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        await send(start)
        for first in range(0, max(len(body), 1), PIECE_BYTES):
            piece = body[first : first + PIECE_BYTES]
            more = first + PIECE_BYTES < len(body)
            await send({"type": "http.response.body", "body": piece, "more_body": more})
            # Where a client reads as fast as this writes, no send waits for it.
            await asyncio.sleep(0)


class SharedResponse(LargeResponse):
    """A response whose body is the same for every client."""

    shared = True


@dataclass(frozen=True, kw_only=True)
class Answering:
    """The version that answers a search."""

    component: str
    release: int
    """The release that it is served of."""
    version: str


def encoded(
    hits: Iterable[Hit], answering: Answering, *, max_bytes: int, are_json: bool = False
) -> bytes:
    """A `SearchAnswer` as JSON.

    Args:
        hits: what was found.
        answering: the version that was searched.
        max_bytes: of the answer.
        are_json: whether payloads are known to be JSON, as those of entries are: they were checked
            when they came in. To look for a NaN in them would take as long as to write them.

    Raises:
        InvalidQueryError: it would be longer than ``max_bytes``, or a score is no number.
        ValueError: a payload is not JSON.
    """
    found: list[dict[str, Any]] = []
    for hit in hits:
        if not math.isfinite(hit.score):
            raise InvalidQueryError(
                f"the score of {hit.id!r:.100} is {hit.score}: the query, or that entry, is beyond "
                "what its distances can be"
            )
        found.append({"id": hit.id, "score": hit.score, "payload": hit.payload})
    answer = {**asdict(answering), "hits": found}
    if are_json:  # and in size what was read
        whole = _to_json(answer)
        if len(whole) <= max_bytes:
            return whole
    return _within(answer, found, max_bytes)


def _within(answer: dict[str, Any], hits: Iterable[dict[str, Any]], max_bytes: int) -> bytes:
    """The answer, written hit by hit until there is no room for the next."""
    head = _to_json({**answer, "hits": []})[: -len("]}")]
    pieces: list[bytes] = []
    size = len(head) + len("]}")
    for hit in hits:
        piece = _to_checked_json(hit)
        size += len(piece) + 1
        if size > max_bytes:
            advice = f"ask for fewer hits, with a k of {len(pieces)} or less"
            if not pieces:
                advice = "the first hit alone has; let the reader give more (http.max_answer_bytes)"
            raise InvalidQueryError(f"the answer would have more than {max_bytes} bytes; {advice}")
        pieces.append(piece)
    return b"".join((head, b",".join(pieces), b"]}"))


def _to_json(value: Any) -> bytes:
    """A value as JSON, in a tenth of the time that `json.dumps` takes where it is small."""
    try:
        return to_json(value, inf_nan_mode="constants")
    except PydanticSerializationError:  # a lone surrogate, perhaps: json.dumps escapes it
        return _to_json_slowly(value)


def _to_checked_json(value: Any) -> bytes:
    """A value of a user's kind; raises `ValueError` where it holds what JSON does not know."""
    fast = _to_json(value)
    # A text may hold these words, too.
    return _to_json_slowly(value) if b"NaN" in fast or b"Infinity" in fast else fast


def _to_json_slowly(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def document_response(served: Any, *, accept_encoding: str, if_none_match: str) -> Response:
    """The document of a `ServedDocument`, or 304 where the client has it.

    Raises:
        InvalidQueryError: ``served`` holds no document.
    """
    if not isinstance(served, ServedDocument):
        raise InvalidQueryError("this component is no JSON cache; it holds no document")
    gzipped = accepts_gzip(accept_encoding)
    # A strong tag names one sequence of bytes, so the gzipped form has one of its own.
    etag = served.etag.removesuffix('"') + '-gzip"' if gzipped else served.etag
    headers = {"ETag": etag, "Vary": "Accept-Encoding"}
    if matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    if gzipped:
        headers["Content-Encoding"] = "gzip"
    body = served.gzipped if gzipped else served.body
    return SharedResponse(body, headers=headers, media_type="application/json")


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header allows gzip (RFC 9110, section 12.5.3)."""
    weights: dict[str, float] = {}
    for part in accept_encoding.lower().split(","):
        coding, *parameters = (piece.strip() for piece in part.split(";"))
        weights[coding] = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    weights[coding] = float(value)
                except ValueError:
                    weights[coding] = 0.0
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def matches(if_none_match: str, etag: str) -> bool:
    """Whether an If-None-Match header names ``etag``, compared weakly (RFC 9110, 13.1.2)."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag in tags
