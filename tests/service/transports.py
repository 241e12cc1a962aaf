"""Connections without sockets: what is written stays until the test says that it was read."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from indexrelay.schemas.settings import HttpSettings
from indexrelay.service.connections import Connections, GuardedConnection

HIGH_WATER = 64 * 1024


class HeldTransport(asyncio.Transport):
    """Keeps what is written, up to when it is read or closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.unread = 0
        self.reads = False
        self.closed = False
        self.aborted = False
        self.paused = False
        self.protocol: GuardedConnection | None = None

    def write(self, data: Any) -> None:
        self.written += data
        if self.reads:
            return
        self.unread += len(data)
        if self.unread > HIGH_WATER and self.protocol is not None:
            self.protocol.pause_writing()

    def read(self) -> None:
        """The client reads what has come."""
        self.unread = 0
        if self.protocol is not None:
            self.protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        return self.unread

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ARG002 - asyncio's
        return default

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True
        if self.protocol is not None:
            self.protocol.connection_lost(ConnectionAbortedError())

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Service:
    """Connections to one application, and a clock that a test moves."""

    def __init__(
        self, app: Callable[..., Awaitable[None]], *, most: int = 3, **limits: Any
    ) -> None:
        self.now = 0.0
        settings = HttpSettings(max_connections=most, **limits)
        self.connections = Connections(settings, now=lambda: self.now)
        self._config = uvicorn.Config(app, http=self.connections.protocol, log_config=None)
        self._config.load()
        self._state = ServerState()

    def connect(self, *, reads: bool = True) -> HeldTransport:
        """A new connection; ``reads``: whether its client reads at once."""
        made: Any = self._config.http_protocol_class
        protocol = made(config=self._config, server_state=self._state, app_state={})
        transport = HeldTransport()
        transport.reads, transport.protocol = reads, protocol
        protocol.connection_made(transport)
        return transport

    async def settle(self) -> None:
        """Let the application do what it can."""
        for _ in range(20):
            await asyncio.sleep(0)


def receive(transport: HeldTransport, data: bytes) -> None:
    """Bytes of the client."""
    assert transport.protocol is not None
    transport.protocol.data_received(data)


def status(transport: HeldTransport) -> int:
    """The status of the last answer."""
    return int(bytes(transport.written).rpartition(b"HTTP/1.1 ")[2].split(b" ")[0])
