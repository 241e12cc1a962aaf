"""What the build server imports before it forks."""

from indexrelay.components.errors import KindNotFoundError
from indexrelay.components.registry import kind_class
from indexrelay.schemas.settings import Settings
from indexrelay.storage.urls import driver_url


def modules_to_preload(settings: Settings) -> list[str]:
    """The modules of every kind that is in use, what their builds import, and the database driver.

    Raises:
        MissingExtraError: the catalog is in PostgreSQL and psycopg is not installed.
    """
    modules: set[str] = set()
    for definition in settings.components.values():
        try:
            kind = kind_class(definition.kind)
        except KindNotFoundError:
            continue  # its build will say so
        modules |= {kind.__module__, *kind.preload}
    if driver_url(settings.catalog_url).drivername == "postgresql+psycopg":
        modules.add("psycopg")
    return sorted(modules)
