"""The rules for entries, the same for batches, tables and folders, before anything is written.

`check_entries` takes columns. Every check looks at the whole column first, at array speed, and
searches for the invalid rows only when there are any. The message names the first few of them and
the number of all.

**Order.** A vector belongs to the id in its row, so a column has an order: a list, a tuple, or an
array (numpy, pandas, anything with ``__array__``). A set, the view of a dict or a
generator is refused, for every column. Ids that are only listed (`check_listed_ids`: what to
delete) may come in a set, too.

**Length.** Distances and norms are sums of squares in float32, which reaches from about 1e-38 to
3e38. So a vector is as long as `MIN_LENGTH` to `MAX_LENGTH`, which leaves room for the distance of
two of them, or it is zero, but not under cosine. This holds under every metric.

**Missing.** A masked value of a masked array is refused, and so is a NaN in place of a text: a row
without a text or payload has ``None``.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import repeat
from operator import contains
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from indexrelay.schemas.filters import Fields, FieldType, values_of
from indexrelay.schemas.json_values import first_offence, has_half_character
from indexrelay.schemas.settings import CollectionSettings, Metric
from indexrelay.storage.entries import Entries, Vectors
from indexrelay.storage.errors import InvalidEntriesError

MAX_ID_BYTES: Final = 1024
"""Of UTF-8: PostgreSQL indexes keys up to a third of a page, about 2,700 bytes."""

MAX_PAYLOAD_DEPTH: Final = 100
"""Levels of lists and objects: a reader parses a payload deep inside the calls of a program."""

MAX_LENGTH: Final = 1e18
"""Of a vector: the square of twice that, 4e36, is far below float32's 3.4e38."""

MIN_LENGTH: Final = 1e-18
"""Of a vector that is not zero: its square, 1e-36, is above 1.2e-38, where float32 gets coarse."""


@dataclass(frozen=True, kw_only=True)
class EntryRules:
    """What one collection asks of texts and payloads."""

    text: int = CollectionSettings.model_fields["max_text_bytes"].default
    """Bytes of UTF-8 that a text may have."""
    payload: int = CollectionSettings.model_fields["max_payload_bytes"].default
    """Bytes of UTF-8 that a payload's JSON may have."""
    fields: Fields = field(default_factory=dict)
    """The filterable fields of payloads: what is there is of the declared type."""

    @classmethod
    def of(cls, settings: CollectionSettings) -> Self:
        """Those of a declared collection."""
        return cls(
            text=settings.max_text_bytes,
            payload=settings.max_payload_bytes,
            fields=settings.filterable,
        )


_USUAL: Final = EntryRules()

_REAL = "fiu"
"""numpy's kinds of real numbers: floats and integers."""

_CONTAINERS: Final = (dict, list, tuple)

_SUSPICIOUS: Final = re.compile(r"\\u[dD][89a-fA-F]|[eE]\+?\d{3}|\d{200}")
"""In JSON text: what may be half a surrogate pair, or a number beyond a float's 1.8e308: by three
digits of an exponent, or by 200 digits before one of two."""

_KEY: Final = re.compile(r'"\s*:')

_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
).encode
"""As `indexrelay.schemas.names`: equal payloads are equal texts, whatever the order of their
keys. `json.dumps` would make a new encoder for every payload."""


def check_entries(
    ids: Sequence[str],
    vectors: ArrayLike,
    texts: Sequence[str | None] | None = None,
    payloads: Sequence[Any] | None = None,
    *,
    dimension: int,
    metric: Metric,
    payloads_are_json: bool = False,
    rules: EntryRules = _USUAL,
) -> Entries:
    """Turn the columns of a job or a source into `Entries`.

    Args:
        ids: ``n`` different strings, none of them empty, each at most `MAX_ID_BYTES` long.
        vectors: anything that `numpy.asarray` turns into real numbers of shape ``(n, dimension)``.
        texts: ``n`` strings or ``None``; ``None`` for the whole column: no texts.
        payloads: ``n`` values that `json` can write, or ``None``; ``None`` for the whole column:
            no payloads.
        dimension: length of every vector.
        metric: under cosine every vector needs a direction.
        payloads_are_json: whether payloads are JSON texts, as they come from a file or a table.
        rules: how long texts and payloads may be, and what its fields hold.

    Raises:
        InvalidEntriesError: with the first offending rows and how many there are in all.
    """
    known = check_ids(ids)
    judge = check_payload_texts if payloads_are_json else encode_payloads
    return Entries(
        ids=known,
        vectors=check_vectors(vectors, known, dimension=dimension, metric=metric),
        texts=check_texts(texts, known, max_bytes=rules.text),
        payloads=judge(payloads, known, rules),
    )


