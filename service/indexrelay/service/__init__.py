"""A reader as a service: what is served, over HTTP, to programs that ask.

It reads by a reloader, and stands above the producers, too. Nothing here is imported without the
extra ``service``. The names below are imported when they are first used: a command that only asks a
component needs no web framework.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from indexrelay.schemas.errors import see_installed

see_installed("anyio", "fastapi", "h11", "prometheus_client", "starlette", "uvicorn")

if TYPE_CHECKING:
    from indexrelay.service.app import create_app
    from indexrelay.service.server import OpenAddressError, serve

__all__ = ["OpenAddressError", "create_app", "serve"]

_HOMES = {"OpenAddressError": "server", "create_app": "app", "serve": "server"}

if not TYPE_CHECKING:  # or a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        """Import one of the public names (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
