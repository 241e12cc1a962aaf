"""Writes a string table: row after row, or rows of another table in one piece."""

from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np

from indexrelay.components.string_layout import (
    HEADER,
    MAGIC,
    NULLS,
    ORDER,
    SEARCHABLE,
    VERSION,
    Layout,
)
from indexrelay.components.string_table import Rows, StringTable


class StringTableWriter:
    """Writes a table a chunk at a time; memory is 8 bytes a row, whatever the texts.

    Use it in a ``with``: the header is written last, so a table that was not finished is refused.
    A searchable table whose rows come out of order also holds their bytes while it sorts them.
    """

    def __init__(self, path: Path, *, searchable: bool = False) -> None:
        self._path = path
        self._searchable = searchable
        self._offsets = array("q", [0])
        self._nulls: list[int] = []
        self._last = b""
        self._ordered = True
        self._file: BinaryIO = path.open("wb")
        self._file.write(bytes(HEADER.size))

    def extend(self, texts: Iterable[str | None]) -> None:
        """Append rows.

        Raises:
            UnicodeEncodeError: a text holds half a surrogate pair and has no UTF-8.
        """
        chunk = bytearray()
        end = self._offsets[-1]
        for text in texts:
            if text is None:
                self._nulls.append(len(self._offsets) - 1)
            raw = b"" if text is None else text.encode()
            if self._searchable and self._ordered:
                self._ordered = self._last <= raw
                self._last = raw
            chunk += raw
            end += len(raw)
            self._offsets.append(end)
        self._file.write(chunk)

    def copy(self, table: StringTable, rows: slice) -> None:
        """Append ``rows`` (from start to stop) of another table, without reading each.

        Into a searchable table go rows of one.

        Raises:
            DamagedFileError: what the other's file says about these rows cannot be.
        """
        here, first, count = len(self._offsets) - 1, rows.start, rows.stop - rows.start
        bounds, text = table.section(first, count)
        if self._searchable and self._ordered and count:
            self._ordered = table.order is None and self._last <= table.raw(first)
            self._last = table.raw(first + count - 1)
        self._nulls += (np.flatnonzero(table.nulls(first, count)) + here).tolist()
        self._offsets.frombytes((bounds[1:] - bounds[0] + self._offsets[-1]).tobytes())
        self._file.write(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._file:
            if kind is None:
                self._finish()

    def _finish(self) -> None:
        rows = len(self._offsets) - 1
        flags = (
            (NULLS if self._nulls else 0)
            | (SEARCHABLE if self._searchable else 0)
            | (0 if self._ordered else ORDER)
        )
        layout = Layout(flags, rows, self._offsets[-1])
        self._pad(layout.offsets)
        self._file.write(np.frombuffer(self._offsets, dtype=np.int64).astype("<i8").tobytes())
        if self._nulls:
            bits = np.zeros(rows, dtype=bool)
            bits[self._nulls] = True
            self._file.write(np.packbits(bits, bitorder="little").tobytes())
            self._pad(layout.order)
        if not self._ordered:
            self._file.write(self._sorted_rows().astype(layout.order_type).tobytes())
        self._file.seek(0)
        self._file.write(HEADER.pack(MAGIC, VERSION, flags, rows, layout.text_bytes))

    def _pad(self, position: int) -> None:
        self._file.write(bytes(position - self._file.tell()))

    def _sorted_rows(self) -> Rows:
        self._file.flush()
        text = self._path.read_bytes()[HEADER.size :]
        bounds = self._offsets
        rows = range(len(bounds) - 1)
        return np.array(sorted(rows, key=lambda row: text[bounds[row] : bounds[row + 1]]))
