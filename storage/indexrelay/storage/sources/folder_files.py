"""One ``.npy`` or ``.npz`` file of a folder, mapped rather than read.

A ``.npy`` file is mapped where it lies. An ``.npz`` file is an archive, which cannot be mapped: its
arrays are first unpacked into a temporary folder, as a stream, so that memory stays bounded there
too. Pickled objects are never loaded: they could run anything.
"""

import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexrelay.storage.errors import SourceError

_TEXT_ARRAYS = ("ids", "texts", "payloads")


@dataclass(frozen=True, kw_only=True)
class FolderFile:
    """The arrays of one file; all have one length."""

    name: str
    vectors: NDArray[np.floating[Any]]
    ids: NDArray[np.str_] | None
    """``None``: a row's id is ``<file stem>:<row>``, rows counted from 0."""
    texts: NDArray[np.str_] | None
    payloads: NDArray[np.str_] | None

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


def open_file(path: Path, *, dimension: int, unpack_to: Path) -> FolderFile:
    """Map a file's arrays and check their shapes and dtypes; what is in them is not looked at.

    Raises:
        SourceError: not such a file, or arrays that do not fit; the message names the file.
    """
    try:
        if path.suffix == ".npy":
            arrays = {"vectors": _map(path)}
        else:
            arrays = _unpack(path, unpack_to / path.name)
    except Exception as error:  # at odd bytes the parsers raise errors of a dozen unrelated classes
        raise SourceError(f"{path.name}: cannot be read: {error}") from error
    problem = _problem(arrays, dimension)
    if problem is not None:
        raise SourceError(f"{path.name}: {problem}")
    return FolderFile(
        name=path.name,
        vectors=arrays["vectors"],
        ids=arrays.get("ids"),
        texts=arrays.get("texts"),
        payloads=arrays.get("payloads"),
    )


def _map(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")  # refuses objects
    return array


def _unpack(path: Path, folder: Path) -> dict[str, NDArray[Any]]:
    """The arrays that we know by name; no name that is in the archive becomes a path."""
    folder.mkdir()
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        members = set(archive.namelist())
        for name in ("vectors", *_TEXT_ARRAYS):
            if f"{name}.npy" in members:
                target = folder / f"{name}.npy"
                with archive.open(f"{name}.npy") as packed, target.open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked, 1024 * 1024)
                arrays[name] = _map(target)
    return arrays


def _problem(arrays: dict[str, NDArray[Any]], dimension: int) -> str | None:
    """What is wrong with the arrays' shapes and dtypes."""
    if "vectors" not in arrays:
        return "there is no array 'vectors' in it"
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
