"""The document's bytes, and what is wrong with a value that has none.

The encoder says only *that* a NaN is in there. Where it is matters to whoever wrote the function,
so after a refusal, and only then, the value is walked and the first offender named by its path.
"""

import gzip
import math
from collections.abc import Iterator
from typing import Any

from indexrelay.components.errors import DocumentError
from indexrelay.schemas.canonical import canonical_json

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
        path, reason = next(_offenders(document), ("$", str(error)))
        raise DocumentError(path, reason) from error


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


def _offenders(document: Any) -> Iterator[tuple[str, str]]:
    """Path and reason of everything that JSON cannot say; without recursion, as it may be deep."""
    pending: list[tuple[Any, str, frozenset[int]]] = [(document, "$", frozenset())]
    while pending:
        value, path, above = pending.pop()
        reason = "it contains itself" if id(value) in above else _refusal(value)
        if reason is not None:
            yield path, reason
        elif isinstance(value, dict | list | tuple):
            below = above | {id(value)}
            pending.extend((part, place, below) for part, place in _parts(value, path))


def _parts(value: dict[Any, Any] | list[Any] | tuple[Any, ...], path: str) -> list[tuple[Any, str]]:
    """What is inside, last first: the walk takes from the end."""
    if isinstance(value, dict):
        found = [(part, f"{path}.{key}") for key, part in value.items()]
    else:
        found = [(part, f"{path}[{index}]") for index, part in enumerate(value)]
    return found[::-1]


def _refusal(value: Any) -> str | None:
    """Why JSON cannot say this one value, what is inside it left aside; else ``None``."""
    match value:
        case None | bool() | int() | list() | tuple():
            return None
        case float():
            return None if math.isfinite(value) else f"{value} has no place in JSON"
        case str():
            half = next((c for c in value if "\ud800" <= c <= "\udfff"), None)
            return None if half is None else f"{half!r} is half a character"
        case dict():
            key = next((key for key in value if not isinstance(key, str)), None)
            return None if key is None else f"the key {key!r} is not a string"
        case _:
            return f"{type(value).__module__}.{type(value).__qualname__} is no JSON type"
