"""``indexrelay status``: is all well, and if not, what is wrong and what to do."""

import typer

from indexrelay.console.exits import ExitCode
from indexrelay.console.options import Config, Json


def status(config: Config = None, json: Json = False) -> None:
    """Collections, components, readers and rebuilders; exits 3 unless all is well."""
    from indexrelay.console.collecting import verdict_of
    from indexrelay.console.installation import Installation
    from indexrelay.console.output import print_json, stdout

    with Installation.at(config) as installation:
        verdict = verdict_of(installation)
    if json:
        print_json(verdict)
    else:
        from indexrelay.console.verdict_page import verdict_page

        stdout().print(verdict_page(verdict))
    raise typer.Exit(ExitCode.SUCCESS if verdict.well else ExitCode.PARTIAL)
