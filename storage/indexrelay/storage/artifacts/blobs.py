"""Blobs: immutable files, named by the sha256 of their content, and hashed once per host.

A file is made read-only, hashed, forced to disk and linked to its name; the same content again
changes nothing. So whatever has a name here outlasts a power cut. A reader opens a blob in place,
after its digest was checked once on this host. A corrupt blob is replaced when the same content is
put again: the new file takes over the name, and a process that has mapped the old one keeps it.

A checked blob is remembered by inode, size and ctime: to write to it, to replace it or to set its
times back changes the ctime, and the blob is checked again. (Its mtime can be forged.) The memory
is one small file per blob, the *mark*, in a folder for each running kernel: containers on one
kernel see the same page cache and share their checks, and after a reboot everything is checked once
more, since a power cut is when disks lose what they promised. The marks are inside the store
because the builder and the readers of a host may be different users without a common home.

A mark's own mtime says when the blob was hashed last, so the scrubs of all readers of a host share
the marks: a blob that one of them has hashed is not due for the others, and a reader that finds it
corrupt removes the mark, so that all others check it themselves. A mark that is torn, old or
missing only costs another check. Where marks cannot be written (the store is mounted read-only, or
belongs to another user), each process remembers its own checks.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import platform
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.files import make_private_folder
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.names import sha256_hex
from indexrelay.schemas.versions import BlobRef
from indexrelay.storage.artifacts.files import (
    NO_FILE,
    Access,
    Layout,
    StoreLock,
    accessing,
    open_file,
    open_lock,
    read_mark,
    release_lock,
    staged_name,
    sync_folder,
    write_mark,
)
from indexrelay.storage.errors import BlobCorruptError, BlobMissingError, StoreAccessError

_log = get_logger(__name__)

PIN_SUFFIX = ".pin"
_PIECE_BYTES = 1 << 20

GoOn = Callable[[int], bool]
"""Called with the number of bytes since the last call; may wait. ``False``: stop."""


@dataclass(frozen=True, kw_only=True)
class BlobLook:
    """What is known of a blob's file without reading it."""

    inode: int
    """Another one once the file was replaced; a process that has mapped it still has the old."""
    checked_at: float | None
    """When this host last found it intact, by the wall clock; ``None``: not as it is now."""


@dataclass(frozen=True, kw_only=True)
class StagedBlob:
    """A finished file that is being forced to disk, and that is not in the store yet."""

    file: Path
    """Where it is until it is put; it may be read there."""
    ref: BlobRef
    identity: str
    """The file's identity when it was hashed."""
    forced: Future[None]
    """Done, or failed, once the disk has answered."""


