"""``indexrelay rebuilder``, ``reader`` and ``operator``: one role in the foreground.

It is what a container, a service unit or ``indexrelay up`` starts. SIGTERM and Ctrl-C stop it in
order; a second one changes nothing. A rebuilder that starts while the disk or the database is away
waits for it, as it does for Redis: a restart would change nothing. A reader needs no server of its
own: without a URL it finds the embedded one, also when that starts later.

SIGHUP has a role read its settings again (`indexrelay.console.settings_reload`). A rebuilder lets
its builds end, and begins again in the same process. So does an operator, duty by duty. A reader
loads everything a second time beside what answers, and changes over. It may be several processes at
one address, its workers: they are started again one after another, while the others answer.

Where a service manager started the process (``NOTIFY_SOCKET``), it hears when the role is ready,
that its loop turns, and that it stops. That is the loop itself, or the number of its turns.
"""

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Protocol, TypeVar

import typer

from indexrelay.console.commands import Config
from indexrelay.console.errors import ExitCode
from indexrelay.console.hangup import noting_hangup
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
from indexrelay.console.settings_reload import SettingsReload
from indexrelay.schemas.clock import Background, Clock, SystemClock, backoff_seconds
from indexrelay.schemas.loggers import LogOnce, get_logger
from indexrelay.schemas.settings import Settings
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.errors import is_transient

if TYPE_CHECKING:
    from indexrelay.operations.service import OperatorService
    from indexrelay.operations.systemd import ServiceManager
    from indexrelay.rebuilder.service import Rebuilder
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
_HANGS: Final = "a service manager that watches this process ends it and starts it again"
_HAND_OVER_SECONDS: Final = 10.0
"""How long an operator with other settings waits for the turns of the former duties."""
_BUILDS_RUN_LOOKS: Final = 2
"""A rebuilder that has not drained after so many looks has builds that run."""
_WAITS_FOR_BUILDS: Final = (
    "they are taken up once the builds that run have ended; a restart ends these instead"
)


def rebuilder(
    rebuilder_id: Annotated[
        str | None,
        typer.Option("--id", help="Stable across restarts; default: the host's name and a draw."),
    ] = None,
    config: Config = None,
) -> None:
    """Build what is due until SIGTERM or Ctrl-C."""
    with Installation.at(config, talkative=True) as installation:
        code = run_rebuilder(installation, rebuilder_id=rebuilder_id, config=config)
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
                    settings=installation.settings,
                    config=config,
                    insecure=insecure,
                    stop=stop,
                    manager=manager,
                )
            raise typer.Exit(code)
        with noting_hangup() as asked:
            serve(
                installation.settings,
                reader_id=reader_id,
                host=host,
                port=port,
                uds=uds,
                insecure=insecure,
                watcher=manager,
                reload=SettingsReload(installation.settings, config, asked=asked),
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
    settings: Settings,
    config: Path | None,
    insecure: bool,
    stop: Stop,
    manager: "ServiceManager | None" = None,
) -> ExitCode:
    """Keep so many workers on a socket that listens, until a signal comes."""
    from indexrelay.service.workers import WorkerBoard

    with ExitStack() as stack:
        asked = stack.enter_context(noting_hangup())
        reload = SettingsReload(settings, config, asked=asked)
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
            if reload.asked:
                new = reload.look()
                if manager is not None:
                    manager.say(reload.refused or "")
                if new is not None:
                    reload.take(new)
                if reload.refused is None:  # also the same ones: who sends SIGHUP wants new workers
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


def operator(config: Config = None) -> None:
    """Do what is done by the clock, such as scheduled rebuilds, until SIGTERM or Ctrl-C."""
    with Installation.at(config, talkative=True) as installation:
        code = run_operator(installation, config=config)
    raise typer.Exit(code)


def run_operator(installation: Installation, *, config: Path | None) -> ExitCode:
    """Have its duties done until a signal comes; the server may be away meanwhile."""
    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
        asked = stack.enter_context(noting_hangup())
        reload = SettingsReload(installation.settings, config, asked=asked)
        operator = OperatorProcess(reload, stop=stop, manager=service_manager())
        stack.callback(operator.close)
        go_on(installation, reload, stop=stop, opened=operator.opened, run=operator.run)
        return stop.role_exit_code


