"""FAISS, which is imported where it is used: a host that only reads settings need not have it."""

from functools import cache
from typing import Any

from indexrelay.schemas.errors import require


@cache
def require_faiss() -> Any:
    """FAISS, which every reader and every builder of a vector index needs.

    Asked for by every query, so it is looked up once.

    Raises:
        MissingExtraError: it is not installed; the message names the extra that brings it.
    """
    return require("faiss")
