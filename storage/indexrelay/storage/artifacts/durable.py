"""Files that are there whole or not at all, also after a power cut.

A file is written beside its place and forced to disk, then *linked* to its name, and the name is
forced to disk. `os.link` fails where the name exists, so of two writers one wins and nobody is
overwritten; `O_EXCL` on the final name would show half a file, and after a kill leave one.
`os.replace`, which overwrites, is for repairs only.
"""

import contextlib
import errno
import io
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from indexrelay.schemas.failpoints import failpoint
from indexrelay.storage.artifacts.errors import NotAFileError, StoreAccessError

MOST_BYTES: Final = 64 << 20
"""Of a manifest or a release, which are read whole: more than any of ours comes to by far."""
NO_FILE = frozenset({errno.ELOOP, errno.EISDIR, errno.EINVAL, errno.ENXIO, errno.EFBIG})
"""What opening says of a symbolic link, a folder, a pipe, a socket and a file of the wrong size."""


@dataclass(frozen=True)
class Access:
    """Who may look into a store: its owner, or the owner's group as well."""

    group_reads: bool = False

    @property
    def folder(self) -> int:
        """The mode of a new folder."""
        return 0o750 if self.group_reads else 0o700

    @property
    def file(self) -> int:
        """The mode of a finished file, which nobody writes to any more."""
        return 0o440 if self.group_reads else 0o400

    @property
    def mark(self) -> int:
        """The mode of a file that its owner writes to."""
        return 0o640 if self.group_reads else 0o600


@contextlib.contextmanager
def accessing(path: Path, doing: str) -> Iterator[None]:
    """Turn an `OSError` into one that says what was done to which path, chained."""
    try:
        yield
    except OSError as error:
        raise StoreAccessError(path, doing, error) from error


def make_folder(path: Path, mode: int) -> None:
    """Make a folder and its parents with ``mode``, each forced to disk; nothing when it is there.

    Raises:
        StoreAccessError: it cannot be made.
    """
    with accessing(path, "look for the folder"):  # is_dir() raises where it may not look
        if path.is_dir():
            return
    make_folder(path.parent, mode)
    with accessing(path, "make the folder"):
        try:
            path.mkdir(mode)
        except FileExistsError:
            if not path.is_dir():
                raise
        else:
            path.chmod(mode)  # whatever the umask took away
    sync_folder(path.parent)


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
        FileNotFoundError: there is no such file; left as it is, since callers know what it means.
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


def write_once(data: bytes, path: Path, *, staging: Path, mode: int) -> bool:
    """Put ``data`` at ``path`` with ``mode``; ``False``, and nothing done, when ``path`` exists.

    Raises:
        StoreAccessError: it cannot be written; nothing is at ``path`` then.
    """
    with accessing(path, "write"), _staged(data, staging, mode) as file:
        failpoint("file.before_link")
        try:
            os.link(file, path)
        except FileExistsError:
            return False
        failpoint("file.after_link")
    sync_folder(path.parent)
    return True


def overwrite(data: bytes, path: Path, *, staging: Path, mode: int) -> None:
    """Put ``data`` at ``path`` with ``mode``, in place of what is there.

    Raises:
        StoreAccessError: it cannot be written; what was at ``path`` is still there then.
    """
    with accessing(path, "write"), _staged(data, staging, mode) as file:
        take_place(file, path, staging=staging)
    sync_folder(path.parent)


def take_place(file: Path, path: Path, *, staging: Path) -> None:
    """Give ``file`` the name ``path``; a folder of that name goes to the staging folder, whole."""
    try:
        file.replace(path)
    except IsADirectoryError:
        path.rename(staging / f"{secrets.token_hex(16)}.displaced")
        file.replace(path)


def write_mark(path: Path, data: bytes, *, mode: int) -> None:
    """Write a few bytes that nobody misses when they are gone or torn; a link is refused.

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
    """A name in the staging folder; what is there in the end is removed."""
    path = staging / f"{secrets.token_hex(16)}.tmp"
    try:
        yield path
    finally:
        # Left behind it is swept later; the outcome of what was staged must not depend on it.
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _staged(data: bytes, staging: Path, mode: int) -> Iterator[Path]:
    """``data`` in a file of its own with ``mode``, forced to disk."""
    with staged_name(staging) as path:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, mode), "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)  # whatever the umask is
            os.fsync(stream.fileno())
        yield path
