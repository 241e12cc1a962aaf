"""The socket of a service, bound before anything else, so that its address is known and told."""

import contextlib
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from indexrelay.streams.identity import host_name

_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - recognised here, not bound to


@contextlib.contextmanager
def listening(host: str, port: int, uds: Path | None) -> Iterator[socket.socket]:
    """A listening socket; a unix socket's file is removed with it.

    Raises:
        OSError: the address cannot be had, or another process answers there.
    """
    if uds is None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, port), family=family) as listener:
            yield listener
        return
    _remove_stale(uds)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(uds))
        try:
            listener.listen()
            yield listener
        finally:
            uds.unlink(missing_ok=True)


def address_of(listener: socket.socket) -> str:
    """Where others find it: ``http://HOST:PORT`` or ``unix:/PATH``."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{Path(name).absolute()}"
    host, port = name[:2]
    if host in _EVERYWHERE:
        host = host_name()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _remove_stale(uds: Path) -> None:
    """Remove the socket file of a process that was killed; one that answers is left to `bind`."""
    try:
        if not stat.S_ISSOCK(uds.lstat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(uds))
        except ConnectionRefusedError:
            uds.unlink(missing_ok=True)
