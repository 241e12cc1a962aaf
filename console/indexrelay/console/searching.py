"""One question to one component: opened from the newest release, or asked of a running reader."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexrelay.components.hits import Hit
from indexrelay.components.kind import Served
from indexrelay.components.registry import kind_class
from indexrelay.console.collecting import signals_of
from indexrelay.console.errors import CommandError
from indexrelay.console.installation import Installation
from indexrelay.console.reader_client import ReaderClient
from indexrelay.console.released import released_manifest
from indexrelay.schemas.mistakes import suggestion
from indexrelay.schemas.versions import VersionManifest
from indexrelay.storage.entries import Vectors


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is asked; exactly one of ``text``, ``id`` and ``vector`` is given."""

    text: str | None
    id: str | None
    vector: Vectors | None
    """Shape ``(dimension,)``."""
    k: int

    def body(self) -> dict[str, Any]:
        """As a reader service takes it."""
        asked = {
            "text": self.text,
            "id": self.id,
            "vector": None if self.vector is None else self.vector.tolist(),
        }
        return {"k": self.k, **{key: value for key, value in asked.items() if value is not None}}


def read_vector(source: str) -> Vectors:
    """One vector from an ``.npy`` file, or (``-``) as a JSON array from stdin.

    Raises:
        CommandError: it holds something else.
    """
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
    return values


def ask_release(installation: Installation, component: str, query: Query) -> list[dict[str, Any]]:
    """Open the released version here, and ask it.

    Raises:
        CommandError: it is not released, or does not answer such questions.
        IndexRelayError: it cannot be opened, or refuses the query.
    """
    manifest = released_manifest(installation, component)
    served = _load(installation, manifest)
    try:
        return [_shown(hit) for hit in _hits(component, served, query)]
    finally:
        served.close()


def ask_reader(
    installation: Installation, reader: str, component: str, query: Query
) -> list[dict[str, Any]]:
    """Ask a running reader over HTTP.

    Raises:
        CommandError: it is not there, has no address, or refuses.
    """
    signals = signals_of(installation)
    if signals.error is not None:
        raise CommandError(
            f"readers are found through Redis, which does not answer: {signals.error}"
        )
    state = signals.readers.get(reader)
    if state is None:
        raise CommandError(f"no reader {reader!r} is running{suggestion(reader, signals.readers)}")
    if state.address is None:
        raise CommandError(f"reader {reader!r} runs inside a program and has no HTTP service")
    with ReaderClient(reader, state.address) as client:
        return client.search(component, query.body())


def _load(installation: Installation, manifest: VersionManifest) -> Served:
    """Open the files of a version with its kind.

    A manifest is data: only kinds that are installed, or that our own settings name, are imported.
    """
    declared = installation.settings.components.get(manifest.component)
    if ":" in manifest.kind and (declared is None or declared.kind != manifest.kind):
        raise CommandError(
            f"{manifest.component} was built by {manifest.kind}, which the settings do not name"
        )
    kind = kind_class(manifest.kind)
    opened = installation.store.open_version(manifest.component, manifest.id)
    served: Served = kind(kind.Parameters.model_validate(manifest.parameters)).load(opened.files)
    return served


def _hits(component: str, served: Any, query: Query) -> list[Hit]:
    search = getattr(served, "search", None)
    by_id = getattr(served, "search_by_id", None)
    if search is None:
        raise CommandError(f"{component} cannot be searched; it is no vector index or text index")
    if query.text is not None and by_id is not None:
        raise CommandError(f"{component} holds vectors; ask it with --vector or --id")
    if query.text is None and by_id is None:
        raise CommandError(f"{component} holds texts; ask it with --text")
    if query.id is not None and by_id is not None:
        return list(by_id(query.id, k=query.k))
    return list(search(query.vector if query.text is None else query.text, k=query.k))


def _shown(hit: Hit) -> dict[str, Any]:
    return {"id": hit.id, "score": float(hit.score), "payload": hit.payload}
