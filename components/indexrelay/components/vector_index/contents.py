"""What a version holds, by row: the base around its tombstones, and the delta beside it.

A **row** is a row of the base, or, counted on from the base's last, one of the delta. Rows are what
FAISS answers with; they have gaps where the base has tombstones, and mean something only within one
version. `Contents.ids` knows nothing of that: it shows all entries in one order, as if they had
been written in one piece.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from indexrelay.components.closing import Closable
from indexrelay.components.errors import DamagedFileError, UnknownEntryError
from indexrelay.components.layered_ids import LayeredIds
from indexrelay.components.row_sets import among
from indexrelay.components.string_table import Rows
from indexrelay.components.vector_index.base import Base, base_paths
from indexrelay.components.vector_index.delta import Delta
from indexrelay.components.vector_index.facts import IndexFacts
from indexrelay.storage.entries import Vectors

T = TypeVar("T")

FACTS: Final = "index.json"


class Contents(Closable):
    """An opened version; immutable, and safe to use from many threads."""

    _closed_by = frozenset({"base", "delta", "ids"})

    def __init__(self, files: Mapping[str, Path], previous: "Contents | None" = None) -> None:
        """Map the files of a version; a base that ``previous`` has open is taken over.

        Raises:
            DamagedFileError: one of them is not what was written.
            MissingExtraError: FAISS is not installed.
            OSError: one of them cannot be opened.
        """
        self.facts = facts = IndexFacts.load(files[FACTS])
        same = previous is not None and previous.base.paths == base_paths(files)
        self.base: Base = previous.base if previous is not None and same else Base(files, facts)
        self.delta = Delta(files, facts, facts.delta) if facts.delta else None
        self.ids = LayeredIds(files, base=self.base.ids)
        layers = self.ids.layers
        found = (len(layers.tombstones), len(layers.places))
        promised = (facts.delta.dead, facts.delta.count) if facts.delta else (0, 0)
        if found != promised:
            raise DamagedFileError(
                files[FACTS], f"it promises {promised} tombstones and delta rows, not {found}"
            )
        self.first_of_delta: int = facts.count
        """The row of the delta's first entry."""

    def __len__(self) -> int:
        """How many entries it holds."""
        return self.facts.entries

    def row(self, entry_id: str) -> int:
        """The row of one entry.

        Raises:
            UnknownEntryError: it is not in here.
        """
        row = self.find(entry_id)
        if row is None:
            raise UnknownEntryError(entry_id)
        return row

    def find(self, entry_id: str) -> int | None:
        """The row of one entry; ``None``: it is not in here."""
        found = self.ids.find(entry_id)
        if found is None:
            return None
        return found.row + self.first_of_delta if found.in_delta else found.row

    def row_at(self, position: int) -> int:
        """The row of ``ids[position]``; raises `IndexError` where there is none."""
        if not 0 <= position < len(self):
            raise IndexError(f"position {position} of {len(self)}")
        in_delta, rows = self.ids.layers.locate(np.array([position]))
        return int(rows[0]) + (self.first_of_delta if in_delta[0] else 0)

    def vector(self, row: int) -> Vectors:
        """The exact vector of one row: a fresh array of the shape ``(dimension,)``."""
        if row < self.first_of_delta or self.delta is None:
            return self.base.lookup.vector(row)
        vector: Vectors = np.array(self.delta.vectors[row - self.first_of_delta])
        return vector

    def vectors(self, rows: Rows) -> Vectors:
        """The exact vectors of ``rows``, of the shape ``(*rows.shape, dimension)``."""
        flat = [self.vector(row) for row in rows.ravel().tolist()]
        return np.array(flat, dtype=np.float32).reshape(*rows.shape, self.facts.dimension)

    def ids_of(self, rows: Rows) -> list[str]:
        """The ids of ``rows`` (shape ``(n,)``), in that order."""
        delta = self.ids.delta
        if delta is None:
            return self.base.ids.many(rows)
        return self._of_both(self.base.ids.many, delta.many, rows)

    def payloads_of(self, rows: Rows) -> list[Any]:
        """The parsed payloads of ``rows``."""
        if self.delta is None:
            return self.base.payloads.many(rows)
        return self._of_both(self.base.payloads.many, self.delta.payloads.many, rows)

    def payload_bytes_of(self, rows: Rows) -> int:
        """How many bytes of JSON the payloads of ``rows`` have."""
        if self.delta is None:
            return self.base.payloads.bytes_of(rows)
        in_delta = rows >= self.first_of_delta
        beside = self.delta.payloads.bytes_of(rows[in_delta] - self.first_of_delta)
        return self.base.payloads.bytes_of(rows[~in_delta]) + beside

    def payload_texts_of(self, rows: Rows) -> list[str | None]:
        """The payloads of ``rows`` as they were given."""
        if self.delta is None:
            return self.base.payloads.text_many(rows)
        return self._of_both(self.base.payloads.text_many, self.delta.payloads.text_many, rows)

    def count_payloads(self) -> int:
        """How many entries have a payload."""
        of_base = self.base.payloads.count(without=self.ids.layers.tombstones)
        return of_base + (0 if self.delta is None else self.delta.payloads.count())

    def live_blocks(self) -> Iterator[tuple[Rows, Vectors]]:
        """Every entry once: rows, and their vectors of the shape ``(n, dimension)``."""
        tombstones = self.ids.layers.tombstones
        for rows, vectors in self.base.lookup.blocks():
            if len(tombstones):
                alive = ~among(rows, tombstones)
                yield rows[alive], vectors[alive]
            else:
                yield rows, vectors
        if self.delta is not None:
            yield self.first_of_delta + np.arange(len(self.delta)), self.delta.vectors

    def close(self) -> None:
        """Let go of it; the maps of the base stay with whoever else serves it."""
        self.ids.close()
        del self.base, self.delta, self.ids

    def _of_both(
        self,
        of_base: Callable[[Rows], list[T]],
        of_delta: Callable[[Rows], list[T]],
        rows: Rows,
    ) -> list[T]:
        """What base and delta say of their ``rows``, in the order of these."""
        in_delta = rows >= self.first_of_delta
        if not in_delta.any():
            return of_base(rows)
        base = iter(of_base(rows[~in_delta]))
        delta = iter(of_delta(rows[in_delta] - self.first_of_delta))
        return [next(delta if beside else base) for beside in in_delta.tolist()]
