"""The admin service: one process that looks at the installation, and answers people and the page.

It listens before anything else, so that its address is known; where other machines reach that, and
the settings name nobody who may log in, it does not start. Nothing here builds, releases or serves:
the service may be stopped, killed and started again at any moment, and pages that are open find it
again by themselves.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Final

import uvicorn

from indexrelay.admin.access import Access, PublicAddressError
from indexrelay.admin.app import MAX_BODY_BYTES, create_admin_app
from indexrelay.admin.backups import BackupWork
from indexrelay.admin.drift import DriftWatch
from indexrelay.admin.history import FILE_NAME, History
from indexrelay.admin.resources import AdminResources
from indexrelay.admin.state import StateWatch
from indexrelay.admin.stream import EventStream
from indexrelay.admin.version_cache import VersionCache
from indexrelay.operations.observer import Observation
from indexrelay.producers import Producer
from indexrelay.producers.events import JobConnection
from indexrelay.schemas.clock import Clock, SupervisedThread, SystemClock
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.settings import HttpSettings, Settings
from indexrelay.schemas.settings_file import let_import
from indexrelay.service.connections import ACCEPTED_AT_ONCE, Connections, fitting
from indexrelay.service.server import (
    GracefulServer,
    OpenAddressError,
    Watcher,
    address_of,
    is_local,
    listening,
)
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.audit import AuditLog
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection

_log = get_logger(__name__)

MAX_CONNECTIONS: Final = 250
"""Of browsers, which have six each besides their stream."""
_SHUTDOWN_SECONDS: Final = 5
"""How long running requests may take once it is to stop; then they are cut off."""


class AdminService:
    """Serves the admin API and its page. Once stopped it stays stopped."""

    def __init__(
        self,
        settings: Settings,
        *,
        catalog: Catalog,
        store: ArtifactStore,
        connection: Connection | None = None,
        clock: Clock | None = None,
        host: str | None = None,
        port: int | None = None,
        watcher: Watcher | None = None,
        settings_refused: Callable[[], str | None] = lambda: None,
    ) -> None:
        """What is passed in stays the caller's to close; nothing listens yet.

        Args:
            connection: to Redis; ``None``: opened by the settings when it is first needed.
            host: the address to listen on; ``None``: that of the settings.
            port: 0 for any that is free; ``None``: that of the settings.
            watcher: who is told that it turns; ``None``: nobody.
            settings_refused: why settings that were read again are refused; ``None``: they are not.

        Raises:
            CookieKeyError: the file of the key that sessions are signed with cannot be used.
        """
        let_import(settings)
        self._settings = settings
        self._clock = clock = clock or SystemClock()
        self._host = settings.admin.host if host is None else host
        self._port = settings.admin.port if port is None else port
        self._watcher = watcher
        self._stack = contextlib.ExitStack()
        self._connection = JobConnection(settings, connection)
        self._stack.callback(self._connection.close)
        self._producer = Producer(settings, catalog=catalog, connection=connection, clock=clock)
        self._stack.callback(self._producer.close)
        self._history = History(settings.data_dir / FILE_NAME, store=store, clock=clock)
        self._stack.callback(self._history.close)
        self._backups = BackupWork(settings, catalog=catalog, store=store, clock=clock)
        self._stack.callback(self._backups.stop)
        self._versions = VersionCache(store, definitions=settings.components, clock=clock)
        self._stack.callback(self._versions.close)
        self._drift = DriftWatch(
            settings,
            catalog=catalog,
            versions=self._versions,
            watched=lambda: self.state.watched,
        )
        self._stack.callback(self._drift.stop)
        self.events = EventStream(clock)
        self.state = StateWatch(
            settings,
            catalog=catalog,
            store=store,
            connection=self._connection.get,
            clock=clock,
            events=self.events,
            drift=self._drift.of,
            noting=self._note,
            settings_refused=settings_refused,
        )
        self._catalog, self._store = catalog, store
        self._listener: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._stopped = False

    @property
    def address(self) -> str:
        """Where the page is: ``http://127.0.0.1:8090``; empty before `start`."""
        return "" if self._listener is None else address_of(self._listener)

    def start(self) -> None:
        """Listen, look, and answer, on threads of its own; safe twice, and nothing once stopped.

        Raises:
            PublicAddressError: other machines reach the address, and nobody may log in.
            OSError: it cannot listen there.
        """
        if self._listener is None and not self._stopped:
            server, listener = self._prepare()
            self._thread = SupervisedThread(
                lambda: server.run(sockets=[listener]), name="indexrelay-admin", wait=None
            )
            self._thread.start()

    def stop(self) -> None:
        """End every stream and answer, and return when nothing runs any more; safe twice and before
        `start`."""
        self._stopped = True
        self.events.close()
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()
        self.state.stop()
        self._stack.close()

    def _note(self, seen: Observation) -> None:
        """What is done with each look, by its thread."""
        self._history.add(seen)
        self._versions.tidy()

    def _prepare(self) -> tuple[uvicorn.Server, socket.socket]:
        settings, clock = self._settings, self._clock
        may_be_public = not settings.admin.open
        try:
            listener = self._stack.enter_context(
                listening(self._host, self._port, None, insecure=may_be_public)
            )
        except OpenAddressError as error:
            raise PublicAddressError(error.address) from None
        self._listener, local = listener, is_local(listener)
        audit = AuditLog.of(settings, clock=clock)
        access = Access(settings, clock=clock, audit=audit, is_local=local)
        resources = AdminResources(
            settings=settings,
            catalog=self._catalog,
            store=self._store,
            connection=self._connection,
            producer=self._producer,
            clock=clock,
            audit=audit,
            access=access,
            state=self.state,
            events=self.events,
            versions=self._versions,
            history=self._history,
            backups=self._backups,
        )
        limits = fitting(
            HttpSettings(max_connections=MAX_CONNECTIONS, max_body_bytes=MAX_BODY_BYTES)
        )

        async def report() -> None:
            if self._watcher is not None:
                self._watcher.alive(ready=self.state.look() is not None and not self.state.late)

        config = uvicorn.Config(
            create_admin_app(resources),
            http=Connections(limits).protocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=ACCEPTED_AT_ONCE,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            callback_notify=None if self._watcher is None else report,
            timeout_notify=1,
        )
        # Streams end first: a request that never ends would be waited for until it is cut off.
        server = GracefulServer(config, self._watcher, draining=self.events.close)
        self._server = server
        self.state.start()
        self._drift.start()
        _log.info("admin.listening", address=self.address, open=settings.admin.open)
        return server, listener
