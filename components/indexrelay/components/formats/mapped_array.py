"""Mapped ``.npy`` files, and small files that are read whole, up to a size.

A new file of a certain length is sparse: it takes room on the disk page by page, when a map of it
is first written to, and where there is none by then the kernel kills the process (SIGBUS). So all
of its space is reserved before it is mapped, and a full disk is an ordinary `OSError`.
"""

import io
import math
import mmap
import os
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Final, NamedTuple, Self

import numpy as np
from numpy.lib.format import (
    dtype_to_descr,
    header_data_from_array_1_0,
    open_memmap,
    read_array_header_1_0,
    read_array_header_2_0,
    read_magic,
    write_array_header_1_0,
)
from numpy.typing import DTypeLike, NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from indexrelay.components.errors import CorruptFileError
from indexrelay.schemas.names import canonical_json

_MOST_HEADER_BYTES: Final = 10_000
"""NumPy's own limit; ours have 128."""


def new_mapped_array(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> "np.memmap[Any, Any]":
    """Make a ``.npy`` file of zeros and map it for writing; ``flush()`` it when it is complete.

    Raises:
        OSError: there is no room for all of it (``ENOSPC``, ``EDQUOT``), or it cannot be made.
    """
    kind = np.dtype(dtype)
    header = {"descr": dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        write_array_header_1_0(file, header)
        file.flush()
        reserve(file, file.tell() + int(np.prod(shape, dtype=np.int64)) * kind.itemsize)
    return open_memmap(path, mode="r+")


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write ``array`` as a ``.npy`` file.

    `numpy.save` would leave out of its error what the operating system said.

    Raises:
        OSError: there is no room for all of it, or it cannot be made.
    """
    rows = np.ascontiguousarray(array)
    with path.open("wb") as file:
        write_array_header_1_0(file, header_data_from_array_1_0(rows))
        file.write(rows.data)


def reserve(file: BinaryIO, size: int) -> None:
    """Give ``file``, open for writing, ``size`` bytes that the disk really has.

    The C library writes to every block where the file system cannot reserve.

    Raises:
        OSError: there is no room for all of it, or the disk fails.
    """
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        # The error of the system names no file, and the reader of the sentence needs the disk.
        raise OSError(error.errno, error.strerror, file.name) from error


def mapped_array(path: Path, shape: tuple[int | None, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Map an array read-only; ``None`` in ``shape`` stands for any length.

    Raises:
        CorruptFileError: the file is cut short, or holds another shape or type.
        OSError: it cannot be opened.
    """
    kind = np.dtype(dtype)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        found, offset = _header(path, file.read(_MOST_HEADER_BYTES))
        lengths = zip(found.shape, shape, strict=False)
        fits = len(found.shape) == len(shape) and all(
            want in (None, have) for have, want in lengths
        )
        if not fits or found.dtype != kind or (found.fortran_order and len(shape) > 1):
            raise CorruptFileError(
                path, f"it holds {found.dtype} {found.shape} instead of {kind} {shape}"
            )
        count = math.prod(found.shape)
        if offset + count * kind.itemsize != size:
            raise CorruptFileError(path, f"it has {size} bytes, which is not what its shape takes")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, kind, count, offset).reshape(found.shape)


class _Header(NamedTuple):
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: "np.dtype[Any]"


def _header(path: Path, head: bytes) -> tuple[_Header, int]:
    """What the beginning of a ``.npy`` file says, and where its data begin."""
    stream = io.BytesIO(head)
    try:
        version = read_magic(stream)
        read = read_array_header_1_0 if version == (1, 0) else read_array_header_2_0
        header = _Header(*read(stream, max_header_size=_MOST_HEADER_BYTES))
    except Exception as error:  # NumPy parses it as Python does, and raises as much
        raise CorruptFileError(path, f"its header cannot be read: {error}") from error
    if not all(length >= 0 for length in header.shape):
        raise CorruptFileError(path, f"its header says that it has the shape {header.shape}")
    return header, stream.tell()


def read_small(path: Path, most_bytes: int) -> bytes:
    """The content of ``path``.

    Raises:
        CorruptFileError: it has more than ``most_bytes``.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise CorruptFileError(path, f"it has more than {most_bytes} bytes")
    return content


class SmallDocument(BaseModel):
    """The content of a small JSON file of a version."""

    model_config = ConfigDict(frozen=True)

    most_bytes: ClassVar[int] = 1 << 16
    """Of the file: far more than any has."""

    def save(self, path: Path) -> None:
        """Write it in canonical form."""
        path.write_bytes(canonical_json(self.model_dump(mode="json")))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read it.

        Raises:
            CorruptFileError: the file is not what was written.
            OSError: it cannot be read.
        """
        try:
            return cls.model_validate_json(read_small(path, cls.most_bytes))
        except ValidationError as error:
            reason = f"{error.error_count()} value(s) that cannot be"
            raise CorruptFileError(path, reason) from error
