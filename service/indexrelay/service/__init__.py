"""A reader as a service: what is served, over HTTP, to programs that ask.

It reads by a reloader, and stands above the producers, too. Nothing here is imported without the
extra ``service``.
"""

from indexrelay.schemas.errors import missing_extra

try:
    import anyio  # noqa: F401 - the modules of this package need one of them or another
    import fastapi  # noqa: F401
    import h11  # noqa: F401
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401
except ModuleNotFoundError as error:
    raise missing_extra(error) from error

from indexrelay.service.app import create_app
from indexrelay.service.server import OpenAddressError, serve

__all__ = ["OpenAddressError", "create_app", "serve"]
