"""Files that are there whole or not at all, where each of them lies, and the store's lock.

A file is written to the staging folder and forced to disk, then *linked* to its name, and the name
is forced to disk. `os.link` fails where the name exists, so of two writers one wins and nothing is
overwritten; `O_EXCL` on the final name would show half a file, and leave one after a kill.
`os.replace`, which overwrites, is for repairs only.

    blobs/sha256/ab/abcdef…          immutable, read-only, named by content
    versions/<component>/<id>.json   manifests, named by content
    releases/00000042.json           the releases, numbered
    copies/00000042.json             a second file of each, for when the first is corrupt
    signatures/<digest>.json         who signed the release of that digest
    staging/                         what is being written; on the same file system as the rest
    checked/<host>/<digest>          what this host has checked already
    opened/<host>/<digest>           what it has opened already, of files that may do harm
    lock                             shared by writers, exclusive to garbage collection

Names and digests reach the store from manifests, messages and people, so `Layout`, the only place
where names become paths, matches each of them again: no name can point outside the root.

Writers share the lock: they never wait for each other, since a link decides between them. Garbage
collection takes it exclusively. Without it a release could be committed between the decision that a
version is unused and its removal. The kernel releases the lock of a process that dies. Readers take
no lock, and cannot: a process that may open the file may also hold the lock for ever, so only the
user who writes to the store may open it. Every wait has a limit: a garbage collection without the
lock runs again later; a writer waits longer and then fails with a transient error.
"""

import contextlib
import errno
import fcntl
import io
import os
import re
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.files import FILE_MODE, LockWaits, Pause, shut_to_others, wait_for_lock
from indexrelay.schemas.names import DIGEST_PATTERN, is_name
from indexrelay.storage.errors import (
    NotAFileError,
    StoreAccessError,
    StoreBusyError,
    UnsafeNameError,
)

MOST_BYTES: Final = 64 << 20
"""Of a manifest or a release, which are read whole: far more than any of ours has."""
NO_FILE: Final = frozenset({errno.ELOOP, errno.EISDIR, errno.EINVAL, errno.ENXIO, errno.EFBIG})
"""The errors of opening a symbolic link, a folder, a pipe, a socket and a file of a wrong size."""


@dataclass(frozen=True)
class Access:
    """Who may read a store: its owner, or the owner's group as well."""

    group_reads: bool = False

    @property
    def folder(self) -> int:
        """The mode of a new folder."""
        return 0o750 if self.group_reads else 0o700

    @property
    def file(self) -> int:
        """The mode of a finished file, which is not written to any more."""
        return 0o440 if self.group_reads else 0o400

    @property
    def mark(self) -> int:
        """The mode of a file that its owner writes to."""
        return 0o640 if self.group_reads else 0o600


_RELEASE = re.compile(r"(\d{8,18})\.json")


