"""Which rows of a version a filter matches.

A version has columns for its base, and for its delta where there is one (`field_columns`). A
condition on one value is a slice of such a column. Everything else is put together from bits, one
for each row: a few microseconds for a hundred thousand. Rows of the base that have a tombstone are
taken out at the end, since a complement would bring them back.

Filters repeat: a shop asks for the same genres all day. So a version keeps what its last filters
matched (`FilterColumns.matches`), as rows where they are few, and as bits.
"""

import marshal
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.formats.field_columns import (
    Column,
    FieldColumns,
    FieldColumnsWriter,
    Slice,
)
from indexrelay.components.formats.string_table import Rows
from indexrelay.components.kind import Verdict
from indexrelay.components.layered import without
from indexrelay.schemas.filters import (
    All,
    AnyOf,
    Between,
    Condition,
    Exists,
    Fields,
    Filter,
    Not,
    Some,
    parse_filter,
)

FEW_ROWS: Final = 100_000
"""Up to so many matches their rows are kept: 800 kB. More are kept as bits."""
_KEPT: Final = 128
"""Filters whose matches a version keeps."""
_KEPT_BYTES: Final = 16 << 20
"""… and how much memory they may take in one process."""
_PARSED_BYTES: Final = 4096
"""Filters that are no longer than this are kept parsed, too: most of them have a hundred."""


class LayerMatches:
    """The rows of one layer that match; immutable, and safe to read from many threads."""

    def __init__(self, rows: Rows | None, mask: NDArray[np.bool_] | None, of: int) -> None:
        """Of ``rows`` in increasing order, or of a ``mask`` of ``of`` rows."""
        self.prepared: dict[int, Any] = {}
        """What a planner keeps for queries that come with the same filter, by ``k``."""
        self.sketched = False
        """Whether a query read the sketches of these rows."""
        self.sketches: NDArray[np.uint8] | None = None
        """These, where a second query did."""
        self._of = of
        self._rows: Rows | None = rows
        self._bits: NDArray[np.uint8] | None = None
        if rows is not None and len(rows) > FEW_ROWS:
            mask = np.zeros(of, dtype=bool)
            mask[rows] = True
            self._rows = None
        if mask is not None:
            self.count = int(np.count_nonzero(mask))
            if self.count <= FEW_ROWS:
                self._rows = np.flatnonzero(mask)
            else:
                self._bits = np.packbits(mask, bitorder="little")
        else:
            self.count = 0 if rows is None else len(rows)

    def __len__(self) -> int:
        return self.count

    @property
    def of(self) -> int:
        """How many rows the layer has."""
        return self._of

    @property
    def rows(self) -> Rows:
        """The matching rows, int64, in increasing order."""
        if self._rows is not None:
            return self._rows
        return np.flatnonzero(self.mask)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """For each row of the layer whether it matches: a fresh array."""
        if self._bits is not None:
            return np.unpackbits(self._bits, count=self._of, bitorder="little").view(np.bool_)
        mask = np.zeros(self._of, dtype=bool)
        mask[self._rows] = True
        return mask

    @cached_property
    def bits(self) -> NDArray[np.uint8]:
        """One bit for each row, least significant first: as FAISS takes them."""
        return np.packbits(self.mask, bitorder="little") if self._bits is None else self._bits

    def without(self, rows: Rows) -> "LayerMatches":
        """The same without ``rows``, which are in increasing order."""
        if not len(rows):
            return self
        if self._rows is not None:
            return LayerMatches(without(self._rows, rows), None, self._of)
        mask = self.mask
        mask[rows] = False
        return LayerMatches(None, mask, self._of)

    @property
    def bytes_held(self) -> int:
        """About how much memory it takes, with `bits`."""
        return (0 if self._rows is None else self._rows.nbytes) + self._of // 8 + 200


@dataclass(frozen=True)
class Matches:
    """The rows of a version that match."""

    base: LayerMatches
    delta: LayerMatches
    """Rows count from the delta's first."""

    def __len__(self) -> int:
        """How many entries match."""
        return self.base.count + self.delta.count

    def without(self, base: Rows, delta: Rows) -> "Matches":
        """The same without these rows, both in increasing order."""
        return Matches(self.base.without(base), self.delta.without(delta))


