"""What somebody with HTTP access alone may send; an attack holds its connections while it runs."""

import contextlib
import json
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from tests.security.reader_service import DIMENSION, Service, answered, message

SEARCH = "POST /v1/components/similar/search"
MANY_KEYS = json.dumps({f"{n:x}": 0 for n in range(170_000)}, separators=(",", ":")).encode()
"""2 MB of keys that no request has."""
LARGEST = json.dumps({"vector": [0.1234567890123] * DIMENSION, "k": 1000}).encode()
DEEP = b'{"vector": ' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}"

_CHUNKED = (
    f"{SEARCH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    "transfer-encoding: chunked\r\n\r\n"
).encode()
SMALL_CHUNKS = _CHUNKED + (b"40\r\n" + b" " * 64 + b"\r\n") * 25_000
"""A body of 1.6 MB in chunks of 64 bytes, whose end never comes."""
UNFINISHED = message(SEARCH, b" " * 2_000_000)[:-1]
"""A body of 2 MB without its last byte."""

Attack = Callable[[Service, ExitStack, int], None]
"""Makes so many connections, and leaves them to the stack."""
COUNTS = {"unknown_keys": 8, "deep": 8, "unread": 300, "small_chunks": 50, "unfinished": 100}
DEFAULT_COUNT = 600


def _held(service: Service, stack: ExitStack, sent: bytes) -> socket.socket | None:
    """A connection on which something was sent, kept open; ``None`` where it was refused."""
    with contextlib.suppress(OSError):
        connection = stack.enter_context(service.connect(timeout=2))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(sent)
        return connection
    return None


def half_headers(service: Service, stack: ExitStack, count: int) -> None:
    """Requests that end in the middle of a header."""
    for _ in range(count):
        _held(service, stack, b"GET /ready HTTP/1.1\r\nhost: localhost\r\nx-slow: ")


def half_bodies(service: Service, stack: ExitStack, count: int) -> None:
    """Bodies of which a part never comes."""
    sent = message(SEARCH, LARGEST)
    for _ in range(count):
        _held(service, stack, sent[:-100])


def silent(service: Service, stack: ExitStack, count: int) -> None:
    """Connections on which nothing is said."""
    for _ in range(count):
        _held(service, stack, b"")


def unknown_keys(service: Service, stack: ExitStack, count: int) -> None:
    """Bodies of 170,000 unknown keys, whose answers are not read."""
    for _ in range(count):
        _held(service, stack, message(SEARCH, MANY_KEYS))


def deep(service: Service, stack: ExitStack, count: int) -> None:
    """Bodies that are nested a million times."""
    for _ in range(count):
        _held(service, stack, message(SEARCH, DEEP))


def unread(service: Service, stack: ExitStack, count: int) -> None:
    """Largest answers, several on each connection, that are not read."""
    for _ in range(count):
        _held(service, stack, 4 * message(SEARCH, LARGEST))


def small_chunks(service: Service, stack: ExitStack, count: int) -> None:
    """Bodies in chunks of 64 bytes, as fast as they are taken."""
    stack.enter_context(flooding(SMALL_CHUNKS, service, count))


def unfinished(service: Service, stack: ExitStack, count: int) -> None:
    """Bodies of 2 MB whose last byte never comes, as fast as they are taken."""
    stack.enter_context(flooding(UNFINISHED, service, count))


ATTACKS: dict[str, Attack] = {
    attack.__name__: attack
    for attack in (
        *(half_headers, half_bodies, silent, unknown_keys, deep, unread),
        *(small_chunks, unfinished),
    )
}


@contextlib.contextmanager
def attacking(attack: Attack, service: Service, count: int) -> Iterator[None]:
    """``attack`` was made, and goes on until the body ends."""
    with ExitStack() as stack:
        attack(service, stack, count)
        yield


class _Flood:
    """``sent`` comes on so many connections as fast as it is taken, again where one is ended."""

    def __init__(self, sent: bytes, port: int, count: int) -> None:
        self._sent = sent
        self._port = port
        self._count = count
        self._selector = selectors.DefaultSelector()

    def run(self, done: threading.Event) -> None:
        with self._selector:
            for _ in range(self._count):
                self._open()
            while not done.is_set():
                for key, events in self._selector.select(0.1):
                    self._go_on(key, events)
            for key in list(self._selector.get_map().values()):
                key.data.connection.close()

    def _open(self) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(("127.0.0.1", self._port))
        both = selectors.EVENT_READ | selectors.EVENT_WRITE
        self._selector.register(connection, both, _Sending(connection))

    def _go_on(self, key: selectors.SelectorKey, events: int) -> None:
        sending: _Sending = key.data
        connection = sending.connection
        try:
            if events & selectors.EVENT_READ and not connection.recv(1 << 16):
                raise ConnectionResetError
            if events & selectors.EVENT_WRITE:
                sending.at += connection.send(self._sent[sending.at : sending.at + (1 << 16)])
            if sending.at == len(self._sent):
                self._selector.modify(connection, selectors.EVENT_READ, sending)
        except BlockingIOError:
            return
        except OSError:
            self._selector.unregister(connection)
            connection.close()
            self._open()


@dataclass
class _Sending:
    connection: socket.socket
    at: int = 0


@contextlib.contextmanager
def flooding(sent: bytes, service: Service, count: int) -> Iterator[None]:
    """A flood of ``sent`` goes on until the body ends."""
    done = threading.Event()
    thread = threading.Thread(target=_Flood(sent, service.port, count).run, args=(done,))
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def answer_to(service: Service, body: bytes) -> tuple[int, bytes]:
    """What a search is answered."""
    with service.connect() as connection:
        connection.sendall(message(SEARCH, body, close=True))
        return answered(connection)