class Blobs:
    """The blobs of one store."""

    def __init__(self, layout: Layout, *, lock: StoreLock, checked: "BlobMarks") -> None:
        self._layout = layout
        self._lock = lock
        self._checked = checked

    def stage(self, file: Path, forcing: Executor) -> StagedBlob:
        """Hash a finished file, and force it to disk by ``forcing``.

        Raises:
            StoreAccessError: it is not a regular file, or cannot be read.
        """
        with accessing(file, "store"):
            ref = self._sealed(file)
            identity = file_identity(file.stat())
        forced = forcing.submit(_force, file)
        return StagedBlob(file=file, ref=ref, identity=identity, forced=forced)

    def put(self, file: Path | StagedBlob) -> BlobRef:
        """Move a finished file into the store; it must not be written to any more.

        Raises:
            StoreAccessError: it is not a regular file, or cannot be read, forced to disk or moved.
            BlobCorruptError: a staged one was written to.
        """
        if isinstance(file, StagedBlob):
            with accessing(file.file, "force to disk"):
                file.forced.result()
                changed = file_identity(file.file.stat()) != file.identity
            if changed:
                raise BlobCorruptError(
                    file.ref.digest, file.file, "it was written to after it was hashed"
                )
            return self._put(file.file, file.ref)
        with accessing(file, "store"):
            ref = self._sealed(file)
            _force(file)
        return self._put(file, ref)

    def _put(self, file: Path, ref: BlobRef) -> BlobRef:
        target = self._layout.blob(ref.digest)
        self._layout.make_folder(target.parent)
        with self._lock.writing(), accessing(target, "write"):
            if not self._link(file, ref, target):
                self._reuse(file, ref, target)
            sync_folder(target.parent)
        with accessing(file, "remove"):
            # A kind may put a blob itself, by the path where it was opened.
            if file.resolve() != target.resolve():
                file.unlink(missing_ok=True)
        with accessing(target, "read"):
            # Only now, since removing the other name changed the ctime.
            self._checked.remember(ref.digest, target.stat())
        return ref

    def path(self, ref: BlobRef) -> Path:
        """Where the blob is, after it was found intact. Raises as `checked` does."""
        return self.checked(ref)[0]

    def checked(self, ref: BlobRef) -> tuple[Path, str]:
        """Where the blob is, and the file's identity when it was found intact.

        Raises:
            BlobMissingError: it does not exist.
            BlobCorruptError: its size or its digest differs.
            StoreAccessError: it cannot be read.
        """
        path = self._layout.blob(ref.digest)
        try:
            found = path.lstat()
            if not stat.S_ISREG(found.st_mode):
                raise BlobCorruptError(ref.digest, path, "not a regular file")
            if found.st_size != ref.size:
                reason = f"{found.st_size} bytes instead of {ref.size}"
                raise BlobCorruptError(ref.digest, path, reason)
            if not self._checked.known(ref.digest, found):
                found = self._check(ref, path)
        except FileNotFoundError as error:
            raise BlobMissingError(ref.digest, path) from error
        except OSError as error:
            raise StoreAccessError(path, "read", error) from error
        return path, file_identity(found)

    def look(self, ref: BlobRef) -> BlobLook | None:
        """What is known of a blob without reading it; ``None``: it does not exist.

        Raises:
            StoreAccessError: the operating system refuses.
        """
        path = self._layout.blob(ref.digest)
        try:
            found = path.lstat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreAccessError(path, "read", error) from error
        checked_at = self._checked.checked_at(ref.digest, found)
        return BlobLook(inode=found.st_ino, checked_at=checked_at)

    def recheck(self, ref: BlobRef, *, go_on: GoOn) -> bool:
        """Hash a blob again, whatever its mark says; whether it was read to its end.

        Raises:
            BlobMissingError, BlobCorruptError, StoreAccessError: as `path` does.
        """
        path = self._layout.blob(ref.digest)
        found = hashlib.sha256()
        try:
            with open_file(path) as stream:
                before = os.fstat(stream.fileno())
                while piece := stream.read(_PIECE_BYTES):
                    found.update(piece)
                    if not go_on(len(piece)):
                        return False
                after = os.fstat(stream.fileno())
        except FileNotFoundError as error:
            raise BlobMissingError(ref.digest, path) from error
        except OSError as error:
            if error.errno in NO_FILE:
                raise BlobCorruptError(ref.digest, path, "not a regular file") from error
            raise StoreAccessError(path, "read", error) from error
        self._judge(ref, path, found.hexdigest(), before, after)
        return True

    def forget_check(self, ref: BlobRef) -> None:
        """Remove the blob's mark: it is checked again before it is opened."""
        path = self._layout.blob(ref.digest)
        with contextlib.suppress(FileNotFoundError), accessing(path, "read"):
            self._checked.forget(ref.digest, path.lstat())

    def present(self, ref: BlobRef) -> None:
        """Check that a blob of this size exists, without reading it.

        Raises:
            BlobMissingError, BlobCorruptError, StoreAccessError: as `path` does.
        """
        path = self._layout.blob(ref.digest)
        try:
            size = path.lstat().st_size
        except FileNotFoundError as error:
            raise BlobMissingError(ref.digest, path) from error
        except OSError as error:
            raise StoreAccessError(path, "read", error) from error
        if size != ref.size:
            raise BlobCorruptError(ref.digest, path, f"{size} bytes instead of {ref.size}")

    def pin(self, refs: Iterable[BlobRef]) -> None:
        """Keep blobs from garbage collection until a grace period from now is over.

        Raises:
            BlobMissingError, BlobCorruptError: one is gone already, or of another size.
            StoreAccessError: the operating system refuses.
        """
        with self._lock.writing():
            for ref in refs:
                self.present(ref)
                with accessing(self._layout.staging, "write"):
                    self._pin(ref)

    def _pin(self, ref: BlobRef) -> None:
        """Pin one. To touch the blob would change its ctime: every host would check it again."""
        pin = self._layout.staging / f"{ref.digest}{PIN_SUFFIX}"
        write_mark(pin, b"pinned\n", mode=self._layout.access.mark)

    def _check(self, ref: BlobRef, path: Path) -> os.stat_result:
        """Hash the file, and return its state when it was found intact."""
        with open_file(path) as stream:
            before = os.fstat(stream.fileno())
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            after = os.fstat(stream.fileno())
        self._judge(ref, path, digest, before, after)
        return before

    def _judge(
        self,
        ref: BlobRef,
        path: Path,
        digest: str,
        before: os.stat_result,
        after: os.stat_result,
    ) -> None:
        """Record the result for a file that was read between ``before`` and ``after``."""
        if digest != ref.digest:
            self._checked.forget(ref.digest, after)
            raise BlobCorruptError(ref.digest, path, f"its content has the digest {digest}")
        if before.st_ctime_ns == after.st_ctime_ns:
            self._checked.remember(ref.digest, after)

    def _link(self, file: Path, ref: BlobRef, target: Path) -> bool:
        """Link the file to its name; ``False`` when a file of that name exists."""
        try:
            os.link(file, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with self._copied(file, ref) as copy:
                return self._link(copy, ref, target)
        return True

    def _reuse(self, file: Path, ref: BlobRef, target: Path) -> None:
        """Keep the existing blob if it is intact, else replace it with the new file."""
        try:
            self.path(ref)
        except (BlobCorruptError, BlobMissingError):
            with self._copied(file, ref) as copy:
                self._layout.replace(copy, target)
        # Garbage collection must not remove a blob of an old version that a running build names
        # again.
        self._pin(ref)

    @contextlib.contextmanager
    def _copied(self, file: Path, ref: BlobRef) -> Iterator[Path]:
        """The file's content in the staging folder, on the store's own file system."""
        with staged_name(self._layout.staging) as copy:
            shutil.copyfile(file, copy)
            copied = self._sealed(copy)
            if copied != ref:
                raise BlobCorruptError(ref.digest, file, f"copied, its digest is {copied.digest}")
            _force(copy)
            yield copy

    def _sealed(self, file: Path) -> BlobRef:
        """Make a file read-only, and hash it."""
        with open_file(file) as stream:
            os.fchmod(stream.fileno(), self._layout.access.file)
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return BlobRef(digest=digest, size=os.fstat(stream.fileno()).st_size)


def _force(file: Path) -> None:
    with open_file(file) as stream:
        os.fsync(stream.fileno())


_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def host_id() -> str:
    """The same for all processes that see the same files in the same state."""
    try:
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:  # not Linux
        boot = platform.node()
    return sha256_hex(boot.encode())[:16]


class BlobMarks:
    """Which files were found to match their digest, one mark each; safe between processes."""

    def __init__(self, folder: Path, *, access: Access, clock: Clock) -> None:
        self._folder = folder
        self._access = access
        self._clock = clock
        self._own: dict[str, tuple[str, float]] = {}
        self._doubted: dict[str, str] = {}

    def known(self, digest: str, file: os.stat_result) -> bool:
        """Whether this file, as it is now, was checked on this host."""
        return self.checked_at(digest, file) is not None

    def checked_at(self, digest: str, file: os.stat_result) -> float | None:
        """When this file, as it is now, was checked last on this host, by the wall clock.

        ``None``: never, or it was found corrupt since.
        """
        identity = file_identity(file)
        if self._doubted.get(digest) == identity:
            return None
        own, own_at = self._own.get(digest, ("", 0.0))
        times = [own_at] if own == identity else []
        # Read every time: another process may find the blob corrupt, and remove the mark.
        with contextlib.suppress(OSError):
            content, marked_at = read_mark(f"{self._folder}/{digest}")
            if content == identity.encode():
                times.append(marked_at)
        return max(times, default=None)

    def remember(self, digest: str, file: os.stat_result) -> None:
        """Record that this file, as it is now, matches its digest."""
        identity = file_identity(file)
        self._doubted.pop(digest, None)
        try:
            make_private_folder(self._folder, self._access.folder)
            # Not staged: half a mark equals no file's identity, because its end is missing.
            write_mark(self._folder / digest, identity.encode(), mode=self._access.mark)
        except OSError as error:
            self._own[digest] = (identity, self._clock.now().timestamp())
            _log.debug("blob.check_not_remembered", digest=digest, error=str(error))
        else:
            self._own.pop(digest, None)

    def forget(self, digest: str, file: os.stat_result) -> None:
        """Forget the check of this file, which is or may be corrupt."""
        self._own.pop(digest, None)
        try:
            (self._folder / digest).unlink(missing_ok=True)
        except OSError:
            self._doubted[digest] = file_identity(file)

    @contextlib.contextmanager
    def scrubbing(self) -> Iterator[bool]:
        """Yields whether no other process on this host is scrubbing; then none does in the body.

        Where the lock cannot be taken, each process scrubs for itself.
        """
        try:
            make_private_folder(self._folder.parent, self._access.folder)
            file = open_lock(self._folder.with_name(f"{self._folder.name}.lock"))
        except OSError:
            yield True
            return
        try:
            yield _locked(file)
        finally:
            release_lock(file)


def file_identity(file: os.stat_result) -> str:
    """A text that differs once the file was written to or replaced."""
    return f"{file.st_ino} {file.st_size} {file.st_ctime_ns}\n"


def inode_of(identity: str) -> int:
    """The inode in a `file_identity`."""
    return int(identity.partition(" ")[0])


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
