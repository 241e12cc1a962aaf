"""What this host has hashed already, so that a blob is hashed once and not by every reader.

A blob that was checked is remembered by inode, size and ctime: whoever writes to it, replaces it or
sets its times back changes the ctime, and the blob is checked again. (Its mtime can be forged.) The
memory is one small file per blob, in a folder for each running kernel: containers on one kernel see
the same page cache and share what was checked, and after a reboot everything is checked once more,
since a power cut is when disks lose what they promised. It stands inside the store because the
builder and the readers of a host may be different users without a common home.

A line that is torn, old or missing only costs another check. A store that is mounted read-only is
remembered by each process for itself.
"""

import contextlib
import os
import platform
from pathlib import Path

from indexrelay.schemas.canonical import sha256_hex
from indexrelay.schemas.loggers import get_logger

log = get_logger(__name__)

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

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, str] = {}

    def known(self, digest: str, file: os.stat_result) -> bool:
        """Whether this very file was checked on this host."""
        identity = file_identity(file)
        if self._seen.get(digest) == identity:
            return True
        try:
            remembered = (self._folder / digest).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return False
        if remembered != identity:
            return False
        self._seen[digest] = identity
        return True

    def remember(self, digest: str, file: os.stat_result) -> None:
        """This very file is what its digest says."""
        identity = self._seen[digest] = file_identity(file)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # Not staged: half a line equals no file's identity, because its end is missing.
            (self._folder / digest).write_text(identity, encoding="ascii")
        except OSError as error:
            log.debug("blob.check_not_remembered", digest=digest, error=str(error))

    def forget(self, digest: str) -> None:
        """The blob is gone or damaged."""
        self._seen.pop(digest, None)
        with contextlib.suppress(OSError):  # then its line equals no file's identity
            (self._folder / digest).unlink(missing_ok=True)


def file_identity(file: os.stat_result) -> str:
    """Other text once the file was written to or replaced."""
    return f"{file.st_ino} {file.st_size} {file.st_ctime_ns}\n"
