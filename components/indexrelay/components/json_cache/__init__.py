"""A JSON document that the user's own function computes, kept ready to be served.

`build` names a function (``module:function``), hands it the inputs, and writes what it returns
twice: as canonical JSON, and the same bytes gzipped with no time stamp in them. The same document
therefore has the same two digests, and a rebuild that changed nothing stores nothing. A reader
serves either without touching it again.

The function belongs to the definition by its *name*: when its code changes, ask for a rebuild.
"""

from indexrelay.components.json_cache.kind import (
    CachedDocument,
    CollectionReader,
    Entry,
    JsonCache,
    JsonCacheParameters,
)
from indexrelay.components.json_cache.map_points import map_points

__all__ = [
    "CachedDocument",
    "CollectionReader",
    "Entry",
    "JsonCache",
    "JsonCacheParameters",
    "map_points",
]
