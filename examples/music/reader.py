"""A reader process: serves what was released, and answers questions about it.

A question is a component and an entry's id; the answer is the ids of its nearest, from whatever
version is in place at that moment.
"""

from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import numpy as np

from indexrelay.reloaders import Reloader
from indexrelay.schemas import Settings, configure_logs

_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is near ``entry_id``, in ``component``?"""

    component: str
    entry_id: str
    k: int


class ReaderProcess:
    """A reader in a process of its own, with artifacts of its own."""

    def __init__(self, settings: Settings, reader_id: str, *, artifacts: Path) -> None:
        self.id = reader_id
        self.artifacts = artifacts
        own = settings.model_copy(
            update={"artifacts": settings.artifacts.model_copy(update={"dir": artifacts})}
        )
        spawning = get_context("spawn")  # a process that has threads does not fork well
        self._pipe, theirs = spawning.Pipe()
        self._process = spawning.Process(target=_serve, args=(own, reader_id, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, component: str, entry_id: str, *, k: int = 3) -> list[str]:
        """The ids of the ``k`` nearest; raises `EOFError` if the process has died."""
        self._pipe.send(Question(component=component, entry_id=entry_id, k=k))
        if not self._pipe.poll(_PATIENCE_SECONDS):
            raise TimeoutError(f"reader {self.id} does not answer")
        return cast("list[str]", self._pipe.recv())

    def stop(self) -> None:
        """Let it end by itself; safe when it already has."""
        if self._process.is_alive():
            self._pipe.send(None)
        self._process.join(_PATIENCE_SECONDS)
        self._pipe.close()


def _serve(settings: Settings, reader_id: str, pipe: "Connection[Any, Any]") -> None:
    configure_logs(settings.log)
    reloader = Reloader(settings, reader_id=reader_id)
    reloader.start()
    try:
        while (question := pipe.recv()) is not None:
            with reloader.acquire() as snapshot:
                pipe.send(_answer(snapshot[question.component], question))
    finally:
        reloader.stop()


def _answer(served: Any, question: Question) -> list[str]:
    """Indexes search; a cache of embeddings and a map are looked through from end to end."""
    if hasattr(served, "search_by_id"):
        return [hit.id for hit in served.search_by_id(question.entry_id, k=question.k)]
    rows = served.coordinates if hasattr(served, "coordinates") else served.to_numpy()
    distances = np.linalg.norm(rows - served.get(question.entry_id), axis=1)
    nearest = np.argsort(distances, kind="stable")[: question.k + 1]
    return [served.ids[row] for row in nearest if served.ids[row] != question.entry_id]
