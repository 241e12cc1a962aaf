"""Answers to searches, encoded up to a size, and the document of a JSON cache.

An answer is sent in pieces, as fast as its client reads them. A document is sent as it lies in
memory, gzipped or not, or not at all when the client has it already.

Stored payloads stand in an answer as they are. They were JSON when they came in, and a file whose
digest is right holds what was written. That is no proof: whoever may write to the artifacts may
write anything with its digest, and one payload that is no JSON would take every other hit of the
answer with it. So each is looked at, without keeping what is in it: parsed where all of them are
small, and else by SQLite, which reads JSON by the letter of RFC 8259, makes no Python object of it,
and lets other threads run meanwhile.
"""

import asyncio
import contextlib
import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, from_json, to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from indexrelay.components.errors import InvalidQueryError
from indexrelay.components.query import Hits
from indexrelay.components.served import Hit, ServedDocument
from indexrelay.service.connections import connection_of
from indexrelay.service.problems import problem

_SMALL_BYTES: Final = 64 * 1024
"""Of all payloads together: to parse so many takes a few milliseconds and megabytes at worst."""
_AT_ONCE: Final = 100
"""Payloads in one statement. For each of its own a thread would stand in line for Python again."""
_AT_ONCE_BYTES: Final = 1024 * 1024


def first_invalid(payloads: Sequence[bytes]) -> int | None:
    """The index of the first payload that is not JSON in UTF-8; ``None``: all of them are."""
    if sum(map(len, payloads)) <= _SMALL_BYTES:
        number = _first_unparsed(payloads)
        if number is None:
            return None
    return _first_refused(payloads)


def _first_unparsed(payloads: Sequence[bytes]) -> int | None:
    for number, payload in enumerate(payloads):
        try:
            from_json(payload, allow_inf_nan=False)
        except ValueError:  # or it holds half a surrogate pair, which JSON allows
            return number
    return None


def _first_refused(payloads: Sequence[bytes]) -> int | None:
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        for first, some in _portions(payloads):
            try:
                texts = [payload.decode() for payload in some]
            except UnicodeDecodeError:
                return first + next(n for n, each in enumerate(some) if not _is_utf8(each))
            columns = ",".join(["json_valid(?)"] * len(texts))
            [found] = database.execute(f"SELECT {columns}", texts)
            for number, (is_valid, payload) in enumerate(zip(found, some, strict=True)):
                if not is_valid or b"\0" in payload:  # SQLite reads a text up to there
                    return first + number
    return None


def _is_utf8(payload: bytes) -> bool:
    with contextlib.suppress(UnicodeDecodeError):
        payload.decode()
        return True
    return False


