"""Folders and files that only their owner may enter and read, whatever the umask is.

What a data folder holds is nobody else's: entries, a database, locks. Whoever may only read a lock
file or a database could also lock it, and stop everyone who writes.
"""

import os
import stat
from pathlib import Path
from typing import IO, Any, Final, Literal

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600


def make_private_folder(path: Path, mode: int = FOLDER_MODE) -> None:
    """Make a folder and the parents that are missing, each with ``mode``; one that is there stays.

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
    """Take an open file of ours from all others who could open it until now."""
    found = os.fstat(file)
    if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) & ~mode:
        os.fchmod(file, stat.S_IMODE(found.st_mode) & mode)


def open_to_everyone(path: Path) -> bool:
    """Whether every user of this host may enter the folder, or read the file, and gets there.

    Groups do not count: many a user has one to themselves. ``False`` also where nothing is.
    """
    try:
        inside = stat.S_IMODE(path.stat().st_mode) & (stat.S_IROTH | stat.S_IXOTH)
        way = all(folder.stat().st_mode & stat.S_IXOTH for folder in path.absolute().parents)
    except OSError:
        return False
    return bool(inside) and way


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, FILE_MODE)
