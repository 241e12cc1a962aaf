"""The reader as a process of its own: its socket, its server, and how it ends.

The socket is bound before anything else, so that its address is known and can be published. Where
other machines reach it nothing listens, unless the settings name tokens or the caller insists:
without a token the service does not ask its clients who they are.
"""

import contextlib
import ipaddress
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import uvicorn

from indexrelay.reloaders import Reloader
from indexrelay.schemas import commands
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.settings import Settings
from indexrelay.service.app import create_app
from indexrelay.service.connections import (
    ACCEPTED_AT_ONCE,
    Connections,
    fitting,
    give_large_memory_back_at_once,
)
from indexrelay.service.replacement import ReplaceableApp, Served, SettingsSource
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.streams import Connection
from indexrelay.streams.presence import host_name

if TYPE_CHECKING:
    from indexrelay.service.workers import WorkerPlace

log = get_logger(__name__)

_SHUTDOWN_SECONDS: Final = 5
"""How long running requests may take after a signal; then they are cut off."""
_BACKLOG: Final = 128
"""Connections that the kernel keeps until they are taken."""
_EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - recognised here, not bound to


_ALIVE_SECONDS: Final = 1
"""How often the event loop reports to whoever watches it."""


class Watcher(Protocol):
    """Whoever starts the process, and ends it where its event loop hangs; called by that loop."""

    def alive(self, *, ready: bool) -> None:
        """The loop turns; ``ready``: every required component is served. It may not block."""
        ...

    def reloading(self) -> None:
        """It begins to go on with other settings; it answers meanwhile."""
        ...

    def say(self, sentence: str) -> None:
        """What a person should know of it; empty: nothing."""
        ...

    def stopping(self) -> None:
        """It stops now."""
        ...


class OpenAddressError(IndexRelayError):
    """Raised when the service is to listen where other machines reach it, the settings name no
    token, and ``insecure`` does not say that they may."""

    is_misuse = True

    def __init__(self, address: str) -> None:
        super().__init__(
            f"{address} is reached from other machines, and whoever reaches it may search and read "
            f"every document: make a token ({commands.GENERATE_TOKEN}), listen on 127.0.0.1 or a "
            "unix socket, behind a proxy that asks who it is, or insist with --insecure"
        )
        self.address = address


def serve(
    settings: Settings,
    *,
    reader_id: str | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    uds: Path | None = None,
    insecure: bool = False,
    address: str | None = None,
    store: ArtifactStore | None = None,
    connection: Connection | None = None,
    listener: socket.socket | None = None,
    place: "WorkerPlace | None" = None,
    watcher: Watcher | None = None,
    reload: SettingsSource | None = None,
) -> None:
    """Run the service until SIGTERM or SIGINT, in the foreground.

    Args:
        settings: the installation.
        reader_id: its name; see `Reloader`.
        host: the address to listen on.
        port: the port to listen on; ``None`` or 0: a free one.
        uds: a unix socket to listen on instead.
        insecure: listen where other machines may ask, too, although the settings name no token
            and clients are not asked who they are.
        address: where others find it, for its presence; ``None``: as it listens, with this
            machine's name where it listens everywhere.
        store: see `Reloader`.
        connection: see `Reloader`.
        listener: a socket that listens already, instead of ``host``, ``port`` and ``uds``.
        place: of this process among the workers that take connections from ``listener``; ``None``:
            there are no others.
        watcher: who is told that it turns; ``None``: nobody.
        reload: who reads the settings again when the process is asked to; ``None``: nobody.

    Raises:
        OpenAddressError: other machines reach the address, there are no tokens, and ``insecure``
            does not say that they may.
        OSError: it cannot listen there.
        KeyboardInterrupt: SIGINT came, once everything has been stopped.
    """
    give_large_memory_back_at_once()
    may_be_open = insecure or bool(settings.http.tokens)
    with contextlib.ExitStack() as stack:
        if listener is None:
            listener = stack.enter_context(
                listening(host, port or 0, uds, backlog=_BACKLOG, insecure=may_be_open)
            )
        limits = fitting(settings.http)
        connections = Connections(
            limits, counted=None if place is None else place.count_connections
        )
        service = _Service(
            listener, insecure=insecure, place=place, reader_id=reader_id, address=address
        )
        served = service.by(settings, store=store, connection=connection)
        answering: ReplaceableApp | None = None
        if reload is not None:
            answering = ReplaceableApp(
                served,
                make=service.by,
                switched=lambda new: connections.take_limits(fitting(new.http)),
            )

        renews = False

        async def report() -> None:
            nonlocal renews
            now = served
            if answering is not None and reload is not None:
                answering.look(reload)
                before, renews, now = renews, answering.renews, answering.served
                if watcher is not None:
                    watcher.say(reload.refused or "")
                    if renews and not before:
                        watcher.reloading()
            if watcher is not None:
                watcher.alive(ready=now.reloader.ready and not renews)

        config = uvicorn.Config(
            served.app if answering is None else answering,
            http=connections.protocol,
            ws="none",
            loop="asyncio",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            # One of several takes one connection, and leaves the next to whoever is free.
            backlog=ACCEPTED_AT_ONCE if place is None else 1,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            callback_notify=None if watcher is None and reload is None else report,
            timeout_notify=_ALIVE_SECONDS,
        )
        if not is_local(listener):
            _warn_of_open(listener, with_tokens=bool(settings.http.tokens))
        try:
            with _returning_on_sigterm():
                draining = None if place is None else place.drain
                GracefulServer(config, watcher, draining=draining).run(sockets=[listener])
        finally:
            # Also where requests did not end in time, and the lifespan did not.
            (served if answering is None else answering.served).reloader.stop()


