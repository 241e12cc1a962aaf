"""The source of collections whose entries the catalog keeps itself."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from indexrelay.storage.entries import SourceSnapshot
from indexrelay.storage.sources.declared import DeclaredCollection


class EntriesFromCatalog:
    """`CollectionSource` of entries that jobs committed."""

    def __init__(self, declared: DeclaredCollection) -> None:
        self._declared = declared

    def observe(self) -> int:
        """The generation of the last commit."""
        return self._declared.current().generation

    def look(self) -> int | None:
        """How many entries there are.

        Raises:
            UnknownCollectionError: nobody has declared it yet.
            CollectionMismatchError: the catalog has it with another dimension or metric.
        """
        return self._declared.there().count

    def left_out(self) -> Mapping[str, int]:
        """Nothing: what cannot be an entry is refused when it is committed."""
        return {}

    @contextmanager
    def snapshot(self) -> Iterator[SourceSnapshot]:
        """One read transaction of the catalog."""
        self._declared.current()
        with self._declared.catalog.entries.snapshot(self._declared.name) as snapshot:
            yield snapshot
