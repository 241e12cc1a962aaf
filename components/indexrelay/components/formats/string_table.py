"""Strings by row number, in one file that is mapped and never read as a whole.

A Python list of a million ids takes 80 MB in every process that serves them; a mapped file takes
what is touched, once for all processes of a host. Opening costs the same for a thousand rows and
for a hundred million: it compares the size of the file with what the header promises. Everything
else is checked where it is used, so a corrupt file raises and neither crashes nor reads past the
text; `StringTable.check` looks at all of it.

All numbers are little-endian, all sections but the first start at a multiple of 8:

    header   magic, version, flags, number of rows, bytes of text
    text     UTF-8, row after row, nothing between
    offsets  int64, rows + 1: row i is text[offsets[i] : offsets[i + 1]]
    nulls    one bit for each row, least significant first; only where some row is ``None``
    order    int32 (int64 from 2**31 rows on): the rows sorted by their bytes; only in searchable
             tables whose rows do not already stand in that order
    cells    the same texts once more, each in as many bytes as the longest takes and one, filled
             up with zeros; only in searchable tables whose rows are about equally long

A search reads the ids of ten rows, anywhere in the table. From cells NumPy takes them in one call,
and each lies in one place of memory instead of two; row by row from the text they take four times
as long. The number of bytes of a cell stands in the flags, above the lowest eight.
"""

import mmap
import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Self, cast

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.served import Closable

