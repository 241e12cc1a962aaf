"""The tables of entries: the ids and the payloads of a version, by row number.

Both are string tables, read from mapped bytes. `IdTable` leads from a row to its id by offset, and
from an id to its row by binary search, so a reader holds no dictionary of a million strings: a
look-up among a million ids compares twenty of them, about ten microseconds. `PayloadTable` gives
the JSON of a row as it lies there, or parsed.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from operator import eq, index, le
from pathlib import Path
from typing import Any, Self, cast, overload

import numpy as np

from indexrelay.components.errors import CorruptFileError, UnknownEntryError
from indexrelay.components.formats.string_table import (
    CellTexts,
    Rows,
    StringTable,
    StringTableWriter,
)
from indexrelay.components.served import parsed_payload

_BLOCK = 4096
"""Ids compared at a time in `IdTable.check`."""


class IdTable(Sequence[str]):
    """A mapped sequence of ids; immutable, and safe to read from many threads."""

    def __init__(self, path: Path) -> None:
        """Map the file.

        Raises:
            CorruptFileError: it is no table of ids, or not as long as it says.
            OSError: it cannot be opened.
        """
        self._table = StringTable(path)
        if not self._table.searchable:
            raise CorruptFileError(path, "it is a string table, but not one of ids")
        self._has_missing = self._table.has_missing

    @classmethod
    def write(cls, path: Path, ids: Sequence[str]) -> Self:
        """Write ``ids`` to a new file and open it; `writer` does it a chunk at a time."""
        with cls.writer(path) as writer:
            writer.extend(ids)
        return cls(path)

    @staticmethod
    def writer(path: Path) -> StringTableWriter:
        """A writer of a new file; ids in the order of their UTF-8 bytes need no sorting."""
        return StringTableWriter(path, searchable=True)

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[str]:
        return (self._id(text) for text in self._table)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return self.many(np.arange(*row.indices(len(self))))
        place = index(row) + (len(self) if row < 0 else 0)
        if not 0 <= place < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return self.many(np.array([place]))[0]

    def __contains__(self, entry_id: object) -> bool:
        return isinstance(entry_id, str) and self.find(entry_id) is not None

    def many(self, rows: Rows | Sequence[int]) -> list[str]:
        """The ids of ``rows`` (int64 or a list, each 0 ≤ row < ``len``), in that order."""
        ids = self._table.many(rows)
        if self._has_missing and None in ids:
            raise CorruptFileError(self._table.path, "an id is missing")
        return cast("list[str]", ids)

    def taken(self, rows: Rows) -> list[str] | CellTexts:
        """The ids of ``rows``, as `many` gives them; their texts are made slice by slice where the
        file allows it."""
        return self._table.cell_texts(rows) or self.many(rows)

    def copy(self, writer: StringTableWriter, rows: slice) -> None:
        """Append ``rows`` (from start to stop) to another table, as they are."""
        writer.copy(self._table, rows)

    def same(self, first: int, other: "IdTable", at: int, *, count: int) -> bool:
        """Whether ``count`` ids from row ``first`` on are those of ``other`` from ``at`` on."""
        return self._table.same(first, other._table, at, count=count)  # noqa: SLF001

    def row(self, entry_id: str) -> int:
        """The row of one id.

        Raises:
            UnknownEntryError: it is not in here.
        """
        row = self.find(entry_id)
        if row is None:
            raise UnknownEntryError(entry_id)
        return row

    def find(self, entry_id: str) -> int | None:
        """The row of one id; ``None``: it is not in here."""
        # Half a surrogate pair has no UTF-8, so no stored id has one: let it simply not be found.
        wanted = entry_id.encode("utf-8", "surrogatepass")
        if self._table.order is None:
            row = self._table.place(wanted, 0, len(self))
            return row if row < len(self) and self._table.raw(row) == wanted else None
        place = bisect_left(range(len(self)), wanted, key=self._raw_at)
        if place == len(self) or self._raw_at(place) != wanted:
            return None
        return self._at(place)

    def place(self, entry_id: str, start: int, end: int) -> int:
        """The row in [``start``, ``end``] that ``entry_id`` stands at, or would stand before.

        The rows from ``start`` up to ``end`` stand in the order of their UTF-8 bytes.
        """
        return self._table.place(entry_id.encode(), start, end)

    def check(self) -> int:
        """Look at every id, and say how many repeat another one (0: they are unique).

        Raises:
            CorruptFileError: the file is not what was written, or its ids are not in order.
        """
        self._table.check()
        repeats = 0
        last: list[bytes] = []
        for start in range(0, len(self), _BLOCK):
            raws = self._table.raw_many(self._rows_at(start, start + _BLOCK))
            ids = last + [raw or b"" for raw in raws]
            if not all(map(le, ids, ids[1:])):
                raise CorruptFileError(self._table.path, "its order is not that of the ids")
            repeats += sum(map(eq, ids, ids[1:]))
            last = ids[-1:]
        return repeats

    def holds(self, first: int, ids: Sequence[str]) -> bool:
        """Whether the rows from ``first`` on are exactly ``ids``."""
        return self._table.holds(first, ids)

    def close(self) -> None:
        """Let go of the map; nothing may be read afterwards."""
        self._table.close()

    def _raw_at(self, place: int) -> bytes:
        return self._table.raw(self._at(place))

    def _at(self, place: int) -> int:
        """The row at one place of the sorted order."""
        order = self._table.order
        if order is None:
            return place
        row = int(order[place])
        if not 0 <= row < len(self):
            raise CorruptFileError(self._table.path, "its order names a row that does not exist")
        return row

    def _rows_at(self, start: int, end: int) -> Rows:
        """The rows at a stretch of the sorted order, which `StringTable.check` has looked at."""
        end = min(end, len(self))
        order = self._table.order
        return np.arange(start, end) if order is None else order[start:end].astype(np.int64)

    def _id(self, text: str | None) -> str:
        if text is None:
            raise CorruptFileError(self._table.path, "an id is missing")
        return text


class PayloadTable:
    """Mapped payloads; immutable, and safe to read from many threads."""

    def __init__(self, path: Path) -> None:
        """Map the file.

        Raises:
            CorruptFileError: it is no table, or not as long as it says.
            OSError: it cannot be opened.
        """
        self._table = StringTable(path)

    @staticmethod
    def writer(path: Path) -> StringTableWriter:
        """A writer of a new file; its rows are JSON texts or ``None``."""
        return StringTableWriter(path)

    def __len__(self) -> int:
        return len(self._table)

    def count(self, *, without: Rows | None = None) -> int:
        """How many rows have a payload, those of ``without`` (each once) not counted."""
        return self._table.count_texts(without=without)

    @property
    def path(self) -> Path:
        """The file."""
        return self._table.path

    @property
    def empty(self) -> bool:
        """Whether no row has a payload: JSON is never without a byte."""
        return not self._table.text_bytes

    def many(self, rows: Rows | Sequence[int]) -> list[Any]:
        """The parsed payloads of ``rows`` (int64 or a list, each 0 ≤ row < ``len``), in that order.

        Raises:
            CorruptFileError: one is not JSON.
        """
        path = self.path
        return [None if raw is None else parsed_payload(raw, path) for raw in self.raw_many(rows)]

    def raw_many(self, rows: Rows | Sequence[int]) -> list[bytes | None]:
        """The payloads of ``rows`` as JSON in UTF-8, as they are stored."""
        return self._table.raw_many(rows)

    def bytes_of(self, rows: Rows | Sequence[int]) -> int:
        """How many bytes of JSON the payloads of ``rows`` have, as the file says."""
        return self._table.bytes_of(rows)

    def text_many(self, rows: Rows | Sequence[int]) -> list[str | None]:
        """The payloads of ``rows`` as they were given."""
        return self._table.many(rows)

    def holds(self, first: int, payloads: Sequence[str | None]) -> bool:
        """Whether the rows from ``first`` on are exactly ``payloads``."""
        return self._table.holds(first, payloads)

    def copy(self, writer: StringTableWriter, rows: slice) -> None:
        """Append ``rows`` (from start to stop) to another table, as they are."""
        writer.copy(self._table, rows)

    def same(self, first: int, other: "PayloadTable", at: int, *, count: int) -> bool:
        """Whether ``count`` rows from ``first`` on are those of ``other`` from ``at`` on."""
        return self._table.same(first, other._table, at, count=count)  # noqa: SLF001

    def check(self) -> None:
        """Look at every row; raises `CorruptFileError` where the file is not what was written."""
        self._table.check()

    def close(self) -> None:
        """Let go of the map; nothing may be read afterwards."""
        self._table.close()