class _Service:
    """What every application of one process has in common, whatever its settings are."""

    def __init__(
        self,
        listener: socket.socket,
        *,
        insecure: bool,
        place: "WorkerPlace | None",
        reader_id: str | None,
        address: str | None,
    ) -> None:
        self._listener = listener
        self._insecure = insecure
        self._place = place
        self._reader_id = reader_id
        self._address = address or address_of(listener)

    def by(
        self,
        settings: Settings,
        *,
        store: ArtifactStore | None = None,
        connection: Connection | None = None,
    ) -> Served:
        """The application by these settings; nothing is started yet.

        Raises:
            OpenAddressError: other machines reach the address, there are no tokens, and
                ``insecure`` does not say that they may.
        """
        local = is_local(self._listener)
        if not (local or self._insecure or settings.http.tokens):
            raise OpenAddressError(address_of(self._listener))
        reloader = Reloader(
            settings,
            reader_id=self._reader_id,
            store=store,
            connection=connection,
            address=self._address,
        )
        app = create_app(
            reloader,
            fitting(settings.http),
            is_local=local and self._listener.family != socket.AF_UNIX,
            slow_query_ms=settings.reader.slow_query_ms,
            place=self._place,
        )
        return Served(app, reloader)


def _warn_of_open(listener: socket.socket, *, with_tokens: bool) -> None:
    """Log what it means that other machines reach it."""
    if with_tokens:
        log.warning(
            "reader.tokens_in_the_clear",
            address=address_of(listener),
            consequence="whoever sees the traffic sees the tokens",
            advice="put a proxy in front of it that speaks TLS",
        )
        return
    log.warning(
        "reader.open_to_the_network",
        address=address_of(listener),
        consequence="whoever reaches it may search, and read every document",
        advice="make a token, or let it listen on 127.0.0.1 or a unix socket, behind a proxy that "
        "asks who it is",
    )


class GracefulServer(uvicorn.Server):
    """Takes a few connections in a turn of its loop, while the kernel keeps more.

    asyncio knows one number for both, and listens once more with it.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        watcher: Watcher | None,
        *,
        draining: Callable[[], None] | None = None,
    ) -> None:
        """``draining`` is called before what was asked is waited for, and no more is taken."""
        super().__init__(config)
        self._draining = draining
        self._watcher = watcher

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Report that it stops, and stop."""
        if self._watcher is not None:
            self._watcher.stopping()
        if self._draining is not None:
            self._draining()
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and listen as before."""
        await super().startup(sockets)
        for each in sockets or ():
            each.listen(_BACKLOG)


@contextlib.contextmanager
def _returning_on_sigterm() -> Iterator[None]:
    """Return on SIGTERM.

    uvicorn raises a signal again when it has shut down, and by default SIGTERM would then end the
    process as if it had been killed, although it ended in order.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals come to the main thread only
        return
    before = signal.signal(signal.SIGTERM, lambda _signal, _frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def listening(
    host: str, port: int, uds: Path | None, *, backlog: int = 128, insecure: bool = False
) -> Iterator[socket.socket]:
    """A listening socket; a unix socket's file is removed with it.

    Args:
        host: the address, if ``uds`` is ``None``.
        port: 0 for a free one.
        uds: a path for a unix socket.
        backlog: connections that wait to be taken.
        insecure: whether other machines may reach it.

    Raises:
        OpenAddressError: they would, and may not; nothing listens then.
        OSError: the address cannot be had, or another process answers there.
    """
    if uds is None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((host, port))
            if not (insecure or is_local(listener)):  # as it is bound: a name may be any address
                raise OpenAddressError(address_of(listener))
            listener.listen(backlog)
            yield listener
        return
    _remove_stale(uds)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(uds))
        try:
            listener.listen(backlog)
            yield listener
        finally:
            uds.unlink(missing_ok=True)


def is_local(listener: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    if listener.family == socket.AF_UNIX:
        return True
    address = ipaddress.ip_address(listener.getsockname()[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def address_of(listener: socket.socket) -> str:
    """Where others find it: ``http://HOST:PORT`` or ``unix:/PATH``."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{Path(name).absolute()}"
    host, port = name[:2]
    if host in _EVERYWHERE:
        host = host_name()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _remove_stale(uds: Path) -> None:
    """Remove the socket file of a killed process; where one answers, `bind` fails."""
    try:
        if not stat.S_ISSOCK(uds.lstat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(uds))
        except ConnectionRefusedError:
            uds.unlink(missing_ok=True)
