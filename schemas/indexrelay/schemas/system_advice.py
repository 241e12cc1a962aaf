"""What to do when the operating system refuses, in a few words, for those who have to say it."""

import errno
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
    errno.ENFILE: "allow this machine more open files (fs.file-max)",
    errno.ENAMETOOLONG: "name a shorter path",
    errno.EADDRINUSE: "another process listens there: end it, or name another port",
    errno.EADDRNOTAVAIL: "this machine has no such address: name one that it has",
    errno.ECONNREFUSED: "start the server, or correct its address",
}


def advice_on(number: int | None) -> str | None:
    """What helps against ``errno`` ``number``; ``None``: nothing that is true everywhere."""
    return None if number is None else _ADVICE.get(number)
