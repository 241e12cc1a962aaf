"""``indexrelay rebuilder``, ``reader`` and ``operator``: one role in the foreground.

It is what a container, a service unit or ``indexrelay up`` starts. SIGTERM and Ctrl-C stop it in
order; a second one changes nothing. A rebuilder that starts while the disk or the database is away
waits for it, as it does for Redis: a restart would change nothing. A reader needs no server of its
own: without a URL it finds the embedded one, also when that starts later.

A reader may be several processes at one address, its workers. SIGHUP starts them again one after
another, with the settings as they are then, while the others answer.

Where a service manager started the process (``NOTIFY_SOCKET``), it hears when the role is ready,
that its loop turns, and that it stops. That is the loop itself, or the number of its turns.
"""

import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Protocol, TypeVar

import typer

from indexrelay.components.registry import check_kind
from indexrelay.console.commands import Config
from indexrelay.console.errors import ExitCode
from indexrelay.console.installation import Installation
from indexrelay.console.processes import (
    KeptServer,
    RoleSettings,
    Stop,
    Supervised,
    Supervisor,
    WorkerSeat,
    worker_child,
)
from indexrelay.schemas.clock import Background, Clock, SystemClock, backoff_seconds
from indexrelay.schemas.errors import SettingsError
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import load_settings
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.errors import is_transient

if TYPE_CHECKING:
    from indexrelay.operations.systemd import ServiceManager
    from indexrelay.service.workers import WorkerBoard

log = get_logger(__name__)
T = TypeVar("T")

_LOOK_SECONDS: Final = 1.0
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 15.0
_WORKERS_LOOK_SECONDS: Final = 0.2
_GRACE_SECONDS: Final = 15.0
"""For a worker to answer what it was asked, and to leave; then it is killed."""
_READY_SECONDS: Final = 120.0
"""After which a worker that was started again counts as one that does not get ready."""


def rebuilder(
    rebuilder_id: Annotated[
        str | None,
        typer.Option("--id", help="Stable across restarts; default: the host's name and a draw."),
    ] = None,
    config: Config = None,
) -> None:
    """Build what is due until SIGTERM or Ctrl-C."""
    with Installation.at(config, talkative=True) as installation:
        code = run_rebuilder(installation, rebuilder_id=rebuilder_id)
    raise typer.Exit(code)


def reader(
    reader_id: Annotated[
        str, typer.Option("--id", help="Its label, stable across restarts; workers may share it.")
    ],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="The port.")] = None,
    uds: Annotated[
        Path | None, typer.Option(metavar="SOCKET", help="A unix socket instead of a port.")
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="Listen where other machines reach it, although there are no tokens."
        ),
    ] = False,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Processes that answer at this one address.")
    ] = 1,
    seat: Annotated[str | None, typer.Option(hidden=True)] = None,
    config: Config = None,
) -> None:
    """Serve what is released, over HTTP, until SIGTERM or Ctrl-C."""
    if seat is not None:
        with Installation.at(config, talkative=True) as installation:
            run_worker(
                installation.settings, WorkerSeat.of(seat), reader_id=reader_id, insecure=insecure
            )
        raise typer.Exit(ExitCode.SUCCESS)
    if (port is None) == (uds is None):
        raise typer.BadParameter("give exactly one of --port and --uds")
    with Installation.at(config, talkative=True) as installation:
        from indexrelay.service import serve
        from indexrelay.service.server import listening

        manager = service_manager()
        if workers > 1:
            insist = insecure or bool(installation.settings.http.tokens)
            with Stop() as stop, listening(host, port or 0, uds, insecure=insist) as listener:
                code = run_workers(
                    listener,
                    reader_id=reader_id,
                    count=workers,
                    config=config,
                    insecure=insecure,
                    stop=stop,
                    manager=manager,
                )
            raise typer.Exit(code)
        if uds is not None:
            serve(installation.settings, reader_id=reader_id, uds=uds, watcher=manager)
        else:
            serve(
                installation.settings,
                reader_id=reader_id,
                host=host,
                port=port,
                insecure=insecure,
                watcher=manager,
            )
    raise typer.Exit(ExitCode.SUCCESS)


def run_worker(settings: Settings, seat: WorkerSeat, *, reader_id: str, insecure: bool) -> None:
    """Be one of several workers, until SIGTERM."""
    from indexrelay.service import serve
    from indexrelay.service.workers import SharedListener, WorkerBoard, WorkerPlace

    board = WorkerBoard(seat.board)
    with board.held(seat.number):
        place = WorkerPlace(board, seat.number)
        with SharedListener.of(seat.listener, place) as listener:
            serve(settings, reader_id=reader_id, insecure=insecure, listener=listener, place=place)


