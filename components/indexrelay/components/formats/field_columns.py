"""Columns of filterable fields: which rows have which value, in one file that is mapped.

For each field its different values stand once, in order, and behind them the rows that have each:
an inverted index. So the rows of a value, of a few values, or of a range of them are slices, and
how many there are is known before one is read. A list of keywords puts its row behind each of them.
Rows that lack the field are those that the bits ``present`` leave out.

Opening compares the size of the file with what its header promises, and reads nothing else. What a
query uses is checked as it is used: a corrupt file raises, and never leads to a row that does not
exist. `FieldColumns.check` looks at all of it.

All numbers are little-endian, and each section starts at a multiple of 8:

    header   magic, version, bytes of the JSON, number of rows
    fields   JSON: for each field its name, its type, and how long its sections are
    and for each field
    values   float64 (number), int64 (datetime: microseconds), uint8 (boolean); or for keywords
             int64 bounds, one more than values, and then their UTF-8
    starts   int64, values + 1: value i has rows[starts[i] : starts[i + 1]]
    rows     int32, in increasing order behind each value
    present  one bit for each row, least significant first
    others   int32: rows whose payload has a value of another type there; they count as missing
"""

import json
import mmap
import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.formats.string_table import Rows, aligned
from indexrelay.components.served import Closable
from indexrelay.schemas.filters import (
    MAX_FIELDS,
    AnyOf,
    Between,
    Fields,
    FieldType,
    Value,
    values_of,
)

MAGIC: Final = b"irfields"
VERSION: Final = 1
HEADER: Final = struct.Struct("<8sIIQ")
_MOST_JSON: Final = 1 << 16
"""Bytes of the JSON: 64 fields have 20,000."""
_MOST_ROWS: Final = 2**31 - 1

_NUMBERS: Final[Mapping[FieldType, str]] = {
    FieldType.NUMBER: "<f8",
    FieldType.DATETIME: "<i8",
    FieldType.BOOLEAN: "u1",
}
"""How the values of a type are written; others are texts."""
Slice = tuple[int, int]
"""From where to where in the rows of a column."""


