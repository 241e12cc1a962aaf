"""The files of a folder: which of them hold entries, and one of them, mapped rather than read.

A ``.npy`` or ``.npz`` file is read whatever the case of its ending. Names that begin with a dot, or
end in ``.part`` or ``.tmp``, are files on their way; subfolders and all other files are left out,
which a snapshot counts and the log names.

A ``.npy`` file is mapped where it lies. An ``.npz`` file is an archive, which cannot be mapped: its
arrays are first unpacked into a temporary folder, as a stream, so that memory stays bounded there
too. Pickled objects are never loaded: they could run anything.
"""

import shutil
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexrelay.storage.errors import SourceError

_TEXT_ARRAYS = ("ids", "texts", "payloads")
_ON_THEIR_WAY = frozenset({".part", ".tmp"})
SHOWN_NAMES = 3
"""Of what is left out: enough to see what it is."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What lies in a folder."""

    files: list[Path]
    """Those that hold entries, by name."""
    subfolders: list[str]
    other_files: list[str]

    @property
    def left_out(self) -> dict[str, int]:
        """How many of each kind are not read; empty: none."""
        counts = {"subfolders": len(self.subfolders), "other_files": len(self.other_files)}
        return {kind: number for kind, number in counts.items() if number}


def list_folder(folder: Path) -> Listing:
    """What lies in ``folder``, by name.

    Raises:
        SourceError: it cannot be listed.
    """
    files: list[Path] = []
    subfolders: list[str] = []
    other_files: list[str] = []
    try:
        for path in sorted(folder.iterdir()):
            suffix = path.suffix.lower()
            if path.name.startswith(".") or suffix in _ON_THEIR_WAY:
                continue
            if path.is_dir():
                subfolders.append(path.name)
            elif suffix in {".npy", ".npz"} and path.is_file():
                files.append(path)
            else:
                other_files.append(path.name)
    except OSError as error:
        raise SourceError(f"{folder} cannot be read: {error.strerror}") from error
    return Listing(files=files, subfolders=subfolders, other_files=other_files)


@dataclass(frozen=True, kw_only=True)
class FolderFile:
    """The arrays of one file; all have one length."""

    name: str
    vectors: NDArray[np.floating[Any]]
    ids: NDArray[np.str_] | None
    """``None``: a row's id is ``<file stem>:<row>``, rows counted from 0."""
    texts: NDArray[np.str_] | None
    payloads: NDArray[np.str_] | None
    unknown: tuple[str, ...] = ()
    """Arrays of other names, which are not read."""

    def __len__(self) -> int:
        return len(self.vectors)

    def in_order(self) -> Iterator[tuple[str, int]]:
        """Each row's id and number, in the order of the ids' UTF-8 bytes."""
        if self.ids is not None:
            # numpy compares by code point, whose order is that of the UTF-8 bytes.
            for row in np.argsort(self.ids, kind="stable"):
                yield str(self.ids[row]), int(row)
            return
        stem = Path(self.name).stem
        digits = np.arange(len(self)).astype(f"S{len(str(len(self)))}")
        for row in np.argsort(digits):  # as text: 0, 1, 10, 11, 2, …
            yield f"{stem}:{row}", int(row)


def is_mapped(path: Path) -> bool:
    """Whether a file is read where it lies, and not unpacked first."""
    return path.suffix.lower() == ".npy"


def open_file(path: Path, *, dimension: int, unpack_to: Path) -> FolderFile:
    """Map a file's arrays and check their shapes and dtypes; what is in them is not looked at.

    Raises:
        SourceError: not such a file, or arrays that do not fit; the message names the file.
    """
    unknown: list[str] = []
    try:
        if is_mapped(path):
            arrays = {"vectors": _map(path)}
        else:
            arrays, unknown = _unpack(path, unpack_to / path.name)
    except Exception as error:  # at odd bytes the parsers raise errors of a dozen unrelated classes
        raise SourceError(f"{path.name}: cannot be read: {_said(path, error)}") from error
    problem = _problem(arrays, unknown, dimension)
    if problem is not None:
        raise SourceError(f"{path.name}: {problem}")
    return FolderFile(
        name=path.name,
        vectors=arrays["vectors"],
        ids=arrays.get("ids"),
        texts=arrays.get("texts"),
        payloads=arrays.get("payloads"),
        unknown=tuple(unknown),
    )


