"""One ``indexrelay up`` for each data folder: a second one would fight over names and sockets.

The lock is the kernel's, on an open file: it is let go when its holder ends, however that happens.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from indexrelay.console.errors import CommandError
from indexrelay.schemas import commands
from indexrelay.schemas.private_files import make_private_folder, open_private

_FILE = "up.pid"


@contextmanager
def sole_owner(data_dir: Path) -> Iterator[None]:
    """Own ``data_dir``, which is made when it is missing, for the length of a ``with`` block.

    Raises:
        CommandError: another process does; with its process id.
        OSError: the folder cannot be written to.
    """
    make_private_folder(data_dir)
    with open_private(data_dir / _FILE, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise CommandError(
                f"{commands.UP} runs on {data_dir} already, as process {file.read().strip()}; "
                "stop that one first, or give this one a data_dir of its own"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
