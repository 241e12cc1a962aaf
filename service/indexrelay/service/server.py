"""The socket of a service, bound before anything else, so that its address is known and told."""

import contextlib
import ipaddress
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from indexrelay.reloaders.errors import OpenAddressError
from indexrelay.streams.presence import host_name

_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 - recognised here, not bound to


@contextlib.contextmanager
def listening(
    host: str, port: int, uds: Path | None, *, backlog: int = 128, insecure: bool = False
) -> Iterator[socket.socket]:
    """A listening socket; a unix socket's file is removed with it.

    Args:
        host: the address, if ``uds`` is ``None``.
        port: 0 for a free one.
        uds: a path for a unix socket.
        backlog: connections that wait to be taken.
        insecure: whether other machines may reach it.

    Raises:
        OpenAddressError: they would, and may not; nobody was listened to.
        OSError: the address cannot be had, or another process answers there.
    """
    if uds is None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((host, port))
            if not (insecure or is_local(listener)):  # as it is bound: a name may be any address
                raise OpenAddressError(address_of(listener))
            listener.listen(backlog)
            yield listener
        return
    _remove_stale(uds)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(uds))
        try:
            listener.listen(backlog)
            yield listener
        finally:
            uds.unlink(missing_ok=True)


def is_local(listener: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    if listener.family == socket.AF_UNIX:
        return True
    address = ipaddress.ip_address(listener.getsockname()[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


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
