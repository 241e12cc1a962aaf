"""``indexrelay components``: what there is, one in detail, and what a person decides about some."""

from typing import Annotated

import typer

from indexrelay.console.commands import holds
from indexrelay.console.commands.rebuild import rebuild
from indexrelay.console.completion import component_names
from indexrelay.console.options import Config, Json, alone


def build_app() -> typer.Typer:
    """The command with its sub-commands; the last five are top-level commands as well."""
    app = typer.Typer(help="What is built: a list, one in detail, and what keeps some back.")
    app.callback(invoke_without_command=True)(components)
    app.command("list")(list_components)
    app.command("show")(show)
    app.command("pause")(holds.pause)
    app.command("resume")(holds.resume)
    app.command("hold")(holds.hold)
    app.command("lift")(holds.lift)
    app.command("rebuild")(rebuild)
    return app


def components(context: typer.Context, config: Config = None, json: Json = False) -> None:
    """Each component; the same as ``list``."""
    if alone(context, config=config, json=json):
        list_components(config=config, json=json)


def list_components(config: Config = None, json: Json = False) -> None:
    """Each component: what it covers, how it stands, how large it is."""
    from indexrelay.console.collecting import verdict_of
    from indexrelay.console.installation import Installation
    from indexrelay.console.output import print_json, stdout

    with Installation.at(config) as installation:
        facts = verdict_of(installation).components
    if json:
        print_json(
            {"components": {name: each.model_dump(mode="json") for name, each in facts.items()}}
        )
    else:
        from indexrelay.console.tables import components_table

        stdout().print(components_table(facts))


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="COMPONENT", help="As components list shows it.", autocompletion=component_names
        ),
    ],
    config: Config = None,
    json: Json = False,
) -> None:
    """The released version of one component: whether it fails, checks, files and history."""
    from indexrelay.console.build_failures import failing
    from indexrelay.console.installation import Installation
    from indexrelay.console.output import print_json, stdout
    from indexrelay.console.released import released_version
    from indexrelay.console.version_history import history

    with Installation.at(config) as installation:
        released = released_version(installation, name)
        versions = history(installation.store, name)
        fails = failing(installation, name)
    if json:
        print_json(
            {
                "version": released.id,
                **released.manifest.model_dump(mode="json"),
                "bytes": released.manifest.size,
                "history": [each.as_json() for each in versions],
                "failing": fails.as_json() if fails is not None else None,
            }
        )
    else:
        from indexrelay.console.manifest_page import manifest_page

        if fails is not None:
            stdout().print(fails.page(), soft_wrap=True)
        stdout().print(manifest_page(released, versions))
