"""Keeps sweeping apart from writing, and nobody else from anybody.

Writers share the lock: they never wait for each other, since a link decides between them. Sweeping
takes it alone. Without it a release could be committed between the moment when sweeping decided
that a version is unused and the moment when it removes it. The kernel lets go of the lock of a
process that dies. Readers take none, and cannot: whoever may open the file may also hold the lock
for ever, so only the user who writes to the store may open it.

A wait has a limit. A sweep that does not get the lock soon comes again later; a writer waits longer
and then fails as on a full disk, to be tried again.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.file_locks import LockWaits, Pause, wait_for_lock
from indexrelay.schemas.private_files import FILE_MODE, shut_to_others
from indexrelay.storage.artifacts.durable import accessing
from indexrelay.storage.artifacts.errors import StoreBusyError

WRITING_SECONDS: Final = 60.0
"""How long a writer waits: a sweep of millions of files is over by then."""
SWEEPING_SECONDS: Final = 5.0
"""How long a sweep waits: nothing is lost by coming again, and whoever sweeps has other things to
do meanwhile."""


class StoreLock:
    """One lock file; each use opens it anew, so that threads are kept apart like processes."""

    def __init__(
        self, path: Path, *, waits: LockWaits, clock: Clock, pause: Pause | None = None
    ) -> None:
        self._path = path
        self._waits = waits
        self._clock = clock
        self._pause = pause

    def writing(self) -> contextlib.AbstractContextManager[None]:
        """Hold off sweeping."""
        return self._held(fcntl.LOCK_SH, WRITING_SECONDS)

    def sweeping(self) -> contextlib.AbstractContextManager[None]:
        """Hold off every writer."""
        return self._held(fcntl.LOCK_EX, SWEEPING_SECONDS)

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
            let_go(file)


def open_lock(path: Path) -> int:
    """Open a lock file, which is made where it is missing, for its owner alone.

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


def let_go(file: int) -> None:
    """Unlock a file and close it.

    Closing alone would not do: a child that was forked meanwhile has the same lock open.
    """
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_UN)
    finally:
        os.close(file)
