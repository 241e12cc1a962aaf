"""The filterable fields of a text index: columns beside its database, over the rows of that.

Rows of the database are numbered with gaps, so a column counts the entries through, and a file
beside it says which row each is. A small batch leaves the columns of the last full build as they
are: entries that changed since, and rows that were numbered again, stand in a delta, and what the
base says of them is covered by tombstones, as in a vector index.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from indexrelay.components.errors import CorruptFileError
from indexrelay.components.formats.field_columns import FieldColumns, FieldColumnsWriter
from indexrelay.components.formats.mapped_array import mapped_array, save_array
from indexrelay.components.formats.string_table import Rows
from indexrelay.components.kind import Verdict
from indexrelay.components.layered import among, row_set_of, without
from indexrelay.components.matches import FilterColumns, columns_gate
from indexrelay.components.served import Closable
from indexrelay.components.text_index.database import open_database, reading, row_numbers
from indexrelay.schemas.filters import Fields, Filter

FIELDS: Final = "fields.columns"
FIELD_ROWS: Final = "field_rows.npy"
"""For each entry of the columns its row in the database: int64, in increasing order."""
DELTA_FIELDS: Final = "delta_fields.columns"
DELTA_FIELD_ROWS: Final = "delta_field_rows.npy"
FIELD_TOMBSTONES: Final = "field_tombstones.npy"
"""The entries of the base's columns that changed since: int64, in increasing order."""
BASE_FILES: Final = (FIELDS, FIELD_ROWS)


@dataclass(frozen=True, slots=True)
class _Layer:
    columns: FieldColumns
    rows: Rows
    """Of the database."""


class TextFields(Closable):
    """The columns of one version; immutable, and safe to use from many threads."""

    _closed_by = frozenset({"columns", "_base", "_delta", "_tombstones"})

    def __init__(self, files: Mapping[str, Path]) -> None:
        """Map the files of a version; one without filterable fields has none of them.

        Raises:
            CorruptFileError: one of them is not what was written.
            OSError: one of them cannot be opened.
        """
        none = np.empty(0, dtype=np.int64)
        self._base = _opened(files, FIELDS, FIELD_ROWS)
        self._delta = _opened(files, DELTA_FIELDS, DELTA_FIELD_ROWS)
        self._tombstones: Rows = none
        if self._base is not None and FIELD_TOMBSTONES in files:
            path = files[FIELD_TOMBSTONES]
            dead = np.array(mapped_array(path, (None,), np.int64))
            if not _increasing(dead, below=len(self._base.rows)):
                raise CorruptFileError(path, "its tombstones are not entries of the columns")
            self._tombstones = dead
        self.columns = FilterColumns(
            None if self._base is None else self._base.columns,
            None if self._delta is None else self._delta.columns,
            rows=0 if self._base is None else len(self._base.rows),
            delta_rows=0 if self._delta is None else len(self._delta.rows),
            tombstones=self._tombstones,
        )
        """What can be filtered by."""

    def rows(self, asked: Filter) -> Rows:
        """The rows of the database that match a filter, in increasing order."""
        matches = self.columns.matches(asked)
        found = [] if self._base is None else [self._base.rows[matches.base.rows]]
        if self._delta is not None:
            found.append(self._delta.rows[matches.delta.rows])
        return np.sort(np.concatenate(found), kind="stable")

    def count(self, asked: Filter) -> int:
        """How many entries match a filter."""
        return len(self.columns.matches(asked))

    @property
    def all_rows(self) -> Rows:
        """The rows of the database that it has entries for, in increasing order."""
        if self._base is None:
            return np.empty(0, dtype=np.int64)
        live = np.delete(self._base.rows, self._tombstones)
        beside = [] if self._delta is None else [self._delta.rows]
        return np.sort(np.concatenate([live, *beside]), kind="stable")

    def extend(self, folder: Path, database: Path, touched: Iterable[int]) -> dict[str, Path]:
        """Write what stands beside the base after a batch, and return the files.

        Args:
            folder: where to write.
            database: the next version's.
            touched: rows that are written, deleted or numbered again, in this version and the next.
        """
        base, delta = self._base, self._delta
        if base is None:
            return {}
        changed = np.array(sorted(touched), dtype=np.int64)
        dead = np.flatnonzero(among(base.rows, changed))
        kept = np.empty(0, dtype=np.int64) if delta is None else without(delta.rows, changed)
        payloads = dict(_payloads(database, changed.tolist()))
        rows = row_set_of(kept, np.array(sorted(payloads), dtype=np.int64))
        writer = FieldColumnsWriter(self.columns.fields)
        if delta is not None:
            stays = among(delta.rows, kept)
            writer.copy(delta.columns, np.where(stays, np.searchsorted(rows, delta.rows), -1))
        for row, payload in payloads.items():
            writer.extend(int(np.searchsorted(rows, row)), [payload])
        names = (DELTA_FIELDS, DELTA_FIELD_ROWS, FIELD_TOMBSTONES)
        files = {name: folder / name for name in names}
        writer.write(files[DELTA_FIELDS], len(rows))
        save_array(files[DELTA_FIELD_ROWS], rows)
        save_array(files[FIELD_TOMBSTONES], row_set_of(self._tombstones, dead))
        return files

    def gate(self, connection: sqlite3.Connection, path: Path, fields: Fields) -> Verdict:
        """The columns of a file that was written in one piece are those of its payloads."""
        base = self._base
        with reading(path):
            found = connection.execute("SELECT row, payload FROM entries ORDER BY row").fetchall()
        if base is None or base.rows.tolist() != [row for row, _ in found]:
            return Verdict(False, "the columns are of other rows than the database has")
        payloads = [payload for _, payload in found]
        return columns_gate(
            base.columns, fields, lambda rows: payloads[rows[0] : rows[-1] + 1], len(found)
        )

    def change_gate(
        self, connection: sqlite3.Connection, path: Path, fields: Fields, changes: Iterable[str]
    ) -> Verdict:
        """Every row of the database is there once, and what ``changes``, which are ids, brought or
        left as it is, and what is beside the base, is as the database has it."""
        base, delta = self._base, self._delta
        with reading(path):
            found = connection.execute("SELECT row FROM entries ORDER BY row").fetchall()
            query = "SELECT row FROM entries WHERE id = ?"
            rows = (connection.execute(query, (each,)).fetchone() for each in changes)
            changed = np.array(sorted(row[0] for row in rows if row), dtype=np.int64)
        if base is None or self.all_rows.tolist() != [row for (row,) in found]:
            return Verdict(False, "the columns are of other rows than the database has")
        there = np.flatnonzero(among(base.rows, changed))
        alike = _same(base, without(there, self._tombstones), path, fields)
        if alike and delta is not None:
            alike = _same(delta, np.arange(len(delta.rows)), path, fields)
        return Verdict(alike, "" if alike else "the columns are not what the payloads say")

    def close(self) -> None:
        """Let go of the maps; nothing may be read afterwards."""
        del self.columns, self._base, self._delta, self._tombstones