MAGIC: Final = b"irstrtab"
VERSION, WITH_CELLS = 1, 2
"""Of the format: a table without cells is the same in both."""
HEADER: Final = struct.Struct("<8sIIQQ")
HEADER_SIZE: Final = HEADER.size
NULLS, SEARCHABLE, ORDER = 1, 2, 4
"""Flags: which sections there are."""
_CELL_BITS: Final = 8
"""Of the flags, below the bytes of a cell."""
_MOST_CELLS: Final = 2
"""Times the bytes of text and offsets that cells may take."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each section starts, from what the header says."""

    flags: int
    rows: int
    text_bytes: int

    @property
    def offsets(self) -> int:
        """Where the offsets start."""
        return aligned(HEADER.size + self.text_bytes)

    @property
    def nulls(self) -> int:
        """Where the bits of missing rows start, or would."""
        return self.offsets + 8 * (self.rows + 1)

    @property
    def order(self) -> int:
        """Where the sorted rows start, or would."""
        return self.nulls + (aligned(-(-self.rows // 8)) if self.flags & NULLS else 0)

    @property
    def ordered(self) -> int:
        """Where the sorted rows end, or would."""
        return self.order + (self.order_type.itemsize * self.rows if self.flags & ORDER else 0)

    @property
    def cells(self) -> int:
        """Where the cells start, or would."""
        return aligned(self.ordered)

    @property
    def cell_bytes(self) -> int:
        """Bytes of each cell; 0: there are none."""
        return self.flags >> _CELL_BITS

    @property
    def end(self) -> int:
        """Bytes of the whole file."""
        return self.cells + self.cell_bytes * self.rows if self.cell_bytes else self.ordered

    @property
    def order_type(self) -> np.dtype[np.signedinteger]:
        """How the sorted rows are written."""
        return np.dtype("<i4" if self.rows < 2**31 else "<i8")


def read_layout(path: Path, file: BinaryIO) -> Layout:
    """What the header of an open file says.

    Raises:
        CorruptFileError: it is no such table, of another version, or not as long as it says.
    """
    head = file.read(HEADER.size)
    if len(head) < HEADER.size:
        raise CorruptFileError(path, "it is shorter than a header")
    magic, version, flags, rows, text_bytes = HEADER.unpack(head)
    if magic != MAGIC:
        raise CorruptFileError(path, "it is not a string table")
    if version not in (VERSION, WITH_CELLS):
        raise CorruptFileError(path, f"it is a string table of version {version}, not {WITH_CELLS}")
    layout = Layout(flags, rows, text_bytes)
    size = file.seek(0, 2)
    if size != layout.end:
        raise CorruptFileError(path, f"it has {size} bytes where its header promises {layout.end}")
    return layout


def aligned(size: int) -> int:
    """The next multiple of 8."""
    return -(-size // 8) * 8


Rows = NDArray[np.int64]
"""Row numbers, int64."""

_BLOCK: Final = 4096
"""Rows decoded at a time where all are wanted."""
_FEWEST_GATHERED: Final = 64
"""Below this the calls of numpy cost more than reading row by row."""
_LONGEST_GATHERED: Final = 40
"""Bytes of a row, on average. Each byte is gathered by itself, so longer rows are read faster one
by one: rows of 2,000 bytes seventeen times."""
_MOST_GATHERED_BYTES: Final = 1024 * 1024
"""Each takes nine bytes of memory meanwhile."""


class StringTable(Closable):
    """A mapped table; immutable, and safe to read from many threads."""

    _closed_by = frozenset(
        {"_bounds", "_bytes", "_cells", "_everything", "_mapped", "_offsets", "_nulls", "order"}
    )

    def __init__(self, path: Path) -> None:
        """Map the file.

        Raises:
            CorruptFileError: it is no such table, of another version, or not as long as it says.
            OSError: it cannot be opened.
        """
        self.path = path
        with path.open("rb") as file:
            self._layout = layout = read_layout(path, file)
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._bytes = mapped
        self._offsets = np.frombuffer(mapped, "<i8", layout.rows + 1, layout.offsets)
        # The same numbers as plain integers, which takes half the time for a few rows.
        bounds = memoryview(mapped)[layout.offsets : layout.nulls]
        self._bounds: Any = bounds.cast("q") if sys.byteorder == "little" else self._offsets
        # From the text's first byte to the file's last: the offsets follow each text.
        self._everything = np.frombuffer(mapped, np.uint8, offset=HEADER_SIZE)
        # What reading needs, at hand: a search reads ten rows, and each look-up shows.
        self._mapped = (self._bounds, mapped, layout.text_bytes)
        has_nulls = bool(layout.flags & NULLS)
        self._nulls = (
            np.frombuffer(mapped, np.uint8, -(-layout.rows // 8), layout.nulls)
            if has_nulls
            else None
        )
        self._cells: NDArray[np.bytes_] | None = (
            np.frombuffer(mapped, f"S{layout.cell_bytes}", layout.rows, layout.cells)
            if layout.cell_bytes
            else None
        )
        self.searchable = bool(layout.flags & SEARCHABLE)
        """Whether it was written to be looked up by text."""
        self.order: NDArray[np.signedinteger] | None = (
            np.frombuffer(mapped, layout.order_type, layout.rows, layout.order)
            if layout.flags & ORDER
            else None
        )
        """The rows sorted by their bytes; ``None``: they stand in that order."""

    def __len__(self) -> int:
        return self._layout.rows

    @property
    def has_missing(self) -> bool:
        """Whether some row is ``None``."""
        return self._nulls is not None

    @property
    def text_bytes(self) -> int:
        """Bytes of all texts together; 0: every row is empty or ``None``."""
        return self._layout.text_bytes

    def __iter__(self) -> Iterator[str | None]:
        for start in range(0, len(self), _BLOCK):
            yield from self.many(np.arange(start, min(start + _BLOCK, len(self))))

    def raw(self, row: int) -> bytes:
        """The bytes of one row, 0 ≤ ``row`` < ``len``; empty where it is ``None``."""
        start, end = self._bounds[row], self._bounds[row + 1]
        if not 0 <= start <= end <= self._layout.text_bytes:
            raise CorruptFileError(self.path, "a row lies outside of the text")
        return self._bytes[HEADER_SIZE + start : HEADER_SIZE + end]

    def place(self, wanted: bytes, start: int, end: int) -> int:
        """The row in [``start``, ``end``] that ``wanted`` stands at, or would stand before.

        The rows from ``start`` up to ``end`` stand in the order of their bytes.
        """
        cells = self._cells
        if cells is None or b"\0" in wanted:  # which ends a cell
            return bisect_left(range(len(self)), wanted, start, end, key=self.raw)
        # No cell is as long as it could be, so a longer text stands where its beginning would.
        return start + int(cells[start:end].searchsorted(wanted[: cells.itemsize]))

    def raw_many(self, rows: Rows | Sequence[int]) -> list[bytes | None]:
        """The bytes of ``rows``, in that order; ``None`` of a row without.

        ``rows`` are int64 or a list, each 0 ≤ row < ``len``.

        Raises:
            IndexError: there is no such row.
            CorruptFileError: what the file says about a row cannot be.
        """
        if len(rows) >= _FEWEST_GATHERED and (together := self._gathered(rows)) is not None:
            raws: list[bytes | None] = [*together.split(b"\0")]
            if len(raws) == len(rows):
                return raws
        bounds, file, size = self._mapped
        return [
            file[HEADER_SIZE + start : HEADER_SIZE + end]
            if 0 <= (start := bounds[row]) < (end := bounds[row + 1]) <= size
            else self._without_bytes(row)
            for row in listed(rows)
        ]

    def many(self, rows: Rows | Sequence[int]) -> list[str | None]:
        """The texts of ``rows``; raises as `raw_many` does."""
        try:
            if self._cells is not None and len(rows):
                return _decoded(self._cells[rows])
            if len(rows) >= _FEWEST_GATHERED and (together := self._gathered(rows)) is not None:
                texts: list[str | None] = [*together.decode().split("\0")]
                if len(texts) == len(rows):
                    return texts
            bounds, file, size = self._mapped
            return [
                file[HEADER_SIZE + start : HEADER_SIZE + end].decode()
                if 0 <= (start := bounds[row]) < (end := bounds[row + 1]) <= size
                else self._without_text(row)
                for row in listed(rows)
            ]
        except UnicodeDecodeError as error:
            raise CorruptFileError(self.path, "a row is not UTF-8") from error

    def cell_texts(self, rows: Rows) -> "CellTexts | None":
        """The texts of ``rows``, read but not yet made; ``None``: only `many` gives them.

        Raises:
            IndexError: there is no such row.
            CorruptFileError: one of them is not UTF-8.
        """
        if self._cells is None:
            return None
        cells = self._cells[rows]
        try:
            together = cells.tobytes().decode()
        except UnicodeDecodeError as error:
            raise CorruptFileError(self.path, "a row is not UTF-8") from error
        return CellTexts(together, cells.itemsize) if together.isascii() else None

    def bytes_of(self, rows: Rows | Sequence[int]) -> int:
        """How many bytes ``rows`` have, as the file says."""
        bounds = self._bounds
        return int(sum(bounds[row + 1] - bounds[row] for row in listed(rows)))

    def holds(self, first: int, texts: Sequence[str | None]) -> bool:
        """Whether the rows from ``first`` on are exactly ``texts``; cheaper than `many`."""
        end = first + len(texts)
        if not 0 <= first <= end <= len(self):
            return False
        raws = [b"" if text is None else text.encode() for text in texts]
        offsets = self._offsets[first : end + 1]
        lengths = np.fromiter(map(len, raws), dtype=np.int64, count=len(raws))
        if not np.array_equal(np.diff(offsets), lengths):
            return False
        if offsets[0] < 0 or offsets[-1] > self._layout.text_bytes:
            return False
        text = self._bytes[HEADER_SIZE + int(offsets[0]) : HEADER_SIZE + int(offsets[-1])]
        if text != b"".join(raws):
            return False
        if lengths.all():
            return True  # only an empty row can stand for none
        empty = np.flatnonzero(lengths == 0).tolist()
        return all((texts[row] is None) == (self._empty(first + row) is None) for row in empty)

    def section(self, first: int, count: int) -> tuple[Rows, bytes]:
        """``count`` rows from ``first`` on: where each begins and the last ends, and their bytes.

        Raises:
            CorruptFileError: what the file says about them cannot be.
        """
        bounds = self._offsets[first : first + count + 1].astype(np.int64)
        if not (
            len(bounds) == count + 1
            and bounds[0] >= 0
            and bounds[-1] <= self._layout.text_bytes
            and (np.diff(bounds) >= 0).all()
        ):
            raise CorruptFileError(self.path, "rows lie outside of the text")
        return bounds, self._bytes[HEADER_SIZE + int(bounds[0]) : HEADER_SIZE + int(bounds[-1])]

    def nulls(self, first: int, count: int) -> NDArray[np.bool_]:
        """Which of ``count`` rows from ``first`` on are ``None``."""
        if self._nulls is None:
            return np.zeros(count, dtype=bool)
        bits = self._nulls[first >> 3 : (first + count + 7) >> 3]
        of_rows = np.unpackbits(bits, bitorder="little")[first & 7 :][:count]
        return of_rows.astype(bool)

    def count_texts(self, *, without: Rows | None = None) -> int:
        """How many rows are not ``None``, those of ``without`` (each once) not counted."""
        rows = len(self) - (0 if without is None else len(without))
        if self._nulls is None:
            return rows
        nulls = int(np.unpackbits(self._nulls, bitorder="little")[: len(self)].sum())
        if without is not None and len(without):
            nulls -= int((self._nulls[without >> 3] >> (without & 7).astype(np.uint8) & 1).sum())
        return rows - nulls

    def same(self, first: int, other: "StringTable", at: int, *, count: int) -> bool:
        """Whether ``count`` rows from ``first`` on are those of ``other`` from ``at`` on.

        Raises:
            CorruptFileError: what one of the files says about these rows cannot be.
        """
        ours, text = self.section(first, count)
        theirs, their_text = other.section(at, count)
        return (
            np.array_equal(ours - ours[0], theirs - theirs[0])
            and text == their_text
            and np.array_equal(self.nulls(first, count), other.nulls(at, count))
        )

    def check(self) -> None:
        """Look at every row; takes time and memory in proportion to the rows.

        Raises:
            CorruptFileError: offsets that do not grow, text that is not UTF-8, or an order that is
                none.
        """
        offsets = self._offsets
        if (
            offsets[0] != 0
            or offsets[-1] != self._layout.text_bytes
            or np.any(np.diff(offsets) < 0)
        ):
            raise CorruptFileError(self.path, "its offsets do not grow from 0 to the text's end")
        self._check_text()
        if self.order is not None:
            seen = np.zeros(len(self), dtype=bool)
            seen[self.order[(self.order >= 0) & (self.order < len(self))]] = True
            if not seen.all():
                raise CorruptFileError(self.path, "its order does not name every row once")
        if self._cells is not None:
            self._check_cells(self._cells)

    def _check_cells(self, cells: NDArray[np.bytes_]) -> None:
        """Each cell holds the text of its row."""
        for start in range(0, len(self), _BLOCK):
            rows = cells[start : start + _BLOCK]
            bounds, text = self.section(start, len(rows))
            expected = in_cells(text, np.diff(bounds), cells.itemsize)
            if expected is None or expected.tobytes() != rows.tobytes():
                raise CorruptFileError(self.path, "a cell does not hold the text of its row")

    def _check_text(self) -> None:
        """Every row is UTF-8: a block of them is, and none begins inside of a letter."""
        text = np.frombuffer(self._bytes, np.uint8, self._layout.text_bytes, HEADER_SIZE)
        for start in range(0, len(self), _BLOCK):
            offsets = self._offsets[start : min(start + _BLOCK, len(self)) + 1]
            begins = offsets[offsets < len(text)]
            try:
                text[offsets[0] : offsets[-1]].tobytes().decode()
            except UnicodeDecodeError as error:
                raise CorruptFileError(self.path, "a row is not UTF-8") from error
            if np.any(text[begins] & 0xC0 == 0x80):
                raise CorruptFileError(self.path, "a row begins inside of a letter")

    def close(self) -> None:
        """Let go of the map; nothing may be read afterwards."""
        del self._bounds, self._bytes, self._cells, self._everything, self._mapped, self._offsets
        del self._nulls, self.order

    def _gathered(self, rows: Rows | Sequence[int]) -> bytes | None:
        """The bytes of many rows, each but the last followed by a zero byte.

        Of 640 short rows it takes half of the time of reading them one by one. ``None``: it would
        not pay, or one of the rows has no bytes, or cannot be. A row may hold a zero byte itself:
        whoever splits the rest counts the pieces.
        """
        if not isinstance(rows, np.ndarray):
            return None
        starts, ends = self._offsets[rows], self._offsets[rows + 1]
        lengths = ends - starts + 1
        if starts.min() < 0 or lengths.min() < 2 or ends.max() > self._layout.text_bytes:
            return None
        stops = lengths.cumsum()
        if stops[-1] > min(_MOST_GATHERED_BYTES, _LONGEST_GATHERED * len(rows)):
            return None
        places = np.repeat(starts - stops + lengths, lengths)
        places += np.arange(len(places))
        together: NDArray[np.uint8] = self._everything[places]
        together[stops - 1] = 0
        return together[:-1].tobytes()

    def _without_text(self, row: int) -> str | None:
        return None if self._without_bytes(row) is None else ""

    def _without_bytes(self, row: int) -> bytes | None:
        """A row that has no bytes, or that cannot be."""
        bounds, _, size = self._mapped
        start, end = bounds[row], bounds[row + 1]
        if not 0 <= start == end <= size:
            raise CorruptFileError(self.path, "a row lies outside of the text")
        return self._empty(row)

    def _empty(self, row: int) -> bytes | None:
        """What a row without any bytes is."""
        return None if self._nulls is not None and self._nulls[row >> 3] >> (row & 7) & 1 else b""


class CellTexts:
    """The texts of some cells, all of ASCII: a slice makes the texts in it.

    They were read, and hold no map. Who needs a few of many pays for these only.
    """

    __slots__ = ("_cell_size", "_together")

    def __init__(self, together: str, cell_size: int) -> None:
        self._together = together
        self._cell_size = cell_size

    def __getitem__(self, part: slice) -> list[str]:
        size = self._cell_size
        start, stop, _ = part.indices(len(self._together) // size)
        wanted = self._together[start * size : stop * size]
        return _split(wanted, stop - start) or [
            wanted[each : each + size].rstrip("\0") for each in range(0, len(wanted), size)
        ]


def _decoded(cells: NDArray[np.bytes_]) -> list[str | None]:
    """The texts of some cells: decoded together they take two thirds of the time of one by one."""
    texts = _split(cells.tobytes().decode(), len(cells)) or [*map(bytes.decode, cells.tolist())]
    return cast("list[str | None]", texts)


def _split(together: str, count: int) -> list[str]:
    """The texts of ``count`` cells, at the zeros that end them; none where one of them is empty.

    Where texts are shorter than the longest there are pieces without a letter between them, and so
    is what lies behind the last zero.
    """
    texts = together.split("\0")
    texts.pop()
    if len(texts) != count:
        texts = [*filter(None, texts)]
    return texts if len(texts) == count else []


def in_cells(text: bytes, lengths: Rows, cell_bytes: int) -> NDArray[np.uint8] | None:
    """Texts of ``lengths`` bytes, one behind the other in ``text``, as cells; ``None``: no way.

    A cell ends where its zeros begin, so no text may hold one. The result has the shape
    ``(rows, cell_bytes)``.
    """
    if b"\0" in text or lengths.max(initial=0) >= cell_bytes:
        return None
    cells = np.zeros((len(lengths), cell_bytes), dtype=np.uint8)
    cells[np.arange(cell_bytes) < lengths[:, None]] = np.frombuffer(text, np.uint8)
    return cells


def listed(rows: Rows | Sequence[int]) -> Sequence[int]:
    """The same numbers as plain integers."""
    return rows.tolist() if isinstance(rows, np.ndarray) else rows


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
            CorruptFileError: what the other's file says about these rows cannot be.
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
        offsets = np.frombuffer(self._offsets, dtype=np.int64)
        rows = len(offsets) - 1
        flags = (
            (NULLS if self._nulls else 0)
            | (SEARCHABLE if self._searchable else 0)
            | (0 if self._ordered else ORDER)
        )
        layout = Layout(flags, rows, self._offsets[-1])
        self._pad(layout.offsets)
        self._file.write(offsets.astype("<i8").tobytes())
        if self._nulls:
            bits = np.zeros(rows, dtype=bool)
            bits[self._nulls] = True
            self._file.write(np.packbits(bits, bitorder="little").tobytes())
            self._pad(layout.order)
        if not self._ordered:
            self._file.write(self._sorted_rows().astype(layout.order_type).tobytes())
        cell_bytes = self._write_cells(layout, offsets)
        version = WITH_CELLS if cell_bytes else VERSION
        flags |= cell_bytes << _CELL_BITS
        self._file.seek(0)
        self._file.write(HEADER.pack(MAGIC, version, flags, rows, layout.text_bytes))

    def _write_cells(self, layout: Layout, offsets: Rows) -> int:
        """Write the cells, where these suit the texts, and return the bytes of each; 0: none."""
        if not layout.rows or not self._searchable or self._nulls:
            return 0
        lengths = np.diff(offsets)
        cell_bytes = int(lengths.max()) + 1
        if cell_bytes * layout.rows > _MOST_CELLS * (layout.text_bytes + 8 * len(offsets)):
            return 0  # a few long texts would make the cells of all others large
        self._pad(layout.cells)
        self._file.flush()
        with self._path.open("rb") as written:
            written.seek(HEADER.size)
            for start in range(0, layout.rows, _BLOCK):
                of_block = lengths[start : start + _BLOCK]
                cells = in_cells(written.read(int(of_block.sum())), of_block, cell_bytes)
                if cells is None:
                    self._file.truncate(layout.ordered)
                    return 0
                self._file.write(cells.tobytes())
        return cell_bytes

    def _pad(self, position: int) -> None:
        self._file.write(bytes(position - self._file.tell()))

    def _sorted_rows(self) -> Rows:
        self._file.flush()
        text = self._path.read_bytes()[HEADER.size :]
        bounds = self._offsets
        rows = range(len(bounds) - 1)
        return np.array(sorted(rows, key=lambda row: text[bounds[row] : bounds[row + 1]]))
