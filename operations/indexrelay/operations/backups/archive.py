"""The form of a backup: a manifest, then exactly the files that it lists, streamed both ways.

An archive is a tar in GNU's format, compressed by zstd and, for recipients, encrypted by age. A
folder holds the same files. The paths are those of an artifact store, so that ``age -d``, ``zstd
-d`` and ``tar -x`` make one that readers can serve from, without us.

An archive may come from anywhere, so it is not given to a library that unpacks archives. What is
read has to be a plain file under the very path, of the very size and digest that comes next by the
manifest: there is no place for a link, a device, a path to elsewhere, or more bytes than announced.
The manifest's own size has a limit, and so has what one step of decompression may need. A file
that turns out wrong was already handed on in part; whoever takes it keeps it aside until the end.

Nothing is held in memory but one piece of a file at a time. Decryption pushes its output, and so
everything behind it does: `_TarReader` takes bytes as they come.
"""

import contextlib
import hashlib
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Final, Protocol

from pydantic import ValidationError

from indexrelay.operations.backups.errors import (
    BackupCorruptError,
    BackupKeyError,
    BackupSourceError,
)
from indexrelay.operations.backups.keys import read_identities, recipients_of
from indexrelay.schemas.backups import MANIFEST_FILE, BackupFile, BackupManifest, BackupSettings
from indexrelay.schemas.errors import IndexRelayError, require
from indexrelay.schemas.files import make_private_folder, open_private
from indexrelay.storage.artifacts.files import NO_FILE, accessing, open_file, sync_folder
from indexrelay.storage.backups import StoredBackup
from indexrelay.storage.errors import StoreAccessError

_PIECE_BYTES: Final = 1 << 20
_BLOCK: Final = 512
_RECORD: Final = 20 * _BLOCK
_COMPRESSED_BYTES: Final = 2048
"""So much is decompressed in one step. zstd makes at most 128 KiB of four bytes: 64 MiB in all."""
_WINDOW_BYTES: Final = 1 << 23
"""The most that zstd needs at the compression levels that the settings allow."""
_LONG_NAME_BYTES: Final = 1024
_MANIFEST_BYTES: Final = 16 << 20
"""Of the manifest: a thousand components with a hundred files each take less."""

Progress = Callable[[int, int], object]
"""Called with the bytes of files that are done, and of all of them."""
Source = Callable[[BackupFile], Iterable[bytes]]
"""The content of one file, in pieces."""


class Taker(Protocol):
    """What takes the files of a backup as they are read."""

    def begin(self, manifest: BackupManifest) -> None:
        """Once, before any file. May refuse the backup by raising."""
        ...

    def open(self, file: BackupFile) -> IO[bytes] | None:
        """Where the content of the next file goes; closed behind it. ``None``: it is only checked.

        What is written there is known to be right only when the whole backup was read.
        """
        ...


# Out


def write_archive(
    path: Path,
    manifest: BackupManifest,
    source: Source,
    settings: BackupSettings,
    progress: Progress,
) -> None:
    """Write a new archive to ``path`` and force it to disk.

    Raises:
        BackupSourceError: a file is not what the manifest says.
        BackupKeyError: a recipient is none.
        MissingExtraError: zstandard or pyrage is not installed.
        StoreAccessError: it cannot be written.
    """
    recipients = recipients_of(settings.recipients)
    pieces = _compressed(_tarred(manifest, source, progress), settings.compression_level)
    with accessing(path, "write"), open_private(path, "wb") as file:
        if recipients:
            _through_age(require("pyrage").encrypt_io, _PieceReader(pieces), file, recipients)
        else:
            file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())


def write_folder(path: Path, manifest: BackupManifest, source: Source, progress: Progress) -> None:
    """Write the files to a new folder, and force them to disk. Raises as `write_archive` does."""
    with accessing(path, "write"):
        make_private_folder(path)
        for name, pieces in _contents(manifest, source, progress):
            target = path / name
            make_private_folder(target.parent)
            with open_private(target, "wb") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
        for folder, _, _ in os.walk(path):
            sync_folder(Path(folder))


