"""Vectors as a user's table may hold them: bytes, JSON text, or what a driver made of them."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from indexrelay.schemas.errors import IndexRelayError
from indexrelay.storage.errors import InvalidEntriesError

_BYTES = (bytes, bytearray, memoryview)
_NUMBERS = frozenset({int, float})
_IN_JSON = {dict: "an object", str: "a text", bool: "true or false", type(None): "null"}


class _NoVectorError(IndexRelayError):
    """Raised where a value is no vector, with what it is instead."""


def decode_vectors(values: Sequence[Any], ids: Sequence[str], *, dimension: int) -> ArrayLike:
    """One column of a chunk as something `numpy.asarray` takes.

    Bytes are float32 in the machine's order; text is a JSON array (pgvector's text form is one).

    Raises:
        InvalidEntriesError: no vector, bytes of another length, text that is no JSON array of as
            many numbers, anything else; the rows that have the first one's problem are named.
    """
    size = dimension * 4
    if all(isinstance(value, _BYTES) and len(value) == size for value in values):
        stored = np.frombuffer(bytearray().join(values), dtype=np.float32)
        return stored.reshape(len(values), dimension)
    vectors: list[Any] = []
    problems: dict[int, str] = {}
    for row, value in enumerate(values):
        try:
            vectors.append(_numbers(value, dimension))
        except _NoVectorError as error:
            problems[row] = str(error)
    if problems:
        problem = next(iter(problems.values()))
        rows = [row for row, each in problems.items() if each == problem]
        raise InvalidEntriesError(problem, rows=rows, ids=ids)
    return vectors


def _numbers(value: Any, dimension: int) -> Any:
    """One vector, as a list or an array.

    Raises:
        _NoVectorError: it is none.
    """
    match value:
        case None:
            raise _NoVectorError(
                "no vector (NULL); embed the row, or leave it out with "
                'on_missing_vector = "skip" in the table of its source'
            )
        case bytes() | bytearray() | memoryview():
            return _from_bytes(bytes(value), dimension)
        case str():
            return _checked(_from_json(value), dimension)
        case list() | tuple():
            return _checked(list(value), dimension)
        case np.ndarray():
            return value
        case _:
            raise _NoVectorError(
                f"vector of type {type(value).__name__}, neither bytes nor a JSON array"
            )


def _from_bytes(value: bytes, dimension: int) -> Any:
    size = dimension * 4
    if len(value) == size:
        return np.frombuffer(value, dtype=np.float32)
    wanted = f"not of {dimension} float32 values ({size} bytes)"
    if not value:
        raise _NoVectorError(f"vector of 0 bytes, {wanted}; a row without a vector has NULL")
    hint = "; are these float64 values?" if len(value) == 2 * size else ""
    raise _NoVectorError(f"vector of {len(value)} bytes, {wanted}{hint}")


def _from_json(text: str) -> list[Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise _NoVectorError("vector text that is no JSON array") from None
    if not isinstance(value, list):
        kind = _IN_JSON.get(type(value), "a number")
        advice = "; a row without a vector has NULL" if value is None else ""
        raise _NoVectorError(f"vector text that is JSON, but {kind} and no array{advice}")
    return value


def _checked(numbers: list[Any], dimension: int) -> list[Any]:
    if len(numbers) != dimension:
        raise _NoVectorError(f"vector of {len(numbers)} numbers, not of {dimension}")
    if not _NUMBERS.issuperset(map(type, numbers)):
        for place, number in enumerate(numbers):
            if isinstance(number, bool) or number is None or isinstance(number, list | dict | str):
                kind = _IN_JSON.get(type(number), "an array")
                raise _NoVectorError(f"vector that has {kind} in place of a number (at {place})")
    return numbers
