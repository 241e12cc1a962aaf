"""People looking: the admin API and its web page, on the address of its own process.

Nothing here builds, releases or serves. What is shown is what the one judge, the catalog, the
artifacts and presence say; what is asked for is a row of the inbox or a release, as on the command
line. It needs the extra ``admin``. The names below are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from indexrelay.schemas.errors import see_installed

# Here, so that whichever module is imported first names the extra to install: what this extra
# alone brings comes first, since it brings the others, too.
see_installed("argon2", "itsdangerous", "anyio", "fastapi", "starlette", "uvicorn")

if TYPE_CHECKING:
    from indexrelay.admin.access import PublicAddressError
    from indexrelay.admin.service import AdminService

__all__ = ["AdminService", "PublicAddressError"]

_HOMES = {"AdminService": "service", "PublicAddressError": "access"}

if not TYPE_CHECKING:  # or a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        """Import one of the public names (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