def _contents(
    manifest: BackupManifest, source: Source, progress: Progress
) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The path and the content of each file, the manifest first."""
    yield MANIFEST_FILE, iter([manifest.to_bytes()])
    total, done = manifest.size, 0
    progress(0, total)
    for file in manifest.files():

        def counted(file: BackupFile = file) -> Iterator[bytes]:
            nonlocal done
            for piece in _checked(file, source(file)):
                done += len(piece)
                yield piece
                progress(done, total)

        yield file.path, counted()


def _checked(file: BackupFile, pieces: Iterable[bytes]) -> Iterator[bytes]:
    found, size = hashlib.sha256(), 0
    for piece in pieces:
        found.update(piece)
        size += len(piece)
        if size > file.size:
            break
        yield piece
    if size != file.size or found.hexdigest() != file.digest:
        raise BackupSourceError(file.path, "its content is not what its digest says")


def _tarred(manifest: BackupManifest, source: Source, progress: Progress) -> Iterator[bytes]:
    sizes = {each.path: each.size for each in manifest.files()}
    sizes[MANIFEST_FILE] = len(manifest.to_bytes())
    total = 0
    for name, pieces in _contents(manifest, source, progress):
        size = sizes[name]
        header = tarfile.TarInfo(name)
        header.size, header.mode = size, 0o600
        header.mtime = int(manifest.created_at.timestamp())
        written = header.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")
        yield written
        yield from pieces
        yield bytes(-size % _BLOCK)
        total += len(written) + size + -size % _BLOCK
    yield bytes(2 * _BLOCK + -(total + 2 * _BLOCK) % _RECORD)


def _compressed(pieces: Iterable[bytes], level: int) -> Iterator[bytes]:
    compressor = require("zstandard").ZstdCompressor(level, write_checksum=True).compressobj()
    for piece in pieces:
        if made := compressor.compress(piece):
            yield made
    yield compressor.flush()


class _PieceReader:
    """A file to read from, made of pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = b""
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most ``size``; none at the end."""
        while self._at == len(self._piece):
            self._piece, self._at = next(self._pieces, b""), 0
            if not self._piece:
                return b""
        end = len(self._piece) if size < 0 else self._at + size
        taken = self._piece[self._at : end]
        self._at += len(taken)
        return taken


# In


def read_backup(
    backup: StoredBackup, take: Taker, *, identity_file: Path | None, progress: Progress
) -> BackupManifest:
    """Read a backup to its end, and check all of it.

    Raises:
        BackupCorruptError: it is cut short, altered, or no backup.
        BackupKeyError: it is encrypted, and this key does not open it.
        MissingExtraError: zstandard or pyrage is not installed.
        StoreAccessError: it cannot be read.
    """
    contents = _Contents(backup, take, progress)
    if backup.is_folder:
        _read_folder(backup, contents)
    else:
        _read_archive(backup, contents, identity_file)
    return contents.complete()


def read_manifest(backup: StoredBackup, *, identity_file: Path | None) -> BackupManifest:
    """Read the manifest alone; the files behind it are not checked. Raises as `read_backup`."""
    first = _First()
    with contextlib.suppress(_EnoughError):
        read_backup(backup, first, identity_file=identity_file, progress=lambda *_: None)
    if first.manifest is None:
        raise BackupCorruptError(backup.path, "it has no manifest")
    return first.manifest


class _EnoughError(IndexRelayError):
    """Raised when no more of a backup is wanted."""


class _First:
    manifest: BackupManifest | None = None

    def begin(self, manifest: BackupManifest) -> None:
        self.manifest = manifest
        raise _EnoughError

    def open(self, file: BackupFile) -> IO[bytes] | None:  # noqa: ARG002 - never called
        return None


class _Contents:
    """Compares what comes with what the manifest says comes next, and hands it on."""

    def __init__(self, backup: StoredBackup, take: Taker, progress: Progress) -> None:
        self.path = backup.path
        self._backup = backup
        self._take = take
        self._progress = progress
        self._manifest: BackupManifest | None = None
        self._raw = bytearray()
        self._expected: Iterator[BackupFile] = iter(())
        self._file: BackupFile | None = None
        self._into: IO[bytes] | None = None
        self._found = hashlib.sha256()
        self._done = self._total = 0

    @property
    def manifest(self) -> BackupManifest:
        """The manifest, which came first."""
        if self._manifest is None:
            raise self.refuse("its manifest is missing")
        return self._manifest

    def refuse(self, reason: str) -> BackupCorruptError:
        """The error to raise."""
        return BackupCorruptError(self._backup.path, reason)

    def start(self, path: str, size: int) -> None:
        """A file begins."""
        if self._manifest is None:
            if path != MANIFEST_FILE or not 0 < size <= _MANIFEST_BYTES:
                raise self.refuse(f"it does not begin with {MANIFEST_FILE}")
            return
        file = next(self._expected, None)
        if file is None:
            raise self.refuse(f"{path[:200]!r} is in it, which its manifest does not list")
        if (path, size) != (file.path, file.size):
            raise self.refuse(
                f"{path[:200]!r} of {size} bytes comes where its manifest lists {file.path} of "
                f"{file.size} bytes"
            )
        self._file, self._found = file, hashlib.sha256()
        self._into = self._take.open(file)

    def data(self, piece: bytes) -> None:
        """The next bytes of that file."""
        if self._file is None:
            self._raw += piece
            return
        self._found.update(piece)
        if self._into is not None:
            with accessing(Path(self._into.name), "write"):
                self._into.write(piece)
        self._done += len(piece)
        self._progress(self._done, self._total)

    def finish(self) -> None:
        """That file has come to its end."""
        if self._file is None:
            self._begin()
            return
        if self._into is not None:
            with accessing(Path(self._into.name), "write"):
                self._into.close()
        if self._found.hexdigest() != self._file.digest:
            raise self.refuse(f"{self._file.path} was altered: its content has another digest")
        self._file = self._into = None

    def complete(self) -> BackupManifest:
        """The manifest, after everything came.

        Raises:
            BackupCorruptError: something is missing.
        """
        manifest = self.manifest
        missing = self._file or next(self._expected, None)
        if missing is not None:
            raise self.refuse(f"it is cut short: {missing.path} is missing, or a part of it")
        return manifest

    def close(self) -> None:
        """Close what is open."""
        if self._into is not None:
            self._into.close()

    def _begin(self) -> None:
        try:
            manifest = BackupManifest.model_validate_json(bytes(self._raw))
        except ValidationError as error:
            field = ".".join(map(str, error.errors()[0]["loc"])) or MANIFEST_FILE
            raise self.refuse(
                f"its manifest is none that this release of indexrelay can read ({field})"
            ) from None
        if manifest.id != self._backup.id:
            raise self.refuse(f"its manifest is that of the backup {manifest.id}")
        self._raw.clear()
        self._manifest, self._expected = manifest, manifest.files()
        self._total = manifest.size
        self._take.begin(manifest)
        self._progress(0, self._total)


def _read_folder(backup: StoredBackup, contents: _Contents) -> None:
    with contextlib.closing(contents):
        _read_file(backup.path, MANIFEST_FILE, contents)
        for file in contents.manifest.files():
            _read_file(backup.path, file.path, contents)


def _read_file(folder: Path, name: str, contents: _Contents) -> None:
    path = folder / name
    try:
        with open_file(path) as file:
            contents.start(name, os.fstat(file.fileno()).st_size)
            while piece := file.read(_PIECE_BYTES):
                contents.data(piece)
    except FileNotFoundError:
        raise contents.refuse(f"{name} is missing") from None
    except OSError as error:
        if error.errno in NO_FILE:
            raise contents.refuse(f"{name} is not a regular file") from None
        raise StoreAccessError(path, "read", error) from error
    contents.finish()


def _read_archive(backup: StoredBackup, contents: _Contents, identity_file: Path | None) -> None:
    if backup.is_encrypted and identity_file is None:
        raise BackupKeyError(
            f"{backup.path} is encrypted; name its private key: --identity FILE, or "
            "backups.identity_file in the settings"
        )
    identities = read_identities(identity_file) if backup.is_encrypted and identity_file else []
    plain = _Decompressed(contents)
    with contextlib.closing(contents), accessing(backup.path, "read"):
        with open_file(backup.path) as file:
            if identities:
                _decrypt(file, plain, identities, contents)
            else:
                while piece := file.read(_PIECE_BYTES):
                    plain.write(piece)
        plain.finish()


def _decrypt(
    file: IO[bytes], plain: "_Decompressed", identities: list[Any], contents: _Contents
) -> None:
    pyrage = require("pyrage")
    try:
        _through_age(pyrage.decrypt_io, file, plain, identities)
    except pyrage.DecryptError as error:
        if "No matching keys" in str(error):
            raise BackupKeyError(f"{contents.path} is encrypted for other keys") from None
        raise contents.refuse(f"it is cut short or altered: {error}") from None
    except OSError as error:
        if error.errno is None:  # not the operating system's
            raise contents.refuse(f"it is cut short or altered: {error}") from None
        raise


def _through_age(
    run: Callable[[Any, Any, list[Any]], None], source: Any, target: Any, keys: list[Any]
) -> None:
    """Encrypt or decrypt; what the two files raise comes out as it is, Ctrl-C included."""
    streams = _Stream(source), _Stream(target)
    try:
        run(*streams, keys)
    except BaseException:
        failure = streams[0].failure or streams[1].failure
        if failure is not None:
            raise failure from None
        raise


class _Stream:
    """A file as pyrage takes it, which makes an error of its own of what a file raises."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.failure: BaseException | None = None

    def read(self, size: int = -1) -> bytes:
        """As a file has it."""
        found: bytes = self._kept(self._file.read, size)
        return found

    def write(self, piece: bytes) -> int:
        """As a file has it."""
        self._kept(self._file.write, piece)
        return len(piece)

    def flush(self) -> None:
        """As a file has it; whoever opened the file flushes it."""

    def _kept(self, call: Callable[[Any], Any], argument: Any) -> Any:
        if self.failure is not None:  # it is called once more when pyrage gives up
            raise self.failure
        try:
            return call(argument)
        except BaseException as error:
            self.failure = error
            raise


