"""The names that a reader on the loopback address answers to.

A web page may resolve a name of its own to 127.0.0.1, and then read what a reader there answers, as
if it were the page's own server (DNS rebinding). The request names that host, and is refused.
"""

import ipaddress
from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from indexrelay.service.problems import problem


def names_host(given: str, hosts: Collection[str]) -> bool:
    """Whether a Host header names this machine by a loopback name or address, or one of ``hosts``.

    Args:
        given: the header, with or without a port.
        hosts: in lower case, without a port.
    """
    host = given.strip().lower()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    if host in hosts or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class HostCheck:
    """ASGI middleware; answers 421 to a request for another host."""

    def __init__(self, app: ASGIApp, *, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, or refuse."""
        if scope["type"] == "http":
            given = (value for name, value in scope["headers"] if name == b"host")
            host = next(given, b"localhost").decode("latin-1")  # HTTP/1.0 may name none
            if not names_host(host, self._hosts):
                detail = f"this reader does not answer as {host!r:.100}; add it to http.hosts"
                await problem(421, detail, close=True)(scope, receive, send)
                return
        await self._app(scope, receive, send)
