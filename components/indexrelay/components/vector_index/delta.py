"""The delta of a version: the entries that came or changed since its base was built.

It holds each of them once, with its last state, so nothing in it is ever dead. As long as that
is fast it is a mapped matrix that is scanned. Beyond that, and where the base measures in a space
of its own (behind a transform), it is an index of the base's type as well: a copy of the trained
one, with these rows added.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from indexrelay.components.errors import DamagedFileError
from indexrelay.components.mapped_array import mapped_array
from indexrelay.components.optional import require_faiss
from indexrelay.components.payload_table import PayloadTable
from indexrelay.components.vector_index.facts import DeltaFacts, IndexFacts
from indexrelay.components.vector_index.index_search import Found, IndexSearch
from indexrelay.components.vector_index.opening import open_whole
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Vectors

DELTA_VECTORS: Final = "delta_vectors.npy"
DELTA_PAYLOADS: Final = "delta_payloads.table"
DELTA_INDEX: Final = "delta.faiss"
"""Only where it is not scanned."""
SCANNED_ROWS: Final = 10_000
"""A scan of as many rows of 128 takes 0.1 ms; links of a graph would be laid anew in each build."""
SCANNED_BESIDE_LISTS: Final = 1_000
"""… and of so many 15 µs, where lists that the base's query found already take 5 (`shared_lists`)
and are filled at a glance."""


class Delta:
    """An opened delta; immutable, and safe to use from many threads."""

    def __init__(self, files: Mapping[str, Path], facts: IndexFacts, delta: DeltaFacts) -> None:
        """Map the files.

        Raises:
            DamagedFileError: one of them is not what was written.
            OSError: one of them cannot be opened.
        """
        shape = (delta.count, facts.dimension)
        self.vectors: Vectors = mapped_array(files[DELTA_VECTORS], shape, np.float32)
        """Shape ``(rows, dimension)``, as they are indexed."""
        self.payloads = PayloadTable(files[DELTA_PAYLOADS])
        if len(self.payloads) != delta.count:
            raise DamagedFileError(
                files[DELTA_PAYLOADS], f"it has {len(self.payloads)} rows, not {delta.count}"
            )
        self._metric = facts.metric
        self.path = files.get(DELTA_INDEX, files[DELTA_VECTORS])
        """Where its index lies, or its vectors."""
        self.index: Any = None
        """The FAISS index of its rows; ``None``: they are scanned."""
        self._indexed: IndexSearch | None = None
        if delta.index_bytes is not None:
            if DELTA_INDEX not in files:
                raise DamagedFileError(files[DELTA_VECTORS], "its index is not in the version")
            self.index = open_whole(
                files[DELTA_INDEX],
                size=delta.index_bytes,
                dimension=facts.dimension,
                count=delta.count,
            )
            self._indexed = IndexSearch(self.index, facts.effort)

    def __len__(self) -> int:
        return len(self.vectors)

    def nearest(self, queries: Vectors, k: int) -> Found:
        """As `IndexSearch.nearest`; rows count from the delta's first."""
        return (
            self._scan(queries, k) if self._indexed is None else self._indexed.nearest(queries, k)
        )

    def near(self, queries: Vectors, k: int) -> Found:
        """As `IndexSearch.near`; rows count from the delta's first."""
        return self._scan(queries, k) if self._indexed is None else self._indexed.near(queries, k)

    def _scan(self, queries: Vectors, k: int) -> Found:
        faiss = require_faiss()
        found = np.empty((len(queries), k), dtype=np.float32)
        rows = np.empty((len(queries), k), dtype=np.int64)
        scan = faiss.knn_L2sqr if self._metric is Metric.L2 else faiss.knn_inner_product
        pointer = faiss.swig_ptr
        count, dimension = self.vectors.shape
        scan(
            pointer(queries),
            pointer(self.vectors),
            dimension,
            len(queries),
            count,
            k,
            pointer(found),
            pointer(rows),
        )
        return found, rows
