"""``indexrelay search``: ask one component, from the artifacts or through a running reader.

Both ways take the same request and run the same search, so that the answers are the same.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from json import dumps, load, loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
import typer
from pydantic import ValidationError
from rich.text import Text

from indexrelay.console.commands import Config, Json, component_names
from indexrelay.console.commands.readers import reader_client
from indexrelay.console.errors import WrongCallError
from indexrelay.console.installation import Installation
from indexrelay.console.sheet import Sheet, flowing, number, whole
from indexrelay.console.terminal import print_json, stdout, visible
from indexrelay.console.versions import released_version
from indexrelay.reloaders.loader import Opener
from indexrelay.schemas.clock import SystemClock
from indexrelay.schemas.settings import Settings
from indexrelay.service.bodies import SearchRequest
from indexrelay.service.dispatch import Search, arms_of
from indexrelay.service.dispatch import search as search_served

if TYPE_CHECKING:
    from indexrelay.components.served import Hit
    from indexrelay.service.client import FoundHit

_LONGEST_PAYLOAD: Final = 300


def search(
    component: Annotated[
        str,
        typer.Argument(
            metavar="COMPONENT",
            help="One that answers a search: a vector index, a text index, a search of both.",
            autocompletion=component_names,
        ),
    ],
    text: Annotated[
        str | None, typer.Option(metavar="WORDS", help="Words to find, also beside --vector.")
    ] = None,
    entry_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="An entry: finds those most like it.")
    ] = None,
    vector: Annotated[
        str | None,
        typer.Option(
            metavar="JSON|FILE.npy|-", help="One vector; - reads it from stdin, as a JSON array."
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option("--filter", metavar="JSON", help="What entries must match, as an object."),
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
    """Find the nearest entries; give --text, --vector, both of them, or --id.

    Where the collection has an embedder, --text is searched for by its vector, too.
    """
    if (entry_id is not None) == (text is not None or vector is not None):
        raise typer.BadParameter("give --text, --vector, both of them, or --id")
    request = _request(text=text, entry_id=entry_id, vector=vector, only=only, k=k)
    with Installation.at(config) as installation:
        if reader is None:
            hits, degraded = _ask_release(installation, component, request)
        else:
            with reader_client(installation, reader) as client:
                asked: Any = request.model_dump(exclude_none=True)
                answer = client.search(component, **asked)
                hits = [_shown(hit) for hit in answer.hits]
                degraded = answer.reason if answer.degraded else None
    if json:
        less = {} if degraded is None else {"degraded": True, "reason": degraded}
        print_json({"component": component, "reader": reader, "hits": hits, **less})
    else:
        if degraded is not None:
            stdout().print(Text(f"⚠ {visible(degraded)}", style="yellow"))
        stdout().print(hits_table(hits))


def hits_table(hits: Iterable[Mapping[str, Any]]) -> Sheet:
    """Answers, the best first; a long payload is cut, and whole with ``--json``."""
    hits = list(hits)
    by_both = any(hit.get("arms") for hit in hits)
    ranks = (whole("found by"),) if by_both else ()
    sheet = Sheet("Found", number(""), flowing("id"), number("score"), *ranks, flowing("payload"))
    for rank, hit in enumerate(hits, 1):
        payload = "" if hit["payload"] is None else dumps(hit["payload"], ensure_ascii=False)
        if len(payload) > _LONGEST_PAYLOAD:
            payload = f"{payload[:_LONGEST_PAYLOAD]}… ({len(payload):,} characters)"
        # An id is one line, whatever it holds.
        arms = ", ".join(f"{arm} {found['rank']}" for arm, found in (hit.get("arms") or {}).items())
        found_by = (arms,) if by_both else ()
        sheet.add(str(rank), visible(hit["id"]), f"{hit['score']:.4f}", *found_by, payload)
    return sheet


def _request(
    *, text: str | None, entry_id: str | None, vector: str | None, only: str | None, k: int
) -> SearchRequest:
    """A request from what was given on the command line; ``vector`` as `_read_vector` takes it.

    Raises:
        WrongCallError: it is none that a reader would take.
    """
    values = None if vector is None else _read_vector(vector)
    try:
        asked = None if only is None else loads(only)
    except ValueError as error:
        raise WrongCallError(f"--filter is no JSON: {error}") from error
    try:
        return SearchRequest(text=text, id=entry_id, vector=values, filter=asked, k=k)
    except ValidationError as error:
        reasons = "; ".join(each["msg"] for each in error.errors(include_input=False))
        raise WrongCallError(f"this cannot be asked: {reasons}") from error


def _ask_release(
    installation: Installation, component: str, request: SearchRequest
) -> tuple[list[dict[str, Any]], str | None]:
    """Open the released version here, and ask it; and why the answer is less than it could be.

    Raises:
        CommandError: it is not released.
        IndexRelayError: it cannot be opened, or does not answer that.
    """
    released = released_version(installation, component)
    opener = Opener(
        installation.store, definitions=installation.settings.components, clock=SystemClock()
    )
    # Closed by its last user, which is this function, when it returns.
    served = opener.open(component, released.id, serving=None)
    asked, degraded = _with_vector(
        Search.of(request), served.value, [*released.manifest.covers], installation.settings
    )
    return [_shown(hit) for hit in search_served(served.value, asked)], degraded


def _with_vector(
    asked: Search, served: Any, collections: Sequence[str], settings: Settings
) -> tuple[Search, str | None]:
    """The search with the vector of its text, where there is an embedder; or why there is none.

    Raises:
        EmbedderFunctionError: the embedder cannot be imported.
        EmbeddingError: it gives no vector, and the component finds no words.
    """
    arms = arms_of(served)
    declared = settings.collections.get(collections[0]) if len(collections) == 1 else None
    if asked.text is None or asked.vector is not None or "vector" not in arms:
        return asked, None
    if declared is None or declared.embedder is None:
        return asked, None
    from indexrelay.components.embedder import Embedder

    embedder = Embedder.of(settings, collections[0])
    if embedder is None:
        return asked, None
    found = embedder.embed([asked.text])  # not as a search waits: this is the first call
    text = asked.text if "text" in arms else None
    if not found.failures:
        return replace(asked, vector=found.vectors[0], text=text), None
    if text is None:
        found.raise_for_failures()
    return asked, f"{found.failures[0]}: found by words alone"


def _shown(hit: "Hit | FoundHit") -> dict[str, Any]:
    """As a reader answers; only a search of both halves says which of them found it."""
    shown = {"id": hit.id, "score": hit.score, "payload": hit.payload}
    arms: Mapping[str, Any] | None = getattr(hit, "arms", None)
    if arms is None:
        return shown
    ranks = {arm: {"rank": found.rank, "score": found.score} for arm, found in arms.items()}
    return {**shown, "arms": ranks}


def _read_vector(source: str) -> list[float]:
    """One vector: a JSON array, here or (``-``) on stdin, or an ``.npy`` file."""
    try:
        if source == "-":
            values = np.asarray(load(sys.stdin), dtype=np.float32)
        elif source.lstrip().startswith("["):
            values = np.asarray(loads(source), dtype=np.float32)
        else:
            values = np.asarray(np.load(Path(source), allow_pickle=False), dtype=np.float32)
    except (ValueError, TypeError, OSError, EOFError) as error:
        raise WrongCallError(
            f"{source} holds no vector: {error}; give a JSON array of numbers, an .npy file, "
            "or - for an array on stdin"
        ) from error
    if values.ndim == 2 and len(values) == 1:
        values = values[0]
    if values.ndim != 1:
        raise WrongCallError(f"{source} holds an array of shape {values.shape}; give one vector")
    numbers: list[float] = values.tolist()
    return numbers
