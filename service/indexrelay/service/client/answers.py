"""What a reader answers, as its client has it: results, and errors with the reader's own words.

Fields that a newer reader adds are left out.
"""

import contextlib
from collections.abc import Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from indexrelay.schemas.errors import IndexRelayError

_MAX_DETAIL: Final = 1000
_MAX_BEHIND: Final = 100


class ReaderError(IndexRelayError):
    """Raised when a reader does not give what it was asked for; each kind is one of the errors
    below."""


class ReaderUnreachableError(ReaderError):
    """Raised when a reader cannot be connected to, or does not answer within the deadline: see
    whether it runs, or ask another one."""

    was_sent = True
    """Whether the request may have come there."""


class BadAnswerError(ReaderError):
    """Raised when an answer is too long, or is none that a reader gives: something else answers at
    this address."""


class RequestRefusedError(ReaderError):
    """Raised when a reader refuses a request; the message is its own sentence."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        """Of HTTP."""
        self.detail = detail
        """What would be right."""


class InvalidRequestError(RequestRefusedError):
    """Raised when a component cannot answer that: 400, 405, 413, 415, 422."""


class NotFoundError(RequestRefusedError):
    """Raised when there is no such component or entry: 404."""


class NotAllowedError(RequestRefusedError):
    """Raised when a token is missing or wrong, or may not do that: 401, 403."""


class ReaderBusyError(RequestRefusedError):
    """Raised when a reader has no room, or nothing to serve yet: 503; ask again in a moment, or
    another one."""


class ReaderBehindError(ReaderBusyError):
    """Raised when a reader does not have what was asked for, and did not in time: 503. Ask again,
    ask another one, or ask with the consistency ``eventual``, which every reader answers."""

    behind: tuple["Behind", ...] = ()
    """How far it is."""


_REFUSALS: Final[Mapping[int, type[RequestRefusedError]]] = {
    **dict.fromkeys((400, 405, 408, 413, 415, 421, 422), InvalidRequestError),
    **dict.fromkeys((401, 403), NotAllowedError),
    404: NotFoundError,
    503: ReaderBusyError,
}


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class Behind(_Model):
    """A collection of which a component does not have what was asked for."""

    component: str
    collection: str
    generation: int
    wanted: int | None = None
    reason: str = ""


class ArmRank(_Model):
    """Where one part of a search by vector and text had found an entry."""

    rank: int | None = None
    """``None``: beyond what that part was searched for; only its score was asked for."""
    score: float


class FoundHit(_Model):
    """One hit."""

    id: str
    score: float
    payload: Any = None
    arms: Mapping[str, ArmRank] | None = None
    """Of a search by vector and text: by the part that found it."""


class _Answer(_Model):
    component: str
    release: int
    version: str
    generations: Mapping[str, int] = Field(default_factory=dict)
    """By collection: the answer contains everything up to this generation."""
    lag_seconds: float | None = None
    """Everything is in it that was committed so long ago; ``None``: the reader does not know."""
    degraded: bool = False
    """Whether it is less than the component could give …"""
    reason: str | None = None
    """… and why."""
    session: str = ""
    """The session token of whoever has seen it; the client has it, too."""


class SearchResult(_Answer):
    """What was found, and by which version."""

    hits: tuple[FoundHit, ...]
    explanation: Mapping[str, Any] | None = None


class ReadEntry(_Model):
    """One entry."""

    id: str
    payload: Any = None
    text: str | None = None


class EntriesResult(_Answer):
    """One entry for each id; ``None`` where there is none."""

    entries: tuple[ReadEntry | None, ...]


class CountResult(_Answer):
    """How many entries match."""

    count: int


class EntryPage(_Answer):
    """Entries in the order of their ids."""

    entries: tuple[ReadEntry, ...]
    after: str | None
    """What to give as ``after`` for the next page; ``None``: this is the last."""


class NeighboursResult(_Answer):
    """By each id: the entries nearest to it."""

    neighbours: Mapping[str, tuple[FoundHit, ...]]


class WriteResult(_Model):
    """What a write came to; it is durable."""

    collection: str
    generation: int
    upserts: int
    deletes: int
    repeated: bool
    """Whether it had been committed before: by an attempt whose answer got lost."""
    wait: str
    """What it was to wait for …"""
    reached: bool
    """… and whether that came in time."""
    reason: str | None = None
    """Why not."""
    session: str = ""
    """The session token of whoever has made it; the client has it, too."""


class StoredEntry(_Model):
    """One entry, as the catalog has it."""

    collection: str
    generation: int
    """Of the collection when it was read."""
    session: str = ""
    """The session token of whoever has seen it; the client has it, too."""
    id: str
    payload: Any = None
    text: str | None = None


class ServedVersion(_Model):
    """One version that is served."""

    kind: str
    version: str
    covers: Mapping[str, int]
    entries: int
    bytes: int
    created_at: datetime


class ServedComponents(_Model):
    """All components, and the release that they are served of."""

    release: int
    components: Mapping[str, ServedVersion]


def refusal(status: int, problem: Any) -> RequestRefusedError:
    """The error for a status, with the reason that the problem gives."""
    detail = problem.get("detail") if isinstance(problem, dict) else None
    if not isinstance(detail, str) or not detail:
        detail = f"the answer is the status {status}, without a reason"
    found = problem.get("behind") if isinstance(problem, dict) else None
    if status == HTTPStatus.SERVICE_UNAVAILABLE and isinstance(found, list):
        error = ReaderBehindError(status, detail[:_MAX_DETAIL])
        with contextlib.suppress(ValidationError):
            error.behind = tuple(Behind.model_validate(each) for each in found[:_MAX_BEHIND])
        return error
    return _REFUSALS.get(status, RequestRefusedError)(status, detail[:_MAX_DETAIL])
