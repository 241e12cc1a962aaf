"""Options that several commands share, worded once."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Config: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="The settings; otherwise $INDEXRELAY_CONFIG, or indexrelay.toml here. "
        "Kinds and functions of your own may be modules in its folder.",
        show_default=False,
    ),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Wait: TypeAlias = Annotated[
    float,
    typer.Option("--timeout", metavar="SECONDS", min=0.0, help="How long to wait at most."),
]
Reason: TypeAlias = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Kept for those who read it later.")
]


def alone(context: typer.Context, **given: object) -> bool:
    """Whether a group stands without a verb, and is to list what it has.

    Raises:
        typer.BadParameter: an option stands before the verb, where it would do nothing.
    """
    if context.invoked_subcommand is None:
        return True
    misplaced = [f"--{name}" for name, value in given.items() if value]
    if misplaced:
        raise typer.BadParameter(
            f"{', '.join(misplaced)} goes behind {context.invoked_subcommand}", ctx=context
        )
    return False
