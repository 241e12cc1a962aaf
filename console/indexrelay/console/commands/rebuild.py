"""``indexrelay rebuild``: ask for a rebuild, and wait for what came of it."""

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from indexrelay.console.completion import component_names
from indexrelay.console.exits import ExitCode
from indexrelay.console.options import Config, Json, Reason, Wait

if TYPE_CHECKING:
    from indexrelay.console.requesting import Requested


def rebuild(
    components: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMPONENT", help="Default: whatever is due.", autocompletion=component_names
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every component, due or not; not what is paused or held.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="From scratch, instead of continuing the last version.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Even if more entries went than max_shrink allows.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result.")] = False,
    here: Annotated[
        bool, typer.Option("--here", help="Run one pass in this process, without a rebuilder.")
    ] = False,
    timeout: Wait = 3600.0,
    reason: Reason = "by hand",
    config: Config = None,
    json: Json = False,
) -> None:
    """Ask for a rebuild; exits 3 when some of it failed, or is not well for another reason."""
    from indexrelay.console.installation import Installation
    from indexrelay.console.output import note, print_json, stderr, stdout
    from indexrelay.console.requesting import Wish, all_components, listed, rebuild_here, request

    if every and components:
        raise typer.BadParameter("give the components' names, or --all")
    with Installation.at(config) as installation:
        names = tuple(components or ())
        if every:
            names, kept_back = all_components(installation)
            if kept_back:
                note(f"left as they are: {listed(kept_back)}")
        wish = Wish(components=names, force=force, full=full, reason=reason)
        if here:
            with stderr().status("building"):
                requested = rebuild_here(installation, wish)
        else:
            with stderr().status("waiting for the result") if wait else nullcontext():
                requested = request(installation, wish, timeout_seconds=timeout if wait else None)
    if json:
        print_json(requested)
    else:
        from indexrelay.console.tables import result_page

        stdout().print(result_page(requested))
        if requested.well is not None:
            from indexrelay.console.verdict_page import problems_page

            well = "what is declared is built and released"
            stdout().print(problems_page(requested.problems, well=well))
    raise typer.Exit(_exit_code(requested))


def _exit_code(requested: "Requested") -> ExitCode:
    from indexrelay.schemas.results import RebuildStatus

    if requested.result is None or requested.result.status is RebuildStatus.SUCCESS:
        return ExitCode.PARTIAL if requested.well is False else ExitCode.SUCCESS
    return {
        RebuildStatus.PARTIAL_SUCCESS: ExitCode.PARTIAL,
        RebuildStatus.FAILURE: ExitCode.FAILURE,
    }[requested.result.status]
