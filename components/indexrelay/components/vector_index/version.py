"""The files of one version, opened: the base with its tombstones, and the delta beside it.

The **base** is the big index, with the ids, payloads and vectors of its rows. Versions that follow
each other name the same base until there is a full build; a reader that goes from one to the next
keeps what is open. The **delta** holds the entries that came or changed since the base was built,
each once and with its last state, so it has no tombstones. A small delta is a mapped matrix that is
scanned. A larger one, and one beside a base with a transform, which measures other distances than a
scan, also has an index of the base's type: a copy of the trained one, with these rows added.

A **row** is a row of the base, or, counted on from the base's last, one of the delta. Rows are what
FAISS answers with; they have gaps where the base has tombstones, and mean something only within one
version. `Contents.ids` shows all entries in one order, as if they had been written in one piece.
"""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from indexrelay.components.errors import CorruptFileError, UnknownEntryError
from indexrelay.components.formats.entry_tables import IdTable, PayloadTable
from indexrelay.components.formats.field_columns import FieldColumns
from indexrelay.components.formats.mapped_array import mapped_array
from indexrelay.components.formats.string_table import CellTexts, Rows, listed
from indexrelay.components.layered import IDS, LayeredIds, among
from indexrelay.components.matches import FilterColumns
from indexrelay.components.served import Closable
from indexrelay.components.vector_index.index_search import (
    Found,
    FoundByOne,
    IndexSearch,
    by_one,
)
from indexrelay.components.vector_index.lookups import (
    PLACES,
    VECTORS,
    Lookup,
    MatrixOf,
    nearest_among,
    open_lookup,
)
from indexrelay.components.vector_index.mapped_index import (
    open_whole,
    release_pages,
    require_faiss,
)
from indexrelay.components.vector_index.sketches import SKETCHES, Sketches
from indexrelay.components.vector_index.spec import DeltaFacts, IndexFacts
from indexrelay.schemas.filters import Fields
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Entries, Vectors

FACTS: Final = "index.json"
BASE: Final = "base.faiss"
TRAINED: Final = "trained.faiss"
"""The same index before anything was added: what a delta of many rows starts from."""
PAYLOADS: Final = "payloads.table"
FIELDS: Final = "fields.columns"
"""Only where the collection has filterable fields."""
BASE_FILES: Final = frozenset({BASE, IDS, PAYLOADS, FIELDS, PLACES, VECTORS, SKETCHES})
"""Those that a base consists of, where it has them."""
DELTA_VECTORS: Final = "delta_vectors.npy"
DELTA_PAYLOADS: Final = "delta_payloads.table"
DELTA_FIELDS: Final = "delta_fields.columns"
DELTA_INDEX: Final = "delta.faiss"
"""Only where the delta is not scanned."""

_FEWEST_BY_MASK: Final = 64
"""Below so many rows the calls of NumPy cost more than comparing one after another."""

T = TypeVar("T")


