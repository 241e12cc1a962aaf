"""``indexrelay reconcile``: compare what is with what should be once, and repair what differs."""

from typing import Annotated

import typer

from indexrelay.console.exits import ExitCode
from indexrelay.console.options import Config, Json

Above = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="RELEASE",
        help="After both catalog and artifacts came from a backup: go on above this release, which "
        "readers serve.",
    ),
]


def reconcile(above: Above = None, config: Config = None, json: Json = False) -> None:
    """Compare everything once and repair what needs no build; exits 3 unless all is well then."""
    from indexrelay.console.installation import Installation
    from indexrelay.console.output import print_json, stdout
    from indexrelay.console.reconciling import reconcile_once

    with Installation.at(config) as installation:
        found = reconcile_once(installation, above=above)
    if json:
        verdict = found.verdict
        print_json(
            {
                "well": found.well,
                "needs_a_person": verdict.needs_a_person or bool(found.unrepaired),
                "findings": [each.model_dump(mode="json") for each in found.findings],
                "problems": [each.model_dump(mode="json") for each in verdict.problems],
                "notes": list(verdict.notes),
            }
        )
    else:
        from indexrelay.console.findings_page import findings_page

        stdout().print(findings_page(found))
    raise typer.Exit(ExitCode.SUCCESS if found.well else ExitCode.PARTIAL)
