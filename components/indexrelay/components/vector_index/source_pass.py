"""Reads the collection once more, from the source, and holds the files of a version against it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from indexrelay.components.id_table import IdTable
from indexrelay.components.payload_table import PayloadTable
from indexrelay.components.string_table import Rows
from indexrelay.components.vector_index.metrics import prepared
from indexrelay.components.vector_index.nearest import NearestRows
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Entries, SourceSnapshot, Vectors


@dataclass(kw_only=True)
class SourcePass:
    """What one pass over a collection shows; `run` it first."""

    ids: IdTable
    payloads: PayloadTable
    metric: Metric
    dimension: int
    wanted: Rows
    """Rows whose vectors are picked out: ascending, each once."""
    nearest: NearestRows
    """Shown every vector, as it is indexed."""

    rows: int = 0
    """How many entries the source gave."""
    picked: dict[int, Vectors] = field(default_factory=dict)
    """For each wanted row that the source has, its vector as it is indexed."""
    infinite: int = 0
    """How many vectors hold a NaN or an infinity."""
    wrong_id: str = ""
    """The first entry whose row names another one; empty: none does."""
    wrong_payload: str = ""
    """The first entry whose payload is another; empty: none is."""

    def run(self, source: SourceSnapshot) -> None:
        """Read everything."""
        for chunk in source.chunks():
            self._compare(chunk)
            finite = np.isfinite(chunk.vectors).all(axis=1)
            self.infinite += int(np.count_nonzero(~finite))
            if finite.all():
                self._pick(prepared(chunk.vectors, self.metric))
            self.rows += len(chunk)

    def gather(self, rows: Rows) -> Vectors:
        """The vectors of ``rows`` (all of them wanted), shape ``(*rows.shape, dimension)``."""
        flat = [self.picked[row] for row in rows.ravel().tolist()]
        return np.array(flat, dtype=np.float32).reshape(*rows.shape, self.dimension)

    def _compare(self, chunk: Entries) -> None:
        end = min(self.rows + len(chunk), len(self.ids))
        rows = np.arange(self.rows, end)
        # As a whole where all is well, row by row only to name what is not.
        if not self.wrong_id and not self.ids.holds(self.rows, chunk.ids):
            self.wrong_id = _first_difference(chunk.ids, self.ids.many(rows), chunk.ids)
        if not self.wrong_payload and not self.payloads.holds(self.rows, chunk.payloads):
            self.wrong_payload = _first_difference(
                chunk.payloads, self.payloads.text_many(rows), chunk.ids
            )

    def _pick(self, vectors: Vectors) -> None:
        self.nearest.add(vectors)
        first, end = np.searchsorted(self.wanted, [self.rows, self.rows + len(vectors)])
        for row in self.wanted[first:end].tolist():
            self.picked[row] = vectors[row - self.rows].copy()


def _first_difference(
    source: Sequence[str | None], ours: Sequence[str | None], ids: Sequence[str]
) -> str:
    """The id of the first entry that differs, where both have one; empty: none does."""
    if source == ours:
        return ""
    differing = (ids[row] for row, (a, b) in enumerate(zip(source, ours, strict=False)) if a != b)
    return next(differing, "")
