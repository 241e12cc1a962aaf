"""What this host has hashed already, so that a blob is hashed once and not by every reader.

A blob that was checked is remembered by inode, size and ctime: whoever writes to it, replaces it or
sets its times back changes the ctime, and the blob is checked again. (Its mtime can be forged.) The
memory is one small file per blob, the *mark*, in a folder for each running kernel: containers on
one kernel see the same page cache and share what was checked, and after a reboot everything is
checked once more, since a power cut is when disks lose what they promised. It stands inside the
store because the builder and the readers of a host may be different users without a common home.

A mark's own mtime says when the blob was hashed last. So the marks are also what the scrubs of all
readers of a host share: whoever hashes a blob again spares the others that, and whoever finds it
damaged removes the mark, which makes all others look for themselves.

A mark that is torn, old or missing only costs another check. What cannot be written there (the
store is mounted read-only, or another user's) each process remembers for itself.
"""

import contextlib
import fcntl
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from indexrelay.schemas.canonical import sha256_hex
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.private_files import make_private_folder
from indexrelay.storage.artifacts.durable import Access, open_file, write_mark
from indexrelay.storage.artifacts.locking import let_go, open_lock

log = get_logger(__name__)

_MOST_MARK_BYTES: Final = 200
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def host_id() -> str:
    """What processes that see the same files in the same state have in common."""
    try:
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:  # not Linux
        boot = platform.node()
    return sha256_hex(boot.encode())[:16]


class CheckedBlobs:
    """Remembers which files were found to be what their digest says; safe between processes."""

    def __init__(self, folder: Path, *, access: Access, clock: Clock) -> None:
        self._folder = folder
        self._access = access
        self._clock = clock
        self._own: dict[str, tuple[str, float]] = {}
        self._distrusted: dict[str, str] = {}

    def known(self, digest: str, file: os.stat_result) -> bool:
        """Whether this very file was checked on this host."""
        return self.checked_at(digest, file) is not None

    def checked_at(self, digest: str, file: os.stat_result) -> float | None:
        """When this very file was checked last on this host, in seconds of the wall clock.

        ``None``: it never was, or it was found damaged since.
        """
        identity = file_identity(file)
        if self._distrusted.get(digest) == identity:
            return None
        own, own_at = self._own.get(digest, ("", 0.0))
        times = [own_at] if own == identity else []
        # Read every time: whoever finds the blob damaged tells everybody by removing the mark.
        with (
            contextlib.suppress(OSError),
            open_file(self._folder / digest) as mark,
        ):
            if mark.read(_MOST_MARK_BYTES) == identity.encode():
                times.append(os.fstat(mark.fileno()).st_mtime)
        return max(times, default=None)

    def remember(self, digest: str, file: os.stat_result) -> None:
        """This very file is what its digest says, as of now."""
        identity = file_identity(file)
        self._distrusted.pop(digest, None)
        try:
            make_private_folder(self._folder, self._access.folder)
            # Not staged: half a line equals no file's identity, because its end is missing.
            write_mark(self._folder / digest, identity.encode(), mode=self._access.mark)
        except OSError as error:
            self._own[digest] = (identity, self._clock.now().timestamp())
            log.debug("blob.check_not_remembered", digest=digest, error=str(error))
        else:
            self._own.pop(digest, None)

    def forget(self, digest: str, file: os.stat_result) -> None:
        """This very file is damaged, or in doubt: it is checked again before anybody opens it."""
        self._own.pop(digest, None)
        try:
            (self._folder / digest).unlink(missing_ok=True)
        except OSError:
            self._distrusted[digest] = file_identity(file)

    @contextlib.contextmanager
    def scrubbing(self) -> Iterator[bool]:
        """Whether nobody else on this host is scrubbing; if so, nobody else is in the body.

        Where no lock can be had, each process scrubs for itself.
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
            let_go(file)


def file_identity(file: os.stat_result) -> str:
    """Other text once the file was written to or replaced."""
    return f"{file.st_ino} {file.st_size} {file.st_ctime_ns}\n"


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