def _portions(payloads: Sequence[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Some at a time, each portion with the index of its first."""
    first, some, size = 0, list[bytes](), 0
    for number, payload in enumerate(payloads):
        if some and (len(some) == _AT_ONCE or size + len(payload) > _AT_ONCE_BYTES):
            yield first, some
            first, some, size = number, [], 0
        some.append(payload)
        size += len(payload)
    if some:
        yield first, some


PIECE_BYTES: Final = 64 * 1024
"""What is sent at a time: what a client does not read waits here, and not once more in a buffer."""
_ROOM: Final = "this reader has no room for one more answer; ask again in a moment, or another one"


Hold: TypeAlias = Callable[[int], None]
"""Counts bytes of an answer before it is made; raises where there is no room for them."""


class ArmRank(BaseModel):
    """Where one part of a search by vector and text had found an entry."""

    rank: int | None
    """From 1; null: beyond the depth that was searched, where only its score was asked for."""
    score: float


class FoundEntry(BaseModel):
    """One hit."""

    id: str
    score: float
    payload: Any
    """The entry's JSON payload; null where it has none."""
    arms: dict[str, ArmRank] | None = None
    """Of a search by vector and text: by the part that found it, its rank and score there."""


class Answer(BaseModel):
    """What every answer of a component says of itself."""

    component: str
    release: int
    version: str
    generations: dict[str, int]
    """By collection: the answer contains everything up to this generation."""
    lag_seconds: float | None
    """Everything is in it that was committed so long ago, and perhaps more; null: that is not
    known."""
    degraded: bool
    """Whether it is less than the component could give …"""
    reason: str | None
    """… and why."""
    session: str
    """Send it with the next request, to any reader: no answer goes back behind this one."""


class SearchAnswer(Answer):
    """What was found, and the version that answered."""

    hits: list[FoundEntry]
    explanation: dict[str, Any] | None = None
    """How it was found, where that was asked for: plan, effort, layers, candidates, stages."""


class LargeResponse(Response):
    """A response that is sent as fast as its client reads it."""

    shared = False
    """Whether its body is in memory anyway, and is not counted."""
    held_bytes = 0
    """Of its body, counted already before it was encoded."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        body = bytes(self.body)
        connection = connection_of(scope)
        more_bytes = 0 if self.shared else max(0, len(body) - self.held_bytes)
        if more_bytes and connection is not None and not connection.hold(more_bytes):
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
    """The version that answers a search, and how fresh it is."""

    component: str
    release: int
    """The release that it is served of."""
    version: str
    generations: Mapping[str, int] = field(default_factory=dict)
    """By collection: the answer contains everything up to this generation."""
    lag_seconds: float | None = None
    """Everything is in it that was committed so long ago; ``None``: that is not known."""
    degraded: bool = False
    """Whether it is less than the component could give …"""
    reason: str | None = None
    """… and why."""
    session: str = ""
    """The session token of whoever has seen it."""


def encoded(
    hits: Iterable[Hit],
    answering: Answering,
    *,
    max_bytes: int,
    are_json: bool = False,
    hold: Hold | None = None,
) -> bytes:
    """A `SearchAnswer` as JSON.

    Args:
        hits: what was found; with an ``explanation``, where there is one.
        answering: the version that was searched.
        max_bytes: of the answer.
        are_json: whether payloads are those of entries; see `encoded_hits`.
        hold: see `encoded_hits`.

    Raises:
        InvalidQueryError: it would be longer than ``max_bytes``, or a score is no number.
        CorruptFileError, ValueError: a payload is not JSON.
    """
    explanation = degraded = None
    if isinstance(hits, Hits):
        explanation, degraded = hits.explanation, hits.degraded
    if degraded is not None:
        reasons = "; ".join(filter(None, (answering.reason, degraded)))
        answering = replace(answering, degraded=True, reason=reasons)
    head = head_of(answering) + b',"hits":'
    tail = b"}"
    if explanation is not None:
        tail = b',"explanation":' + checked_json(explanation.as_json()) + b"}"
    room = max_bytes - len(head) - len(tail)
    return b"".join((head, *_pieces(hits, room, are_json=are_json, hold=hold), tail))


def head_of(answering: Answering) -> bytes:
    """The beginning of every answer: the version that gives it, and how fresh that is."""
    return plain_json(answering)[:-1]


def encoded_hits(
    hits: Iterable[Hit], *, max_bytes: int, are_json: bool = False, hold: Hold | None = None
) -> bytes:
    """Hits as a JSON list of `FoundEntry`.

    Args:
        hits: what was found.
        max_bytes: of the list.
        are_json: whether payloads are those of entries. They are written as they are stored, and
            never parsed.
        hold: called with the bytes of the list before it is made of such payloads; ``None``: they
            are not counted beforehand.

    Raises:
        InvalidQueryError: it would be longer than ``max_bytes``, or a score is no number.
        CorruptFileError: a stored payload is not JSON.
        ValueError: another payload is not JSON.
        Exception: what ``hold`` raises.
    """
    return b"".join(_pieces(hits, max_bytes, are_json=are_json, hold=hold))


_FEWER_HITS: Final = "fewer hits, with a k of {count} or less"


def _pieces(
    hits: Iterable[Hit], max_bytes: int, *, are_json: bool, hold: Hold | None
) -> Sequence[bytes]:
    """The list in pieces, of which payloads are their own: they are not copied before the end."""
    if not are_json:
        found = ({**_fields(hit), "payload": hit.payload} for hit in hits)
        return (joined(found, max_bytes=max_bytes, advice=_FEWER_HITS),)
    hits = list(hits)
    payloads = [hit.payload_json for hit in hits]
    pieces, size = [b"["], len("[]")
    for count, (hit, payload) in enumerate(zip(hits, payloads, strict=True)):
        # An object without its closing brace, and the one key more that it gets.
        head = plain_json(_fields(hit))[:-1] + b',"payload":'
        pieces += (b"," + head if count else head, payload or b"null", b"}")
        size += len(pieces[-3]) + len(pieces[-2]) + 1
        if size > max_bytes:
            raise TooLongError(_FEWER_HITS.format(count=count) if count else None)
    pieces.append(b"]")
    if hold is not None:
        hold(size)
    invalid = first_invalid([payload or b"null" for payload in payloads])
    if invalid is not None:
        _ = hits[invalid].payload  # raises, and names the file, unless it is a NaN
        raise ValueError(f"the payload of {hits[invalid].id!r:.100} is no JSON")
    return pieces


def _fields(hit: Hit) -> dict[str, Any]:
    """All but the payload."""
    if not math.isfinite(hit.score):
        raise InvalidQueryError(
            f"the score of {hit.id!r:.100} is {hit.score}: the query, or that entry, is beyond "
            "what its distances can be"
        )
    shown: dict[str, Any] = {"id": hit.id, "score": hit.score}
    arms: Mapping[str, Any] | None = getattr(hit, "arms", None)
    if arms is not None:
        shown["arms"] = {name: {"rank": arm.rank, "score": arm.score} for name, arm in arms.items()}
    return shown


def joined(found: Iterable[Any], *, max_bytes: int, advice: str) -> bytes:
    """A JSON list, written value by value until there is no room for the next.

    Args:
        found: what is listed.
        max_bytes: of the list.
        advice: what to ask for instead; ``{count}`` is how many there was room for.

    Raises:
        InvalidQueryError: there is no room.
        ValueError: one is not JSON.
    """
    pieces: list[bytes] = []
    size = len("[]")
    for each in found:
        piece = checked_json(each)
        size += len(piece) + 1
        if size > max_bytes:
            raise TooLongError(advice.format(count=len(pieces)) if pieces else None)
        pieces.append(piece)
    return b"[" + b",".join(pieces) + b"]"


class TooLongError(InvalidQueryError):
    """Raised when an answer would have more bytes than it may; ask for less."""

    def __init__(self, advice: str | None) -> None:
        wanted = f"ask for {advice}"
        if advice is None:
            wanted = "the first one alone has; let the reader give more"
        super().__init__(
            f"the answer would have more bytes than it may (http.max_answer_bytes); {wanted}"
        )


def plain_json(value: Any) -> bytes:
    """A value as JSON, in a tenth of the time that `json.dumps` takes where it is small."""
    try:
        return to_json(value, inf_nan_mode="constants")
    except PydanticSerializationError:  # a lone surrogate, perhaps: json.dumps escapes it
        return _to_json_slowly(value)


def checked_json(value: Any) -> bytes:
    """A value of a user's kind; raises `ValueError` where it holds what JSON does not know."""
    fast = plain_json(value)
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
