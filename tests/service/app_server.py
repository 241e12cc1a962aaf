"""A web application behind a real server, on a thread of the test."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

from indexrelay.schemas.settings import HttpSettings
from indexrelay.service.connections import Connections
from indexrelay.service.server import address_of, listening

_START_SECONDS = 30.0


class _Server(uvicorn.Server):
    """Says when it has started, and ends at once; uvicorn looks ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.started_or_ended = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self.started_or_ended.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self._end.wait()

    def run(self, sockets: Any = None) -> None:
        try:
            super().run(sockets)
        finally:
            self.started_or_ended.set()

    def end(self) -> None:
        """Have it end; from another thread."""
        self.should_exit = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end.set)


def naming_its_protocol(listener: socket.socket) -> socket.socket:
    """The same socket. Else asyncio lets the packets of an answer wait for each other, for 40 ms,
    where no `Connections` see to it."""
    number = listener.detach()
    return socket.socket(listener.family, listener.type, socket.IPPROTO_TCP, fileno=number)


@contextmanager
def running(app: Any, limits: HttpSettings | None = None) -> Iterator[httpx.Client]:
    """A client of ``app``, which is started, lifespan and all, and stopped again.

    Args:
        app: the application.
        limits: of connections, as a reader guards them; ``None``: they are not guarded.
    """
    config = uvicorn.Config(app, log_config=None, access_log=False)
    if limits is not None:
        config.http = Connections(limits).protocol
    with listening("127.0.0.1", 0, None) as unnamed, naming_its_protocol(unnamed) as listener:
        server = _Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert server.started_or_ended.wait(_START_SECONDS)
            with httpx.Client(base_url=address_of(listener), trust_env=False) as client:
                yield client
        finally:
            server.end()
            thread.join()
