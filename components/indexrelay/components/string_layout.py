"""How a string table lies in its file: the header, and from it where each section starts.

All numbers are little-endian, all sections but the first start at a multiple of 8:

    header   magic, version, flags, number of rows, bytes of text
    text     UTF-8, row after row, nothing between
    offsets  int64, rows + 1: row i is text[offsets[i] : offsets[i + 1]]
    nulls    one bit for each row, least significant first; only where some row is ``None``
    order    int32 (int64 from 2**31 rows on): the rows sorted by their bytes; only in searchable
             tables whose rows do not already stand in that order
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from indexrelay.components.errors import DamagedFileError

MAGIC: Final = b"irstrtab"
VERSION: Final = 1
HEADER: Final = struct.Struct("<8sIIQQ")
HEADER_SIZE: Final = HEADER.size
NULLS, SEARCHABLE, ORDER = 1, 2, 4
"""Flags: which sections there are."""


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
    def end(self) -> int:
        """Bytes of the whole file."""
        return self.order + (self.order_type.itemsize * self.rows if self.flags & ORDER else 0)

    @property
    def order_type(self) -> np.dtype[np.signedinteger]:
        """How the sorted rows are written."""
        return np.dtype("<i4" if self.rows < 2**31 else "<i8")


def read_layout(path: Path, file: BinaryIO) -> Layout:
    """What the header of an open file says.

    Raises:
        DamagedFileError: it is no such table, of another version, or not as long as it says.
    """
    head = file.read(HEADER.size)
    if len(head) < HEADER.size:
        raise DamagedFileError(path, "it is shorter than a header")
    magic, version, flags, rows, text_bytes = HEADER.unpack(head)
    if magic != MAGIC:
        raise DamagedFileError(path, "it is not a string table")
    if version != VERSION:
        raise DamagedFileError(path, f"it is a string table of version {version}, not {VERSION}")
    layout = Layout(flags, rows, text_bytes)
    size = file.seek(0, 2)
    if size != layout.end:
        raise DamagedFileError(path, f"it has {size} bytes where its header promises {layout.end}")
    return layout


def aligned(size: int) -> int:
    """The next multiple of 8."""
    return -(-size // 8) * 8