def check_ids(ids: Sequence[str] | Collection[str]) -> list[str]:
    """The ids as plain strings.

    Raises:
        InvalidEntriesError: no sequence; or one is no string, empty, too long, repeated, holds a
            NUL character or a lone surrogate.
    """
    known = _column("ids", ids)
    if not (_is_plain(known) and all(known) and max(map(len, known), default=0) <= MAX_ID_BYTES):
        _refuse_text(known, "id", _no_id)
    if len(set(known)) != len(known):
        seen: set[str] = set()
        repeated = [row for row, id_ in enumerate(known) if id_ in seen or seen.add(id_)]  # type: ignore[func-returns-value] # add() gives None
        raise InvalidEntriesError("id given more than once", rows=repeated, ids=known)
    return list(map(str, known))


def check_listed_ids(ids: Collection[str]) -> list[str]:
    """Ids without other columns: a set is accepted as well.

    Raises:
        InvalidEntriesError: as `check_ids`, but for the order.
    """
    return check_ids(list(ids) if isinstance(ids, AbstractSet) else ids)


def check_vectors(
    vectors: ArrayLike, ids: Sequence[str], *, dimension: int, metric: Metric
) -> Vectors:
    """The vectors as C-contiguous float32 of shape ``(len(ids), dimension)``.

    Raises:
        InvalidEntriesError: another shape or no real numbers; NaN, infinity or masked values; a
            vector longer than `MAX_LENGTH`, or shorter than `MIN_LENGTH` and not zero; a zero
            vector under cosine.
    """
    _refuse_masked_vectors(vectors, ids)
    array = _as_array(vectors, ids, dimension)
    if array.ndim != 2 or array.shape[1] != dimension:
        # No rows have no second axis in `[]`; that is as good as (0, dimension).
        if len(ids) == 0 and array.size == 0 and array.ndim > 0:
            return np.empty((0, dimension), np.float32)
        _refuse_no_rows(vectors, array, ids, dimension)
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
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # refused below, by row
        checked: Vectors = np.ascontiguousarray(array, dtype=np.float32)
        squares: NDArray[np.float32] = np.einsum("ij,ij->i", checked, checked)
    if len(squares) and not MIN_LENGTH**2 <= squares.min() <= squares.max() <= MAX_LENGTH**2:
        _refuse_lengths(array, squares, ids, metric)
    return checked


def check_texts(
    texts: Sequence[str | None] | None, ids: Sequence[str], *, max_bytes: int = _USUAL.text
) -> list[str | None]:
    """One text or ``None`` for each id.

    Raises:
        InvalidEntriesError: no sequence, or of another length; something that is no string, holds
            a NUL character or a lone surrogate, or has more than ``max_bytes`` of UTF-8.
    """
    checked = _texts(texts, ids)
    _refuse_large(checked, "text", "max_text_bytes", ids, max_bytes=max_bytes)
    return checked


