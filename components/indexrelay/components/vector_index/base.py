"""The base of a version: the big index, and the ids, payloads and vectors of its rows.

Versions that follow each other name the same base until it is built anew. A reader that goes from
one to the next takes over what is open: whoever serves it holds a reference, and the maps are let
go with the last one. CPython counts that; there is nothing to close.
"""

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from indexrelay.components.errors import DamagedFileError
from indexrelay.components.id_table import IdTable
from indexrelay.components.layered_ids import IDS
from indexrelay.components.payload_table import PayloadTable
from indexrelay.components.vector_index.facts import IndexFacts
from indexrelay.components.vector_index.lookup import LOOKUP_FILES, Lookup, open_lookup
from indexrelay.components.vector_index.opening import open_whole
from indexrelay.components.vector_index.prefaulting import leave_pages
from indexrelay.components.vector_index.reading import PAYLOADS

BASE: Final = "base.faiss"
TRAINED: Final = "trained.faiss"
"""The same index before anything was added: what a delta of many rows starts from."""
BASE_FILES: Final = frozenset({BASE, IDS, PAYLOADS, *LOOKUP_FILES})
"""Those that a base consists of, where it has them."""


class Base:
    """An opened base; immutable, and safe to use from many threads."""

    def __init__(self, files: Mapping[str, Path], facts: IndexFacts) -> None:
        """Map the files.

        Raises:
            DamagedFileError: one of them is not what was written.
            MissingExtraError: FAISS is not installed.
            OSError: one of them cannot be opened.
        """
        self.paths = base_paths(files)
        self.index: Any = open_whole(
            files[BASE], size=facts.base_bytes, dimension=facts.dimension, count=facts.count
        )
        self.ids = IdTable(files[IDS])
        self.payloads = PayloadTable(files[PAYLOADS])
        for table, name in ((self.ids, IDS), (self.payloads, PAYLOADS)):
            if len(table) != facts.count:
                raise DamagedFileError(files[name], f"it has {len(table)} rows, not {facts.count}")
        self.lookup: Lookup = open_lookup(self.index, files, base=BASE)

    def __del__(self) -> None:
        # The last user is gone, and FAISS is about to unmap the file under the interpreter's lock.
        if not sys.is_finalizing() and hasattr(self, "index"):
            with contextlib.suppress(OSError):  # swept meanwhile: it takes FAISS a moment longer
                leave_pages(self.paths[BASE])


def base_paths(files: Mapping[str, Path]) -> dict[str, Path]:
    """Where the files of a version's base lie; equal ones mean the same base."""
    return {name: path for name, path in files.items() if name in BASE_FILES}