class Layout:
    """The paths of one store."""

    def __init__(self, root: Path, access: Access = Access(), *, marks: Path | None = None) -> None:
        """``marks``: where this host records its checks; ``None``: in the store."""
        self.root = root
        self.access = access
        self.blobs = root / "blobs" / "sha256"
        self.versions = root / "versions"
        self.releases = root / "releases"
        self.copies = root / "copies"
        self.staging = root / "staging"
        self.checked = (marks or root) / "checked"
        self.opened = (marks or root) / "opened"
        self.signatures = root / "signatures"
        self.lock = root / "lock"
        self._made = False

    def make(self) -> None:
        """Create the folders that are missing; nothing once that was done.

        Raises:
            StoreAccessError: one of them cannot be created.
        """
        if not self._made:
            for folder in (self.blobs, self.versions, self.releases, self.staging):
                self.make_folder(folder)
            self._made = True

    def make_folder(self, path: Path) -> None:
        """Create a folder and its parents, each forced to disk; nothing when it exists.

        Raises:
            StoreAccessError: it cannot be created.
        """
        with accessing(path, "look for the folder"):  # is_dir() raises where it is forbidden
            if path.is_dir():
                return
        self.make_folder(path.parent)
        with accessing(path, "make the folder"):
            try:
                path.mkdir(self.access.folder)
            except FileExistsError:
                if not path.is_dir():
                    raise
            else:
                path.chmod(self.access.folder)  # whatever the umask took away
        sync_folder(path.parent)

    def write_once(self, data: bytes, path: Path) -> bool:
        """Put a document at ``path``; ``False``, and nothing done, when ``path`` exists.

        Raises:
            StoreAccessError: it cannot be written; nothing is at ``path`` then.
        """
        with accessing(path, "write"), self._staged(data) as file:
            failpoint("file.before_link")
            try:
                os.link(file, path)
            except FileExistsError:
                return False
            failpoint("file.after_link")
        sync_folder(path.parent)
        return True

    def overwrite(self, data: bytes, path: Path) -> None:
        """Put a document at ``path`` in place of what is there.

        Raises:
            StoreAccessError: it cannot be written; what was at ``path`` is still there then.
        """
        with accessing(path, "write"), self._staged(data) as file:
            self.replace(file, path)
        sync_folder(path.parent)

    def replace(self, file: Path, path: Path) -> None:
        """Give ``file`` the name ``path``; a folder of that name is moved to the staging folder."""
        try:
            file.replace(path)
        except IsADirectoryError:
            path.rename(self.staging / f"{secrets.token_hex(16)}.displaced")
            file.replace(path)

    @contextlib.contextmanager
    def _staged(self, data: bytes) -> Iterator[Path]:
        """``data`` in a file of its own, forced to disk."""
        with staged_name(self.staging) as path:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(path, flags, self.access.file), "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fchmod(stream.fileno(), self.access.file)  # whatever the umask is
                os.fsync(stream.fileno())
            yield path

    def blob(self, digest: str) -> Path:
        """The path of a blob."""
        return self.blobs / check_digest(digest)[:2] / digest

    def version(self, component: str, version_id: str) -> Path:
        """The path of a manifest."""
        return self.versions / check_name(component) / f"{check_digest(version_id)}.json"

    def release(self, number: int) -> Path:
        """The path of a release; eight digits, and more when eight are not enough."""
        if number < 1:
            raise UnsafeNameError("release number", str(number))
        return self.releases / f"{number:08d}.json"

    def copy(self, number: int) -> Path:
        """The path of a release's copy."""
        return self.copies / self.release(number).name

    def signature(self, digest: str) -> Path:
        """The path of the signatures of the release with this digest."""
        return self.signatures / f"{check_digest(digest)}.json"

    def manifests(self) -> Iterator[tuple[str, str, Path]]:
        """Component, version and path of every manifest; other files there are not the store's.

        Raises:
            StoreAccessError: a folder cannot be listed.
        """
        for folder in listed(self.versions):
            for path in listed(folder):
                with contextlib.suppress(UnsafeNameError):
                    if path == self.version(folder.name, path.stem):
                        yield folder.name, path.stem, path

    def blob_files(self) -> Iterator[Path]:
        """Every blob. Raises as `manifests` does."""
        for folder in listed(self.blobs):
            for path in listed(folder):
                with contextlib.suppress(UnsafeNameError):
                    if path == self.blob(path.name):
                        yield path

    def release_number(self, file_name: str) -> int | None:
        """The number of the release in a file of this name; ``None``: it is no release."""
        match = _RELEASE.fullmatch(file_name)
        if match is None:
            return None
        number = int(match[1])
        # `release()` must lead back to the same file, or two files would claim one number.
        return number if number > 0 and file_name == f"{number:08d}.json" else None


def listed(folder: Path) -> list[Path]:
    """The content of a folder, in the order of names; a folder that does not exist is empty.

    Raises:
        StoreAccessError: it cannot be listed.
    """
    with accessing(folder, "list"):
        return sorted(folder.iterdir()) if folder.is_dir() else []


WRITING_SECONDS: Final = 60.0
"""How long a writer waits: a garbage collection of millions of files is over by then."""
COLLECTION_SECONDS: Final = 5.0
"""How long a garbage collection waits: nothing is lost if it runs later, and the process that runs
it has other things to do."""


class StoreLock:
    """One lock file; each use opens it again, so that it separates threads like processes."""

    def __init__(
        self, path: Path, *, waits: LockWaits, clock: Clock, pause: Pause | None = None
    ) -> None:
        self._path = path
        self._waits = waits
        self._clock = clock
        self._pause = pause

    def writing(self) -> contextlib.AbstractContextManager[None]:
        """Keep garbage collection out."""
        return self._held(fcntl.LOCK_SH, WRITING_SECONDS)

    def collecting(self) -> contextlib.AbstractContextManager[None]:
        """Keep every writer out."""
        return self._held(fcntl.LOCK_EX, COLLECTION_SECONDS)

    @contextlib.contextmanager
    def _held(self, how: int, most_seconds: float) -> Iterator[None]:
        with accessing(self._path, "lock"):
            file = open_lock(self._path)
        try:
            with accessing(self._path, "lock"):
                had = wait_for_lock(
                    file,
                    how,
                    name=str(self._path),
                    waits=self._waits,
                    clock=self._clock,
                    most_seconds=most_seconds,
                    pause=self._pause,
                )
            if not had:
                holder = next((each.holder for each in self._waits.long), "")
                raise StoreBusyError(self._path, holder=holder, seconds=most_seconds)
            yield
        finally:
            release_lock(file)


