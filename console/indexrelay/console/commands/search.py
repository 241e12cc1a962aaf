"""``indexrelay search``: ask one component, from the artifacts or through a reader."""

from typing import Annotated

import typer

from indexrelay.console.completion import component_names
from indexrelay.console.options import Config, Json


def search(
    component: Annotated[
        str,
        typer.Argument(
            metavar="COMPONENT",
            help="A vector index or a text index.",
            autocompletion=component_names,
        ),
    ],
    text: Annotated[
        str | None, typer.Option(metavar="WORDS", help="Words to find, in a text index.")
    ] = None,
    entry_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="An entry: finds those most like it.")
    ] = None,
    vector: Annotated[
        str | None,
        typer.Option(metavar="FILE.npy|-", help="One vector; - reads a JSON array from stdin."),
    ] = None,
    k: Annotated[
        int, typer.Option("-k", metavar="N", min=1, max=1000, help="How many to find.")
    ] = 10,
    reader: Annotated[
        str | None, typer.Option(metavar="READER", help="Ask this reader instead of the artifacts.")
    ] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Find the nearest entries; give one of --text, --id and --vector."""
    from indexrelay.console.installation import Installation
    from indexrelay.console.output import print_json, stdout
    from indexrelay.console.searching import ask_reader, ask_release, question

    if sum(given is not None for given in (text, entry_id, vector)) != 1:
        raise typer.BadParameter("give exactly one of --text, --id and --vector")
    request = question(text=text, entry_id=entry_id, vector=vector, k=k)
    with Installation.at(config) as installation:
        if reader is None:
            hits = ask_release(installation, component, request)
        else:
            hits = ask_reader(installation, reader, component, request)
    if json:
        print_json({"component": component, "reader": reader, "hits": hits})
    else:
        from indexrelay.console.tables import hits_table

        stdout().print(hits_table(hits))
