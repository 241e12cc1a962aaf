"""A small volume of its own, that can be filled and made read-only. Mounting needs root."""

import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.streams.waiting import eventually

_PIECE_BYTES = 65536
_BUSY_SECONDS = 10.0


def may_mount() -> bool:
    """Whether this process may mount a file system."""
    return os.geteuid() == 0


class Volume:
    """A file system in memory, of so many bytes, mounted while the ``with`` lasts."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        self._size_bytes = size_bytes
        self._ballast = path / "ballast"

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={self._size_bytes}", "none", str(self.path))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Lazily: a child that was killed a moment ago may not have let go of its files yet.
        _run("umount", "--lazy", str(self.path))

    def fill(self, *, leave: int = 0) -> None:
        """Leave no byte free, or about as many as ``leave`` says."""
        with self._ballast.open("wb", buffering=0) as ballast:
            for piece in (bytes(_PIECE_BYTES), bytes(1)):
                try:
                    while ballast.write(piece):
                        pass
                except OSError:
                    continue
            ballast.truncate(max(ballast.tell() - leave, 0))

    def free(self) -> None:
        """Give the space back."""
        self._ballast.unlink()

    def become(self, mode: str) -> None:
        """``ro`` or ``rw``; waits for whoever writes at this moment."""
        eventually(lambda: self._remounted(mode), seconds=_BUSY_SECONDS)

    def _remounted(self, mode: str) -> bool:
        done = subprocess.run(
            ["mount", "-o", f"remount,{mode}", str(self.path)],  # noqa: S607 - the system's own
            capture_output=True,
            check=False,
        )
        return done.returncode == 0


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
