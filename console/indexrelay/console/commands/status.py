"""``indexrelay status``: is all well, and if not, what is wrong and what to do."""

import typer

from indexrelay.console.exits import ExitCode
from indexrelay.console.options import Config, Json


def status(config: Config = None, json: Json = False) -> None:
    """Collections, components, readers and rebuilders; exits 3 when something is wrong."""
    from indexrelay.console.collecting import overview
    from indexrelay.console.installation import Installation
    from indexrelay.console.output import print_json, stdout

    with Installation.at(config) as installation:
        seen = overview(installation)
    if json:
        print_json(seen)
    else:
        from indexrelay.console.tables import overview_page

        stdout().print(overview_page(seen))
    raise typer.Exit(ExitCode.SUCCESS if seen.healthy else ExitCode.PARTIAL)