@dataclass(frozen=True, slots=True)
class _Sections:
    """Where the sections of one field are."""

    name: str
    kind: FieldType
    values: int
    text_bytes: int
    rows: int
    others: int
    present: int

    def lengths(self, rows: int) -> tuple[int, int, int, int, int]:
        """Bytes of each section, in the order of the file."""
        if self.kind in _NUMBERS:
            values = np.dtype(_NUMBERS[self.kind]).itemsize * self.values
        else:
            values = 8 * (self.values + 1) + self.text_bytes
        return values, 8 * (self.values + 1), 4 * self.rows, -(-rows // 8), 4 * self.others


class FieldColumns(Closable):
    """A mapped file of columns; immutable, and safe to read from many threads."""

    _closed_by = frozenset({"_columns"})

    def __init__(self, path: Path) -> None:
        """Map the file.

        Raises:
            CorruptFileError: it is no such file, of another version, or not as long as it says.
            OSError: it cannot be opened.
        """
        self.path = path
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size < HEADER.size:
                raise CorruptFileError(path, "it is shorter than a header")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        magic, version, json_bytes, rows = HEADER.unpack(mapped[: HEADER.size])
        if magic != MAGIC:
            raise CorruptFileError(path, "it does not hold columns")
        if version != VERSION:
            raise CorruptFileError(path, f"it holds columns of version {version}, not {VERSION}")
        if json_bytes > _MOST_JSON or rows > _MOST_ROWS:
            raise CorruptFileError(path, "its header promises more than there can be")
        fields = _read_fields(path, mapped[HEADER.size : HEADER.size + json_bytes])
        lengths = [length for each in fields for length in each.lengths(rows)]
        first = aligned(HEADER.size + json_bytes)
        places = list(accumulate(map(aligned, lengths), initial=first))
        if places[-1] != size:
            raise CorruptFileError(path, f"it has {size} bytes where {places[-1]} are promised")
        self._columns = {
            each.name: Column(path, mapped, each, places[5 * number : 5 * number + 5], rows)
            for number, each in enumerate(fields)
        }
        self.rows: int = rows
        """How many rows there are, those without any field among them."""
        self.fields: Fields = {each.name: each.kind for each in fields}
        """The fields by name."""

    def __getitem__(self, name: str) -> "Column":
        return self._columns[name]

    def __iter__(self) -> Iterator["Column"]:
        return iter(self._columns.values())

    def check(self) -> None:
        """Look at all of it.

        Raises:
            CorruptFileError: it is not what a build writes.
        """
        for column in self:
            column.check()

    def close(self) -> None:
        """Let go of the map; nothing may be read afterwards."""
        del self._columns


def _read_fields(path: Path, text: bytes) -> list[_Sections]:
    try:
        given = json.loads(text)
        fields = [
            _Sections(
                name=str(each["name"]),
                kind=FieldType(each["type"]),
                **{key: _number(each[key]) for key in _COUNTS},
            )
            for each in given
        ]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CorruptFileError(path, "its list of fields cannot be read") from error
    if len({each.name for each in fields}) != len(fields) or len(fields) > MAX_FIELDS:
        raise CorruptFileError(path, "its list of fields cannot be")
    return fields


_COUNTS: Final = ("values", "text_bytes", "rows", "others", "present")


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**48:
        raise ValueError(value)
    return value


class Column:
    """One field of a mapped file."""

    def __init__(
        self, path: Path, mapped: mmap.mmap, sections: _Sections, at: Sequence[int], rows: int
    ) -> None:
        self.name = sections.name
        self.kind = sections.kind
        self.present: int = sections.present
        """How many rows have the field."""
        self._path = path
        self._of = rows
        count = sections.values
        self._values: NDArray[Any] | _Texts
        if self.kind in _NUMBERS:
            self._values = np.frombuffer(mapped, _NUMBERS[self.kind], count, at[0])
        else:
            bounds = np.frombuffer(mapped, "<i8", count + 1, at[0])
            text_at = at[0] + 8 * (count + 1)
            self._values = _Texts(path, mapped, bounds, text_at, sections.text_bytes)
        self._starts: NDArray[np.int64] = np.frombuffer(mapped, "<i8", count + 1, at[1])
        self._rows: NDArray[np.int32] = np.frombuffer(mapped, "<i4", sections.rows, at[2])
        self._bits: NDArray[np.uint8] = np.frombuffer(mapped, np.uint8, -(-rows // 8), at[3])
        self._others: NDArray[np.int32] = np.frombuffer(mapped, "<i4", sections.others, at[4])

    @property
    def values(self) -> Iterator[Value]:
        """The different values, in increasing order."""
        if isinstance(self._values, _Texts):
            yield from (self._values[code] for code in range(len(self._values)))
        else:
            yield from map(_python_value(self.kind), self._values.tolist())

    @property
    def others(self) -> Rows:
        """The rows whose payload has something of another type there, in increasing order."""
        return self._checked(self._others.astype(np.int64))

    def slices(self, condition: AnyOf | Between) -> list[Slice]:
        """Where in `rows_at` the rows are that fulfil ``condition``.

        A row of a list of keywords may be in several of them.
        """
        if isinstance(condition, Between):
            first, last = self._range(condition)
            return [self._slice(first, last)] if first < last else []
        codes = (self._code(value) for value in condition.values)
        return [self._slice(code, code + 1) for code in codes if code is not None]

    def rows_at(self, where: Slice) -> NDArray[np.int32]:
        """The rows of one slice; in increasing order where it is of one value."""
        return self._rows[where[0] : where[1]]

    def one_value(self, where: Slice) -> bool:
        """Whether a slice has the rows of one value only."""
        at = int(np.searchsorted(self._starts, where[0], side="right"))
        return at < len(self._starts) and int(self._starts[at]) >= where[1]

    def mask(self, slices: Iterable[Slice]) -> NDArray[np.bool_]:
        """For each row whether it is in one of the slices.

        Raises:
            CorruptFileError: a row is beyond the last.
        """
        found = np.zeros(self._of, dtype=bool)
        for where in slices:
            found[self._checked(self.rows_at(where))] = True
        return found

    def rows_of(self, slices: Sequence[Slice]) -> Rows:
        """The rows of one slice or more as int64, in increasing order, each once.

        Raises:
            CorruptFileError: they are no rows, or one has several values of a field that has one.
        """
        rows = self._checked(np.concatenate([self.rows_at(each) for each in slices]))
        if len(slices) > 1 or not self.one_value(slices[0]):
            rows = np.unique(rows) if self.kind is FieldType.KEYWORDS else np.sort(rows)
        if len(rows) > 1 and not (rows[1:] > rows[:-1]).all():
            raise CorruptFileError(self._path, f"the rows of {self.name!r} are not in order")
        return rows.astype(np.int64)

    def presence(self) -> NDArray[np.bool_]:
        """For each row whether it has the field."""
        return np.unpackbits(self._bits, count=self._of, bitorder="little").view(np.bool_)

    def codes(self) -> NDArray[np.int64]:
        """For each place in the rows: which of `values` it belongs to."""
        lengths = np.diff(self._starts)
        if len(self._rows) != lengths.sum() or (lengths < 0).any():
            raise CorruptFileError(self._path, f"the values of {self.name!r} do not share its rows")
        return np.repeat(np.arange(len(lengths)), lengths)

    @property
    def all_rows(self) -> NDArray[np.int32]:
        """The rows of every value, one value after the other."""
        return self._checked(self._rows)

    def check(self) -> None:
        """Look at all of it; raises as `FieldColumns.check` does."""
        codes, rows = self.codes(), self.all_rows
        within = codes[1:] == codes[:-1]
        if (np.diff(rows)[within] <= 0).any():
            raise CorruptFileError(self._path, f"the rows of {self.name!r} are not in order")
        values = list(self.values)
        if any(a >= b for a, b in pairwise(values)):  # type: ignore[operator] # of one type
            raise CorruptFileError(self._path, f"the values of {self.name!r} are not in order")
        present = self.presence()
        if int(present.sum()) != self.present or not present[rows].all():
            raise CorruptFileError(self._path, f"it counts other rows with {self.name!r}")
        if self.kind is not FieldType.KEYWORDS and len(rows) != self.present:
            raise CorruptFileError(self._path, f"a row has no value of {self.name!r}, or several")
        if present[self.others].any():
            raise CorruptFileError(self._path, f"a row has {self.name!r} and has it not")

    def _checked(self, rows: NDArray[Any]) -> NDArray[Any]:
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < self._of:
            raise CorruptFileError(self._path, f"{self.name!r} names rows that do not exist")
        return rows

    def _slice(self, first: int, last: int) -> Slice:
        start, stop = int(self._starts[first]), int(self._starts[last])
        if not 0 <= start <= stop <= len(self._rows):
            raise CorruptFileError(self._path, f"a value of {self.name!r} lies outside of its rows")
        return start, stop

    def _code(self, value: Value) -> int | None:
        code = int(_bisect_left(self._values, value))
        if code < len(self._values) and self._values[code] == value:
            return code
        return None

    def _range(self, between: Between) -> Slice:
        first, last = 0, len(self._values)
        if between.low is not None:
            side = _bisect_right if between.above_low else _bisect_left
            first = int(side(self._values, between.low))
        if between.high is not None:
            side = _bisect_left if between.below_high else _bisect_right
            last = int(side(self._values, between.high))
        return first, last


def _bisect_left(values: Any, value: Value) -> int:
    return bisect_left(values, value)


def _bisect_right(values: Any, value: Value) -> int:
    return bisect_right(values, value)


class _Texts(Sequence[str]):
    """The values of a column of texts."""

    def __init__(
        self, path: Path, mapped: mmap.mmap, bounds: NDArray[np.int64], at: int, size: int
    ) -> None:
        self._path = path
        self._mapped = mapped
        self._bounds = bounds
        self._at = at
        self._size = size

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, code: Any) -> Any:
        start, end = int(self._bounds[code]), int(self._bounds[code + 1])
        if not 0 <= start <= end <= self._size:
            raise CorruptFileError(self._path, "a value lies outside of the text")
        try:
            return self._mapped[self._at + start : self._at + end].decode()
        except UnicodeDecodeError as error:
            raise CorruptFileError(self._path, "a value is not UTF-8") from error


def _python_value(kind: FieldType) -> Any:
    return {FieldType.NUMBER: float, FieldType.DATETIME: int, FieldType.BOOLEAN: bool}[kind]


@dataclass(slots=True)
class _Gathered:
    """What a writer has of one field."""

    values: list[Value] = field(default_factory=list)
    """In the order in which they came."""
    code_of: dict[Value, int] = field(default_factory=dict)
    codes: "array[int]" = field(default_factory=lambda: array("q"))
    rows: "array[int]" = field(default_factory=lambda: array("q"))
    """Row for row with `codes`."""
    present: "array[int]" = field(default_factory=lambda: array("q"))
    others: "array[int]" = field(default_factory=lambda: array("q"))

    def code(self, value: Value) -> int:
        code = self.code_of.setdefault(value, len(self.values))
        if code == len(self.values):
            self.values.append(value)
        return code


def memory_of_columns(rows: int, fields: Fields) -> int:
    """About how many bytes a writer takes for so many rows."""
    return rows * (64 * len(fields) + 40) if fields else 0


class FieldColumnsWriter:
    """Gathers rows in any order, each once, and writes their columns."""

    def __init__(self, fields: Fields) -> None:
        self._fields = dict(fields)
        self._gathered = {name: _Gathered() for name in fields}

    def extend(self, first: int, payloads: Iterable[str | None]) -> None:
        """Add rows from ``first`` on; ``payloads`` are JSON."""
        for row, payload in enumerate(payloads, first):
            if payload is not None:
                self.add(row, json.loads(payload))

    def add(self, row: int, payload: Any) -> None:
        """Add one row with its parsed payload."""
        for name, kind in self._fields.items():
            gathered = self._gathered[name]
            try:
                values = values_of(payload, name, kind)
            except ValueError:
                gathered.others.append(row)
                continue
            if values is not None:
                gathered.present.append(row)
                for value in values:
                    gathered.codes.append(gathered.code(value))
                    gathered.rows.append(row)

    def copy(self, columns: FieldColumns, moved: Rows) -> None:
        """Add rows of another file: ``moved`` says which row each is here, -1 that it is not."""
        for name in self._fields:
            column, gathered = columns[name], self._gathered[name]
            code_of = np.array([gathered.code(each) for each in column.values], dtype=np.int64)
            rows = moved[column.all_rows]
            kept = rows >= 0
            gathered.codes.frombytes(code_of[column.codes()[kept]].tobytes())
            gathered.rows.frombytes(rows[kept].tobytes())
            for into, those in (
                (gathered.present, np.flatnonzero(column.presence())),
                (gathered.others, column.others),
            ):
                there = moved[those]
                into.frombytes(there[there >= 0].astype(np.int64).tobytes())

    def write(self, path: Path, rows: int) -> None:
        """Write the columns of ``rows`` rows; equal rows make equal files.

        Raises:
            OSError: it cannot be written.
            ValueError: there are more rows than a file can have.
        """
        with path.open("wb") as file:
            for part in self._parts(rows):
                file.write(part)

    def content(self, rows: int) -> bytes:
        """What `write` writes."""
        return b"".join(self._parts(rows))

    def same(self, path: Path, rows: int) -> bool:
        """Whether `write` would write what is in ``path``."""
        with path.open("rb") as file:
            alike = all(file.read(len(part)) == part for part in self._parts(rows))
            return alike and not file.read(1)

    def _parts(self, rows: int) -> Iterator[bytes]:
        if rows > _MOST_ROWS:
            raise ValueError(f"columns of {rows} rows; there can be {_MOST_ROWS}")
        sections: list[bytes] = []
        described = []
        for name, kind in sorted(self._fields.items()):
            counts, parts = _written(self._gathered[name], kind, rows)
            described.append({"name": name, "type": str(kind), **counts})
            sections += parts
        head = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
        for part in (HEADER.pack(MAGIC, VERSION, len(head), rows) + head, *sections):
            yield part
            yield bytes(aligned(len(part)) - len(part))


def _written(gathered: _Gathered, kind: FieldType, rows: int) -> tuple[dict[str, int], list[bytes]]:
    """The sections of one field, and the counts in the header."""
    codes, of_rows = _as_rows(gathered.codes), _as_rows(gathered.rows)
    used = np.unique(codes)
    kept = sorted(used.tolist(), key=lambda code: gathered.values[code])  # of one type
    rank = np.zeros(len(gathered.values), dtype=np.int64)
    rank[kept] = np.arange(len(kept))
    ranked = rank[codes]
    order = np.lexsort((of_rows, ranked))
    starts = np.concatenate([[0], np.cumsum(np.bincount(ranked, minlength=len(kept)))])
    values = [gathered.values[code] for code in kept]
    present = np.zeros(rows, dtype=bool)
    present[_as_rows(gathered.present)] = True
    others = np.sort(_as_rows(gathered.others))
    text_bytes = 0
    if kind in _NUMBERS:
        of_values = np.array(values, dtype=_NUMBERS[kind]).tobytes()
    else:
        texts = [str(value).encode() for value in values]
        bounds = np.array(list(accumulate(map(len, texts), initial=0)), dtype="<i8")
        text_bytes = int(bounds[-1])
        of_values = bounds.tobytes() + b"".join(texts)
    counts = {
        "values": len(kept),
        "text_bytes": text_bytes,
        "rows": len(of_rows),
        "others": len(others),
        "present": int(present.sum()),
    }
    return counts, [
        of_values,
        starts.astype("<i8").tobytes(),
        of_rows[order].astype("<i4").tobytes(),
        np.packbits(present, bitorder="little").tobytes(),
        others.astype("<i4").tobytes(),
    ]


def _as_rows(numbers: "array[int]") -> Rows:
    return np.frombuffer(numbers, dtype=np.int64) if len(numbers) else np.empty(0, dtype=np.int64)
