"""What an entry must be like, checked before anything is written and on everything that is read.

Every check looks at the whole column first, at array speed, and only looks for the guilty rows when
there are any. The message names the first few of them and says how many there are in all.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from operator import contains
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Entries, Vectors
from indexrelay.storage.errors import InvalidEntriesError

MAX_ID_BYTES = 1024
"""Of UTF-8: PostgreSQL indexes keys up to a third of a page, about 2,700 bytes."""

MAX_PAYLOAD_DEPTH = 100
"""Levels of lists and objects: a reader parses a payload in the depth of somebody's own call."""

_REAL = "fiu"
"""numpy's kinds of real numbers: floats and integers."""

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
"""`json.dumps` would make a new encoder for every payload."""


def check_entries(
    ids: Sequence[str],
    vectors: ArrayLike,
    texts: Sequence[str | None] | None = None,
    payloads: Sequence[Any] | None = None,
    *,
    dimension: int,
    metric: Metric,
) -> Entries:
    """Turn what a job has at hand into `Entries`.

    Args:
        ids: ``n`` different strings, none of them empty, each at most `MAX_ID_BYTES` long.
        vectors: anything that `numpy.asarray` turns into real numbers of shape ``(n, dimension)``.
        texts: ``n`` strings or ``None``; ``None`` for the whole column: no texts.
        payloads: ``n`` values that `json` can write, or ``None``; ``None`` for the whole column:
            no payloads.
        dimension: length of every vector.
        metric: under cosine every vector needs a direction.

    Raises:
        InvalidEntriesError: with the first offending rows and how many there are in all.
    """
    known = check_ids(ids)
    return Entries(
        ids=known,
        vectors=check_vectors(vectors, known, dimension=dimension, metric=metric),
        texts=check_texts(texts, known),
        payloads=encode_payloads(payloads, known),
    )


def check_ids(ids: Sequence[str]) -> list[str]:
    """The ids as plain strings.

    Raises:
        InvalidEntriesError: one is no string, empty, too long, repeated, holds a NUL character or
            a lone surrogate.
    """
    if isinstance(ids, str | bytes):
        raise InvalidEntriesError("ids must be a sequence of strings, not one string")
    known = list(ids)
    if not (_is_plain(known) and all(known) and max(map(len, known), default=0) <= MAX_ID_BYTES):
        _refuse_text(known, "id", _no_id)
    if len(set(known)) != len(known):
        seen: set[str] = set()
        repeated = [row for row, id_ in enumerate(known) if id_ in seen or seen.add(id_)]  # type: ignore[func-returns-value] # add() gives None
        raise InvalidEntriesError("id given more than once", rows=repeated, ids=known)
    return list(map(str, known))


def check_vectors(
    vectors: ArrayLike, ids: Sequence[str], *, dimension: int, metric: Metric
) -> Vectors:
    """The vectors as C-contiguous float32 of shape ``(len(ids), dimension)``.

    Raises:
        InvalidEntriesError: another shape or no real numbers; NaN or infinity, also such as come
            from float64 values beyond float32; under cosine a vector whose length is 0, or beyond
            float32.
    """
    array = _as_array(vectors, ids, dimension)
    if array.ndim != 2 or array.shape[1] != dimension:
        # No rows have no second axis in `[]`; that is as good as (0, dimension).
        if len(ids) == 0 and array.size == 0:
            return np.empty((0, dimension), np.float32)
        raise InvalidEntriesError(
            f"vectors have shape {array.shape}, they must have ({len(ids)}, {dimension})"
        )
    _same_length("vectors", len(array), ids)
    if array.dtype.kind not in _REAL:
        given = vectors if isinstance(vectors, Sequence) else array
        wrong = [
            row for row, vector in enumerate(given) if np.asarray(vector).dtype.kind not in _REAL
        ]
        problem = f"vector of {array.dtype} values, not of real numbers"
        raise InvalidEntriesError(problem, rows=wrong, ids=ids)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below, by row
        checked: Vectors = np.ascontiguousarray(array, dtype=np.float32)
        squares: NDArray[np.float32] = np.einsum("ij,ij->i", checked, checked)
    if not np.isfinite(squares).all():
        _refuse_rows("vector holds NaN or infinity", ~np.isfinite(checked).all(axis=1), ids)
    if metric is Metric.COSINE:
        _refuse_rows("zero vector, which has no direction under cosine", squares == 0, ids)
        _refuse_rows("vector too long for its length in float32", np.isinf(squares), ids)
    return checked


def check_texts(texts: Sequence[str | None] | None, ids: Sequence[str]) -> list[str | None]:
    """One text or ``None`` for each id.

    Raises:
        InvalidEntriesError: no sequence, or of another length; something that is no string, holds
            a NUL character or a lone surrogate.
    """
    if texts is None:
        return [None] * len(ids)
    _refuse_no_column("texts", texts)
    known = list(texts)
    _same_length("texts", len(known), ids)
    if _is_plain(known):
        return list(map(str, known))
    _refuse_text(known, "text", _no_text, ids)
    return [None if text is None else str(text) for text in known]


