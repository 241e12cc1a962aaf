"""The source of collections in a folder of ``.npy`` and ``.npz`` files.

``.npy``: a 2-D array of floats. ``.npz``: an array ``vectors`` of that kind and optionally ``ids``,
``texts`` and ``payloads`` (JSON), unicode arrays of its length in which an empty text or payload
stands for none. Where there are no ``ids``, row 7 of ``songs.npy`` is the entry ``songs:7``. Case
does not matter in the ending of a file. Names that begin with a dot, or end in ``.part`` or
``.tmp``, are files that are still being written; subfolders and all other files are left out, which
a snapshot counts and the log names. Pickled objects are never loaded: they could run anything.

A ``.npy`` file is mapped where it lies. An ``.npz`` file is an archive, which cannot be mapped: its
arrays are first unpacked into a temporary folder, as a stream, so that memory stays bounded.

The folder looks new when a file's name, size or modification time does. This is compared before and
after the files are opened, so that they are the folder of one moment. After that a file that comes,
goes or is replaced changes nothing for a reader: what is open stays as it was. Only a file that is
written to in place does, and then what was read is discarded. Put files there whole (write under
another name, then rename): when a mapped file is cut short, its reader's process is killed, which
for a build is a child that may fail alone.
"""

import heapq
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.names import canonical_json, sha256_hex
from indexrelay.storage.catalog.collections import DeclaredCollection
from indexrelay.storage.entries import CHUNK_ROWS, Entries, SnapshotBase, SourceSnapshot
from indexrelay.storage.errors import InvalidEntriesError, SourceChangedError, SourceError
from indexrelay.storage.validation import EntryRules, check_entries

_log = get_logger(__name__)

_TEXT_ARRAYS: Final = ("ids", "texts", "payloads")
_UNFINISHED: Final = frozenset({".part", ".tmp"})
_SHOWN_NAMES: Final = 3
"""Of what is left out: enough to see what it is."""


class EntriesFromFolder:
    """`CollectionSource` of a folder."""

    def __init__(self, declared: DeclaredCollection, folder: Path) -> None:
        self._declared = declared
        self._folder = folder

    def observe(self) -> int:
        """Number the folder as it looks now.

        Raises:
            SourceError: there is no such folder.
        """
        return self._declared.numbered(_fingerprint(self._folder)).generation

    def look(self) -> int | None:
        """How many rows its files have, from their headers alone.

        Raises:
            SourceError: there is no such folder, or a file of it cannot be read or does not fit.
        """
        files = list_folder(self._folder).files
        return sum(rows_in(path, dimension=self._declared.dimension) for path in files)

    def left_out(self) -> Mapping[str, int]:
        """How many subfolders and other files there are now; no file is opened.

        Raises:
            SourceError: there is no such folder.
        """
        return list_folder(self._folder).left_out

    @contextmanager
    def snapshot(self) -> Iterator[SourceSnapshot]:
        """The folder as it looks now.

        Raises:
            SourceError: a file does not fit; raised here for shapes, while reading for rows.
            SourceChangedError: the folder changed while it was opened; raised while reading where a
                file is written to that is open.
        """
        looks = _fingerprint(self._folder)
        collection = self._declared.numbered(looks)

        def check_unchanged() -> None:
            if _fingerprint(self._folder) != looks:
                raise SourceChangedError(f"{self._folder} changed while it was opened")

        with tempfile.TemporaryDirectory(prefix="indexrelay-npz-") as unpacked:
            try:
                listing = list_folder(self._folder)
                files = [
                    open_file(path, dimension=collection.dimension, unpack_to=Path(unpacked))
                    for path in listing.files
                ]
                mapped = _Mapped(path for path in listing.files if is_mapped(path))
            except SourceError:
                check_unchanged()  # a half written file is no corrupt file
                raise
            check_unchanged()
            yield FolderSnapshot(
                collection=collection.name,
                epoch=collection.epoch,
                generation=collection.generation,
                dimension=collection.dimension,
                metric=collection.metric,
                count=sum(map(len, files)),
                left_out=self._left_out(listing, files),
                _rules=self._declared.rules,
                _files=files,
                _mapped=mapped,
            )

    def _left_out(self, listing: "Listing", files: list["FolderFile"]) -> dict[str, int]:
        """What is not read, which is logged."""
        arrays = [f"{_written(file.name)}: {name}" for file in files for name in file.unknown]
        left_out = {**listing.left_out, **({"other_arrays": len(arrays)} if arrays else {})}
        if left_out:
            names = [*listing.subfolders, *listing.other_files]
            _log.warning(
                "source.left_out",
                collection=self._declared.name,
                folder=str(self._folder),
                **left_out,
                first=[*map(_written, names[:_SHOWN_NAMES]), *arrays[:_SHOWN_NAMES]],
                advice="only .npy and .npz files directly in the folder are read, and of an .npz "
                "file the arrays vectors, ids, texts and payloads",
            )
        return left_out


_Place = tuple[str, int, int]
"""id, number of the file, row in the file."""


