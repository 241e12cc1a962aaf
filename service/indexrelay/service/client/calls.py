"""What can be asked of a reader, and how its answer is read: the same for both clients."""

import json
import re
import secrets
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final, Generic, Literal, TypedDict, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import httpx
import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ValidationError

from indexrelay.schemas import commands
from indexrelay.schemas.messages import ReaderState
from indexrelay.schemas.session import HEADER, SessionToken, SessionTokenError
from indexrelay.service.client.answers import (
    BadAnswerError,
    InvalidRequestError,
    NotAllowedError,
    ReaderBusyError,
    ReaderError,
    ReaderUnreachableError,
    RequestRefusedError,
    SearchResult,
    ServedComponents,
    StoredEntry,
    WriteResult,
    refusal,
)

_VERSION: Final = "/v1"
_JSON: Final = "application/json"
_VECTORS: Final = "application/octet-stream"
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_LONGEST_WAIT_SECONDS: Final = 60.0
"""A reader waits for no longer."""
_CONNECT_SECONDS: Final = 2.0
"""For one reader of several; a whole request has the deadline of the client."""
ResultT = TypeVar("ResultT")
ModelT = TypeVar("ModelT", bound=BaseModel)


class Freshness(TypedDict, total=False):
    """How fresh an answer has to be; without any of them: as fresh as what the client has seen."""

    consistency: Literal["eventual", "bounded", "session", "strong"]
    max_lag_seconds: float
    """Of ``bounded``."""


class Query(TypedDict, total=False):
    """What is searched for, and how; docs in the README and ``GET /openapi.json``."""

    vector: ArrayLike
    """Shape ``(dimension,)``."""
    text: str
    id: str
    like: Sequence[str | ArrayLike]
    unlike: Sequence[str | ArrayLike]
    k: int
    filter: Mapping[str, Any] | None
    without: Sequence[str]
    group_by: str
    per_group: int
    diversity: float
    weights: Mapping[str, float]
    fusion: Literal["ranks", "scores"]
    rrf_k: float
    rerank: bool
    explain: bool


class FreshQuery(Query, Freshness, total=False):
    """What is searched for, and how fresh the answer has to be."""


@dataclass(frozen=True, kw_only=True)
class Call(Generic[ResultT]):
    """One request, and how its answer is read."""

    method: str
    path: str
    read: Callable[[bytes], ResultT]
    body: bytes | None = None
    kind: str = _JSON
    key: str | None = None
    """Of a write: a repeat of it under the same one is harmless."""
    is_repeatable: bool = True
    """Whether it does no harm to send it twice, so that another reader may be asked."""
    is_fresh: bool = False
    """Whether it asks for freshness itself, and not for the client's session."""


def read_by(model: type[ModelT]) -> Callable[[bytes], ModelT]:
    """Reads an answer that is one of ``model``; `BadAnswerError` where it is none."""

    def read(body: bytes) -> ModelT:
        try:
            return model.model_validate_json(body)
        except ValidationError as error:
            raise BadAnswerError(f"the answer is no {model.__name__} of a reader") from error

    return read