def _same(layer: _Layer, entries: Rows, database: Path, fields: Fields) -> bool:
    """Whether some entries of a layer are as the database has them."""
    moved = np.full(len(layer.rows), -1, dtype=np.int64)
    moved[entries] = np.arange(len(entries))
    ours, theirs = FieldColumnsWriter(fields), FieldColumnsWriter(fields)
    ours.copy(layer.columns, moved)
    payloads = dict(_payloads(database, layer.rows[entries].tolist()))
    theirs.extend(0, [payloads.get(row) for row in layer.rows[entries].tolist()])
    return ours.content(len(entries)) == theirs.content(len(entries))


def _opened(files: Mapping[str, Path], columns: str, rows: str) -> _Layer | None:
    if columns not in files:
        return None
    opened = FieldColumns(files[columns])
    numbers = mapped_array(files[rows], (opened.rows,), np.int64)
    return _Layer(opened, numbers)


def _increasing(rows: Rows, *, below: int) -> bool:
    """Whether they are different row numbers in their order."""
    return not len(rows) or bool(rows[0] >= 0 and rows[-1] < below and (rows[1:] > rows[:-1]).all())


def _payloads(database: Path, rows: Sequence[int]) -> Iterator[tuple[int, str | None]]:
    """Row and payload of those of ``rows`` that there are."""
    query = "SELECT payload FROM entries WHERE row = ?"
    with reading(database), closing(open_database(database)) as connection:
        for row in rows:
            found = connection.execute(query, (row,)).fetchone()
            if found is not None:
                yield row, found[0]


class TextFieldsWriter:
    """Writes the columns of a file that is written in one piece."""

    def __init__(self, fields: Fields, entries: int) -> None:
        self._columns = FieldColumnsWriter(fields)
        self._rows = np.array(row_numbers(0, entries), dtype=np.int64)
        self._fields = fields

    def extend(self, first: int, payloads: Iterable[str | None]) -> None:
        """Add entries from the ``first``-th on."""
        if self._fields:
            self._columns.extend(first, payloads)

    def write(self, folder: Path) -> dict[str, Path]:
        """The files, and where they are; none where there are no fields."""
        if not self._fields:
            return {}
        files = {name: folder / name for name in BASE_FILES}
        self._columns.write(files[FIELDS], len(self._rows))
        save_array(files[FIELD_ROWS], self._rows)
        return files
