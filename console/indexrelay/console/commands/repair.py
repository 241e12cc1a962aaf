"""``indexrelay repair``: what a person does about a Redis that somebody spoiled."""

from typing import Annotated

import typer

from indexrelay.console.exits import ExitCode
from indexrelay.console.options import Config, Json


def build_app() -> typer.Typer:
    """The command with its sub-command."""
    app = typer.Typer(help="Repair what somebody spoiled.", no_args_is_help=True)
    app.callback()(_nothing)
    app.command("redis")(redis)
    return app


def _nothing() -> None:
    """Repair what somebody spoiled; each command shows first what it would do."""


def redis(
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; without this it only shows what would be done.")
    ] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Show what is wrong in Redis, and with --yes repair it: nothing of ours is lost by it.

    Ends a script that does not end, sets aside or deletes what is none of ours, and frees memory.
    Its user of Redis is that of redis.operator_url (INDEXRELAY_REDIS__OPERATOR_URL), or of
    redis.url. Exits 3 while something is left to be done.
    """
    from indexrelay.console.installation import Installation
    from indexrelay.console.output import print_json, stdout
    from indexrelay.console.redis_repair import repair_redis

    with Installation.at(config) as installation:
        repaired = repair_redis(installation.settings, do=yes)
    if json:
        print_json(repaired.model_dump(mode="json"))
    else:
        from indexrelay.console.repair_page import repair_page

        stdout().print(repair_page(repaired))
    raise typer.Exit(ExitCode.SUCCESS if repaired.well else ExitCode.PARTIAL)