class _Decompressed:
    """A file to write to: takes a zstd frame, and reads the tar in it."""

    def __init__(self, contents: _Contents) -> None:
        zstandard = require("zstandard")
        self._error = zstandard.ZstdError
        self._decompressor = zstandard.ZstdDecompressor(
            max_window_size=_WINDOW_BYTES
        ).decompressobj()
        self._contents = contents
        self._tar = _TarReader(contents)

    def write(self, piece: bytes) -> None:
        """Take the next bytes."""
        for start in range(0, len(piece), _COMPRESSED_BYTES):
            self._step(piece[start : start + _COMPRESSED_BYTES])

    def finish(self) -> None:
        """There is no more.

        Raises:
            BackupCorruptError: it is cut short.
        """
        if not self._decompressor.eof:
            raise self._contents.refuse("it is cut short: the compressed data has no end")
        self._tar.finish()

    def _step(self, some: bytes) -> None:
        if self._decompressor.eof:
            raise self._contents.refuse("there is something behind its end")
        try:
            plain = self._decompressor.decompress(some)
        except self._error as error:
            raise self._contents.refuse(f"it was altered, or is no zstd: {error}") from None
        if self._decompressor.unused_data:
            raise self._contents.refuse("there is something behind its end")
        self._tar.feed(plain)


