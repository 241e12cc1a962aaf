"""Keeps sweeping apart from writing, and nobody else from anybody.

Writers share the lock: they never wait for each other, since a link decides between them. Sweeping
takes it alone. Without it a release could be committed between the moment when sweeping decided
that a version is unused and the moment when it removes it. The kernel lets go of the lock of a
process that dies. Readers take none.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from indexrelay.storage.artifacts.durable import accessing


class StoreLock:
    """One lock file; each use opens it anew, so that threads are kept apart like processes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def writing(self) -> contextlib.AbstractContextManager[None]:
        """Hold off sweeping."""
        return self._held(fcntl.LOCK_SH)

    def sweeping(self) -> contextlib.AbstractContextManager[None]:
        """Hold off every writer."""
        return self._held(fcntl.LOCK_EX)

    @contextlib.contextmanager
    def _held(self, how: int) -> Iterator[None]:
        with accessing(self._path, "lock"):
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            with accessing(self._path, "lock"):
                fcntl.flock(file, how)
            yield
        finally:
            let_go(file)


def let_go(file: int) -> None:
    """Unlock a file and close it.

    Closing alone would not do: a child that was forked meanwhile has the same lock open.
    """
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_UN)
    finally:
        os.close(file)