class OperatorProcess:
    """Runs one operator after another, each by the settings of its time.

    The turns of one end beside the next one: any number of operators may run.
    """

    def __init__(
        self, reload: SettingsReload, *, stop: Stop, manager: "ServiceManager | None"
    ) -> None:
        self._reload = reload
        self._stop = stop
        self._manager = manager
        self._former: list[tuple[OperatorService, Installation]] = []
        self._hanging = LogOnce()

    def opened(self, installation: Installation) -> "OperatorService | None":
        """One that is not started; ``None``: a signal came."""
        from indexrelay.operations.service import OperatorService

        catalog = awaited(
            lambda: installation.catalog,
            what="catalog",
            stop=self._stop,
            manager=self._manager,
            reload=self._reload,
        )
        if catalog is None:
            return None
        settings = installation.settings
        return OperatorService(
            settings,
            catalog=catalog,
            store=ArtifactStore.of(settings, may_be_away=True),
            settings_refused=lambda: self._reload.refused,
        )

    def run(self, installation: Installation, service: "OperatorService") -> Settings | None:
        """Run it until there are other settings to go on with; ``None``: a signal came."""
        self._former.append((service, installation))
        service.start()
        while not self._stop.wait(_LOOK_SECONDS):
            new = self._reload.look()
            if new is not None:
                self._hand_over(service)
                return new
            self._close_former()
            for sentence in self._hanging.new(dict.fromkeys(service.hanging, _HANGS)).values():
                log.error("operator.hangs", duties=[*service.hanging], consequence=sentence)
            if self._manager is not None and not service.hanging:
                self._manager.alive(ready=True)
                self._manager.say(self._reload.refused or "")
        return None

    def close(self) -> None:
        """Return when no duty runs any more."""
        if self._manager is not None:
            self._manager.stopping()
        for service, installation in self._former:
            service.stop()
            installation.close()

    def _hand_over(self, service: "OperatorService") -> None:
        """Begin no more turns of it, and wait for those that do not take long."""
        if self._manager is not None:
            self._manager.reloading()
        waits = round(_HAND_OVER_SECONDS / _WORKERS_LOOK_SECONDS)
        while not service.retire() and waits and not self._stop.wait(_WORKERS_LOOK_SECONDS):
            waits -= 1

    def _close_former(self) -> None:
        """Close those whose last turns have ended meanwhile."""
        for each in self._former[:-1]:
            service, installation = each
            if service.retire():
                installation.close()
                self._former.remove(each)


def run_rebuilder(
    installation: Installation, *, rebuilder_id: str | None, config: Path | None
) -> ExitCode:
    """Rebuild until a signal comes; without a Redis URL the embedded server runs meanwhile."""
    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
        asked = stack.enter_context(noting_hangup())
        manager, server = service_manager(), None
        if installation.settings.redis_url is None:
            server = KeptServer(installation.settings.data_dir, clock=SystemClock())
            stack.callback(server.stop)
            if awaited(server.start, what="server", stop=stop, manager=manager) is None:
                return stop.role_exit_code
        reload = SettingsReload(installation.settings, config, asked=asked)
        rebuilder = RebuilderProcess(
            reload, stop=stop, manager=manager, server=server, rebuilder_id=rebuilder_id
        )
        go_on(installation, reload, stop=stop, opened=rebuilder.opened, run=rebuilder.run)
        if manager is not None:
            manager.stopping()
        return stop.role_exit_code