class _TarReader:
    """Takes a tar of plain files in GNU's format, as it comes; refuses everything else in one."""

    def __init__(self, contents: _Contents) -> None:
        self._contents = contents
        self._header = bytearray()
        self._left = 0
        """Bytes of the current file that are still to come."""
        self._padding = 0
        self._name: bytearray | None = None
        """A long name that is being read; the next header is that of its file."""
        self._long = ""
        self._ended = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        while view:
            if self._ended:
                if any(view):
                    raise self._contents.refuse("there is something behind its end")
                return
            view = view[self._take(view) :]

    def finish(self) -> None:
        """There is no more.

        Raises:
            BackupCorruptError: it is cut short.
        """
        if not self._ended:
            raise self._contents.refuse("it is cut short: the archive has no end")

    def _take(self, view: memoryview) -> int:
        """Take a part of what has come; returns how much."""
        if self._left:
            part = view[: self._left]
            self._left -= len(part)
            if self._name is not None:
                self._name += part
            else:
                self._contents.data(bytes(part))
            if not self._left:
                self._end_file()
            return len(part)
        if self._padding:
            part = view[: self._padding]
            self._padding -= len(part)
            return len(part)
        part = view[: _BLOCK - len(self._header)]
        self._header += part
        if len(self._header) == _BLOCK:
            self._begin_file(bytes(self._header))
            self._header.clear()
        return len(part)

    def _begin_file(self, block: bytes) -> None:
        if not any(block):
            if self._long:
                raise self._contents.refuse("a file is missing behind its name")
            self._ended = True
            return
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            raise self._contents.refuse(f"a header in it is damaged: {error}") from None
        self._left, self._padding = header.size, -header.size % _BLOCK
        if header.type == tarfile.GNUTYPE_LONGNAME and not self._long:
            if not 0 < header.size <= _LONG_NAME_BYTES:
                raise self._contents.refuse("a name in it is too long")
            self._name = bytearray()
            return
        if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise self._contents.refuse(
                f"{header.name[:200]!r} is no plain file, and nothing else belongs in a backup"
            )
        name, self._long = self._long or header.name, ""
        self._contents.start(name, header.size)
        if not header.size:
            self._contents.finish()

    def _end_file(self) -> None:
        if self._name is None:
            self._contents.finish()
            return
        self._long = self._name.rstrip(b"\0").decode("utf-8", "replace")
        self._name = None
        if not self._long:
            raise self._contents.refuse("a name in it is empty")
