"""``indexrelay collections``: what there is, one in detail, and an end to one."""

from typing import Annotated

import typer

from indexrelay.console.completion import collection_names
from indexrelay.console.options import Config, Json, alone

Name = Annotated[
    str,
    typer.Argument(
        metavar="COLLECTION",
        help="As collections list shows it.",
        autocompletion=collection_names,
    ),
]


def build_app() -> typer.Typer:
    """The command with its sub-commands."""
    app = typer.Typer(help="Where entries are: a list, one in detail, or an end to one.")
    app.callback(invoke_without_command=True)(collections)
    app.command("list")(list_collections)
    app.command("show")(show)
    app.command("drop")(drop)
    app.command("restore")(restore)
    return app


def collections(context: typer.Context, config: Config = None, json: Json = False) -> None:
    """Each collection; the same as ``list``."""
    if alone(context, config=config, json=json):
        list_collections(config=config, json=json)


def list_collections(config: Config = None, json: Json = False) -> None:
    """Each collection: where its entries come from, and how many there are."""
    from indexrelay.console.collecting import verdict_of
    from indexrelay.console.installation import Installation
    from indexrelay.console.output import print_json, stdout

    with Installation.at(config) as installation:
        seen = verdict_of(installation)
    if json:
        facts = {name: each.model_dump(mode="json") for name, each in seen.collections.items()}
        print_json({"collections": facts})
    else:
        from indexrelay.console.tables import collections_table

        stdout().print(collections_table(seen.collections))


def show(name: Name, config: Config = None, json: Json = False) -> None:
    """One collection, and the components that are made from it."""
    from indexrelay.console.collections import details
    from indexrelay.console.installation import Installation
    from indexrelay.console.output import print_json, stdout

    with Installation.at(config) as installation:
        found = details(installation, name)
    if json:
        print_json(found)
    else:
        from indexrelay.console.collection_pages import collection_page

        stdout().print(collection_page(found))


def drop(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: Config = None,
    json: Json = False,
) -> None:
    """Forget a collection with its entries and batches, for good; what serves them goes on."""
    from indexrelay.console.collections import drop as drop_collection
    from indexrelay.console.collections import droppable
    from indexrelay.console.installation import Installation
    from indexrelay.console.output import print_json, stdout

    with Installation.at(config) as installation:
        dropped = droppable(installation, name)
        if not yes:
            from indexrelay.console.collection_pages import what_goes
            from indexrelay.console.confirming import confirm

            confirm(what_goes(dropped))
        drop_collection(installation, name)
    if json:
        print_json({"dropped": dropped.model_dump(mode="json")})
    else:
        from indexrelay.console.collection_pages import dropped_page

        stdout().print(dropped_page(dropped))


def restore(name: Name, config: Config = None, json: Json = False) -> None:
    """After the catalog came back from an older backup: go on above the numbers that it lost."""
    from indexrelay.console.collections import restore as restore_collection
    from indexrelay.console.installation import Installation
    from indexrelay.console.output import print_json, stdout

    with Installation.at(config) as installation:
        restored = restore_collection(installation, name)
    if json:
        print_json(restored)
    else:
        from indexrelay.console.collection_pages import restored_page

        stdout().print(restored_page(restored))
