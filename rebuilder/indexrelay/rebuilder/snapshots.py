"""The snapshots that builds read their collections from.

Components of one group are released together, so they have to contain the same generation of what
they share. A snapshot cannot be opened again once somebody has committed, and the catalog keeps no
history to read it from; nor can two processes share a transaction of SQLite, or the files of a
folder as they were. So what has to agree is built one after another from the very same snapshot.
"""

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from indexrelay.schemas.settings import CollectionSettings
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.entries import SourceSnapshot
from indexrelay.storage.sources import open_source


class Snapshots:
    """Opens each collection once, when it is first asked for; for use by one thread."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._stack = ExitStack()
        self._open: dict[str, SourceSnapshot] = {}

    def of(self, collection: str, settings: CollectionSettings) -> SourceSnapshot:
        """The collection as it stood when it was asked for first.

        Raises:
            SourceError: it cannot be read.
        """
        if collection not in self._open:
            source = open_source(collection, settings, self._catalog)
            self._open[collection] = self._stack.enter_context(source.snapshot())
        return self._open[collection]

    def close(self) -> None:
        """Let go of all; what is asked for after that is opened anew. Safe twice."""
        self._open.clear()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