def rows_in(path: Path, *, dimension: int) -> int:
    """How many rows a file has; only its headers are read, and nothing is unpacked.

    Raises:
        SourceError: as `open_file`, as far as headers tell; a file that is cut short among them.
    """
    unknown: list[str] = []
    try:
        if is_mapped(path):
            arrays = {"vectors": _map(path)}
        else:
            arrays, unknown = _headers(path)
    except Exception as error:  # as in `open_file`
        raise SourceError(f"{path.name}: cannot be read: {_said(path, error)}") from error
    problem = _problem(arrays, unknown, dimension)
    if problem is not None:
        raise SourceError(f"{path.name}: {problem}")
    return len(arrays["vectors"])


def _headers(path: Path) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Arrays of the shapes and dtypes of those in an archive, without what is in them."""
    arrays: dict[str, NDArray[Any]] = {}
    unknown = []
    with zipfile.ZipFile(path) as archive:
        for member in dict.fromkeys(archive.namelist()):
            name = member.removesuffix(".npy")
            if name not in ("vectors", *_TEXT_ARRAYS) or not member.endswith(".npy"):
                unknown.append(name)
                continue
            with archive.open(member) as packed:
                version = np.lib.format.read_magic(packed)
                read = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = read(packed)
            arrays[name] = np.broadcast_to(np.zeros((), dtype), shape)
    return arrays, unknown


def _map(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        if "Python objects" not in str(error):
            raise
        raise ValueError(
            f"its array '{path.stem}' holds Python objects (dtype object), which are never "
            "unpickled; write numbers with dtype=float32, and texts with dtype=str"
        ) from error
    return array


def _said(path: Path, error: Exception) -> str:
    """What the parser says, after what it mostly means."""
    if isinstance(error, zipfile.BadZipFile):
        return f"it is no .npz archive, or is cut short ({error})"
    if is_mapped(path) and isinstance(error, OSError | ValueError):
        size = path.stat().st_size
        return f"{error} (it has {size:,} bytes)" if "objects" not in str(error) else str(error)
    return str(error)


def _unpack(path: Path, folder: Path) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """The arrays that we know by name, and the names of the others.

    No name that is in the archive becomes a path.
    """
    folder.mkdir()
    arrays = {}
    known = ("vectors", *_TEXT_ARRAYS)
    with zipfile.ZipFile(path) as archive:
        members = dict.fromkeys(archive.namelist())
        for name in known:
            if f"{name}.npy" in members:
                target = folder / f"{name}.npy"
                with archive.open(f"{name}.npy") as packed, target.open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked, 1024 * 1024)
                arrays[name] = _map(target)
    others = [name.removesuffix(".npy") for name in members]
    return arrays, [name for name in others if name not in known]


def _problem(arrays: dict[str, NDArray[Any]], unknown: Sequence[str], dimension: int) -> str | None:
    """What is wrong with the arrays' names, shapes and dtypes."""
    if "vectors" not in arrays:
        there = f"; it has {', '.join(unknown[:SHOWN_NAMES])!r}" if unknown else ""
        return (
            f"there is no array 'vectors' in it{there}; "
            "write np.savez(file, vectors=…, ids=…, texts=…, payloads=…)"
        )
    vectors = arrays["vectors"]
    if vectors.dtype.kind != "f":
        return f"vectors are of dtype {vectors.dtype}, they must be floats"
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        return f"vectors have shape {vectors.shape}, they must have (rows, {dimension})"
    for name in _TEXT_ARRAYS:
        array = arrays.get(name)
        if array is None:
            continue
        if array.dtype.kind != "U":
            return f"{name} are of dtype {array.dtype}, they must be unicode (<U…)"
        if array.shape != (len(vectors),):
            return f"{name} have shape {array.shape}, they must have ({len(vectors)},)"
    return None
