"""The source of collections that lie in a folder of ``.npy`` and ``.npz`` files.

``.npy``: a 2-D array of floats. ``.npz``: an array ``vectors`` of that kind and, if wished,
``ids``, ``texts`` and ``payloads`` (JSON), unicode arrays of its length in which an empty text or
payload stands for none. Where there are no ``ids``, row 7 of ``songs.npy`` is the entry
``songs:7``.

The folder looks new when a file's name, size or time of change does. Its looks are compared before
and after the files are opened, so that these are the folder of one moment. From then on a file that
comes, goes, or is replaced by another changes nothing for whoever reads: what is open stays as it
was. Only a file that is written to where it lies does, and then what was read is thrown away. Put
files there whole (write under another name, then rename): a mapped file that is cut short under its
reader kills that reader's process, which for a build is a child that may fail alone.
"""

import heapq
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np

from indexrelay.schemas.canonical import canonical_json, sha256_hex
from indexrelay.schemas.loggers import get_logger
from indexrelay.storage.catalog import Collection
from indexrelay.storage.entries import CHUNK_ROWS, Entries, SourceSnapshot
from indexrelay.storage.errors import InvalidEntriesError, SourceChangedError, SourceError
from indexrelay.storage.sources.declared import DeclaredCollection
from indexrelay.storage.sources.folder_files import (
    SHOWN_NAMES,
    FolderFile,
    Listing,
    is_mapped,
    list_folder,
    open_file,
    rows_in,
)
from indexrelay.storage.sources.outside import OutsideSnapshot, refused
from indexrelay.storage.validation import SizeLimits, check_entries

_log = get_logger(__name__)

_Place = tuple[str, int, int]
"""id, number of the file, row in the file."""


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
                check_unchanged()  # a file that was half written is no broken file
                raise
            check_unchanged()
            yield FolderSnapshot(
                collection,
                self._declared.sizes,
                files,
                left_out=self._left_out(listing, files),
                check_unchanged=mapped.check_unchanged,
            )

    def _left_out(self, listing: Listing, files: list[FolderFile]) -> dict[str, int]:
        """What is not read, which is told in the log."""
        arrays = [f"{_written(file.name)}: {name}" for file in files for name in file.unknown]
        left_out = {**listing.left_out, **({"other_arrays": len(arrays)} if arrays else {})}
        if left_out:
            names = [*listing.subfolders, *listing.other_files]
            _log.warning(
                "source.left_out",
                collection=self._declared.name,
                folder=str(self._folder),
                **left_out,
                first=[*map(_written, names[:SHOWN_NAMES]), *arrays[:SHOWN_NAMES]],
                advice="only .npy and .npz files directly in the folder are read, and of an .npz "
                "file the arrays vectors, ids, texts and payloads",
            )
        return left_out


class FolderSnapshot(OutsideSnapshot):
    """The mapped files, merged in the order of their ids."""

    def __init__(
        self,
        collection: Collection,
        sizes: SizeLimits,
        files: list[FolderFile],
        *,
        left_out: Mapping[str, int],
        check_unchanged: Callable[[], None],
    ) -> None:
        super().__init__(collection, sizes, sum(map(len, files)), left_out)
        self._files = files
        self._dtype = np.result_type(np.float32, *{file.vectors.dtype for file in files})
        self._check_unchanged = check_unchanged

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Entries]:
        """Every row once, in the order of the ids' UTF-8 bytes; what is held is one chunk.

        Raises:
            SourceError: rows that cannot be entries; the message names their files.
            SourceChangedError: one of its files was written to meanwhile.
        """
        try:
            places = self._in_order()
            while chunk := list(islice(places, rows)):
                yield self._read(chunk)
        except SourceError:
            self._check_unchanged()
            raise
        self._check_unchanged()

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
        vectors = np.empty((len(places), self.dimension), self._dtype)
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
                sizes=self._sizes,
            )
        except InvalidEntriesError as error:
            where = f"collection {self.collection!r}"
            raise refused(error, where, lambda row: self._shown(places[row])) from error


def _places(number: int, file: FolderFile) -> Iterator[_Place]:
    return ((id_, number, row) for id_, row in file.in_order())


class _Mapped:
    """Files that are read where they lie.

    One that was removed, or replaced by another of its name, is as it was for whoever has it open.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        """As they are now; they are open already."""
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
    """What the folder looks like: names, sizes and times of change."""
    looks = []
    for path in list_folder(folder).files:
        found = _found(path)
        if found is not None:
            looks.append([_written(path.name), found.st_size, found.st_mtime_ns])
    return sha256_hex(canonical_json(looks))


def _written(name: str) -> str:
    """A file's name as Unicode, also where its bytes are none."""
    return os.fsencode(name).decode(errors="backslashreplace")
