"""Columns of a layered version: one value for each row of base and delta, in mapped files.

A column says how its values lie on disk: numbers of a fixed length as ``.npy`` (`ArrayColumn`),
texts or JSON as a string table (`TextColumn`). The rows of the base are written once; a version
that follows a small batch names them again and writes its delta beside them. `LayeredTable` opens
the ids and the columns of a version as one table.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

from indexrelay.components.errors import ContractError, CorruptFileError
from indexrelay.components.formats.mapped_array import mapped_array, new_mapped_array
from indexrelay.components.formats.string_table import Rows, StringTable, StringTableWriter
from indexrelay.components.layered.layers import LayeredIds
from indexrelay.components.layered.succession import Succession
from indexrelay.components.served import Closable

BLOCK_ROWS: Final = 8192
"""4 MB at 128 dimensions: stays in a processor's cache while it is computed with."""


class ColumnWriter(Protocol):
    """Writes the base of one column."""

    def add(self, values: Any) -> None:
        """Append the values of further rows."""
        ...

    def close(self) -> None:
        """Finish the file; called once, after the last row."""
        ...


class LayeredColumn(Closable, ABC):
    """A column of an opened version; immutable, and safe to read from many threads."""

    @abstractmethod
    def holds(self, in_delta: NDArray[np.bool_], rows: Rows, values: Any) -> NDArray[np.bool_]:
        """For each row of base or delta: is its value the given one, bit for bit?"""

    @abstractmethod
    def is_block(self, first: int, values: Any) -> bool:
        """Whether the values from position ``first`` on are exactly ``values``."""

    @abstractmethod
    def same_delta(self, first: int, other: Any, at: int, *, count: int) -> bool:
        """Whether ``count`` delta rows from ``first`` on are those of ``other`` from ``at`` on."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the maps."""


OpenedT = TypeVar("OpenedT", bound=LayeredColumn)


class Column(ABC, Generic[OpenedT]):
    """How the values of one column lie on disk; a constant of its kind."""

    def __init__(self, name: str, ending: str, delta_file: str | None) -> None:
        self.name = name
        self.base_file = f"{name}{ending}"
        self.delta_file = delta_file or f"delta_{name}{ending}"

    @abstractmethod
    def values(self, given: Any) -> Any:
        """What a kind computed, in the type that is stored."""

    @abstractmethod
    def open(self, files: Mapping[str, Path], ids: LayeredIds) -> OpenedT:
        """Map the files of a version.

        Raises:
            CorruptFileError: a file is not what was written.
        """

    @abstractmethod
    def writer(self, path: Path, rows: int) -> ColumnWriter:
        """A writer of a base of so many rows."""

    @abstractmethod
    def write_delta(self, path: Path, next_: Succession, last: OpenedT, given: Any) -> None:
        """Write the next delta, from the rows of the last one and from the upserts' ``given``."""

    def fits(self, last: OpenedT, given: Any) -> bool:  # noqa: ARG002 - for columns with a shape
        """Whether ``given`` can stand in one column with the values of ``last``."""
        return True


