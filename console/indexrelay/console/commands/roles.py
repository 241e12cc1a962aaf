"""``indexrelay rebuilder`` and ``indexrelay reader``: one role in the foreground.

It is what a container, a service unit or ``indexrelay up`` starts. SIGTERM and Ctrl-C stop it in
order; a second one changes nothing. A rebuilder that starts while the disk or the database is away
waits for it, as it does for Redis: a restart would change nothing. A reader needs no server of its
own: without a URL it finds the embedded one, also when that starts later.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer

from indexrelay.console.commands import Config
from indexrelay.console.errors import ExitCode
from indexrelay.console.installation import Installation
from indexrelay.console.processes import KeptServer, Stop
from indexrelay.schemas.clock import SystemClock, backoff_seconds
from indexrelay.schemas.loggers import get_logger
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.errors import is_transient

log = get_logger(__name__)
T = TypeVar("T")

_LOOK_SECONDS: Final = 1.0
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 15.0


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
    config: Config = None,
) -> None:
    """Serve what is released, over HTTP, until SIGTERM or Ctrl-C."""
    if (port is None) == (uds is None):
        raise typer.BadParameter("give exactly one of --port and --uds")
    with Installation.at(config, talkative=True) as installation:
        from indexrelay.service import serve

        if uds is not None:
            serve(installation.settings, reader_id=reader_id, uds=uds)
        else:
            serve(
                installation.settings, reader_id=reader_id, host=host, port=port, insecure=insecure
            )
    raise typer.Exit(ExitCode.SUCCESS)


def run_rebuilder(installation: Installation, *, rebuilder_id: str | None) -> ExitCode:
    """Rebuild until a signal comes; without a Redis URL the embedded server runs meanwhile."""
    from indexrelay.rebuilder.service import Rebuilder

    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
        server = None
        if installation.settings.redis_url is None:
            server = KeptServer(installation.settings.data_dir, clock=SystemClock())
            stack.callback(server.stop)
            if awaited(server.start, what="server", stop=stop) is None:
                return stop.role_exit_code
        catalog = awaited(lambda: installation.catalog, what="catalog", stop=stop)
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
        while not stop.wait(_LOOK_SECONDS):
            if server is not None:
                server.look()
        return stop.role_exit_code


def awaited(opening: Callable[[], T], *, what: str, stop: Stop) -> T | None:
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
