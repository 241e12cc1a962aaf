"""From a collection's settings to its source."""

from indexrelay.schemas.settings import CatalogSource, CollectionSettings, FolderSource, TableSource
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.entries import CollectionSource
from indexrelay.storage.sources.catalog_source import EntriesFromCatalog
from indexrelay.storage.sources.declared import DeclaredCollection
from indexrelay.storage.sources.folder_source import EntriesFromFolder
from indexrelay.storage.sources.table_source import EntriesFromTable
from indexrelay.storage.validation import SizeLimits


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
