"""Asking before something is gone for good."""

import sys

import typer


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
