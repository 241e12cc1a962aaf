"""The gates of a JSON cache: what lies on disk is the document, in both forms, and of a sane size.

They read the files again; nothing that `build` had in memory is trusted but the number of entries,
which is what is being checked.
"""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from indexrelay.components.errors import DamagedFileError
from indexrelay.components.json_cache.document import count_items
from indexrelay.components.json_cache.served import unpack
from indexrelay.components.judging import Verdict, equal, judge
from indexrelay.schemas.versions import Check


def judged(
    document: Path, gzipped: Path, *, entries: int, max_bytes: int, may_be_empty: bool
) -> Iterator[Check]:
    """Yield one `Check` for each gate."""
    yield judge("size_bytes", lambda: _size(document, max_bytes))
    yield judge(
        "parses_back",
        lambda: equal(_items(document), entries, "it holds another number of items than was built"),
    )
    yield judge("gzip_equals_document", lambda: _same(document, gzipped))
    if not may_be_empty:
        yield judge("not_empty", lambda: _not_empty(document))


def _size(document: Path, max_bytes: int) -> Verdict:
    size = document.stat().st_size
    fits = size <= max_bytes
    detail = "" if fits else "raise max_bytes, or put less into the document"
    return Verdict(fits, detail, measured=size, limit=max_bytes)


def _same(document: Path, gzipped: Path) -> Verdict:
    packed, body = gzipped.read_bytes(), document.read_bytes()
    try:
        same = unpack(packed) == body
    except (OSError, EOFError, zlib.error) as error:  # gzip's own are `OSError`
        raise DamagedFileError(gzipped, str(error)) from error
    return Verdict(same, "" if same else "the gzipped form holds something else")


def _not_empty(document: Path) -> Verdict:
    items = _items(document)
    detail = "" if items else "the inputs have entries; set allow_empty if this is right"
    return Verdict(items > 0, detail, measured=items)


def _items(document: Path) -> int:
    try:
        return count_items(json.loads(document.read_bytes()))
    except ValueError as error:
        raise DamagedFileError(document, f"not JSON: {error}") from error
