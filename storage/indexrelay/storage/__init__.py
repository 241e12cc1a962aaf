"""Where it is kept: the catalog (SQL) and the artifacts (blobs, versions, releases).

These two are the truth. Nothing in here knows of Redis, or of what a component's files mean.

The names below are imported when they are first asked for: a reader takes artifacts and never
needs SQLAlchemy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indexrelay.storage.artifacts import ArtifactStore
    from indexrelay.storage.catalog import Catalog
    from indexrelay.storage.sources import open_source

__all__ = ["ArtifactStore", "Catalog", "open_source"]

_ROOMS = {"ArtifactStore": "artifacts", "Catalog": "catalog", "open_source": "sources"}

if not TYPE_CHECKING:  # or a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        """Import one of the public names (PEP 562)."""
        if name not in _ROOMS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
