"""Work folders: where one build writes, until its files are in the store."""

import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from indexrelay.schemas.files import make_private_folder


class Workdirs:
    """Makes work folders below one folder, and removes them.

    It is on the artifacts' file system, so that a file is moved by renaming it. The name of a work
    folder says which process it belongs to; what a killed rebuilder left is removed by the next one
    on the same host.
    """

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

    def remove_stale(self) -> None:
        """Remove what dead processes of this host left."""
        for folder in self._root.glob(f"{self._host}~*~*"):
            pid = folder.name.split("~")[1]
            if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
                if folder.is_dir():
                    shutil.rmtree(folder, ignore_errors=True)
                else:
                    folder.unlink(missing_ok=True)