class FilterColumns:
    """The columns of one version; safe to use from many threads."""

    def __init__(
        self,
        base: FieldColumns | None,
        delta: FieldColumns | None,
        *,
        rows: int,
        delta_rows: int,
        tombstones: Rows,
        sketch_bytes: int = 0,
    ) -> None:
        """Of a base of ``rows`` rows and of a delta of ``delta_rows``.

        ``sketch_bytes`` may be kept for each row of the base that matches.

        A version that was built without filterable fields has no columns: only filters that ask for
        nothing can be answered.

        Raises:
            CorruptFileError: the two do not have the same fields.
        """
        if base is not None and delta is not None and base.fields != delta.fields:
            raise CorruptFileError(delta.path, "it has other fields than the base")
        self.fields: Fields = {} if base is None else base.fields
        """The fields by which it can be filtered."""
        self._base, self._delta = base, delta
        self._rows, self._delta_rows = rows, delta_rows
        self._tombstones = tombstones
        self._sketch_bytes = sketch_bytes
        self._kept: OrderedDict[Filter, Matches] = OrderedDict()
        self._kept_bytes = 0
        self._parsed: dict[bytes, Filter | None] = {}
        self._lock = threading.Lock()

    def parse(self, given: Any) -> Filter | None:
        """A filter as it was given; ``None`` where it asks for nothing.

        Raises:
            InvalidFilterError: it cannot be answered here.
        """
        if given is None:
            return None
        try:
            written = marshal.dumps(given, 2)  # equal bytes are equal filters, down to the types
        except ValueError:  # something that JSON does not have, or nested too deep
            written = b""
        try:
            return self._parsed[written]
        except KeyError:
            found = parse_filter(given, self.fields)
        asked = None if found.everything else found
        if 0 < len(written) <= _PARSED_BYTES:
            if len(self._parsed) >= _KEPT:
                self._parsed.clear()
            self._parsed[written] = asked
        return asked

    def matching(self, given: Any) -> Matches | None:
        """What matches a filter as it was given; ``None`` where it asks for nothing.

        Raises:
            InvalidFilterError: it cannot be answered here.
            CorruptFileError: a column is not what was written.
        """
        asked = self.parse(given)
        return None if asked is None else self.matches(asked)

    def matches(self, asked: Filter) -> Matches:
        """What matches a filter of `parse`.

        Raises:
            CorruptFileError: a column is not what was written.
        """
        with self._lock:
            known = self._kept.get(asked)
            if known is not None:
                self._kept.move_to_end(asked)
                return known
        base = _matching(self._base, asked.condition, self._rows).without(self._tombstones)
        found = Matches(base, _matching(self._delta, asked.condition, self._delta_rows))
        self._keep(asked, found)
        return found

    def everything(self) -> Matches:
        """All entries."""
        base = LayerMatches(None, np.ones(self._rows, dtype=bool), self._rows)
        delta = LayerMatches(None, np.ones(self._delta_rows, dtype=bool), self._delta_rows)
        return Matches(base.without(self._tombstones), delta)

    def details(self) -> dict[str, Any]:
        """For the version's details: see `field_details`; empty where there are no fields."""
        if self._base is None:
            return {}
        return {"filterable": field_details(self._base, self._delta, self._tombstones)}

    def _keep(self, asked: Filter, found: Matches) -> None:
        size = self._size(found)
        if size > _KEPT_BYTES:
            return
        with self._lock:
            if asked in self._kept:  # another thread was as fast
                return
            self._kept[asked] = found
            self._kept_bytes += size
            while len(self._kept) > _KEPT or self._kept_bytes > _KEPT_BYTES:
                _, old = self._kept.popitem(last=False)
                self._kept_bytes -= self._size(old)

    def _size(self, found: Matches) -> int:
        """About how much memory they may take."""
        of_sketches = found.base.count * self._sketch_bytes
        return found.base.bytes_held + found.delta.bytes_held + of_sketches