def encode_payloads(payloads: Sequence[Any] | None, ids: Sequence[str]) -> list[str | None]:
    """Each payload written as JSON; ``None`` stays ``None``.

    Raises:
        InvalidEntriesError: no sequence, or of another length; a value that JSON has no form for,
            or that is nested deeper than `MAX_PAYLOAD_DEPTH`.
    """
    if payloads is None:
        return [None] * len(ids)
    _refuse_no_column("payloads", payloads)
    _same_length("payloads", len(payloads), ids)
    encoded: list[str | None] = []
    wrong: list[int] = []
    for row, payload in enumerate(payloads):
        try:
            encoded.append(None if payload is None else _to_json(payload))
        except (TypeError, ValueError, RecursionError):
            wrong.append(row)
    if wrong:
        problem = f"payload that is no JSON value, or nested deeper than {MAX_PAYLOAD_DEPTH}"
        raise InvalidEntriesError(problem, rows=wrong, ids=ids)
    return encoded


def check_payload_texts(
    payloads: Sequence[str | None] | None, ids: Sequence[str]
) -> list[str | None]:
    """Payloads that are JSON text already, as they come from a file or a table.

    Raises:
        InvalidEntriesError: another length, or a text that is not JSON, or nested deeper than
            `MAX_PAYLOAD_DEPTH`.
    """
    checked = check_texts(payloads, ids)
    wrong = [row for row, text in enumerate(checked) if text is not None and not _is_json(text)]
    if wrong:
        problem = f"payload that is no JSON text, or nested deeper than {MAX_PAYLOAD_DEPTH}"
        raise InvalidEntriesError(problem, rows=wrong, ids=ids)
    return checked


def _to_json(payload: Any) -> str:
    text = _encode(payload)
    if not text.isascii():
        text.encode()  # a lone surrogate has no UTF-8; UnicodeEncodeError is a ValueError
    _refuse_deep(payload, text)
    return text


def _is_json(text: str) -> bool:
    try:
        _refuse_deep(json.loads(text, parse_constant=_refuse_constant), text)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_deep(value: Any, text: str) -> None:
    """A `ValueError` for a value that is nested too deep; ``text`` is its JSON."""
    if text.count("[") + text.count("{") <= MAX_PAYLOAD_DEPTH:  # nearly always, and at once
        return
    level = [value]
    for _ in range(MAX_PAYLOAD_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
    if any(isinstance(inner, dict | list | tuple) for inner in level):
        raise ValueError


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _refuse_constant(constant: str) -> None:
    """Python reads NaN and Infinity; JSON has neither."""
    raise ValueError(constant)


def _as_array(vectors: ArrayLike, ids: Sequence[str], dimension: int) -> NDArray[Any]:
    try:
        return np.asarray(vectors)
    except ValueError as error:  # numpy: inhomogeneous
        rows = vectors if isinstance(vectors, Sequence) else ()
        wrong = [row for row, vector in enumerate(rows) if not _fits(vector, dimension)]
        raise InvalidEntriesError(
            f"vector whose length is not {dimension}", rows=wrong, ids=ids
        ) from error


def _fits(vector: Any, dimension: int) -> bool:
    try:
        return bool(np.shape(vector) == (dimension,))
    except ValueError:  # ragged in itself
        return False


def _refuse_no_column(column: str, values: object) -> None:
    """One text would be taken for a column of letters, and one object for a column of its keys."""
    if isinstance(values, str | bytes | Mapping):
        raise InvalidEntriesError(f"{column} must be a sequence, one for each id, not one value")


def _same_length(column: str, length: int, ids: Sequence[str]) -> None:
    if length != len(ids):
        raise InvalidEntriesError(f"there are {len(ids)} ids but {length} {column}")


def _refuse_rows(problem: str, wrong: ArrayLike, ids: Sequence[str]) -> None:
    rows = np.flatnonzero(wrong)
    if rows.size:
        raise InvalidEntriesError(problem, rows=rows.tolist(), ids=ids)


def _is_plain(column: list[Any]) -> bool:
    """Whether all are strings of ASCII without NUL: nearly always, and told at C's speed."""
    try:
        return all(map(str.isascii, column)) and not any(map(contains, column, repeat("\0")))
    except TypeError:  # one is no string
        return False


def _refuse_text(
    column: list[Any],
    what: str,
    problem_of: Callable[[Any], str | None],
    ids: Sequence[str] | None = None,
) -> None:
    wrong = [(row, problem) for row, value in enumerate(column) if (problem := problem_of(value))]
    if wrong:
        rows = [row for row, problem in wrong if problem == wrong[0][1]]
        shown = column if ids is None else ids
        raise InvalidEntriesError(f"{what} that {wrong[0][1]}", rows=rows, ids=shown)


def _no_id(value: Any) -> str | None:
    """Why ``value`` cannot be an id."""
    if value == "":
        return "is empty"
    problem = "is no string" if value is None else _no_text(value)
    if problem is None and len(value) * 4 > MAX_ID_BYTES and len(value.encode()) > MAX_ID_BYTES:
        return f"is longer than {MAX_ID_BYTES} bytes of UTF-8"
    return problem


def _no_text(value: Any) -> str | None:
    """Why ``value`` cannot be stored as text."""
    if value is None:
        return None
    if not isinstance(value, str):
        return "is no string"
    if "\0" in value:
        return "holds a NUL character"
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return "holds a lone surrogate, which is no Unicode text"
    return None
