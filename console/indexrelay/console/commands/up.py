"""``indexrelay up``: all roles on one machine, each in a process of its own, and the server.

A rebuilder, readers, the admin page, and an operator where the settings give it something to do.
They start in the order in which they need each other, stop in the reverse order, and are started
again when they die. SIGHUP has all of them read their settings again, unless these are wrong.
On a terminal the state of the installation is redrawn every second; without one the log lines of
all processes go to stderr. A lock on the data folder refuses a second `up`.
"""

import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from indexrelay.console.commands import Config
from indexrelay.console.commands.status import verdict_page
from indexrelay.console.errors import CommandError, ExitCode, explain
from indexrelay.console.hangup import noting_hangup
from indexrelay.console.installation import Installation, verdict_of
from indexrelay.console.processes import (
    REDIS_URL,
    Child,
    KeptServer,
    RoleSettings,
    Stop,
    Supervisor,
    admin_child,
    free_port,
    operator_child,
    reader_child,
    rebuilder_child,
    socket_folder,
)
from indexrelay.console.settings_reload import SettingsReload
from indexrelay.console.terminal import note, stderr, visible_lines
from indexrelay.schemas import commands
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.files import make_private_folder, open_private
from indexrelay.schemas.monitoring import is_loopback
from indexrelay.schemas.settings import Settings

_LOOK_SECONDS: Final = 0.2
_REDRAW_SECONDS: Final = 1.0
_GRACE_SECONDS: Final = 15.0
"""Longer than a blocking read and the end of a build; then a child is killed."""
_LOCK_FILE: Final = "up.pid"


def up(
    readers: Annotated[int, typer.Option(min=0, max=64, help="How many readers; 0: none.")] = 2,
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65000, help="The first reader's port; otherwise they use unix sockets."
        ),
    ] = None,
    admin: Annotated[
        bool, typer.Option("--admin/--no-admin", help="Whether to serve the admin page.")
    ] = True,
    config: Config = None,
) -> None:
    """Run the server (unless a URL is given), a rebuilder, readers and the admin page; stop them
    all at the end."""
    raise typer.Exit(run_everything(config, readers=readers, port=port, admin=admin))


def run_everything(
    config: Path | None, *, readers: int, port: int | None, admin: bool = True
) -> ExitCode:
    """Start all, supervise them until a signal comes, stop all.

    Raises:
        SettingsError: the settings are wrong, or there are none.
        CommandError: another one runs on the same data folder.
        NoServerError, ServerStartError: there is no server, and none can be started.
    """
    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
        asked = stack.enter_context(noting_hangup())
        live = sys.stderr.isatty()
        installation = stack.enter_context(Installation.at(config, talkative=not live))
        settings = installation.settings
        stack.enter_context(sole_owner(settings.data_dir))
        url, server = settings.redis_url, None
        if url is None:
            server = KeptServer(settings.data_dir, clock=SystemClock())
            stack.callback(server.stop)
            url = server.start()
        shared = RoleSettings(
            config=config,
            environ={**os.environ, REDIS_URL: url},
            logs=settings.data_dir / "logs" if live else None,
        )
        sockets = socket_folder(settings.data_dir)
        if settings.data_dir not in sockets.parents:
            stack.callback(shutil.rmtree, sockets, ignore_errors=True)
        roles = Roles(
            shared,
            [
                reader_child(
                    shared,
                    f"reader-{number}",
                    socket=sockets / f"reader-{number}.sock" if port is None else None,
                    port=None if port is None else port + number - 1,
                )
                for number in range(1, readers + 1)
            ],
            SettingsReload(settings, config, asked=asked, sets_up_logs=not live),
            admin_port=admin_port_of(settings) if admin else None,
        )
        stack.callback(roles.stop)
        roles.start()
        operators = ", 1 operator" if settings.has_duties else ""
        note(
            f"up: 1 rebuilder{operators}, {readers} reader(s), data in {settings.data_dir}; "
            "Ctrl-C stops"
        )
        if roles.admin_address is not None:
            note(f"admin page: {roles.admin_address}")

        def look() -> None:
            if server is not None:
                server.look()
            roles.look()

        if live:
            _watch_live(roles, look, stop)
        else:
            while not stop.wait(_LOOK_SECONDS):
                look()
        note("stopping")
        return stop.role_exit_code


