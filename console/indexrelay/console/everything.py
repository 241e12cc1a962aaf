"""Everything on one machine: the server, a rebuilder, readers; each in a process of its own.

They start in the order in which they need each other and stop in the reverse. One that dies is
started again, the server as well. A terminal sees the state of the whole installation, redrawn
every second; without one, the log lines of all processes go to stderr, as a service's journal likes
them.
"""

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from indexrelay.console.collecting import verdict_of
from indexrelay.console.exits import ExitCode
from indexrelay.console.explaining import explain
from indexrelay.console.installation import Installation
from indexrelay.console.keeping_server import KeptServer
from indexrelay.console.output import note, stderr
from indexrelay.console.roles import (
    REDIS_URL,
    RoleSettings,
    reader_child,
    rebuilder_child,
    socket_folder,
)
from indexrelay.console.sole_owner import sole_owner
from indexrelay.console.stopping import Stop
from indexrelay.console.supervising import Supervisor
from indexrelay.console.verdict_page import verdict_page
from indexrelay.schemas.clock import SystemClock

_LOOK_SECONDS = 0.2
_REDRAW_SECONDS = 1.0
_GRACE_SECONDS = 15.0
"""Longer than a blocking read and the end of a build; then a child is killed."""


def run_everything(config: Path | None, *, readers: int, port: int | None) -> ExitCode:
    """Start all, watch over them until a signal comes, stop all.

    Raises:
        SettingsError: the settings are wrong, or there are none.
        CommandError: another one runs on the same data folder.
        NoServerError, ServerStartError: there is no server, and none can be started.
    """
    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
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
        supervisor = Supervisor(
            [rebuilder_child(shared)],
            [
                reader_child(
                    shared,
                    f"reader-{number}",
                    socket=sockets / f"reader-{number}.sock" if port is None else None,
                    port=None if port is None else port + number - 1,
                )
                for number in range(1, readers + 1)
            ],
            clock=SystemClock(),
        )
        stack.callback(supervisor.stop, grace_seconds=_GRACE_SECONDS)
        supervisor.start()
        note(f"up: 1 rebuilder, {readers} reader(s), data in {settings.data_dir}; Ctrl-C stops")

        def look() -> None:
            if server is not None:
                server.look()
            supervisor.look()

        if live:
            _watch_live(installation, look, stop)
        else:
            while not stop.wait(_LOOK_SECONDS):
                look()
        note("stopping")
        return stop.role_exit_code


def _watch_live(installation: Installation, look: Callable[[], None], stop: Stop) -> None:
    """Redraw the verdict until a signal comes."""
    with Live(console=stderr(), auto_refresh=False, screen=True) as live:
        while True:
            live.update(_page(installation), refresh=True)
            for _ in range(round(_REDRAW_SECONDS / _LOOK_SECONDS)):
                if stop.wait(_LOOK_SECONDS):
                    return
                look()


def _page(installation: Installation) -> RenderableType:
    """The verdict, or why there is none at this moment; the next look may have one again."""
    try:
        return verdict_page(verdict_of(installation), verdict_first=True)
    except Exception as error:
        explained = explain(error)
        if explained is None:
            raise
        return Text(f"error: {explained.sentence}", style="red")
