"""Where the embedded server's unix socket lies, and how others find it.

A socket's path may have 107 bytes on Linux and 103 on macOS, and a data folder may well be deeper
than that. Then the socket moves to a folder of its own under the temporary folder, private to the
user and named after the data folder. Either way the file ``socket`` in the server's folder says
where it is, since another process may have another ``TMPDIR``.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Final
from urllib.parse import quote

from indexrelay.streams.errors import ServerStartError

MAX_PATH_BYTES: Final = 100
"""Below every system's limit, and room for the suffix of a temporary name."""

FOLDER: Final = "redis"
"""The server's folder, in the data folder."""

_SOCKET: Final = "server.sock"
_NOTE: Final = "socket"


def choose_socket(folder: Path) -> Path:
    """The path for a new server's socket, written down in ``folder``.

    Raises:
        ServerStartError: someone else holds the folder that a long path moves to.
    """
    path = folder / _SOCKET
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        path = _private_folder(folder) / _SOCKET
    (folder / _NOTE).write_text(f"{path}\n", encoding="utf-8", errors="surrogateescape")
    return path


def noted_socket(folder: Path) -> Path | None:
    """Where the server that uses ``folder`` said that its socket is; ``None``: none ever did."""
    try:
        text = (folder / _NOTE).read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None
    return Path(text.rstrip("\n"))


def forget_socket(folder: Path, socket: Path) -> None:
    """Remove what a server that ended left of its socket, and the folder of its own, if it had one.

    To be called only while no other server can start in ``folder``.
    """
    # Somebody may have cleared up before us, or put something of theirs beside it.
    with contextlib.suppress(OSError):
        socket.unlink(missing_ok=True)
        if socket.parent != folder:
            socket.parent.rmdir()


def embedded_url(data_dir: Path) -> str | None:
    """The URL of the embedded server that was started in ``data_dir``; ``None``: there is none."""
    socket = noted_socket(data_dir.absolute() / FOLDER)
    return None if socket is None or not socket.exists() else socket_url(socket)


def socket_url(socket: Path) -> str:
    """The URL of a unix socket."""
    return f"unix://{quote(str(socket))}"


def _private_folder(folder: Path) -> Path:
    """A short folder that only this user can use, always the same for ``folder``."""
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    short = Path(tempfile.gettempdir(), f"indexrelay-{os.geteuid()}-{digest}")
    if len(os.fsencode(short / _SOCKET)) > MAX_PATH_BYTES:  # TMPDIR itself may be deep
        short = Path("/tmp", short.name)  # noqa: S108 - made private, and checked, below
    short.mkdir(mode=0o700, exist_ok=True)
    found = short.lstat()
    # The temporary folder belongs to everyone: another user may have put something there first.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ServerStartError(folder, f"{short} is not a private folder of this user; remove it")
    return short
