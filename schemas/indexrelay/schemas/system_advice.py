"""What the operating system means when it refuses, and what to do, in a few words."""

import errno
import os
from collections.abc import Mapping
from typing import Final

_FULL: Final = "make room on that disk; it goes on by itself then"
_DENIED: Final = "let this process's user read and write there, or name another place"
_AWAY: Final = "see that the volume is mounted; whoever starts makes the folders that are missing"
_NO_FOLDER: Final = "something else lies where a folder should be: move it away, or name another"
_FAILING: Final = "look after that disk, or the network file system"
_ADVICE: Final[Mapping[int, str]] = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: _DENIED,
    errno.ENOENT: _AWAY,
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
    errno.EIO: _FAILING,
    errno.ESTALE: _FAILING,
    errno.EMFILE: "allow this process more open files (ulimit -n)",
    errno.ENOMEM: "give this process more memory, or more room for maps (vm.max_map_count)",
    errno.ENFILE: "allow this machine more open files (fs.file-max)",
    errno.ENAMETOOLONG: "name a shorter path",
    errno.EADDRINUSE: "another process listens there: end it, or name another port",
    errno.EADDRNOTAVAIL: "this machine has no such address: name one that it has",
    errno.ECONNREFUSED: "start the server, or correct its address",
}


def advice_on(number: int | None) -> str | None:
    """What helps against ``errno`` ``number``; ``None``: nothing that is true everywhere."""
    return None if number is None else _ADVICE.get(number)


def errno_in(words: str) -> int | None:
    """The ``errno`` whose text ends ``words``; ``None``: the operating system said nothing there.

    For libraries that pass on only in words what the operating system refused, as FAISS does:
    ``could not open … for reading: Too many open files``.
    """
    said = words.rstrip(" .)")
    found = [number for number in errno.errorcode if said.endswith(os.strerror(number))]
    return max(found, key=lambda number: len(os.strerror(number)), default=None)