class Roles:
    """The processes of one machine, by the settings of now."""

    def __init__(
        self,
        shared: RoleSettings,
        readers: Sequence[Child],
        reload: SettingsReload,
        *,
        admin_port: int | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            admin_port: of the admin page; ``None``: there is none.
        """
        self.reload = reload
        self._rebuilder, self._operator = rebuilder_child(shared), operator_child(shared)
        self._others = list(readers)
        self.admin_address: str | None = None
        """Where the admin page is; ``None``: there is none."""
        first = [self._rebuilder, *([self._operator] if reload.settings.has_duties else [])]
        if admin_port is not None:
            host = reload.settings.admin.host
            self.admin_address = f"http://{f'[{host}]' if ':' in host else host}:{admin_port}"
            first.append(admin_child(shared, port=admin_port))
            self._others.append(first[-1])
        self._supervisor = Supervisor(first, readers, clock=SystemClock())

    def start(self) -> None:
        """Start all of them."""
        self._supervisor.start()

    def look(self) -> None:
        """Start again what has ended, and take up other settings once SIGHUP came."""
        self._supervisor.look()
        new = self.reload.look()
        if new is None:
            return
        had_duties = self.reload.settings.has_duties
        self.reload.take(new)
        for child in (self._rebuilder, *self._others, *([self._operator] if had_duties else [])):
            child.hang_up()
        if new.has_duties and not had_duties:
            self._supervisor.add(self._operator)
        elif had_duties and not new.has_duties:
            self._supervisor.drop(self._operator, grace_seconds=_GRACE_SECONDS)

    def stop(self) -> None:
        """Stop all of them, the readers first."""
        self._supervisor.stop(grace_seconds=_GRACE_SECONDS)


def admin_port_of(settings: Settings) -> int:
    """The port of the admin page; where the settings say nothing of it, one that is free.

    Raises:
        CommandError: other machines would reach it, and nobody may log in.
        OSError: the address is none of this machine.
    """
    wanted = settings.admin
    if wanted.open and not is_loopback(wanted.host):
        raise CommandError(
            f"the admin page is to listen at {wanted.host}, which other machines reach, and the "
            f"settings name nobody who may log in: name a user in [admin.users.NAME] "
            f"({commands.ADMIN_PASSWORD} makes the hash), or leave it out with --no-admin"
        )
    return wanted.port if settings.has_admin else free_port(wanted.host, wanted.port)


@contextmanager
def sole_owner(data_dir: Path) -> Iterator[None]:
    """Own ``data_dir``, which is made when it is missing, for the length of a ``with`` block.

    Two of ``indexrelay up`` on one data folder would fight over names and sockets. The lock is the
    kernel's, on an open file: it is released when its holder ends, however that happens.

    Raises:
        CommandError: another process owns it; with its process id.
        OSError: the folder cannot be written to.
    """
    make_private_folder(data_dir)
    with open_private(data_dir / _LOCK_FILE, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise CommandError(
                f"{commands.UP} runs on {data_dir} already, as process {file.read().strip()}; "
                "stop that one first, or give this one a data_dir of its own"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _watch_live(roles: Roles, look: Callable[[], None], stop: Stop) -> None:
    """Redraw the verdict until a signal comes."""
    with ExitStack() as stack:
        live = stack.enter_context(Live(console=stderr(), auto_refresh=False, screen=True))
        installation = stack.enter_context(Installation(roles.reload.settings))
        while True:
            if installation.settings is not roles.reload.settings:
                installation.close()
                installation = stack.enter_context(Installation(roles.reload.settings))
            page = _page(installation, refused=roles.reload.refused)
            if roles.admin_address is not None:
                page = Group(Text(f"admin page: {roles.admin_address}", style="dim"), page)
            live.update(page, refresh=True)
            for _ in range(round(_REDRAW_SECONDS / _LOOK_SECONDS)):
                if stop.wait(_LOOK_SECONDS):
                    return
                look()


def _page(installation: Installation, *, refused: str | None) -> RenderableType:
    """The verdict, or why there is none at this moment; the next look may have one again.

    Args:
        refused: why settings that were read again are refused.
    """
    try:
        page = verdict_page(verdict_of(installation), verdict_first=True)
        if refused is None:
            return page
        kept = f"⚠ the settings that it had stay: {visible_lines(refused)}"
        return Group(Text(kept, style="yellow"), page)
    except Exception as error:
        explained = explain(error)
        if explained is None:
            raise
        return Text(f"error: {explained.sentence}", style="red")
