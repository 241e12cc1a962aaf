"""``indexrelay readers``: what each reader serves, component by component."""

import typer

from indexrelay.console.exits import ExitCode
from indexrelay.console.options import Config, Json


def readers(config: Config = None, json: Json = False) -> None:
    """What each live reader serves; exits 3 when one of them is not ready, 1 without any."""
    from indexrelay.console.collecting import signals_of
    from indexrelay.console.errors import CommandError
    from indexrelay.console.installation import Installation
    from indexrelay.console.output import note, print_json, stdout

    with Installation.at(config) as installation:
        signals = signals_of(installation)
    if signals.error is not None:
        raise CommandError(f"readers report to Redis, and that does not answer: {signals.error}")
    if json:
        states = {name: state.model_dump(mode="json") for name, state in signals.readers.items()}
        print_json({"readers": states})
    else:
        from indexrelay.console.tables import served_table

        for state in signals.readers.values():
            stdout().print(served_table(state))
    if not signals.readers:
        note("no reader is running; start one with: indexrelay reader --id NAME")
        raise typer.Exit(ExitCode.FAILURE)
    if not all(state.ready for state in signals.readers.values()):
        raise typer.Exit(ExitCode.PARTIAL)
