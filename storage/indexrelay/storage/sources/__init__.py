"""Sources: where a collection's entries are read from.

The catalog's own entries have their generation. A table or a folder has none: the catalog assigns
it the next one whenever it looks different.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from indexrelay.schemas.settings import CatalogSource, CollectionSettings, FolderSource, TableSource
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.entries import CollectionSource, SourceSnapshot
from indexrelay.storage.sources.folder import EntriesFromFolder
from indexrelay.storage.sources.outside import DeclaredCollection
from indexrelay.storage.sources.table import EntriesFromTable
from indexrelay.storage.validation import SizeLimits


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


def open_source(
    name: str, settings: CollectionSettings, catalog: Catalog | None
) -> CollectionSource:
    """The source of a collection; nothing is read, declared or connected to yet.

    ``catalog=None``: there is none yet, and the source of a table or folder can be looked at only.
    """
    declared = DeclaredCollection(
        kept_in=catalog,
        name=name,
        dimension=settings.dimension,
        metric=settings.metric,
        sizes=SizeLimits.of(settings),
    )
    match settings.source:
        case TableSource() as table:
            return EntriesFromTable(declared, table)
        case FolderSource() as folder:
            return EntriesFromFolder(declared, folder.path)
        case CatalogSource():
            return EntriesFromCatalog(declared)


__all__ = ["open_source"]
