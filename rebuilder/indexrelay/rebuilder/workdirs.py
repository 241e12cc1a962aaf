"""Folders for builds in progress, on the artifacts' file system, so that a file moves by renaming.

A folder's name says which process it belongs to; what a killed rebuilder left behind is removed by
the next one on the same host.
"""

import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from indexrelay.schemas.private_files import make_private_folder


class Workdirs:
    """Makes work folders below one folder, and removes them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._host = socket.gethostname().replace("~", "-")

    @contextmanager
    def new(self) -> Iterator[Path]:
        """An empty folder, for as long as the ``with`` lasts."""
        folder = self._root / f"{self._host}~{os.getpid()}~{secrets.token_hex(8)}"
        make_private_folder(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def sweep(self) -> int:
        """Remove what dead processes of this host left; says how many folders."""
        removed = 0
        for folder in self._root.glob(f"{self._host}~*~*"):
            pid = folder.name.split("~")[1]
            if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
                if folder.is_dir():
                    shutil.rmtree(folder, ignore_errors=True)
                else:
                    folder.unlink(missing_ok=True)
                removed += 1
        return removed


def clear(folder: Path) -> None:
    """Empty a work folder, for another try in it."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
