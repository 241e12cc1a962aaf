"""The ids of a version that has a base and, perhaps, a delta: one sequence, mapped.

Read as `layers` says. A version that was written in one piece has the first file only, and is read
as fast as the table in it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import eq, ge, index
from pathlib import Path
from typing import Final, overload

import numpy as np

from indexrelay.components.closing import Closable
from indexrelay.components.errors import DamagedFileError, UnknownEntryError
from indexrelay.components.id_table import IdTable
from indexrelay.components.layers import Layers, in_one_layer
from indexrelay.components.mapped_array import mapped_array
from indexrelay.components.row_sets import row_set_of, without
from indexrelay.components.string_table import Rows

IDS: Final = "ids.table"
DELTA_IDS: Final = "delta_ids.table"
PLACES: Final = "delta_places.npy"
TOMBSTONES: Final = "tombstones.npy"
LAYER_FILES: Final = (DELTA_IDS, PLACES, TOMBSTONES)
"""What stands beside `IDS` where there is a delta: all of them, or none."""

_BLOCK: Final = 4096
_IDS_READ_IN_A_LOOK_UP: Final = 16
"""Looking up one id takes as long as reading so many, one after the other."""


@dataclass(frozen=True, slots=True)
class Found:
    """Where an id is."""

    in_delta: bool
    row: int
    """In its own layer."""


class LayeredIds(Closable, Sequence[str]):
    """Ids by position; immutable, and safe to read from many threads."""

    _closed_by = frozenset({"base", "delta", "layers"})

    def __init__(self, files: Mapping[str, Path], *, base: IdTable | None = None) -> None:
        """Map the files of a version; ``base``, if it is open already, stays open afterwards.

        Raises:
            DamagedFileError: one is not what was written, or they do not belong together.
            OSError: one cannot be opened.
        """
        self.base = IdTable(files[IDS]) if base is None else base
        self._opened_base = base is None
        self.delta: IdTable | None = None
        self.layers = in_one_layer(len(self.base))
        if DELTA_IDS in files:
            self.delta = IdTable(files[DELTA_IDS])
            self.layers = _layers(files, len(self.base), len(self.delta))

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _BLOCK):
            yield from self.many(np.arange(start, min(start + _BLOCK, len(self))))

    @overload
    def __getitem__(self, position: int) -> str: ...
    @overload
    def __getitem__(self, position: slice) -> list[str]: ...
    def __getitem__(self, position: int | slice) -> str | list[str]:
        if isinstance(position, slice):
            return self.many(np.arange(*position.indices(len(self))))
        place = index(position) + (len(self) if position < 0 else 0)
        if not 0 <= place < len(self):
            raise IndexError(f"row {position} of {len(self)}")
        return self.many(np.array([place]))[0]

    def __contains__(self, entry_id: object) -> bool:
        return isinstance(entry_id, str) and self.find(entry_id) is not None

    def many(self, positions: Rows) -> list[str]:
        """The ids at ``positions`` (int64, each 0 ≤ position < ``len``), in that order."""
        if self.delta is None:
            return self.base.many(positions)
        in_delta, rows = self.layers.locate(positions)
        ids = np.empty(len(positions), dtype=object)
        ids[in_delta] = self.delta.many(rows[in_delta])
        ids[~in_delta] = self.base.many(rows[~in_delta])
        return ids.tolist()

    def find(self, entry_id: str) -> Found | None:
        """The layer and the row of one id; ``None``: it is not in here."""
        if self.delta is not None:
            row = self.delta.find(entry_id)
            if row is not None:
                return Found(in_delta=True, row=row)
        row = self.base.find(entry_id)
        if row is None or (self.delta is not None and self.layers.dead(row)):
            return None
        return Found(in_delta=False, row=row)

    def locate(self, entry_id: str) -> Found:
        """The layer and the row of one id.

        Raises:
            UnknownEntryError: it is not in here.
        """
        found = self.find(entry_id)
        if found is None:
            raise UnknownEntryError(entry_id)
        return found

    def row(self, entry_id: str) -> int:
        """The position of one id.

        Raises:
            UnknownEntryError: it is not in here.
        """
        found, layers = self.locate(entry_id), self.layers
        if layers.plain:
            return found.row
        at = layers.delta_positions if found.in_delta else layers.base_positions
        return int(at(np.array([found.row]))[0])

    def delta_rows(self, entry_ids: Iterable[str]) -> Rows:
        """The delta's rows of those of ``entry_ids`` that are in it, in growing order."""
        rows: Iterable[int | None] = ()
        if self.delta is not None:
            wanted = set(entry_ids)
            if len(wanted) * _IDS_READ_IN_A_LOOK_UP < len(self.delta):
                rows = map(self.delta.find, wanted)
            else:
                rows = (row for row, entry_id in enumerate(self.delta) if entry_id in wanted)
        return np.array(sorted(row for row in rows if row is not None), dtype=np.int64)

    def repeats(self, rows: Rows) -> int:
        """How many of these delta rows have the id of a live base row.

        It looks where the places say, so it is complete where `out_of_order` finds nothing.
        """
        if self.delta is None:
            return 0
        rows = rows[self.layers.places[rows] < self.layers.base]
        places = self.layers.places[rows]
        same = np.array(list(map(eq, self.base.many(places), self.delta.many(rows))), dtype=bool)
        return len(without(places[same], self.layers.tombstones))

    def out_of_order(self, starts: Sequence[int] = (), *, rows: Rows | None = None) -> int:
        """How often an id of the delta does not stand where the order of the UTF-8 bytes has it.

        ``starts`` are the positions where the rows of another input begin, and with them the order;
        ``rows`` are those of the delta to look at, ``None``: all.
        """
        at = self.layers.delta_positions(self.layers.delta_rows if rows is None else rows)
        after = without(row_set_of(at, at + 1), np.array(starts, dtype=np.int64))
        after = after[(after > 0) & (after < len(self))]
        return sum(map(ge, self.many(after - 1), self.many(after)))

    def close(self) -> None:
        """Let go of the maps; nothing may be read afterwards."""
        if self._opened_base:
            self.base.close()
        if self.delta is not None:
            self.delta.close()
        del self.base, self.delta, self.layers


def _layers(files: Mapping[str, Path], base: int, delta: int) -> Layers:
    # Copied out of the maps: they are small, and every look-up searches them.
    places = np.array(mapped_array(files[PLACES], (None,), np.int64))
    tombstones = np.array(mapped_array(files[TOMBSTONES], (None,), np.int64))
    if len(places) != delta:
        raise DamagedFileError(files[PLACES], f"it has {len(places)} places for {delta} ids")
    layers = Layers(base, tombstones, places)
    if layers.fault:
        raise DamagedFileError(files[TOMBSTONES], layers.fault)
    return layers