def fields_in(fields: Fields, path: Path) -> dict[str, Any]:
    """`field_details` of a version that is in one layer; empty where there are no ``fields``."""
    if not fields:
        return {}
    with closing(FieldColumns(path)) as columns:
        return {"filterable": field_details(columns, None, np.empty(0, dtype=np.int64))}


def field_details(
    base: FieldColumns, delta: FieldColumns | None, tombstones: Rows
) -> dict[str, Any]:
    """For the version's details: of each field its type, how many entries have it, and how many
    have something of another type there, which counts as missing."""
    found: dict[str, Any] = {}
    for name, kind in sorted(base.fields.items()):
        live = base[name].presence()
        live[tombstones] = False
        present, others = int(live.sum()), len(without(base[name].others, tombstones))
        if delta is not None:
            present += delta[name].present
            others += len(delta[name].others)
        found[name] = {"type": str(kind), "entries": present, "of_another_type": others}
    return found


def columns_gate(
    columns: FieldColumns | None,
    fields: Fields,
    payloads: Callable[[Rows], Iterable[str | None]],
    rows: int,
) -> Verdict:
    """The columns of one layer are those that its payloads make.

    ``payloads`` gives the JSON of some of its ``rows`` rows, which were compared with the source.
    """
    if columns is None or dict(columns.fields) != dict(fields):
        there = "none" if columns is None else ", ".join(sorted(columns.fields))
        return Verdict(False, f"the version has columns of {there}, not of {', '.join(fields)}")
    again = FieldColumnsWriter(fields)
    for first in range(0, rows, _BLOCK):
        again.extend(first, payloads(np.arange(first, min(first + _BLOCK, rows))))
    same = again.same(columns.path, rows)
    return Verdict(same, "" if same else "the columns are not what the payloads say", measured=rows)


_BLOCK: Final = 4096
_SPARSE: Final = 8
"""Where a condition matches less than one in so many rows, these rows are sorted, and the other
conditions look at them only: to find them in a mask of all rows takes twice as long."""


def _matching(columns: FieldColumns | None, condition: Condition, rows: int) -> LayerMatches:
    """What matches in one layer of ``rows`` rows."""
    if columns is None or not rows:
        return LayerMatches(np.empty(0, dtype=np.int64), None, rows)
    few = _few_rows(columns, condition, rows)
    if few is not None:
        return LayerMatches(few, None, rows)
    return LayerMatches(None, _mask(columns, condition, rows), rows)


def _few_rows(columns: FieldColumns, condition: Condition, rows: int) -> Rows | None:
    """The matching rows where one condition has few of them and decides; ``None``: none has."""
    parts = condition.parts if isinstance(condition, All) else (condition,)
    best: tuple[int, Column, list[Slice], Condition] | None = None
    for part in parts:
        if isinstance(part, AnyOf | Between):
            column = columns[part.field]
            slices = column.slices(part)
            if not slices:
                return np.empty(0, dtype=np.int64)
            count = sum(stop - start for start, stop in slices)
            if best is None or count < best[0]:
                best = (count, column, slices, part)
    if best is None:
        return None
    count, column, where, decisive = best
    in_order = len(parts) == 1 and len(where) == 1 and column.one_value(where[0])
    if count * _SPARSE > rows and not in_order:
        return None
    found = column.rows_of(where)
    for part in parts:
        if part is not decisive:
            found = found[_mask(columns, part, rows)[found]]
    return found


def _mask(columns: FieldColumns, condition: Condition, rows: int) -> NDArray[np.bool_]:
    """For each row whether it matches: a fresh array."""
    match condition:
        case AnyOf() | Between():
            column = columns[condition.field]
            return column.mask(column.slices(condition))
        case Exists():
            return columns[condition.field].presence()
        case Not():
            return ~_mask(columns, condition.part, rows)
        case All():
            found = np.ones(rows, dtype=bool)
            for part in condition.parts:
                found &= _mask(columns, part, rows)
            return found
        case Some():
            found = np.zeros(rows, dtype=bool)
            for part in condition.parts:
                found |= _mask(columns, part, rows)
            return found