class Contents(Closable):
    """An opened version; immutable, and safe to use from many threads."""

    _closed_by = frozenset({"base", "delta", "ids"})

    def __init__(self, files: Mapping[str, Path], previous: "Contents | None" = None) -> None:
        """Map the files of a version; a base that ``previous`` has open is shared.

        Raises:
            CorruptFileError: one of them is not what was written.
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
            raise CorruptFileError(
                files[FACTS], f"it promises {promised} tombstones and delta rows, not {found}"
            )
        self.first_of_delta: int = facts.count
        """The row of the delta's first entry."""

    @property
    def fields(self) -> Fields:
        """The fields by which it can be filtered."""
        return {} if self.base.columns is None else self.base.columns.fields

    @cached_property
    def columns(self) -> FilterColumns:
        """What can be filtered by, and what recent filters matched."""
        layers, sketches = self.ids.layers, self.base.sketches
        return FilterColumns(
            self.base.columns,
            None if self.delta is None else self.delta.columns,
            rows=self.facts.count,
            delta_rows=len(layers.places),
            tombstones=layers.tombstones,
            sketch_bytes=0 if sketches is None else sketches.bits.shape[1],
        )

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

    def ids_of(self, rows: Rows | Sequence[int]) -> list[str]:
        """The ids of ``rows`` (shape ``(n,)``, or a list), in that order."""
        delta = self.ids.delta
        if delta is None:
            return self.base.ids.many(rows)
        return self._of_both(self.base.ids.many, delta.many, rows)

    def ids_taken(self, rows: Rows) -> list[str] | CellTexts:
        """The ids of ``rows``: slices of them are lists; see `IdTable.taken`."""
        return self.base.ids.taken(rows) if self.ids.delta is None else self.ids_of(rows)

    def payloads_of(self, rows: Rows | Sequence[int]) -> list[Any]:
        """The parsed payloads of ``rows``."""
        if self.delta is None:
            return self.base.payloads.many(rows)
        return self._of_both(self.base.payloads.many, self.delta.payloads.many, rows)

    @property
    def without_payloads(self) -> bool:
        """Whether no entry has a payload."""
        return self.base.payloads.empty and (self.delta is None or self.delta.payloads.empty)

    def raw_payloads_of(self, rows: Rows | Sequence[int]) -> list[bytes | None]:
        """The payloads of ``rows`` as JSON in UTF-8, as they are stored."""
        if self.delta is None:
            return self.base.payloads.raw_many(rows)
        return self._of_both(self.base.payloads.raw_many, self.delta.payloads.raw_many, rows)

    def payload_paths_of(self, rows: Rows | Sequence[int]) -> Iterable[Path]:
        """The file that each of these payloads is in; endless where there is only one."""
        path = self.base.payloads.path
        if self.delta is None:
            return repeat(path)
        first, beside = self.first_of_delta, self.delta.payloads.path
        return [path if row < first else beside for row in listed(rows)]

    def payload_bytes_of(self, rows: Rows | Sequence[int]) -> int:
        """How many bytes of JSON the payloads of ``rows`` have."""
        if self.delta is None:
            return self.base.payloads.bytes_of(rows)
        first, numbers = self.first_of_delta, listed(rows)
        in_base = self.base.payloads.bytes_of([row for row in numbers if row < first])
        return in_base + self.delta.payloads.bytes_of(
            [row - first for row in numbers if row >= first]
        )

    def payload_texts_of(self, rows: Rows | Sequence[int]) -> list[str | None]:
        """The payloads of ``rows`` as they were given."""
        if self.delta is None:
            return self.base.payloads.text_many(rows)
        return self._of_both(self.base.payloads.text_many, self.delta.payloads.text_many, rows)

    def differing(self, entries: Entries) -> Iterator[int]:
        """The rows of ``entries`` that it does not hold, bit for bit."""
        given = zip(entries.ids, entries.vectors, entries.payloads, strict=True)
        return (row for row, entry in enumerate(given) if not self._holds(*entry))

    def _holds(self, entry_id: str, vector: Vectors, payload: str | None) -> bool:
        row = self.find(entry_id)
        return (
            row is not None
            and self.vector(row).tobytes() == vector.tobytes()
            and self.payload_texts_of(np.array([row]))[0] == payload
        )

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
        """Close it; a base that another version shares stays open."""
        self.ids.close()
        self.__dict__.pop("columns", None)
        del self.base, self.delta, self.ids

    def _of_both(
        self,
        of_base: Callable[[Rows | Sequence[int]], list[T]],
        of_delta: Callable[[Rows | Sequence[int]], list[T]],
        rows: Rows | Sequence[int],
    ) -> list[T]:
        """The values of ``rows`` in base and delta, in that order."""
        first = self.first_of_delta
        if isinstance(rows, np.ndarray) and len(rows) >= _FEWEST_BY_MASK:
            beside = rows >= first
            if not beside.any():
                return of_base(rows)
            base, delta = iter(of_base(rows[~beside])), iter(of_delta(rows[beside] - first))
            return [next(delta if each else base) for each in beside.tolist()]
        numbers = listed(rows)
        if max(numbers, default=0) < first:
            return of_base(rows)
        base = iter(of_base([row for row in numbers if row < first]))
        delta = iter(of_delta([row - first for row in numbers if row >= first]))
        return [next(base if row < first else delta) for row in numbers]


