"""Sources: where a collection's entries are read from.

The catalog's own entries have their generation. A table or a folder has none: the catalog assigns
it the next one whenever it looks different. A snapshot of such a source covers the generation that
the catalog had **before** the first row was read. What is written in between is then in the rows
and not yet in the number, so it makes the component due once more; the other order would call rows
current that are not.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from indexrelay.schemas.settings import CatalogSource, CollectionSettings, FolderSource, TableSource
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.catalog.collections import DeclaredCollection
from indexrelay.storage.entries import CollectionSource, SourceSnapshot
from indexrelay.storage.errors import SourceError
from indexrelay.storage.sources.folder import EntriesFromFolder
from indexrelay.storage.sources.table import EntriesFromTable
from indexrelay.storage.validation import EntryRules

__all__ = ["open_source"]


def open_source(
    name: str, settings: CollectionSettings, catalog: Catalog | None
) -> CollectionSource:
    """The source of a collection; nothing is read, declared or connected to yet.

    ``catalog=None``: there is none yet, and the source of a table or folder can be looked at only.

    Raises:
        SourceError: without a catalog, for a collection that the catalog keeps itself.
    """
    declared = DeclaredCollection(
        collections=None if catalog is None else catalog.collections,
        name=name,
        dimension=settings.dimension,
        metric=settings.metric,
        rules=EntryRules.of(settings),
    )
    match settings.source:
        case TableSource() as table:
            return EntriesFromTable(declared, table)
        case FolderSource() as folder:
            return EntriesFromFolder(declared, folder.path)
        case CatalogSource():
            if catalog is None:
                raise SourceError(f"there is no catalog yet that could hold {name!r}")
            return EntriesFromCatalog(declared, catalog)


class EntriesFromCatalog:
    """`CollectionSource` of entries that jobs committed."""

    def __init__(self, declared: DeclaredCollection, catalog: Catalog) -> None:
        self._declared = declared
        self._catalog = catalog

    def observe(self) -> int:
        """The generation of the last commit."""
        return self._declared.current().generation

    def look(self) -> int | None:
        """How many entries there are.

        Raises:
            UnknownCollectionError: it is not declared yet.
            CollectionMismatchError: the catalog has it with another dimension or metric.
        """
        declared = self._declared
        return self._catalog.collections.expect(
            declared.name, dimension=declared.dimension, metric=declared.metric
        ).count

    def left_out(self) -> Mapping[str, int]:
        """Nothing: what cannot be an entry is refused when it is committed."""
        return {}

    @contextmanager
    def snapshot(self) -> Iterator[SourceSnapshot]:
        """One read transaction of the catalog."""
        self._declared.current()
        with self._catalog.entries.snapshot(self._declared.name) as snapshot:
            yield snapshot
