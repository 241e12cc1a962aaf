"""The command line: which commands there are, and what ``--help`` says of them all.

Nothing but typer is imported here. Each command's module imports what it needs when it runs, so
that ``indexrelay --help`` answers before FAISS or SQLAlchemy would have been found on the disk.
"""

from typing import Annotated

import typer

from indexrelay.console.commands import (
    check,
    collections,
    components,
    dead,
    demo,
    holds,
    readers,
    rebuild,
    reconcile,
    roles,
    search,
    status,
    up,
)

_HELP = """Carries analysis batches into live, verified indexes in every serving process.

Exit codes: 0 success, 1 failure, 2 wrong call or settings, 3 partial, 130 Ctrl-C.
"""


def build_app() -> typer.Typer:
    """Put the commands together, in the order in which ``--help`` lists them."""
    app = typer.Typer(
        help=_HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    app.command("demo")(demo.demo)
    app.command("up")(up.up)
    app.command("status")(status.status)
    app.command("rebuild")(rebuild.rebuild)
    app.command("search")(search.search)
    app.command("readers")(readers.readers)
    app.add_typer(components.build_app(), name="components")
    app.add_typer(collections.build_app(), name="collections")
    app.command("check")(check.check)
    app.command("rebuilder")(roles.rebuilder)
    app.command("reader")(roles.reader)
    app.command("pause")(holds.pause)
    app.command("resume")(holds.resume)
    app.command("rollback")(holds.rollback)
    app.command("hold")(holds.hold)
    app.command("lift")(holds.lift)
    app.add_typer(dead.build_app(), name="dead")
    app.command("reconcile")(reconcile.reconcile)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"indexrelay {version('indexrelay')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print it and exit."
        ),
    ] = False,
) -> None:
    """Options before the command; typer calls this for their sake."""