@dataclass(frozen=True, kw_only=True)
class FolderSnapshot(SnapshotBase):
    """The mapped files, merged in the order of their ids."""

    _rules: EntryRules
    _files: Sequence["FolderFile"]
    _mapped: "_Mapped"

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Entries]:
        """Every row once, in the order of the ids' UTF-8 bytes; one chunk is in memory.

        Raises:
            SourceError: rows that cannot be entries; the message names their files.
            SourceChangedError: one of its files was written to meanwhile.
        """
        try:
            places = self._in_order()
            while chunk := list(islice(places, rows)):
                yield self._read(chunk)
        except SourceError:
            self._mapped.check_unchanged()
            raise
        self._mapped.check_unchanged()

    def _in_order(self) -> Iterator[_Place]:
        before: _Place | None = None
        places = [_places(*numbered) for numbered in enumerate(self._files)]
        # One file is in order by itself, and merging it would cost more than reading it.
        for place in places[0] if len(places) == 1 else heapq.merge(*places):
            if before is not None and before[0] == place[0]:
                raise SourceError(
                    f"id {place[0]!r:.80} is given twice: "
                    f"{self._shown(before)} and {self._shown(place)}"
                )
            yield place
            before = place

    def _shown(self, place: _Place) -> str:
        return f"{self._files[place[1]].name} row {place[2]}"

    def _read(self, places: list[_Place]) -> Entries:
        """Gather the rows of one chunk, file by file, and check them."""
        # In the files' own type: what float32 cannot hold is refused below, not rounded away here.
        dtype = np.result_type(np.float32, *{file.vectors.dtype for file in self._files})
        vectors = np.empty((len(places), self.dimension), dtype)
        texts: list[str | None] = [None] * len(places)
        payloads: list[str | None] = [None] * len(places)
        owners = np.array([number for _, number, _ in places])
        numbers = np.array([row for _, _, row in places])
        for number in np.unique(owners):
            file = self._files[number]
            at = np.flatnonzero(owners == number)
            vectors[at] = file.vectors[numbers[at]]
            for column, array in ((texts, file.texts), (payloads, file.payloads)):
                if array is not None:
                    for position, text in zip(at, array[numbers[at]].tolist(), strict=True):
                        column[position] = text or None
        try:
            return check_entries(
                [id_ for id_, _, _ in places],
                vectors,
                texts,
                payloads,
                dimension=self.dimension,
                metric=self.metric,
                payloads_are_json=True,
                rules=self._rules,
            )
        except InvalidEntriesError as error:
            where = f"collection {self.collection!r}"
            raise error.in_source(where, lambda row: self._shown(places[row])) from error


def _places(number: int, file: "FolderFile") -> Iterator[_Place]:
    return ((id_, number, row) for id_, row in file.in_order())


class _Mapped:
    """The files that are mapped.

    One that was removed, or replaced by another of its name, does not change for a process that
    has it open.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        """Remember how they look; they are open already."""
        self._seen = {path: found for path in paths if (found := _found(path)) is not None}

    def check_unchanged(self) -> None:
        """Raises `SourceChangedError` where one was written to."""
        for path, before in self._seen.items():
            now = _found(path)
            if now is None or (now.st_dev, now.st_ino) != (before.st_dev, before.st_ino):
                continue
            if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise SourceChangedError(
                    f"{path} was written to while it was read; write under another name, "
                    "then rename"
                )


def _found(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:  # removed since it was listed
        return None


def _fingerprint(folder: Path) -> str:
    """A text that differs when a file's name, size or modification time does."""
    looks = []
    for path in list_folder(folder).files:
        found = _found(path)
        if found is not None:
            looks.append([_written(path.name), found.st_size, found.st_mtime_ns])
    return sha256_hex(canonical_json(looks))


def _written(name: str) -> str:
    """A file's name as Unicode, also where its bytes are not valid."""
    return os.fsencode(name).decode(errors="backslashreplace")


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The content of a folder."""

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
    """The content of ``folder``, by name.

    Raises:
        SourceError: it cannot be listed.
    """
    files: list[Path] = []
    subfolders: list[str] = []
    other_files: list[str] = []
    try:
        for path in sorted(folder.iterdir()):
            suffix = path.suffix.lower()
            if path.name.startswith(".") or suffix in _UNFINISHED:
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
    """Whether a file is mapped where it lies, and not unpacked first."""
    return path.suffix.lower() == ".npy"


def open_file(path: Path, *, dimension: int, unpack_to: Path) -> FolderFile:
    """Map a file's arrays and check their shapes and dtypes, but not their content.

    Raises:
        SourceError: not such a file, or arrays that do not fit; the message names the file.
    """
    arrays, unknown = _arrays(path, dimension, unpack_to / path.name)
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
        SourceError: as `open_file`, as far as the headers show it.
    """
    arrays, _ = _arrays(path, dimension, None)
    return len(arrays["vectors"])


def _arrays(
    path: Path, dimension: int, unpack_to: Path | None
) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """The arrays of a file, and the names of those that are not read.

    ``unpack_to=None``: of an archive the arrays have no content, only shapes and dtypes.
    """
    unknown: list[str] = []
    try:
        if is_mapped(path):
            arrays = {"vectors": _map(path)}
        elif unpack_to is None:
            arrays, unknown = _headers(path)
        else:
            arrays, unknown = _unpack(path, unpack_to)
    except Exception as error:  # at odd bytes the parsers raise errors of a dozen unrelated classes
        raise SourceError(f"{path.name}: cannot be read: {_reason(path, error)}") from error
    problem = _problem(arrays, unknown, dimension)
    if problem is not None:
        raise SourceError(f"{path.name}: {problem}")
    return arrays, unknown


def _headers(path: Path) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Arrays with the shapes and dtypes of those in an archive, without their content."""
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


def _reason(path: Path, error: Exception) -> str:
    """What the parser reports, after what that usually means."""
    if isinstance(error, zipfile.BadZipFile):
        return f"it is no .npz archive, or is cut short ({error})"
    if is_mapped(path) and isinstance(error, OSError | ValueError):
        size = path.stat().st_size
        return f"{error} (it has {size:,} bytes)" if "objects" not in str(error) else str(error)
    return str(error)


def _unpack(path: Path, folder: Path) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """The arrays with known names, and the names of the others.

    No name from the archive becomes a path.
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
        there = f"; it has {', '.join(unknown[:_SHOWN_NAMES])!r}" if unknown else ""
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
