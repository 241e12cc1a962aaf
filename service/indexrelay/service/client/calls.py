"""What can be asked of a reader, and how its answer is read: the same for both clients."""

import json
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypedDict, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import httpx
import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ValidationError

from indexrelay.schemas import commands
from indexrelay.schemas.messages import ReaderState
from indexrelay.service.client.answers import (
    BadAnswerError,
    InvalidRequestError,
    NotAllowedError,
    ReaderUnreachableError,
    RequestRefusedError,
    SearchResult,
    ServedComponents,
    refusal,
)

_VERSION: Final = "/v1"
_JSON: Final = "application/json"
_VECTORS: Final = "application/octet-stream"
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
ResultT = TypeVar("ResultT")
ModelT = TypeVar("ModelT", bound=BaseModel)


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


@dataclass(frozen=True, kw_only=True)
class Call(Generic[ResultT]):
    """One request, and how its answer is read."""

    method: str
    path: str
    read: Callable[[bytes], ResultT]
    body: bytes | None = None
    kind: str = _JSON


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


class Calls:
    """What can be asked, for both clients."""

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
        )

    @staticmethod
    def of_vectors(
        component: str, vectors: ArrayLike, options: Mapping[str, Any]
    ) -> Call[list[SearchResult | RequestRefusedError]]:
        """A batch of float32 values; ``vectors`` has the shape ``(n, dimension)``."""
        rows = np.ascontiguousarray(vectors, dtype="<f4")
        if rows.ndim != 2:
            raise InvalidRequestError(422, f"vectors have the shape (n, d), not {rows.shape}")
        given = {name: _json(value) for name, value in options.items() if value is not None}
        address = urlencode({"queries": len(rows), **given})
        return Call(
            method="POST",
            path=f"{_VERSION}/components/{quote(component, safe='')}/search/batch?{address}",
            read=read_batch,
            body=rows.tobytes(),
            kind=_VECTORS,
        )


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

    def request(self, call: Call[Any]) -> httpx.Request:
        """The request of a call."""
        headers = {"Accept-Encoding": "identity", "Accept": _JSON}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        if call.body is not None:
            headers["Content-Type"] = call.kind
        extensions = {"timeout": httpx.Timeout(self.deadline_seconds).as_dict()}
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
        return ReaderUnreachableError(f"{self.address} does not answer: {why}")
