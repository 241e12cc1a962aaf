"""The document's bytes, and how many items it holds."""

import gzip
from typing import Any

from indexrelay.components.errors import DocumentError
from indexrelay.schemas.canonical import canonical_json
from indexrelay.schemas.json_values import Offence, first_offence

_LEVEL = 6
"""zlib's own compromise: level 9 takes several times as long for about 1 % less."""


def encode(document: Any) -> bytes:
    """The document as canonical JSON.

    Raises:
        DocumentError: a NaN, an infinity, a circle, or something that is no JSON value is in it;
            the message gives its path (``$.points[3].x``).
    """
    try:
        return canonical_json(document)
    except (ValueError, TypeError, RecursionError) as error:
        found = first_offence(document) or Offence(path="$", reason=str(error))
        raise DocumentError(found.path, found.reason) from error


def compress(body: bytes) -> bytes:
    """Gzip without a time stamp, so that equal bodies give equal bytes."""
    return gzip.compress(body, _LEVEL, mtime=0)


def count_items(document: Any) -> int:
    """How many items a document holds: what a version reports as its entries.

    A list counts its items. An object that holds lists counts the longest of them
    (``{"points": […], "bounds": …}`` holds points); one without lists is a table, and counts its
    keys. ``null`` counts 0, any other value 1.
    """
    match document:
        case None:
            return 0
        case list() | tuple():
            return len(document)
        case dict():
            lists = [len(part) for part in document.values() if isinstance(part, list | tuple)]
            return max(lists) if lists else len(document)
        case _:
            return 1
