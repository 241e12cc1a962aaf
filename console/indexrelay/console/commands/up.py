"""``indexrelay up``: everything on one machine, until Ctrl-C."""

from typing import Annotated

import typer

from indexrelay.console.options import Config


def up(
    readers: Annotated[int, typer.Option(min=0, max=64, help="How many readers; 0: none.")] = 2,
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65000, help="The first reader's port; otherwise they use unix sockets."
        ),
    ] = None,
    config: Config = None,
) -> None:
    """Run the server (unless a URL is given), a rebuilder and readers; stop them all at the end."""
    from indexrelay.console.everything import run_everything

    raise typer.Exit(run_everything(config, readers=readers, port=port))
