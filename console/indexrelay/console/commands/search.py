"""``indexrelay search``: ask one component, from the artifacts or through a running reader.

Both ways take the same request and run the same search, so that the answers are the same.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from pydantic import ValidationError

from indexrelay.console.commands.readers import ReaderClient
from indexrelay.console.errors import CommandError
from indexrelay.console.installation import Installation, signals_of
from indexrelay.console.options import Config, Json, component_names
from indexrelay.console.versions import released_version
from indexrelay.reloaders.opener import Opener
from indexrelay.schemas import commands
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.errors import suggestion
from indexrelay.schemas.messages import ReaderState
from indexrelay.service.query import SearchRequest, search


def search_component(
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
    from indexrelay.console.terminal import print_json, stdout

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
        from indexrelay.console.commands.status import hits_table

        stdout().print(hits_table(hits))


def question(
    *, text: str | None, entry_id: str | None, vector: str | None, k: int
) -> SearchRequest:
    """A request from what was given on the command line; ``vector`` names a file, or ``-``.

    Raises:
        CommandError: it is none that a reader would take.
    """
    values = None if vector is None else _read_vector(vector)
    try:
        return SearchRequest(text=text, id=entry_id, vector=values, k=k)
    except ValidationError as error:
        told = "; ".join(each["msg"] for each in error.errors(include_input=False))
        raise CommandError(f"this cannot be asked: {told}") from error


def ask_release(
    installation: Installation, component: str, request: SearchRequest
) -> list[dict[str, Any]]:
    """Open the released version here, and ask it.

    Raises:
        CommandError: it is not released.
        IndexRelayError: it cannot be opened, or does not answer that.
    """
    released = released_version(installation, component)
    opener = Opener(
        installation.store, definitions=installation.settings.components, clock=SystemClock()
    )
    # Closed by its last user, who is us, when this returns.
    served = opener.open(component, released.id, serving=None)
    return [
        {"id": hit.id, "score": hit.score, "payload": hit.payload}
        for hit in search(served.value, request)
    ]


def ask_reader(
    installation: Installation, reader: str, component: str, request: SearchRequest
) -> list[dict[str, Any]]:
    """Ask a running reader over HTTP.

    Raises:
        CommandError: it is not there, has no address, or refuses.
    """
    with reader_client(installation, reader) as client:
        return client.search(component, request.model_dump(exclude_none=True))


def reader_client(installation: Installation, reader: str) -> ReaderClient:
    """A client of a reader's HTTP service; to be closed.

    Raises:
        CommandError: as `reader_state`, or it has no address.
    """
    state = reader_state(installation, reader)
    if state.address is None:
        raise CommandError(
            f"reader {reader!r} runs inside a program and has no HTTP service; ask the artifacts "
            "instead (search without --reader), or the program itself"
        )
    return ReaderClient(reader, state.address)


def reader_state(installation: Installation, reader: str) -> ReaderState:
    """What a live reader says of itself.

    Raises:
        CommandError: Redis does not answer, or no such reader is running.
    """
    signals = signals_of(installation)
    if signals.error is not None:
        raise CommandError(f"readers report to Redis, which does not answer: {signals.error}")
    processes = [state for state in signals.readers.values() if state.reader == reader]
    # Any of them that can be asked: all of them answer for one id.
    state = next((each for each in processes if each.address), next(iter(processes), None))
    if state is None:
        near = suggestion(reader, {each.reader for each in signals.readers.values()})
        raise CommandError(
            f"no reader {reader!r} is running{near}; to ask the artifacts, leave --reader out; "
            f"to start it: {commands.reader(reader)}"
        )
    return state


def _read_vector(source: str) -> list[float]:
    """One vector from an ``.npy`` file, or (``-``) as a JSON array from stdin."""
    try:
        if source == "-":
            values = np.asarray(json.load(sys.stdin), dtype=np.float32)
        else:
            values = np.asarray(np.load(Path(source), allow_pickle=False), dtype=np.float32)
    except (ValueError, TypeError, OSError, EOFError) as error:
        raise CommandError(f"{source} holds no vector: {error}") from error
    if values.ndim == 2 and len(values) == 1:
        values = values[0]
    if values.ndim != 1:
        raise CommandError(f"{source} holds an array of shape {values.shape}; give one vector")
    numbers: list[float] = values.tolist()
    return numbers