def encode_payloads(
    payloads: Sequence[Any] | None, ids: Sequence[str], rules: EntryRules = _USUAL
) -> list[str | None]:
    """Each payload written as JSON, with its keys in order; ``None`` stays ``None``.

    Raises:
        InvalidEntriesError: no sequence, or of another length; a value that JSON has no form for,
            named by its path, that is nested deeper than `MAX_PAYLOAD_DEPTH`, whose JSON has more
            bytes of UTF-8 than it may, or with a filterable field of another type than is declared.
    """
    if payloads is None:
        return [None] * len(ids)
    known = _column("payloads", payloads)
    _same_length("payloads", len(known), ids)
    encoded: list[str | None] = []
    wrong: list[int] = []
    for row, payload in enumerate(known):
        try:
            encoded.append(None if payload is None else _to_json(payload))
        except (TypeError, ValueError, RecursionError):
            wrong.append(row)
    if wrong:
        offence = first_offence(known[wrong[0]], max_depth=MAX_PAYLOAD_DEPTH)
        problem = f"payload that is no JSON value ({offence or 'it cannot be encoded'})"
        raise InvalidEntriesError(problem, rows=wrong, ids=ids)
    _refuse_large(encoded, "payload", "max_payload_bytes", ids, max_bytes=rules.payload)
    _refuse_other_types(known, ids, rules.fields)
    return encoded


def in_order(payload: str) -> str:
    """A payload's JSON text, with its keys in order."""
    return _encode(json.loads(payload))


def check_payload_texts(
    payloads: Sequence[str | None] | None, ids: Sequence[str], rules: EntryRules = _USUAL
) -> list[str | None]:
    """Payloads that are JSON text already: every value that `encode_payloads` refuses is refused.

    Raises:
        InvalidEntriesError: another length; a text that is not JSON, names a key of an object
            twice, says a value that JSON has no form for or that is nested deeper than
            `MAX_PAYLOAD_DEPTH`, has more bytes of UTF-8 than it may, or a filterable field of
            another type than is declared.
    """
    checked = _texts(payloads, ids)
    # Before they are parsed, which takes many times their size.
    _refuse_large(checked, "payload", "max_payload_bytes", ids, max_bytes=rules.payload)
    wrong = [row for row, text in enumerate(checked) if text is not None and _no_json(text)]
    if wrong:
        problem = f"payload that is no JSON value ({_no_json(checked[wrong[0]] or '')})"
        raise InvalidEntriesError(problem, rows=wrong, ids=ids)
    if rules.fields:
        parsed = [None if text is None else json.loads(text) for text in checked]
        _refuse_other_types(parsed, ids, rules.fields)
    return checked


def _refuse_other_types(payloads: Sequence[Any], ids: Sequence[str], fields: Fields) -> None:
    """``payloads`` are JSON values; a field that one lacks, or that is ``null``, is none."""
    for name, kind in fields.items():
        wrong = [row for row, payload in enumerate(payloads) if _other(payload, name, kind)]
        if wrong:
            reason = _other(payloads[wrong[0]], name, kind)
            problem = f"payload whose {name!r} is not what the collection declares ({reason})"
            raise InvalidEntriesError(problem, rows=wrong, ids=ids)


def _other(payload: Any, name: str, kind: FieldType) -> str:
    """Why a field of a payload is not of its type; empty: it is, or is not there."""
    try:
        values_of(payload, name, kind)
    except ValueError as error:
        return f"it must be {error}"
    return ""


def _texts(texts: Sequence[str | None] | None, ids: Sequence[str]) -> list[str | None]:
    """One text or ``None`` for each id, however long."""
    if texts is None:
        return [None] * len(ids)
    known = _column("texts", texts)
    _same_length("texts", len(known), ids)
    if _is_plain(known):
        return list(map(str, known))
    _refuse_text(known, "text", _no_text, ids)
    return [None if text is None else str(text) for text in known]


def _refuse_large(
    column: Sequence[str | None], what: str, setting: str, ids: Sequence[str], *, max_bytes: int
) -> None:
    """``column`` is valid text; a character takes one byte to four."""
    if not any(text is not None and len(text) * 4 > max_bytes for text in column):
        return
    large = [row for row, text in enumerate(column) if text and len(text.encode()) > max_bytes]
    if large:
        problem = f"{what} of more than {max_bytes:,} bytes of UTF-8 ({setting} of its collection)"
        raise InvalidEntriesError(problem, rows=large, ids=ids)


def _to_json(payload: Any) -> str:
    """The payload's JSON; raises something where it has none."""
    text = _encode(payload)
    if not text.isascii():
        text.encode()  # a lone surrogate has no UTF-8; UnicodeEncodeError is a ValueError
    if isinstance(payload, _CONTAINERS):
        _join_keys(payload)
        _refuse_deep(payload, text)
    return text


