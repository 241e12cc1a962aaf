"""Sources: where a collection's entries are read from, one file for each kind.

The catalog's own entries know their generation. A table or a folder does not: it is given one by
the catalog whenever it looks different (`outside`).
"""

from indexrelay.storage.sources.opening import open_source

__all__ = ["open_source"]
