"""Modules that only some processes have: imported where they are used, and named when missing."""

import importlib
from functools import cache
from typing import Any

from indexrelay.schemas.errors import MissingExtraError


def require(module: str, *, extra: str) -> Any:
    """Import ``module``.

    Raises:
        MissingExtraError: it is not installed; the message names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise  # it is there, and something that it needs itself is not
        raise MissingExtraError(module, extra) from error


@cache
def require_faiss() -> Any:
    """FAISS, which every reader and every builder of a vector index needs.

    Asked for by every query, so it is looked up once.
    """
    return require("faiss", extra="reloaders")