def _join_keys(value: Any) -> None:
    """A `TypeError` where a key is no string: the encoder would turn a number into one."""
    if isinstance(value, dict):
        "".join(value)
        value = value.values()
    for inner in value:
        if isinstance(inner, _CONTAINERS):
            _join_keys(inner)


def _no_json(text: str) -> str | None:
    """Why a JSON text cannot be a payload."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        refuse_repeated_keys(text, value)
        _refuse_deep(value, text)
    except RecursionError:
        return f"nested deeper than {MAX_PAYLOAD_DEPTH} levels"
    except ValueError as error:  # what `json` says of the text, and what is said here
        return str(error)
    if _SUSPICIOUS.search(text):
        offence = first_offence(value)
        return None if offence is None else str(offence)
    return None


def _refuse_deep(value: Any, text: str) -> None:
    """A `ValueError` for a value that is nested too deep; ``text`` is its JSON."""
    if text.count("[") + text.count("{") <= MAX_PAYLOAD_DEPTH:  # nearly always, and at once
        return
    level = [value]
    for _ in range(MAX_PAYLOAD_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
    if any(isinstance(inner, _CONTAINERS) for inner in level):
        raise ValueError(f"nested deeper than {MAX_PAYLOAD_DEPTH} levels")


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _count_keys(value: Any) -> int:
    """Of all objects in a parsed value, each key of each once."""
    if not isinstance(value, _CONTAINERS):
        return 0
    return (len(value) if isinstance(value, dict) else 0) + sum(
        _count_keys(inner) for inner in _inside(value) if isinstance(inner, _CONTAINERS)
    )


def refuse_repeated_keys(text: str, value: Any) -> None:
    """See that no object of a JSON text names a key twice; ``value`` is what it was parsed to.

    Raises:
        ValueError: one does, and parsing has dropped what came first.
    """
    if len(_KEY.findall(text)) != _count_keys(value):
        json.loads(text, object_pairs_hook=_refuse_repeated)


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value] # add() gives None
        raise ValueError(f"the key {repeated!r:.80} is given twice in one object")
    return found


def _refuse_constant(constant: str) -> None:
    """Python reads NaN and Infinity; JSON has neither."""
    raise ValueError(f"{constant} has no place in JSON; give null")


def _as_array(vectors: ArrayLike, ids: Sequence[str], dimension: int) -> NDArray[Any]:
    if isinstance(vectors, AbstractSet | Mapping | str | bytes):
        raise InvalidEntriesError(
            f"vectors must be an array or a sequence of vectors, not a {type(vectors).__name__}"
        )
    try:
        return np.asarray(vectors)
    except ValueError as error:  # numpy: inhomogeneous
        rows = vectors if isinstance(vectors, Sequence) else ()
        wrong = [row for row, vector in enumerate(rows) if not _fits(vector, dimension)]
        raise InvalidEntriesError(
            f"vector whose length is not {dimension}", rows=wrong, ids=ids
        ) from error
    except (TypeError, RuntimeError) as error:  # a tensor on another device, or with a gradient
        raise InvalidEntriesError(f"vectors cannot be read as an array: {error}") from error


def _refuse_no_rows(
    vectors: ArrayLike, array: NDArray[Any], ids: Sequence[str], dimension: int
) -> None:
    """Name what numpy reads as one object: a generator, or rows without an order."""
    if array.dtype != object:
        return
    if array.ndim == 0:
        raise InvalidEntriesError(
            f"vectors must be an array or a sequence of vectors, not a {type(vectors).__name__}"
        )
    if array.ndim == 1 and len(array) == len(ids):
        wrong = [row for row, vector in enumerate(array) if not _fits(vector, dimension)]
        kinds = {type(array[row]).__name__ for row in wrong}
        problem = (
            f"vector that is no sequence of {dimension} numbers but {', '.join(sorted(kinds))}"
        )
        raise InvalidEntriesError(problem, rows=wrong, ids=ids)


def _refuse_masked_vectors(vectors: ArrayLike, ids: Sequence[str]) -> None:
    """Refuse masked values: numpy would return what is under the mask."""
    if isinstance(vectors, np.ma.MaskedArray):
        masked = np.ma.getmaskarray(vectors)
        if masked.any():
            wrong = masked.reshape(len(masked), -1).any(axis=1) if masked.ndim else [True]
            _refuse_rows("vector with masked values", wrong, ids)
    elif isinstance(vectors, Sequence):
        wrong = [isinstance(row, np.ma.MaskedArray) and np.ma.is_masked(row) for row in vectors]
        if any(wrong):
            _refuse_rows("vector with masked values", wrong, ids)


def _refuse_lengths(
    given: NDArray[Any], squares: NDArray[np.float32], ids: Sequence[str], metric: Metric
) -> None:
    """Name the vectors whose squares float32 cannot hold; ``given`` is the caller's array."""
    _refuse_rows("vector holds NaN or infinity", ~np.isfinite(given).all(axis=1), ids)
    _refuse_rows(
        f"vector longer than {MAX_LENGTH:g}, whose square is beyond float32",
        ~(squares <= MAX_LENGTH**2),
        ids,
    )
    short = squares < MIN_LENGTH**2
    zero = ~given.any(axis=1)
    if metric is Metric.COSINE:
        _refuse_rows("zero vector, which has no direction under cosine", short & zero, ids)
    _refuse_rows(
        f"vector shorter than {MIN_LENGTH:g} and not zero, whose square float32 cannot hold",
        short & ~zero,
        ids,
    )


