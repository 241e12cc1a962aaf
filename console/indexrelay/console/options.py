"""Options and arguments that several commands share: their wording, their completion, a question.

Completion runs at every press of the tab key. It reads the settings file itself, checks nothing,
opens nothing, and reports no error.
"""

import os
import sys
import tomllib
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


def component_names(context: typer.Context, incomplete: str) -> list[str]:
    """The declared components that begin so."""
    return _declared(context, "components", incomplete)


def collection_names(context: typer.Context, incomplete: str) -> list[str]:
    """The declared collections that begin so."""
    return _declared(context, "collections", incomplete)


def _declared(context: typer.Context, table: str, incomplete: str) -> list[str]:
    from indexrelay.schemas.settings_file import CONFIG, DEFAULT_FILE

    named = context.params.get("config") or os.environ.get(CONFIG) or DEFAULT_FILE
    try:
        declared = tomllib.loads(Path(named).read_text(encoding="utf-8-sig")).get(table)
    except (OSError, ValueError):
        return []
    return [name for name in declared or () if name.startswith(incomplete)]


def confirm(what: str) -> None:
    """Ask on stderr whether ``what`` is meant; no is the default.

    Raises:
        typer.BadParameter: nobody is there to be asked; ``--yes`` answers for them.
        typer.Abort: the answer is no.
    """
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{what} Nobody can be asked here: say --yes")
    # Not typer's own question: that leaves a blank on stdout, where a document belongs.
    sys.stderr.write(f"{what} Go on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise typer.Abort
