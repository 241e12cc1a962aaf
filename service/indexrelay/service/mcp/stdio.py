"""MCP over stdin and stdout: one program started this process, and talks to it line by line.

Stdout carries the protocol and nothing else: whoever calls `serve_stdio` has put it aside
(`indexrelay.console.terminal.ANSWERS`), so that what a module of the user's prints goes to stderr,
where the log is. Stdin is put aside here: a child process must not read what is meant for us.

Blocking reads and writes run on daemon threads, which hold nothing that Python needs to end: a
process that is told to end does so while its parent neither writes nor reads.
"""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, TypeVar

from mcp.server.stdio import stdio_server

from indexrelay.reloaders import Reloader
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.settings import Settings
from indexrelay.service.app import create_app
from indexrelay.service.mcp.api import Api, within
from indexrelay.service.mcp.server import mcp_server

log = get_logger(__name__)
T = TypeVar("T")

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""Several times what the API takes as a body; one that is longer ends the connection."""
_CHUNK_BYTES: Final = 64 * 1024


def serve_installation(
    settings: Settings, *, reader_id: str | None, with_writes: bool, output: int
) -> None:
    """Be a reader of an installation, for the program that started this process, until it ends.

    Args:
        settings: the installation.
        reader_id: see `Reloader`.
        with_writes: whether the tools that write are there.
        output: the descriptor of stdout.
    """
    reloader = Reloader(settings, reader_id=reader_id)
    # Whoever started this process may do what its user may: no token is asked for.
    limits = settings.http.model_copy(update={"tokens": {}, "writes": with_writes, "mcp": False})
    app = create_app(reloader, limits, slow_query_ms=settings.reader.slow_query_ms)

    async def serve() -> None:
        # The first call then has an answer, as far as there is one.
        await asyncio.to_thread(reloader.step)
        async with app.router.lifespan_context(app):
            await _served(Api(within(app)), with_writes=with_writes, output=output)

    asyncio.run(serve())


def serve_reader(address: str, *, token: str | None, with_writes: bool, output: int) -> None:
    """Pass on to a reader that runs what the program asks that started this process.

    Args:
        address: of the reader: ``http://HOST:PORT``, ``https://HOST`` or ``unix:/PATH``.
        token: an access token, where it asks for one.
        with_writes: whether the tools that write are there; the reader decides what comes of it.
        output: the descriptor of stdout.

    Raises:
        ReaderError: this is no address, or no token.
    """
    api = Api.of_reader(address, token)

    async def serve() -> None:
        try:
            await _served(api, with_writes=with_writes, output=output)
        finally:
            await api.close()

    asyncio.run(serve())


async def _served(api: Api, *, with_writes: bool, output: int) -> None:
    """Answer until stdin ends, or a signal comes."""
    server = mcp_server(
        api_of=lambda _context: api, may_write=lambda _context: True, with_writes=with_writes
    )

    async def serve(descriptor: int) -> None:
        incoming: Any = Lines(descriptor)
        outgoing: Any = Output(output)
        async with stdio_server(incoming, outgoing) as (read, write):
            await server.run(read, write, server.create_initialization_options())

    loop = asyncio.get_running_loop()
    with _stdin_aside() as descriptor:
        serving = asyncio.ensure_future(serve(descriptor))
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, serving.cancel)
        log.info("mcp.started", writes=with_writes)
        try:
            await serving
        except asyncio.CancelledError:
            if not serving.cancelled():
                raise  # it was not a signal
        finally:
            for each in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(each)
            log.info("mcp.stopped")


class Lines:
    """The lines that come in."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def __aiter__(self) -> AsyncIterator[str]:
        held, whole = bytearray(), list[bytearray]()
        while chunk := await _on_daemon_thread(lambda: os.read(self._descriptor, _CHUNK_BYTES)):
            held += chunk
            whole = []
            if b"\n" in chunk:
                *whole, held = held.split(b"\n")
            if any(len(line) > MAX_LINE_BYTES for line in (*whole, held)):
                log.error("mcp.line_too_long", most=MAX_LINE_BYTES)
                return
            for line in whole:
                yield line.decode("utf-8", errors="replace")


class Output:
    """Where messages go; nothing is held back, so there is nothing to flush at the end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def write(self, text: str) -> None:
        """Write it whole."""
        await _on_daemon_thread(lambda: self._write(text.encode()))

    async def flush(self) -> None:
        """Nothing is left to write."""

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]


@contextlib.contextmanager
def _stdin_aside() -> Iterator[int]:
    """A descriptor of what is stdin now, which leads nowhere meanwhile."""
    aside, nowhere = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    try:
        yield aside
    finally:
        os.dup2(aside, 0)  # a thread may read there still, so that one is not closed


def _on_daemon_thread(call: Callable[[], T]) -> "asyncio.Future[T]":
    """What ``call`` gives; a thread that does not come back keeps nobody from ending."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            value = call()
        except Exception as error:  # noqa: BLE001 - it is raised where it is awaited
            settle(found.set_exception, error)
        else:
            settle(found.set_result, value)

    def settle(how: Callable[[Any], None], outcome: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(lambda: None if found.done() else how(outcome))

    threading.Thread(target=run, daemon=True).start()
    return found