def _fits(vector: Any, dimension: int) -> bool:
    try:
        return bool(np.shape(vector) == (dimension,))
    except ValueError:  # ragged in itself
        return False


def _column(name: str, values: Any) -> list[Any]:
    """The values of one column as a list.

    One text would be read as a column of letters, and one object as a column of its keys; without
    an order, values would get into the wrong rows.
    """
    wanted = f"{name} must be a sequence, one for each id"
    if isinstance(values, str | bytes | bytearray | Mapping):
        raise InvalidEntriesError(f"{wanted}, not one value")
    if isinstance(values, Sequence):
        return list(values)
    if not hasattr(values, "__array__"):  # numpy's own protocol: arrays of all libraries have it
        kind = type(values).__name__
        unordered = isinstance(values, AbstractSet)
        why = f"a {kind}, whose order is not that of the rows" if unordered else f"a {kind}"
        raise InvalidEntriesError(f"{wanted}: a list, a tuple or an array, not {why}")
    if np.ma.is_masked(values):
        rows = np.flatnonzero(np.ma.getmaskarray(values)).tolist()
        raise InvalidEntriesError(f"{name} with masked values", rows=rows)
    array = np.asarray(values)
    if array.ndim != 1:
        raise InvalidEntriesError(f"{wanted}, not an array of shape {array.shape}")
    found: list[Any] = array.tolist()
    return found


def _same_length(column: str, length: int, ids: Sequence[str]) -> None:
    if length != len(ids):
        raise InvalidEntriesError(f"there are {len(ids)} ids but {length} {column}")


def _refuse_rows(problem: str, wrong: ArrayLike, ids: Sequence[str]) -> None:
    rows = np.flatnonzero(wrong)
    if rows.size:
        raise InvalidEntriesError(problem, rows=rows.tolist(), ids=ids)


def _is_plain(column: list[Any]) -> bool:
    """Whether all are strings of ASCII without NUL: nearly always, and found at C's speed."""
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
    problem = "is missing" if value is None else _no_text(value)
    if problem is None and len(value) * 4 > MAX_ID_BYTES and len(value.encode()) > MAX_ID_BYTES:
        return f"is longer than {MAX_ID_BYTES} bytes of UTF-8"
    return problem


def _no_text(value: Any) -> str | None:
    """Why ``value`` cannot be stored as text."""
    if value is None:
        return None
    if not isinstance(value, str):
        missing = value != value  # NaN, which pandas has for what is missing
        return "is NaN; give None where there is none" if missing is True else "is no string"
    if "\0" in value:
        return "holds a NUL character"
    if has_half_character(value):
        return "holds a lone surrogate, which is no Unicode text"
    return None