class Base:
    """An opened base; immutable, and safe to use from many threads.

    The versions that share it hold references, and CPython unmaps it with the last one: there is
    nothing to close.
    """

    def __init__(self, files: Mapping[str, Path], facts: IndexFacts) -> None:
        """Map the files.

        Raises:
            CorruptFileError: one of them is not what was written.
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
                raise CorruptFileError(files[name], f"it has {len(table)} rows, not {facts.count}")
        self.columns = opened_columns(files, FIELDS, rows=facts.count)
        self.lookup: Lookup = open_lookup(self.index, files[BASE], files)
        self.sketches: Sketches | None = None
        """``None``: there are none."""
        if facts.sketched is not None:
            self.sketches = Sketches(files[SKETCHES], rows=facts.count, dimension=facts.dimension)

    def __del__(self) -> None:
        # FAISS unmaps the file next, and holds the interpreter's lock.
        if not sys.is_finalizing() and hasattr(self, "index"):
            with contextlib.suppress(OSError):  # the file is deleted: the unmapping is slower
                release_pages(self.paths[BASE])


def opened_columns(files: Mapping[str, Path], name: str, *, rows: int) -> FieldColumns | None:
    """The columns of a layer of ``rows`` rows; ``None``: it has none.

    Raises:
        CorruptFileError: they are not what was written, or of another number of rows.
    """
    if name not in files:
        return None
    columns = FieldColumns(files[name])
    if columns.rows != rows:
        raise CorruptFileError(files[name], f"it has {columns.rows} rows, not {rows}")
    return columns


def base_paths(files: Mapping[str, Path]) -> dict[str, Path]:
    """The paths of a version's base; versions with equal ones share it."""
    return {name: path for name, path in files.items() if name in BASE_FILES}


class Delta:
    """An opened delta; immutable, and safe to use from many threads."""

    def __init__(self, files: Mapping[str, Path], facts: IndexFacts, delta: DeltaFacts) -> None:
        """Map the files.

        Raises:
            CorruptFileError: one of them is not what was written.
            OSError: one of them cannot be opened.
        """
        shape = (delta.count, facts.dimension)
        self.vectors: Vectors = mapped_array(files[DELTA_VECTORS], shape, np.float32)
        """Shape ``(rows, dimension)``, as they are indexed."""
        self.payloads = PayloadTable(files[DELTA_PAYLOADS])
        if len(self.payloads) != delta.count:
            raise CorruptFileError(
                files[DELTA_PAYLOADS], f"it has {len(self.payloads)} rows, not {delta.count}"
            )
        self.columns = opened_columns(files, DELTA_FIELDS, rows=delta.count)
        if (self.columns is None) != (FIELDS not in files):
            raise CorruptFileError(files[FACTS], "base and delta have not the same columns")
        self._metric = facts.metric
        self.path = files.get(DELTA_INDEX, files[DELTA_VECTORS])
        """The file of its index, or of its vectors."""
        self.index: Any = None
        """The FAISS index of its rows; ``None``: they are scanned."""
        self._indexed: IndexSearch | None = None
        if delta.index_bytes is not None:
            if DELTA_INDEX not in files:
                raise CorruptFileError(files[DELTA_VECTORS], "its index is not in the version")
            self.index = open_whole(
                files[DELTA_INDEX],
                size=delta.index_bytes,
                dimension=facts.dimension,
                count=delta.count,
            )
            self._indexed = IndexSearch(self.index, facts.effort)

    def __len__(self) -> int:
        return len(self.vectors)

    def nearest_among(self, queries: Vectors, rows: Rows, k: int) -> Found:
        """As `Lookup.nearest`; rows count from the delta's first."""
        return nearest_among(MatrixOf.array(self.vectors), queries, rows, k, self._metric)

    def nearest(self, queries: Vectors, k: int) -> Found:
        """As `IndexSearch.nearest`; rows count from the delta's first."""
        if self._indexed is None:
            return self._scan(queries, k)
        return self._indexed.nearest(queries, k)

    def nearest_at_effort(self, queries: Vectors, k: int) -> Found:
        """As `IndexSearch.nearest_at_effort`; rows count from the delta's first."""
        if self._indexed is None:
            return self._scan(queries, k)
        return self._indexed.nearest_at_effort(queries, k)

    def one_at_effort(self, query: Vectors, k: int) -> FoundByOne:
        """As `IndexSearch.one_at_effort`; rows count from the delta's first."""
        if self._indexed is None:
            return by_one(self._scan(query[None, :], k))
        return self._indexed.one_at_effort(query, k)

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