def run_workers(
    listener: socket.socket,
    *,
    reader_id: str,
    count: int,
    config: Path | None,
    insecure: bool,
    stop: Stop,
    manager: "ServiceManager | None" = None,
) -> ExitCode:
    """Keep so many workers on a socket that listens, until a signal comes."""
    from indexrelay.service.workers import WorkerBoard

    with ExitStack() as stack:
        again = stack.enter_context(_noting_sighup())
        folder = Path(tempfile.mkdtemp(prefix="indexrelay-workers-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        shared = RoleSettings(config=config, environ=os.environ, logs=None)
        children = {
            number: worker_child(
                shared,
                reader_id,
                WorkerSeat(number=number, listener=listener.fileno(), board=folder),
                insecure=insecure,
            )
            for number in range(1, count + 1)
        }
        workers = Workers(children, WorkerBoard(folder), clock=SystemClock(), manager=manager)
        stack.callback(workers.stop)
        workers.start()
        while not stop.wait(_WORKERS_LOOK_SECONDS):
            failed = workers.look()
            if failed is not None:
                return failed
            if again.is_set():
                again.clear()
                if _are_right(config):
                    workers.restart_in_turn(stop)
        if manager is not None:
            manager.stopping()
        listener.close()  # the workers close theirs: nobody is let in who would not be answered
        return stop.role_exit_code


class Worker(Supervised, Protocol):
    """A worker as its parent has it: a `Child`."""

    @property
    def pid(self) -> int | None:
        """Its process id; ``None``: it does not run."""
        ...


class Workers:
    """The workers of one reader, as their parent keeps them; for one thread."""

    def __init__(
        self,
        children: Mapping[int, Worker],
        board: "WorkerBoard",
        *,
        clock: Clock,
        manager: "ServiceManager | None" = None,
    ) -> None:
        """Take them by number; ``board`` has what each says of itself."""
        self._manager = manager
        self._children = children
        self._board = board
        self._clock = clock
        self._supervisor = Supervisor([*children.values()], clock=clock)
        self._were_ready = False
        self._has_served = False

    def start(self) -> None:
        """Start all of them."""
        self._supervisor.start()

    def look(self) -> ExitCode | None:
        """Start again what has ended; what to end with where none of them ever gets ready."""
        ready = [number for number in self._children if self._is_ready(number)]
        self._has_served = self._has_served or bool(ready)
        if not self._has_served and any(
            each.exit_code == ExitCode.USAGE for each in self._children.values()
        ):
            return ExitCode.USAGE  # it has said what is wrong, and it would be the same again
        if len(ready) == len(self._children) and not self._were_ready:
            self._were_ready = True
            log.info("workers.ready", workers=len(ready))
        for number, child in self._children.items():
            if not child.running:
                self._board.forget_connections(number)
        self._supervisor.look()
        self._report()
        return None

    def restart_in_turn(self, stop: Stop) -> None:
        """Start each again once the one before is ready; the others answer meanwhile."""
        for number, child in self._children.items():
            log.info("worker.restarting", process=child.name)
            self._supervisor.restart(child, grace_seconds=_GRACE_SECONDS)
            self._board.forget_connections(number)  # it may have been killed while it ended
            until = self._clock.monotonic() + _READY_SECONDS
            while not self._is_ready(number):
                if stop.wait(_WORKERS_LOOK_SECONDS):
                    return
                if not child.running or self._clock.monotonic() >= until:
                    log.error(
                        "workers.not_restarted",
                        process=child.name,
                        exit_code=child.exit_code,
                        consequence="the workers after this one stay as they are",
                    )
                    return
                self._supervisor.look()
                self._report()

    def stop(self) -> None:
        """Stop all of them together, each once it has answered what it was asked."""
        self._supervisor.stop(grace_seconds=_GRACE_SECONDS)

    def _report(self) -> None:
        if self._manager is not None:
            self._manager.alive(ready=self._were_ready)

    def _is_ready(self, number: int) -> bool:
        pid = self._children[number].pid
        return pid is not None and self._board.is_ready(number, pid)


@contextmanager
def _noting_sighup() -> Iterator[threading.Event]:
    """An event that SIGHUP sets for the length of a ``with`` block."""
    asked = threading.Event()
    before = signal.signal(signal.SIGHUP, lambda _signal, _frame: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGHUP, before)


def _are_right(config: Path | None) -> bool:
    """Whether the settings can be started with, as they are now."""
    try:
        load_settings(config, check_kind=check_kind)
    except SettingsError as error:
        wrong = str(error)
    else:
        return True
    log.error("workers.not_restarted", error=wrong, consequence="they stay as they are")
    return False


def operator(config: Config = None) -> None:
    """Do what is done by the clock, such as scheduled rebuilds, until SIGTERM or Ctrl-C."""
    with Installation.at(config, talkative=True) as installation:
        code = run_operator(installation)
    raise typer.Exit(code)


def run_operator(installation: Installation) -> ExitCode:
    """Have its duties done until a signal comes; the server may be away meanwhile."""
    from indexrelay.operations.service import OperatorService

    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
        manager = service_manager()
        catalog = awaited(lambda: installation.catalog, what="catalog", stop=stop, manager=manager)
        if catalog is None:
            return stop.role_exit_code
        settings = installation.settings
        service = OperatorService(
            settings, catalog=catalog, store=ArtifactStore.of(settings, may_be_away=True)
        )
        stack.callback(service.stop)
        service.start()
        while not stop.wait(_LOOK_SECONDS):
            if manager is not None:
                manager.alive(ready=True)
        if manager is not None:
            manager.stopping()
        return stop.role_exit_code


def run_rebuilder(installation: Installation, *, rebuilder_id: str | None) -> ExitCode:
    """Rebuild until a signal comes; without a Redis URL the embedded server runs meanwhile."""
    from indexrelay.rebuilder.service import Rebuilder

    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
        manager, server = service_manager(), None
        if installation.settings.redis_url is None:
            server = KeptServer(installation.settings.data_dir, clock=SystemClock())
            stack.callback(server.stop)
            if awaited(server.start, what="server", stop=stop, manager=manager) is None:
                return stop.role_exit_code
        catalog = awaited(lambda: installation.catalog, what="catalog", stop=stop, manager=manager)
        if catalog is None:
            return stop.role_exit_code
        settings = installation.settings
        rebuilder = Rebuilder(
            settings,
            catalog=catalog,
            store=ArtifactStore.of(settings, may_be_away=True),
            connection=installation.connection,
            rebuilder_id=rebuilder_id,
        )
        stack.callback(rebuilder.stop)
        rebuilder.start()
        if settings.monitoring.rebuilder is not None:
            _answer_at_a_port(installation, stack)
        while not stop.wait(_LOOK_SECONDS):
            if server is not None:
                server.look()
            if manager is not None:
                manager.alive(ready=rebuilder.ready, turns=rebuilder.turns)
        if manager is not None:
            manager.stopping()
        return stop.role_exit_code


def _answer_at_a_port(installation: Installation, stack: ExitStack) -> None:
    """Look at the installation beside the rebuilder, and say at its port how it is."""
    from indexrelay.operations.monitor import Monitor

    monitor = Monitor(
        installation.settings,
        catalog=installation.catalog,
        store=installation.store,
        connection=lambda: installation.connection,
        clock=SystemClock(),
        role="rebuilder",
    )
    stack.callback(monitor.stop)
    looking = Background(monitor.turn, name="monitoring")
    stack.callback(looking.stop)
    looking.start()


def service_manager() -> "ServiceManager | None":
    """Who started this process and wants to hear of it; ``None``: nobody."""
    if "NOTIFY_SOCKET" not in os.environ:
        return None
    from indexrelay.operations.systemd import ServiceManager

    return ServiceManager.of(os.environ)


def awaited(
    opening: Callable[[], T],
    *,
    what: str,
    stop: Stop,
    manager: "ServiceManager | None" = None,
) -> T | None:
    """What ``opening`` returns, as soon as it does; ``None``: a signal came first.

    Raises:
        Exception: what waiting does not change, such as a URL that names no database.
    """
    failures = 0
    while not stop.asked:
        try:
            return opening()
        except Exception as error:
            # A folder that is not mounted, or a file in its place, is put right by a person.
            if not (isinstance(error, OSError) or is_transient(error)):
                raise
            failures += 1
            if manager is not None:
                manager.alive(ready=False)
            pause = backoff_seconds(
                failures, first=_FIRST_PAUSE_SECONDS, longest=_LONGEST_PAUSE_SECONDS, key=what
            )
            log.warning(
                "role.waiting",
                waits_for=what,
                error=f"{type(error).__name__}: {error}",
                again_in_seconds=round(pause, 3),
            )
            stop.wait(pause)
    return None