def read_batch(body: bytes) -> list[SearchResult | RequestRefusedError]:
    """The answers of a batch; raises `BadAnswerError` where it is none."""
    try:
        answers = json.loads(body)["answers"]
        return [
            refusal(each["status"], each) if "status" in each else SearchResult.model_validate(each)
            for each in answers
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise BadAnswerError("the answer is no batch of a reader") from error


def _json(value: Any) -> str:
    try:
        return json.dumps(_plain(value), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(422, f"this cannot be asked: {error}") from error


def _plain(value: Any) -> Any:
    """Arrays as lists; everything else as it is."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


class Keep(Enum):
    """What stays as it is in a patch."""

    KEEP = auto()


KEEP: Final = Keep.KEEP


def path_of(collection: str, entry_id: str = "") -> str:
    """Of the entries of a collection, or of one of them, whose id may have slashes."""
    path = f"{_VERSION}/collections/{quote(collection, safe='')}/entries"
    if not entry_id:
        return path
    # A part of dots alone would be taken for a way upwards.
    parts = (
        part.replace(".", "%2E") if part in (".", "..") else quote(part, safe="")
        for part in entry_id.split("/")
    )
    return f"{path}/{'/'.join(parts)}"


@dataclass(frozen=True, kw_only=True)
class Write:
    """How a write is to be answered."""

    wait: str
    wait_seconds: float
    key: str | None

    @classmethod
    def within(
        cls, deadline_seconds: float, wait: str, wait_seconds: float | None, key: str | None
    ) -> "Write":
        """One of a client with this deadline; ``wait_seconds``: ``None``: half of it.

        Raises:
            InvalidRequestError: the wait is too long.
        """
        if wait_seconds is None:
            wait_seconds = deadline_seconds / 2
        if not 0 <= wait_seconds < deadline_seconds:
            raise InvalidRequestError(
                422, f"wait_seconds={wait_seconds}: less than deadline_seconds of this client"
            )
        return cls(wait=wait, wait_seconds=min(wait_seconds, _LONGEST_WAIT_SECONDS), key=key)

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any],
        *,
        vectors: "NDArray[np.float32] | None" = None,
    ) -> "Call[WriteResult]":
        """The call; ``vectors`` follow its JSON, which is one line."""
        said = _json({**body, "wait": self.wait, "wait_seconds": self.wait_seconds}).encode()
        return Call(
            method=method,
            path=path,
            read=read_by(WriteResult),
            body=said if vectors is None else said + b"\n" + vectors.tobytes(),
            kind=_JSON if vectors is None else _VECTORS,
            key=self.key or secrets.token_hex(16),
        )


class Calls:
    """What can be asked, for both clients."""

    @staticmethod
    def upsert(
        collection: str,
        ids: Sequence[str],
        vectors: ArrayLike | None,
        texts: Sequence[str | None] | None,
        payloads: Sequence[Any] | None,
        write: Write,
    ) -> Call[WriteResult]:
        """Entries with their vectors, shape ``(n, dimension)``, as float32 values; or with none."""
        rows = None if vectors is None else np.ascontiguousarray(vectors, dtype="<f4")
        if rows is not None and (rows.ndim != 2 or len(rows) != len(ids)):
            raise InvalidRequestError(
                422, f"vectors have the shape ({len(ids)}, d), not {rows.shape}"
            )
        columns: dict[str, Sequence[Any] | None] = {"id": ids, "text": texts, "payload": payloads}
        for name, column in columns.items():
            if column is not None and len(column) != len(ids):
                raise InvalidRequestError(422, f"{len(ids)} ids, but {len(column)} {name}s")
        entries = [
            {
                name: column[row]
                for name, column in columns.items()
                if column is not None and column[row] is not None
            }
            for row in range(len(ids))
        ]
        return write.call("PUT", path_of(collection), {"entries": entries}, vectors=rows)

    @staticmethod
    def delete(collection: str, ids: Sequence[str], write: Write) -> Call[WriteResult]:
        """Entries that are to go."""
        return write.call("POST", f"{path_of(collection)}/delete", {"ids": list(ids)})

    @staticmethod
    def patch(
        collection: str, entry_id: str, payload: Any, text: str | Keep | None, write: Write
    ) -> Call[WriteResult]:
        """Another payload or text of one entry."""
        given = {"payload": payload, "text": text}
        body = {name: value for name, value in given.items() if value is not KEEP}
        return write.call("PATCH", path_of(collection, entry_id), body)

    @staticmethod
    def stored(collection: str, entry_id: str) -> Call[StoredEntry]:
        """One entry as the catalog has it."""
        return Call(method="GET", path=path_of(collection, entry_id), read=read_by(StoredEntry))

    @staticmethod
    def of_component(
        component: str, what: str, body: Mapping[str, Any], read: Callable[[bytes], ResultT]
    ) -> Call[ResultT]:
        """A question in JSON; a key without a value is left out."""
        given = {name: value for name, value in body.items() if value is not None}
        return Call(
            method="POST",
            path=f"{_VERSION}/components/{quote(component, safe='')}/{what}",
            read=read,
            body=_json(given).encode(),
            is_fresh=_asks_itself(given),
        )

    @staticmethod
    def of_vectors(
        component: str, vectors: ArrayLike, options: Mapping[str, Any]
    ) -> Call[list[SearchResult | RequestRefusedError]]:
        """A batch of float32 values; ``vectors`` has the shape ``(n, dimension)``."""
        rows = np.ascontiguousarray(vectors, dtype="<f4")
        if rows.ndim != 2:
            raise InvalidRequestError(422, f"vectors have the shape (n, d), not {rows.shape}")
        given = {
            name: value if isinstance(value, str) else _json(value)
            for name, value in options.items()
            if value is not None
        }
        address = urlencode({"queries": len(rows), **given})
        return Call(
            method="POST",
            path=f"{_VERSION}/components/{quote(component, safe='')}/search/batch?{address}",
            read=read_batch,
            body=rows.tobytes(),
            kind=_VECTORS,
            is_fresh=_asks_itself(options),
        )


def _asks_itself(given: Mapping[str, Any]) -> bool:
    level = given.get("consistency")
    return level not in (None, "session") or given.get("max_lag_seconds") is not None


def _retried(_body: bytes) -> None:
    return None


COMPONENTS: Final[Call[ServedComponents]] = Call(
    method="GET", path=f"{_VERSION}/components", read=read_by(ServedComponents)
)
STATE: Final[Call[ReaderState]] = Call(
    method="GET", path=f"{_VERSION}/state", read=read_by(ReaderState)
)
RETRY: Final[Call[None]] = Call(method="POST", path=f"{_VERSION}/retry", read=_retried)


def _is_url(address: str) -> bool:
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


class ClientSession:
    """What a client has written and read, on all of its threads."""

    def __init__(self, token: SessionToken | str | None, *, is_sent: bool) -> None:
        """Begin with what another client has seen.

        Raises:
            SessionTokenError: that is no token.
        """
        self._lock = threading.Lock()
        self._token = _token_of(token)
        self._is_sent = is_sent

    @property
    def token(self) -> SessionToken:
        """All of it so far."""
        return self._token

    def merge(self, token: SessionToken | str) -> None:
        """Take in what another client has seen; raises `SessionTokenError`."""
        merged = _token_of(token)
        with self._lock:
            self._token = self._token.merge(merged)

    def forget(self) -> None:
        """Ask for nothing any more."""
        with self._lock:
            self._token = SessionToken()

    def sent(self, call: Call[Any]) -> SessionToken:
        """What a request asks for."""
        return SessionToken() if call.is_fresh or not self._is_sent else self._token

    def answered(self, sent: SessionToken, response: httpx.Response) -> None:
        """Take in what an answer says that it contains; raises `BadAnswerError`."""
        text = response.headers.get(HEADER)
        if text is None:
            return
        try:
            answer = SessionToken.from_text(text)
        except SessionTokenError as error:
            raise BadAnswerError(f"the header {HEADER} of the answer: {error}") from error
        with self._lock:
            self._token = self._token.after(sent, answer)


def _token_of(given: SessionToken | str | None) -> SessionToken:
    if isinstance(given, str):
        return SessionToken.from_text(given)
    return given or SessionToken()


class Readers(Generic[ResultT]):
    """Instances of one reader, of which the one is asked that answered last."""

    def __init__(self, addresses: str | Sequence[str], target: Callable[[str], ResultT]) -> None:
        """One for each address; raises `ReaderUnreachableError` where there is none."""
        each = [addresses] if isinstance(addresses, str) else list(addresses)
        if not each:
            raise ReaderUnreachableError("give the address of at least one reader")
        self.all = tuple(map(target, each))
        self._first = 0

    def in_order(self) -> Iterator[tuple[ResultT, int]]:
        """Each, and how many come after it."""
        first, count = self._first, len(self.all)
        for number in range(count):
            self._first = place = (first + number) % count
            yield self.all[place], count - number - 1

    def failed(self, error: ReaderError) -> None:
        """A request has failed. Where one gave no answer and took all of the time for that, the
        next request begins with another."""
        if isinstance(error, ReaderUnreachableError):
            self._first = (self._first + 1) % len(self.all)


def may_ask_another(call: Call[Any], error: ReaderError) -> bool:
    """Whether a request that failed may be sent to another reader."""
    if isinstance(error, ReaderUnreachableError):
        return call.is_repeatable or not error.was_sent
    return isinstance(error, ReaderBusyError) and call.is_repeatable


@dataclass(frozen=True, kw_only=True)
class Target:
    """To whom requests go, and what they may take."""

    address: str
    token: str | None = field(default=None, repr=False)
    deadline_seconds: float
    max_answer_bytes: int

    def __post_init__(self) -> None:
        if self.socket is None and not _is_url(self.address):
            raise ReaderUnreachableError(
                f"{self.address!r:.200} is no address of a reader: write http://HOST:PORT, "
                "https://HOST or unix:/PATH"
            )
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            # What is wrong with it would show it.
            raise NotAllowedError(401, f"this is no token; make one: {commands.GENERATE_TOKEN}")

    @property
    def socket(self) -> str | None:
        """The unix socket; ``None``: it is a host."""
        if not self.address.startswith("unix:"):
            return None
        return self.address.removeprefix("unix:").removeprefix("//")

    @property
    def url(self) -> str:
        """The base of every path."""
        return self.address.rstrip("/") if self.socket is None else "http://reader"

    @property
    def verify(self) -> ssl.SSLContext:
        """Whose certificates are trusted; where nothing is encrypted, nobody's."""
        if self.url.startswith("https:"):
            return httpx.create_ssl_context(trust_env=False)
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def request(
        self, call: Call[Any], session: SessionToken, *, seconds: float, others: int = 0
    ) -> httpx.Request:
        """The request of a call.

        Args:
            call: what is asked.
            session: what the answer has to contain.
            seconds: that are left.
            others: how many readers can be asked if this one is not there: they get their share of
                the time.
        """
        headers = {"Accept-Encoding": "identity", "Accept": _JSON}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        if call.body is not None:
            headers["Content-Type"] = call.kind
        if call.key is not None:
            headers["Idempotency-Key"] = f'"{call.key}"'
        if session:
            headers[HEADER] = str(session)
        connecting = min(seconds / (others + 1), _CONNECT_SECONDS) if others else seconds
        extensions = {"timeout": httpx.Timeout(seconds, connect=connecting).as_dict()}
        return httpx.Request(
            call.method,
            f"{self.url}{call.path}",
            headers=headers,
            content=call.body,
            extensions=extensions,
        )

    def check(self, response: httpx.Response, size: int) -> None:
        """See that an answer, of which so many bytes have come, may be read on."""
        if response.headers.get("content-encoding", "identity") != "identity":
            raise BadAnswerError(f"{self.address} answers in an encoding that was not asked for")
        if size > self.max_answer_bytes:
            raise BadAnswerError(
                f"the answer of {self.address} has more than {self.max_answer_bytes} bytes; ask "
                "for less, or give the client a greater max_answer_bytes"
            )

    def result(self, call: Call[ResultT], response: httpx.Response, body: bytes) -> ResultT:
        """What was answered; raises what was refused."""
        if response.is_success:
            return call.read(body)
        try:
            problem = json.loads(body)
        except (ValueError, RecursionError):
            problem = None
        raise refusal(response.status_code, problem)

    def unreachable(self, error: Exception) -> ReaderUnreachableError:
        """Why there is no answer."""
        why = str(error) or type(error).__name__
        if isinstance(error, TimeoutError | httpx.TimeoutException):
            why = f"no answer within {self.deadline_seconds:g} s"
        unreachable = ReaderUnreachableError(f"{self.address} does not answer: {why}")
        unreachable.was_sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        return unreachable
