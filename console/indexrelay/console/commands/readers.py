"""``indexrelay readers``: who serves what, one in detail, and another attempt at what failed."""

from typing import TYPE_CHECKING, Annotated

import typer

from indexrelay.console.exits import ExitCode
from indexrelay.console.options import Config, Json, alone

if TYPE_CHECKING:
    from indexrelay.console.installation import Installation
    from indexrelay.schemas.results import ReaderState

Reader = Annotated[str, typer.Argument(metavar="READER", help="As readers list shows it.")]


def build_app() -> typer.Typer:
    """The command with its sub-commands."""
    app = typer.Typer(help="Who serves: a list, one in detail, or another attempt at what failed.")
    app.callback(invoke_without_command=True)(readers)
    app.command("list")(list_readers)
    app.command("show")(show)
    app.command("retry")(retry)
    return app


def readers(context: typer.Context, config: Config = None, json: Json = False) -> None:
    """Each live reader; the same as ``list``."""
    if alone(context, config=config, json=json):
        list_readers(config=config, json=json)


def list_readers(config: Config = None, json: Json = False) -> None:
    """What each live reader serves; exits 3 when one of them is not ready, 1 without any."""
    from indexrelay.console.installation import Installation
    from indexrelay.console.invocation import adapted
    from indexrelay.console.output import note, print_json, stdout
    from indexrelay.schemas import commands

    with Installation.at(config) as installation:
        states = _live(installation)
    if json:
        print_json(
            {"readers": {name: state.model_dump(mode="json") for name, state in states.items()}}
        )
    else:
        from indexrelay.console.tables import served_table

        for state in states.values():
            stdout().print(served_table(state))
    if not states:
        note(adapted(f"no reader is running; start one: {commands.READER}"))
        raise typer.Exit(ExitCode.FAILURE)
    if not all(state.ready for state in states.values()):
        raise typer.Exit(ExitCode.PARTIAL)


def show(reader: Reader, config: Config = None, json: Json = False) -> None:
    """What one reader serves; exits 3 when it is not ready."""
    from indexrelay.console.installation import Installation
    from indexrelay.console.output import print_json, stdout
    from indexrelay.console.searching import reader_state

    with Installation.at(config) as installation:
        state = reader_state(installation, reader)
    if json:
        print_json(state)
    else:
        from indexrelay.console.tables import served_table

        stdout().print(served_table(state))
    if not state.ready:
        raise typer.Exit(ExitCode.PARTIAL)


def retry(reader: Reader, config: Config = None, json: Json = False) -> None:
    """Let a reader load again what it gave up on."""
    from indexrelay.console.installation import Installation
    from indexrelay.console.output import print_json, stdout
    from indexrelay.console.searching import reader_client

    with Installation.at(config) as installation, reader_client(installation, reader) as client:
        client.retry()
    if json:
        print_json({"reader": reader, "retrying": True})
    else:
        stdout().print(f"✓ {reader} loads again what failed", soft_wrap=True)


def _live(installation: "Installation") -> "dict[str, ReaderState]":
    """Every reader that reports, by the name under which it does."""
    from indexrelay.console.collecting import signals_of
    from indexrelay.console.errors import CommandError

    signals = signals_of(installation)
    if signals.error is not None:
        raise CommandError(f"readers report to Redis, and that does not answer: {signals.error}")
    return dict(signals.readers)
