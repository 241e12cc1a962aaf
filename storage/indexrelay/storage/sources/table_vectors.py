"""Vectors as a user's table may hold them: bytes, JSON text, or what a driver made a list of."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from indexrelay.storage.errors import InvalidEntriesError


def decode_vectors(values: Sequence[Any], ids: Sequence[str], *, dimension: int) -> ArrayLike:
    """One column of a chunk as something `numpy.asarray` takes.

    Bytes are float32 in the machine's order; text is a JSON array (pgvector's text form is one).

    Raises:
        InvalidEntriesError: bytes of another length, text that is no JSON array, anything else.
    """
    if all(isinstance(value, bytes | bytearray | memoryview) for value in values):
        _refuse(
            f"vector that is not {dimension} float32 values ({dimension * 4} bytes) long",
            [row for row, value in enumerate(values) if len(value) != dimension * 4],
            ids,
        )
        stored = np.frombuffer(bytearray().join(values), dtype=np.float32)
        return stored.reshape(len(values), dimension)
    lists: list[Any] = [_numbers(value) for value in values]
    _refuse(
        "vector that is neither bytes nor a JSON array",
        [row for row, numbers in enumerate(lists) if numbers is None],
        ids,
    )
    return lists


def _numbers(value: Any) -> list[Any] | None:
    """One vector as a list; ``None`` when it is none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    elif isinstance(value, bytes | bytearray | memoryview) and len(value) % 4 == 0:
        value = np.frombuffer(value, dtype=np.float32).tolist()
    return list(value) if isinstance(value, list | tuple) else None


def _refuse(problem: str, rows: list[int], ids: Sequence[str]) -> None:
    if rows:
        raise InvalidEntriesError(problem, rows=rows, ids=ids)
