"""The command line: which commands there are, and what ``--help`` says of them all.

Nothing but typer is imported here. Each command's module imports what it needs when it runs, so
that ``indexrelay --help`` answers before FAISS or SQLAlchemy would have been found on the disk.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Annotated, Any

import typer

from indexrelay.console import demo
from indexrelay.console.commands import (
    check,
    collections,
    components,
    dead_letters,
    keys,
    readers,
    rebuild,
    releases,
    repair,
    roles,
    search,
    status,
    up,
)

_HELP = (
    "Carries analysis batches into live, verified indexes in every serving process.\n\n"
    "Begin with `demo`, or with `check` and `up` beside your indexrelay.toml. "
    "`status` says what is wrong and what to do; most commands have `--json`.\n\n"
    "Exit codes: 0 success, 1 failure, 2 wrong call or settings, 3 partial, 130 Ctrl-C."
)
_RUN = "Run it"
_LOOK = "Look"
_DO = "Do something about it"


def build_app() -> typer.Typer:
    """Put the commands together, in the order in which ``--help`` lists them."""
    app = typer.Typer(
        help=_HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    app.command("demo", rich_help_panel=_RUN)(demo.demo)
    app.command("check", rich_help_panel=_RUN)(check.check)
    app.command("up", rich_help_panel=_RUN)(up.up)
    app.command("rebuilder", rich_help_panel=_RUN)(roles.rebuilder)
    app.command("reader", rich_help_panel=_RUN)(roles.reader)
    app.command("status", rich_help_panel=_LOOK)(status.status)
    app.command("search", rich_help_panel=_LOOK)(search.search_component)
    for name, group in _GROUPS.items():
        app.add_typer(group.build_app(), name=name, rich_help_panel=_LOOK)
    app.command("rebuild", rich_help_panel=_DO)(rebuild.rebuild)
    app.command("pause", rich_help_panel=_DO)(components.pause)
    app.command("resume", rich_help_panel=_DO)(components.resume)
    app.command("hold", rich_help_panel=_DO)(components.hold)
    app.command("lift", rich_help_panel=_DO)(components.lift)
    app.command("rollback", rich_help_panel=_DO)(components.rollback)
    app.command("reconcile", rich_help_panel=_DO)(repair.reconcile)
    app.add_typer(repair.build_app(), name="repair", rich_help_panel=_DO)
    app.add_typer(keys.build_app(), name="keys", rich_help_panel=_DO)
    return app


@cache
def build_command() -> Callable[..., Any]:
    """What runs a command by its arguments; all signatures are read for it, so it is made once."""
    return typer.main.get_command(build_app())


_GROUPS = {
    "collections": collections,
    "components": components,
    "releases": releases,
    "readers": readers,
    "dead": dead_letters,
}
"""What there are several of; each is listed by its bare name, and has verbs."""


def command_names() -> Iterator[str]:
    """Every command that takes ``--config``, with the words of its name."""
    app = build_app()
    for command in app.registered_commands:
        if command.name is not None and command.name != "demo":
            yield command.name
    for group in app.registered_groups:
        if group.name is not None and group.typer_instance is not None:
            yield group.name
            for verb in group.typer_instance.registered_commands:
                yield f"{group.name} {verb.name}"


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
