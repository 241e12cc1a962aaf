"""``indexrelay rebuilder`` and ``indexrelay reader``: one role in the foreground."""

from pathlib import Path
from typing import Annotated

import typer

from indexrelay.console.options import Config


def rebuilder(
    rebuilder_id: Annotated[
        str | None,
        typer.Option("--id", help="Stable across restarts; default: the host's name and a draw."),
    ] = None,
    config: Config = None,
) -> None:
    """Build what is due until SIGTERM or Ctrl-C."""
    from indexrelay.console.installation import Installation

    with Installation.at(config, talkative=True) as installation:
        from indexrelay.console.serving import run_rebuilder

        code = run_rebuilder(installation, rebuilder_id=rebuilder_id)
    raise typer.Exit(code)


def reader(
    reader_id: Annotated[str, typer.Option("--id", help="Its name; unique, and stable.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="The port.")] = None,
    uds: Annotated[
        Path | None, typer.Option(metavar="SOCKET", help="A unix socket instead of a port.")
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="Listen where other machines ask, too; nobody has to say who it is."
        ),
    ] = False,
    config: Config = None,
) -> None:
    """Serve what is released, over HTTP, until SIGTERM or Ctrl-C."""
    from indexrelay.console.installation import Installation
    from indexrelay.console.serving_reader import run_reader

    if (port is None) == (uds is None):
        raise typer.BadParameter("give exactly one of --port and --uds")
    with Installation.at(config, talkative=True) as installation:
        raise typer.Exit(
            run_reader(
                installation,
                reader_id=reader_id,
                host=host,
                port=port,
                uds=uds,
                insecure=insecure,
            )
        )
