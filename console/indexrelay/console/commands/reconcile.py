"""``indexrelay reconcile``: compare what is with what should be, once, and mend the difference."""

import typer

from indexrelay.console.exits import ExitCode
from indexrelay.console.options import Config, Json


def reconcile(config: Config = None, json: Json = False) -> None:
    """Compare everything once and mend what needs no build; exits 3 when a person is needed."""
    from indexrelay.console.installation import Installation
    from indexrelay.console.output import print_json, stdout
    from indexrelay.console.reconciling import reconcile_once

    with Installation.at(config) as installation:
        found = reconcile_once(installation)
    if json:
        print_json({"needs_a_person": found.needs_a_person, **found.model_dump(mode="json")})
    else:
        from indexrelay.console.findings_page import findings_page

        stdout().print(findings_page(found))
    raise typer.Exit(ExitCode.PARTIAL if found.needs_a_person else ExitCode.SUCCESS)
