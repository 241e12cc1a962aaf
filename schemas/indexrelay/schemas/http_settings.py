"""The table ``[http]``: what the reader service lets its clients keep of it."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from indexrelay.schemas.names import Name
from indexrelay.schemas.setting_types import PositiveCount, PositiveSeconds, Table

TokenScope = Literal["read", "admin"]


class TokenSettings(Table):
    """One table ``[http.tokens.NAME]``: a bearer token, by its sha256. ``indexrelay tokens
    generate`` makes one."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Of the token, in hexadecimal: who reads the settings cannot ask with it."""
    scope: TokenScope = "read"
    """``read``: searches, entries, documents, metrics. ``admin``: also what changes something, as
    ``/v1/retry``."""
    filter: Annotated[dict[str, Any], Field(min_length=1)] | None = None
    """Of a tenant: a filter that is forced into everything that is asked with this token, so that
    it sees only what matches; what shows everybody's entries or counts is refused. It goes with the
    scope ``read``. ``None``: everything may be seen."""

    @model_validator(mode="after")
    def _a_tenant_reads(self) -> Self:
        if self.filter is not None and self.scope != "read":
            raise ValueError('a token with a filter has the scope "read"')
        return self


class HttpSettings(Table):
    """What the reader service lets its clients keep of it: time, memory and connections."""

    hosts: tuple[str, ...] = ()
    """Names, without a port, that a reader on a loopback address answers to, beside ``localhost``
    and loopback addresses (421): those that a proxy on this machine passes on. A reader on a unix
    socket, or on another address, answers to any."""
    max_connections: PositiveCount = 500
    """Open at the same time; fewer where the process may open too few files. One more takes the
    place of the one whose client was waited for the longest: for a second at least, where it has
    sent a request. While there is none a tenth more come in, and the next is refused (503)."""
    header_seconds: PositiveSeconds = 10.0
    """How long a request may take until its header is whole (408), counted from the connection or
    the answer before."""
    body_seconds: PositiveSeconds = 20.0
    """… and then its body (408): the largest one at 100 kB/s."""
    send_seconds: PositiveSeconds = 10.0
    """How long a client may take to read 64 kB of its answer; then the connection is cut."""
    max_body_bytes: PositiveCount = 2 * 1024 * 1024
    """Of one request (413): a vector of the greatest dimension, with all its digits, fits in."""
    max_answer_bytes: PositiveCount = 16 * 1024 * 1024
    """Of one search (422): a thousand hits with 16 kB of payload each. Documents of JSON caches are
    not meant: they lie in memory once for all."""
    max_buffered_bytes: PositiveCount = 64 * 1024 * 1024
    """Of all bodies that are received and all answers that are made or sent at a time. Where there
    is no room, the connection whose client was waited for the longest is cut, after a second at
    least; where there is none, the new body or answer is refused (503)."""
    searches: PositiveCount = 8
    """At the same time, each on a thread of its own; more than processors only help where indexes
    are read from disk."""
    max_waiting_searches: Annotated[int, Field(ge=0)] = 200
    """Searches that may wait for such a thread; one more is refused (503). Fewer where all of them
    were more than half of the connections: the rest is for smaller requests."""
    tokens: dict[Name, TokenSettings] = Field(default_factory=dict)
    """Who may ask, by names that are only for people. None: whoever reaches the reader, which
    listens on a loopback address or a unix socket then. One or more: nothing is answered without
    one of them but ``/health`` and ``/ready``."""

    @field_validator("tokens")
    @classmethod
    def _each_has_one_name(cls, tokens: dict[str, TokenSettings]) -> dict[str, TokenSettings]:
        names: dict[str, str] = {}
        for name, token in tokens.items():
            first = names.setdefault(token.sha256, name)
            if first != name:
                raise ValueError(f"{first} and {name} are the same token: draw another one")
        return tokens
