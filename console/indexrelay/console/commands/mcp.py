"""``indexrelay mcp``: tools for an agent, over stdin and stdout.

The agent's program starts this command, with its settings or with the address of a reader. Stdout
carries the protocol alone; the log and whatever else is said goes to stderr.
"""

import os
from typing import Annotated

import typer

from indexrelay.console.commands import Config
from indexrelay.console.errors import ExitCode
from indexrelay.console.installation import Installation
from indexrelay.console.terminal import ANSWERS
from indexrelay.schemas.logs import configure_logs
from indexrelay.schemas.settings import LogSettings
from indexrelay.schemas.settings_file import TOKEN


def mcp(
    write: Annotated[
        bool, typer.Option("--write", help="Also the tools remember and forget.")
    ] = False,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="ADDRESS",
            help="Ask this reader instead of being one: http://HOST:PORT, https://HOST or "
            f"unix:/PATH; {TOKEN} is shown to it.",
        ),
    ] = None,
    reader_id: Annotated[
        str, typer.Option("--id", help="The label of this reader; several may share it.")
    ] = "mcp",
    config: Config = None,
) -> None:
    """Answer an agent over stdin and stdout, by the Model Context Protocol."""
    if url is None:
        with Installation.at(config, talkative=True) as installation:
            from indexrelay.service.mcp.stdio import serve_installation

            serve_installation(
                installation.settings,
                reader_id=reader_id,
                with_writes=write,
                output=ANSWERS.stream.fileno(),
            )
    else:
        ANSWERS.reserve()
        configure_logs(LogSettings())
        from indexrelay.service.mcp.stdio import serve_reader

        serve_reader(
            url,
            token=os.environ.get(TOKEN) or None,
            with_writes=write,
            output=ANSWERS.stream.fileno(),
        )
    raise typer.Exit(ExitCode.SUCCESS)