def open_lock(path: Path) -> int:
    """Open a lock file; it is created if it is missing, for its owner alone.

    Raises:
        OSError: it cannot be opened, or is no file.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    file = os.open(path, flags, FILE_MODE)
    try:
        shut_to_others(file)  # an earlier version left it open to everyone
    except OSError as error:
        if error.errno != errno.EPERM:  # some network file systems have no modes
            os.close(file)
            raise
    return file


def release_lock(file: int) -> None:
    """Unlock a file and close it.

    Closing it is not enough: a child that was forked meanwhile has the same lock open.
    """
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_UN)
    finally:
        os.close(file)


def check_digest(text: str) -> str:
    """Return ``text`` if it is a sha256 in lower-case hexadecimal.

    Raises:
        UnsafeNameError: it is not.
    """
    if re.fullmatch(DIGEST_PATTERN[1:-1], text) is None:
        raise UnsafeNameError("sha256", text)
    return text


def check_name(text: str) -> str:
    """Return ``text`` if it may name a component.

    Raises:
        UnsafeNameError: it may not.
    """
    if not is_name(text):
        raise UnsafeNameError("component name", text)
    return text


@contextlib.contextmanager
def accessing(path: Path, doing: str) -> Iterator[None]:
    """Turn an `OSError` into an error that says what was done to which path, chained."""
    try:
        yield
    except OSError as error:
        raise StoreAccessError(path, doing, error) from error


def sync_folder(path: Path) -> None:
    """Force a folder's names to disk.

    Raises:
        StoreAccessError: it cannot be done.
    """
    with accessing(path, "force to disk"):
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read_file(path: Path) -> bytes:
    """The bytes of a small file; a symbolic link is refused, and a file of more than `MOST_BYTES`.

    Raises:
        FileNotFoundError: there is no such file; left as it is, since callers handle it.
        NotAFileError: a folder, a link or the like has that name, or something far too large.
        StoreAccessError: it cannot be read.
    """
    try:
        with open_file(path, most_bytes=MOST_BYTES) as stream:
            return stream.read(MOST_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in NO_FILE:
            raise NotAFileError(path, "read", error) from error
        raise StoreAccessError(path, "read", error) from error


def open_file(path: Path, *, most_bytes: int | None = None) -> io.BufferedReader:
    """Open a regular file for reading; a symbolic link or a pipe is not one.

    ``most_bytes``: one that is larger is refused (``EFBIG``).
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.open(path, flags)
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode):
        os.close(file)
        number = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
        raise OSError(number, "not a regular file")
    if most_bytes is not None and found.st_size > most_bytes:
        os.close(file)
        raise OSError(errno.EFBIG, f"{found.st_size} bytes, of at most {most_bytes}")
    return os.fdopen(file, "rb")


_MOST_MARK_BYTES: Final = 200


def read_mark(path: str) -> tuple[bytes, float]:
    """What `write_mark` wrote, and its mtime; without the objects of Python's files, since a reload
    reads one for each of its files.

    Raises:
        OSError: it cannot be read, or is a link, a pipe or the like.
    """
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return os.read(file, _MOST_MARK_BYTES), found.st_mtime
    finally:
        os.close(file)


def write_mark(path: Path, data: bytes, *, mode: int) -> None:
    """Write a few bytes that may get lost or torn without harm; a link is refused.

    Raises:
        OSError: it cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.open(path, flags, mode)
    try:
        if stat.S_IMODE(os.fstat(file).st_mode) != mode:  # the umask took some away
            os.fchmod(file, mode)
        os.write(file, data)
    finally:
        os.close(file)


@contextlib.contextmanager
def staged_name(staging: Path) -> Iterator[Path]:
    """A name in the staging folder; a file of that name is removed in the end."""
    path = staging / f"{secrets.token_hex(16)}.tmp"
    try:
        yield path
    finally:
        # A leftover is garbage collected later; the result must not depend on it.
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