class ArrayColumn(Column["LayeredArray"]):
    """Numbers of a fixed length for each row: ``NAME.npy`` and ``delta_NAME.npy``."""

    def __init__(
        self,
        name: str,
        dtype: DTypeLike,
        *,
        shape: tuple[int | None, ...] = (None,),
        delta_file: str | None = None,
    ) -> None:
        """Declare a column.

        Args:
            name: of the column and its files.
            dtype: of the numbers.
            shape: of one row. ``(None,)``: a vector of any one length; ``()``: a single number.
            delta_file: another name of the delta's file.
        """
        super().__init__(name, ".npy", delta_file)
        self.dtype = np.dtype(dtype)
        self.shape = shape

    def values(self, given: Any) -> NDArray[Any]:
        """The rows as one array of the column's type.

        Raises:
            ContractError: they have another shape, or lose something in this type.
        """
        try:
            array = np.asarray(given)
            stored = np.ascontiguousarray(given, dtype=self.dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise ContractError(
                f"what rows_of gave for {self.name} is no array of {self.dtype}: {error}"
            ) from error
        if isinstance(given, np.ndarray):
            kept = np.can_cast(array.dtype, self.dtype, casting="safe")
        else:  # Python has no short numbers, so what counts is whether these fit
            kept = _same_numbers(array, stored)
        if not kept:
            raise ContractError(
                f"rows_of gave {array.dtype} for {self.name}, the column takes {self.dtype}, and "
                f"numbers may be lost on the way: convert them in rows_of, or declare "
                f"ArrayColumn({self.name!r}, {str(array.dtype)!r})"
            )
        if array.shape == (0,):  # an empty list knows no length of a row
            stored = stored.reshape(0, *(length or 0 for length in self.shape))
        if stored.ndim != 1 + len(self.shape) or any(
            wanted not in (None, length)
            for wanted, length in zip(self.shape, stored.shape[1:], strict=True)
        ):
            takes = "".join(f", {'any' if each is None else each}" for each in self.shape) or ","
            raise ContractError(
                f"rows_of gave {self.name} in the shape {array.shape}, the column takes (n{takes})"
            )
        return stored

    def open(self, files: Mapping[str, Path], ids: LayeredIds) -> "LayeredArray":
        """Map the files of a version."""
        base = self._rows(files[self.base_file], self.shape, len(ids.base))
        delta = base[:0]
        if ids.delta is not None:
            delta = self._rows(files[self.delta_file], base.shape[1:], len(ids.delta))
        return LayeredArray(ids, base, delta)

    def writer(self, path: Path, rows: int) -> ColumnWriter:
        """A writer that maps the file on reserved space."""
        return _ArrayWriter(path, rows, self.dtype)

    def write_delta(self, path: Path, next_: Succession, last: "LayeredArray", given: Any) -> None:
        """Write the next delta."""
        next_.save_column(path, last.delta, given)

    def fits(self, last: "LayeredArray", given: NDArray[Any]) -> bool:
        """Whether rows of both have one length."""
        return last.row_shape == given.shape[1:]

    def _rows(self, path: Path, shape: tuple[int | None, ...], count: int) -> NDArray[Any]:
        array = mapped_array(path, (None, *shape), self.dtype)
        if len(array) != count:
            raise CorruptFileError(path, f"it has {len(array)} rows for {count} ids")
        return array


class TextColumn(Column["LayeredTexts"]):
    """A text for each row, or none: ``NAME.table`` and ``delta_NAME.table``."""

    def __init__(self, name: str, *, delta_file: str | None = None) -> None:
        super().__init__(name, ".table", delta_file)

    def values(self, given: Any) -> list[str | None]:
        """The rows as a list."""
        return list(given)

    def open(self, files: Mapping[str, Path], ids: LayeredIds) -> "LayeredTexts":
        """Map the files of a version."""
        base = self._rows(files[self.base_file], len(ids.base))
        delta = None
        if ids.delta is not None:
            delta = self._rows(files[self.delta_file], len(ids.delta))
        return LayeredTexts(ids, base, delta)

    def writer(self, path: Path, rows: int) -> ColumnWriter:  # noqa: ARG002 - of no use here
        """A writer of a string table."""
        return _TextWriter(path)

    def write_delta(self, path: Path, next_: Succession, last: "LayeredTexts", given: Any) -> None:
        """Write the next delta."""
        next_.save_texts(path, last.delta, given)

    def _rows(self, path: Path, count: int) -> StringTable:
        table = StringTable(path)
        if len(table) != count:
            raise CorruptFileError(path, f"it has {len(table)} rows for {count} ids")
        return table


class LayeredArray(LayeredColumn):
    """The numbers of an `ArrayColumn`."""

    _closed_by = frozenset({"base", "delta"})

    def __init__(self, ids: LayeredIds, base: NDArray[Any], delta: NDArray[Any]) -> None:
        self._ids = ids
        self.base = base
        self.delta = delta
        """The rows that came or changed since the base was written."""

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row: ``(dimension,)``, or ``()`` where it is a single number."""
        return self.base.shape[1:]

    def row(self, entry_id: str) -> NDArray[Any]:
        """A read-only view of one row.

        Raises:
            UnknownEntryError: there is no such entry.
        """
        found = self._ids.locate(entry_id)
        row: NDArray[Any] = (self.delta if found.in_delta else self.base)[found.row]
        return row

    def block(self, first: int, end: int) -> NDArray[Any]:
        """The rows at the positions ``first`` to ``end`` (left out), read-only.

        A view of the mapped file where the rows lie there side by side, else a copy.
        """
        in_delta, rows = self._ids.layers.locate(np.arange(first, end))
        if len(rows) and not in_delta.any() and int(rows[-1] - rows[0]) == len(rows) - 1:
            return self.base[rows[0] : rows[-1] + 1]
        block = self._gathered(in_delta, rows)
        block.flags.writeable = False
        return block

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[tuple[int, NDArray[Any]]]:
        """All rows, at most ``rows`` at a time, each block with the position of its first row."""
        for first in range(0, len(self._ids), rows):
            yield first, self.block(first, min(first + rows, len(self._ids)))

    def whole(self) -> NDArray[Any]:
        """All rows as one read-only array; without a copy where there is no delta."""
        return self.base if self._ids.layers.plain else self.block(0, len(self._ids))

    def holds(
        self, in_delta: NDArray[np.bool_], rows: Rows, values: NDArray[Any]
    ) -> NDArray[np.bool_]:
        """For each row of base or delta: is its value the given one, bit for bit?"""
        if values.shape[1:] != self.row_shape:
            return np.zeros(len(rows), dtype=bool)
        same: NDArray[np.bool_] = (_bits(self._gathered(in_delta, rows)) == _bits(values)).all(1)
        return same

    def is_block(self, first: int, values: NDArray[Any]) -> bool:
        """Whether the rows from position ``first`` on are exactly ``values``."""
        return np.array_equal(self.block(first, first + len(values)), values)

    def same_delta(self, first: int, other: "LayeredArray", at: int, *, count: int) -> bool:
        """Whether ``count`` delta rows from ``first`` on are those of ``other`` from ``at`` on."""
        return np.array_equal(self.delta[first : first + count], other.delta[at : at + count])

    def close(self) -> None:
        """Let go of the maps; a view that was handed out keeps its own hold on them."""
        del self.base, self.delta

    def _gathered(self, in_delta: NDArray[np.bool_], rows: Rows) -> NDArray[Any]:
        block = np.empty((len(rows), *self.row_shape), dtype=self.base.dtype)
        block[in_delta] = self.delta[rows[in_delta]]
        block[~in_delta] = self.base[rows[~in_delta]]
        return block


class LayeredTexts(LayeredColumn):
    """The texts of a `TextColumn`."""

    _closed_by = frozenset({"base", "delta"})

    def __init__(self, ids: LayeredIds, base: StringTable, delta: StringTable | None) -> None:
        self._ids = ids
        self.base = base
        self.delta = delta

    def text(self, entry_id: str) -> str | None:
        """The text of one entry.

        Raises:
            UnknownEntryError: there is no such entry.
        """
        found = self._ids.locate(entry_id)
        return self._texts(np.array([found.in_delta]), np.array([found.row]))[0]

    def at(self, positions: Rows) -> list[str | None]:
        """The texts at ``positions`` (int64), in that order."""
        return self._texts(*self._ids.layers.locate(positions))

    def count(self) -> int:
        """How many rows have a text."""
        delta = 0 if self.delta is None else self.delta.count_texts()
        return self.base.count_texts(without=self._ids.layers.tombstones) + delta

    def holds(
        self, in_delta: NDArray[np.bool_], rows: Rows, values: Sequence[str | None]
    ) -> NDArray[np.bool_]:
        """For each row of base or delta: is its text the given one?"""
        pairs = zip(self._texts(in_delta, rows), values, strict=True)
        return np.array([here == given for here, given in pairs], dtype=bool)

    def is_block(self, first: int, values: Sequence[str | None]) -> bool:
        """Whether the texts from position ``first`` on are exactly ``values``."""
        return self.at(np.arange(first, first + len(values))) == list(values)

    def same_delta(self, first: int, other: "LayeredTexts", at: int, *, count: int) -> bool:
        """Whether ``count`` delta rows from ``first`` on are those of ``other`` from ``at`` on."""
        if self.delta is None or other.delta is None:
            return not count
        return self.delta.same(first, other.delta, at, count=count)

    def close(self) -> None:
        """Let go of the maps."""
        self.base.close()
        if self.delta is not None:
            self.delta.close()
        del self.base, self.delta

    def _texts(self, in_delta: NDArray[np.bool_], rows: Rows) -> list[str | None]:
        if self.delta is None:
            return self.base.many(rows)
        texts = np.empty(len(rows), dtype=object)
        texts[in_delta] = self.delta.many(rows[in_delta])
        texts[~in_delta] = self.base.many(rows[~in_delta])
        return texts.tolist()


class LayeredTable(Closable):
    """The ids of a version and its columns; immutable, and safe to read from many threads.

    ``table[COLUMN]`` is a column, opened::

        table = LayeredTable(files, (SIGNS,))
        for first, block in table[SIGNS].blocks():
            ...
    """

    _closed_by = frozenset({"_columns"})

    def __init__(self, files: Mapping[str, Path], columns: Sequence[Column[Any]]) -> None:
        """Map the files of a version.

        Raises:
            CorruptFileError: one of them is not what was written.
            OSError: one of them cannot be opened.
        """
        self.ids = LayeredIds(files)
        """Every id, in the order of their UTF-8 bytes: a mapped sequence, not a list."""
        self._columns: dict[str, LayeredColumn] = {}
        try:
            for column in columns:
                self._columns[column.name] = column.open(files, self.ids)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self.ids)

    def __bool__(self) -> bool:
        """A table is there, even one without entries; ask for its ``len``."""
        return True

    def __contains__(self, entry_id: object) -> bool:
        return entry_id in self.ids

    def __getitem__(self, column: Column[OpenedT]) -> OpenedT:
        return cast("OpenedT", self._columns[column.name])

    def close(self) -> None:
        """Let go of the maps; nothing may be read afterwards."""
        for column in self._columns.values():
            column.close()
        self.ids.close()
        del self._columns


class _ArrayWriter:
    def __init__(self, path: Path, rows: int, dtype: "np.dtype[Any]") -> None:
        self._path, self._rows, self._dtype = path, rows, dtype
        self._array: np.memmap[Any, Any] | None = None
        self._written = 0

    def add(self, values: NDArray[Any]) -> None:
        if self._array is None:  # the first values have the length of a row
            shape = (self._rows, *values.shape[1:])
            self._array = new_mapped_array(self._path, shape, self._dtype)
        self._array[self._written : self._written + len(values)] = values
        self._written += len(values)

    def close(self) -> None:
        if self._array is not None:
            self._array.flush()


class _TextWriter:
    def __init__(self, path: Path) -> None:
        self._stack = ExitStack()
        self._writer = self._stack.enter_context(StringTableWriter(path))

    def add(self, values: Sequence[str | None]) -> None:
        self._writer.extend(values)

    def close(self) -> None:
        self._stack.close()


def _same_numbers(given: NDArray[Any], stored: NDArray[Any]) -> bool:
    """Whether a list's numbers are stored as they are; fractions may be rounded, to fractions."""
    if given.dtype.kind == stored.dtype.kind == "f":
        return np.array_equal(np.isfinite(given), np.isfinite(stored))
    return np.array_equal(given, stored)


def _bits(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of each row, shape ``(n, bytes)``: -0.0 is not 0.0, and a NaN is itself."""
    rows = np.ascontiguousarray(array)
    if not rows.size:
        return np.empty((len(rows), 0), dtype=np.uint8)
    return rows.reshape(len(rows), -1).view(np.uint8)
