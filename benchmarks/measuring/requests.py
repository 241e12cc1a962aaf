"""Requests over HTTP that cost the client next to nothing: written before, and hardly read.

A client that parses and validates takes as long as the server that is measured, on the same cores.
These are bytes, sent over connections that stay open; of an answer only its status and length are
looked at.
"""

import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Final

from measuring.rounds import Contender

_CHUNK: Final = 65_536
_PATIENCE_SECONDS: Final = 30.0
CONNECTIONS: Final = 4
"""As many as keep a server busy that answers one after the other."""


class WrongAnswerError(RuntimeError):
    """Raised when a request was not answered with 200."""


def request(method: str, path: str, body: bytes = b"") -> bytes:
    """A request with a JSON body, as it is sent."""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def answered(connection: socket.socket) -> int:
    """The status of the next answer, which is read whole.

    Raises:
        WrongAnswerError: it ends before that.
    """
    given = b""
    while (length := _length(given)) is None or len(given) < length:
        more = connection.recv(_CHUNK)
        if not more:
            raise WrongAnswerError(f"the connection ended after {given[:200]!r}")
        given += more
    return int(given[9:12])


def _length(given: bytes) -> int | None:
    """Of an answer whose beginning is ``given``; ``None``: its head is not whole."""
    end = given.find(b"\r\n\r\n")
    if end < 0:
        return None
    for line in given[:end].lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return end + 4 + int(line.partition(b":")[2])
    raise WrongAnswerError(f"an answer without its length: {given[:end]!r}")


def asking(path: str, requests: Sequence[bytes]) -> Contender:
    """Sends all of some requests to a unix socket, over a few connections at a time."""

    def turn() -> float:
        with ExitStack() as stack:
            ready = stack.enter_context(selectors.DefaultSelector())
            waiting = iter(requests)
            began = time.perf_counter()
            for _ in range(CONNECTIONS):
                connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                connection.connect(path)
                if _next_sent(connection, waiting):
                    ready.register(connection, selectors.EVENT_READ)
            while ready.get_map():
                found = ready.select(_PATIENCE_SECONDS)
                if not found:
                    raise WrongAnswerError(f"no answer in {_PATIENCE_SECONDS:g} s")
                for key, _ in found:
                    connection = key.fileobj  # type: ignore[assignment]
                    if (status := answered(connection)) != 200:
                        raise WrongAnswerError(f"answered with {status}")
                    if not _next_sent(connection, waiting):
                        ready.unregister(connection)
            return time.perf_counter() - began

    return turn


def _next_sent(connection: socket.socket, waiting: Iterator[bytes]) -> bool:
    for each in waiting:
        connection.sendall(each)
        return True
    return False