class RebuilderProcess:
    """Runs one rebuilder after another, each by the settings of its time, under one id."""

    def __init__(
        self,
        reload: SettingsReload,
        *,
        stop: Stop,
        manager: "ServiceManager | None",
        server: KeptServer | None,
        rebuilder_id: str | None,
    ) -> None:
        self._reload = reload
        self._stop = stop
        self._manager = manager
        self._server = server
        self._id = rebuilder_id

    def opened(self, installation: Installation) -> "Rebuilder | None":
        """One that is not started; ``None``: a signal came."""
        from indexrelay.rebuilder.service import Rebuilder

        catalog = awaited(
            lambda: installation.catalog,
            what="catalog",
            stop=self._stop,
            manager=self._manager,
            reload=self._reload,
        )
        if catalog is None:
            return None
        settings = installation.settings
        return Rebuilder(
            settings,
            catalog=catalog,
            store=ArtifactStore.of(settings, may_be_away=True),
            connection=installation.connection,
            rebuilder_id=self._id,
        )

    def run(self, installation: Installation, rebuilder: "Rebuilder") -> Settings | None:
        """Run it until there are other settings to go on with; ``None``: a signal came."""
        self._id = rebuilder.id  # of the next one, too: what it has taken is its own then
        with ExitStack() as stack:
            stack.callback(installation.close)
            stack.callback(rebuilder.stop)
            rebuilder.start()
            if installation.settings.monitoring.rebuilder is not None:
                _answer_at_a_port(installation, stack, self._reload)
            return self._until_changed(rebuilder)

    def _until_changed(self, rebuilder: "Rebuilder") -> Settings | None:
        """Other settings to go on with, once the builds that run have ended."""
        new: Settings | None = None
        looks = 0
        while not self._stop.wait(_LOOK_SECONDS):
            if self._server is not None:
                self._server.look()
            later = self._reload.look(new)
            if later is not None:
                new, looks = later, 0
            rebuilder.note_settings(refused=self._reload.refused)
            if self._manager is not None:
                self._manager.alive(ready=rebuilder.ready, turns=rebuilder.turns)
                waits = "" if new is None else _WAITS_FOR_BUILDS
                self._manager.say(self._reload.refused or waits)
            if new is not None and rebuilder.drain():
                if self._manager is not None:
                    self._manager.reloading()
                return new
            looks += 1
            if new is not None and looks == _BUILDS_RUN_LOOKS:
                log.info("settings.wait_for_builds", advice=_WAITS_FOR_BUILDS)
        return None


def go_on(
    installation: Installation,
    reload: SettingsReload,
    *,
    stop: Stop,
    opened: Callable[[Installation], T | None],
    run: Callable[[Installation, T], Settings | None],
) -> None:
    """Run a role until a signal comes, each time by the settings that are read again.

    Args:
        installation: that of the settings that it was started with.
        opened: makes what runs, or raises where the settings do not allow it: then those before
            are gone on with. ``None``: a signal came. Nothing runs before `run`.
        run: runs it, and gives the settings to go on with; ``None``: a signal came. It closes the
            installation.

    Raises:
        Exception: what ``opened`` raises by the settings that the role was started with.
    """
    before: Settings | None = None
    while not stop.asked:
        settings = installation.settings
        try:
            role = opened(installation)
        except Exception as error:
            installation.close()
            if before is None:
                raise
            reload.refuse(error)
            new, before = before, None
        else:
            if role is None:
                installation.close()
                new = reload.look(settings) or settings
            else:
                if before is not None:
                    reload.take(settings)
                following, before = run(installation, role), settings
                if following is None:
                    return
                new = following
        installation = Installation(new)


def _answer_at_a_port(installation: Installation, stack: ExitStack, reload: SettingsReload) -> None:
    """Look at the installation beside the rebuilder, and say at its port how it is."""
    from indexrelay.operations.monitor import Monitor

    monitor = Monitor(
        installation.settings,
        catalog=installation.catalog,
        store=installation.store,
        connection=lambda: installation.connection,
        clock=SystemClock(),
        role="rebuilder",
        settings_refused=lambda: reload.refused,
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
    reload: SettingsReload | None = None,
) -> T | None:
    """What ``opening`` returns, as soon as it does; ``None``: a signal came first.

    With ``reload`` that may be SIGHUP: the settings may name another place by now.

    Raises:
        Exception: what waiting does not change, such as a URL that names no database.
    """
    failures = 0
    while not (stop.asked or (reload is not None and reload.asked)):
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
