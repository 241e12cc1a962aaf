"""A reader as a service, over HTTP, to programs that ask; and the client that asks it.

It reads by a reloader, and stands above the producers, too. The names below are imported when they
are first used: a command that only asks a component needs no web framework. The service needs the
extra ``service``; a client needs the extra ``client`` and nothing of the other.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from indexrelay.schemas.errors import see_installed

if TYPE_CHECKING:
    from indexrelay.service.app import create_app
    from indexrelay.service.client import AsyncClient, Client
    from indexrelay.service.server import OpenAddressError, serve

__all__ = ["AsyncClient", "Client", "OpenAddressError", "create_app", "serve"]

_HOMES = {
    "AsyncClient": "client",
    "Client": "client",
    "OpenAddressError": "server",
    "create_app": "app",
    "serve": "server",
}


def _see_service() -> None:
    """See that what the service needs is installed; most modules here import it."""
    see_installed("anyio", "fastapi", "h11", "prometheus_client", "starlette", "uvicorn")


if find_spec("httpx") is None or find_spec("fastapi") or find_spec("uvicorn"):
    _see_service()  # else this is an environment for clients

if not TYPE_CHECKING:  # or a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        """Import one of the public names (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if _HOMES[name] != "client":
            _see_service()
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
