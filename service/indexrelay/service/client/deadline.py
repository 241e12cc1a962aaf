"""One deadline for a whole request of a client that waits.

The limits of httpx are for one wait each: a header or an answer that comes byte by byte would never
be too late. Here each wait ends when the request has to.
"""

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import httpcore
import httpx

_MAX_CONNECTIONS = 100
"""To one reader, as those of httpx: a thread more waits until one is free."""
_DEADLINE: ContextVar[float] = ContextVar("indexrelay_client_deadline")
"""When the request that runs has to be over, by the monotonic clock."""


@contextmanager
def within(seconds: float) -> Iterator[Callable[[], float]]:
    """Every wait of a `DeadlineTransport` in here ends after so many seconds together.

    Gives how many of them are left.
    """
    end = time.monotonic() + seconds
    reset = _DEADLINE.set(end)
    try:
        yield lambda: end - time.monotonic()
    finally:
        _DEADLINE.reset(reset)


class DeadlineTransport(httpx.HTTPTransport):
    """A transport for `within`."""

    def __init__(self, *, socket: str | None, verify: ssl.SSLContext) -> None:
        super().__init__(verify=verify, uds=socket, trust_env=False)
        # httpx has no setting for how it reads from the network.
        self._pool = httpcore.ConnectionPool(
            ssl_context=verify,
            uds=socket,
            network_backend=_DeadlineBackend(),
            max_connections=_MAX_CONNECTIONS,
        )


class _DeadlineBackend(httpcore.SyncBackend):
    """Connects by the deadline."""

    def connect_tcp(self, *given: Any, **named: Any) -> httpcore.NetworkStream:
        """A connection to a host."""
        return _DeadlineStream(super().connect_tcp(*given, **_limited(named)))

    def connect_unix_socket(self, *given: Any, **named: Any) -> httpcore.NetworkStream:
        """A connection to a socket."""
        return _DeadlineStream(super().connect_unix_socket(*given, **_limited(named)))


class _DeadlineStream(httpcore.NetworkStream):
    """Reads and writes by the deadline."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has come."""
        return self._stream.read(max_bytes, _limited({"timeout": timeout})["timeout"])

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it."""
        self._stream.write(buffer, _limited({"timeout": timeout})["timeout"])

    def close(self) -> None:
        """Close it."""
        self._stream.close()

    def start_tls(self, *given: Any, **named: Any) -> httpcore.NetworkStream:
        """The same, encrypted."""
        return _DeadlineStream(self._stream.start_tls(*given, **_limited(named)))

    def get_extra_info(self, info: str) -> Any:
        """What is known of it."""
        return self._stream.get_extra_info(info)


def _limited(named: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, with a timeout that ends at the deadline."""
    left = _DEADLINE.get() - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the deadline has passed")
    given = named.get("timeout")
    return {**named, "timeout": left if given is None else min(given, left)}
