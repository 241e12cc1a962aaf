"""Files that only their owner may read, whatever the umask is, and locks on files.

A data folder holds entries, a database and locks, for its owner alone. A user who may only read a
lock file or a database could also lock it, and stop every process that writes.

A lock that another process holds for ever (one that was stopped, or of a user who may open the
file) must not stop its next user silently. So no thread blocks in the kernel: it tries the lock
again and again, `LockWaits` logs and reports what takes too long, and in the end the wait ends.
"""

import fcntl
import os
import stat
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import sleep
from typing import IO, Any, Final, Literal

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import LockWait

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600


def make_private_folder(path: Path, mode: int = FOLDER_MODE) -> None:
    """Make a folder and the parents that are missing, each with ``mode``; existing ones stay.

    Raises:
        OSError: it cannot be made.
    """
    if path.is_dir():
        return
    if path.parent != path:
        make_private_folder(path.parent, mode)
    try:
        path.mkdir(mode)
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        path.chmod(mode)  # whatever the umask took away


def open_private(path: Path, mode: Literal["wb", "ab", "a+"]) -> IO[Any]:
    """Open a file for writing as `open` does; a new one is its owner's alone, a link is refused.

    Raises:
        OSError: it cannot be opened.
    """
    encoding = None if "b" in mode else "utf-8"
    return open(path, mode, encoding=encoding, opener=_opener)


def shut_to_others(file: int, mode: int = FILE_MODE) -> None:
    """Remove the rights of other users on an open file of ours."""
    found = os.fstat(file)
    if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) & ~mode:
        os.fchmod(file, stat.S_IMODE(found.st_mode) & mode)


def open_to_everyone(path: Path) -> bool:
    """Whether every user of this host can reach and enter the folder, or read the file.

    Groups do not count, since many users have one of their own. ``False`` where nothing is there.
    """
    try:
        inside = stat.S_IMODE(path.stat().st_mode) & (stat.S_IROTH | stat.S_IXOTH)
        way = all(folder.stat().st_mode & stat.S_IXOTH for folder in path.absolute().parents)
    except OSError:
        return False
    return bool(inside) and way


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, FILE_MODE)


_log = get_logger(__name__)

REPORT_AFTER_SECONDS: Final = 5.0
"""A longer wait is reported: writers share the artifacts' lock, and garbage collection takes
milliseconds."""
_MAX_INTERVAL_SECONDS: Final = 320.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.001, 0.05
_LOCKS: Final = Path("/proc/locks")

Pause = Callable[[float], object]


@dataclass(slots=True)
class _Wait:
    since: datetime
    began: float
    report_after: float
    report_at: float
    holder: str = ""


class LockWaits:
    """The locks that one part of this process waits for; safe to use from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waits: dict[str, _Wait] = {}
        self._lock = threading.Lock()

    @property
    def long(self) -> tuple[LockWait, ...]:
        """The waits that take longer than they should, and those that were given up, by lock."""
        now = self._clock.monotonic()
        with self._lock:
            return tuple(
                LockWait(lock=name, since=wait.since, holder=wait.holder)
                for name, wait in sorted(self._waits.items())
                if now - wait.began >= wait.report_after
            )

    def note(
        self, lock: str, *, holder: str = "", report_after_seconds: float = REPORT_AFTER_SECONDS
    ) -> float:
        """Note that a thread waits for ``lock``; for how many seconds by now.

        Logs it once it takes longer than ``report_after_seconds``, and again after growing waits.
        """
        now = self._clock.monotonic()
        with self._lock:
            wait = self._waits.get(lock)
            if wait is None:
                wait = self._waits[lock] = _Wait(
                    since=self._clock.now(),
                    began=now,
                    report_after=report_after_seconds,
                    report_at=now + report_after_seconds,
                )
            wait.holder = holder or wait.holder
            waited = now - wait.began
            due = now >= wait.report_at
            if due:
                wait.report_at = now + min(max(waited, report_after_seconds), _MAX_INTERVAL_SECONDS)
        if due:
            _log.warning(
                "lock.waiting",
                lock=lock,
                seconds=round(waited, 1),
                held_by=wait.holder or "unknown",
                advice="see what that process does; end it if it does nothing",
            )
        return waited

    def over(self, lock: str) -> None:
        """Note that the lock was taken, or is not wanted any more."""
        with self._lock:
            self._waits.pop(lock, None)

    def keep(self, locks: Collection[str]) -> None:
        """Note that no thread waits for any other lock than these."""
        with self._lock:
            self._waits = {name: self._waits[name] for name in self._waits if name in locks}


def wait_for_lock(
    file: int,
    how: int,
    *,
    name: str,
    waits: LockWaits,
    clock: Clock,
    most_seconds: float,
    pause: Pause | None = None,
) -> bool:
    """Take the lock ``how`` (``LOCK_SH`` or ``LOCK_EX``) on an open file; whether it was taken.

    Args:
        name: of the lock, in logs and reports.
        most_seconds: the longest wait.
        pause: sleeps for so many seconds; ``None``: `time.sleep`.

    Raises:
        OSError: this file system has no locks.
    """
    began, next_pause = clock.monotonic(), _FIRST_PAUSE_SECONDS
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            waits.note(name, holder=holder_of(file))
            if clock.monotonic() - began >= most_seconds:
                return False
            (pause or sleep)(next_pause)
            next_pause = min(next_pause * 2, _LONGEST_PAUSE_SECONDS)
        else:
            waits.over(name)
            return True


def holder_of(file: int) -> str:
    """The process that holds a lock on an open file: ``process 4711``; empty: unknown."""
    try:
        inode = os.fstat(file).st_ino
        lines = _LOCKS.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):  # not Linux
        return ""
    for line in lines:
        # 1: FLOCK  ADVISORY  WRITE 4711 08:01:131074 0 EOF; one that waits has "->" behind "1:".
        fields = line.split()
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
            process = fields[4]
            return f"process {process}" if process not in ("0", "-1", str(os.getpid())) else ""
    return ""
