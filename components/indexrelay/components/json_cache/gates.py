"""The gates of a JSON cache: what lies on disk is the document, in both forms, and of a sane size.

They read the files again; nothing that `build` had in memory is trusted but the number of entries,
which is what is being checked.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

from indexrelay.components.json_cache.document import count_items
from indexrelay.components.json_cache.served import unpack
from indexrelay.schemas.versions import Check


def judge(
    document: Path, gzipped: Path, *, entries: int, max_bytes: int, may_be_empty: bool
) -> Iterator[Check]:
    """Yield one `Check` for each gate; a file that cannot be read or parsed raises."""
    size = document.stat().st_size
    yield Check(
        name="size_bytes",
        passed=size <= max_bytes,
        measured=size,
        limit=max_bytes,
        detail="" if size <= max_bytes else "raise max_bytes, or put less into the document",
    )
    started = perf_counter()
    body = document.read_bytes()
    found = count_items(json.loads(body))
    yield Check(
        name="parses_back",
        passed=found == entries,
        measured=found,
        limit=entries,
        detail="" if found == entries else "the file holds another number of items than was built",
        seconds=perf_counter() - started,
    )
    started = perf_counter()
    same = unpack(gzipped.read_bytes()) == body
    yield Check(
        name="gzip_equals_document",
        passed=same,
        detail="" if same else "the gzipped form holds something else",
        seconds=perf_counter() - started,
    )
    filled = found > 0 or may_be_empty
    yield Check(
        name="not_empty",
        passed=filled,
        measured=found,
        detail="" if filled else "the inputs have entries; set allow_empty if this is right",
    )
