"""Two layers of rows that are read as one: a base that stays, and the rows that came since.

A version that follows a small batch names its predecessor's base again and writes three small
things beside it: the **delta** (rows that came or changed since the base was written), the
**tombstones** (base rows that are deleted, or that the delta replaces), and for each delta row its
**place**: the base row that it stands before. From these follows one order of all live rows, the
same as if they had been written in one piece. `Layers` is the arithmetic of that order, and
`LayeredIds` reads the ids by it.

Places are counted in base rows and not in live ones, so that later tombstones leave them as they
are. Sets of rows are strictly increasing int64 arrays, which are searched: numpy's own operations
on sets would hash or sort them each time (60 ms for a set of ninety thousand rows).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import eq, ge, index
from pathlib import Path
from typing import Final, overload

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.errors import CorruptFileError, UnknownEntryError
from indexrelay.components.formats.entry_tables import IdTable
from indexrelay.components.formats.mapped_array import mapped_array
from indexrelay.components.formats.string_table import Rows
from indexrelay.components.served import Closable


def among(rows: Rows, row_set: Rows) -> NDArray[np.bool_]:
    """For each of ``rows``, of any shape and in any order: is it in ``row_set``?"""
    if not len(row_set):
        return np.zeros(rows.shape, dtype=bool)
    at = np.minimum(np.searchsorted(row_set, rows), len(row_set) - 1)
    found: NDArray[np.bool_] = row_set[at] == rows
    return found


def without(rows: Rows, row_set: Rows) -> Rows:
    """Those of ``rows`` that are not in ``row_set``, in their order."""
    return rows[~among(rows, row_set)]


def row_set_of(*rows: Rows) -> Rows:
    """All of them as one set, in whatever order they come; cheap where most are in order."""
    # Timsort, which only merges what is in order.
    together = np.sort(np.concatenate(rows), kind="stable")
    return together[np.diff(together, prepend=together[:1] - 1) > 0]


def runs(*columns: Rows) -> list[tuple[int, int]]:
    """The pieces, each from ``start`` to ``stop``, in which every one of the columns grows by one.

    The columns are row numbers (int64) of one length; the pieces cover all of it, in order.
    """
    length = len(columns[0])
    if not length:
        return []
    gaps = np.zeros(length - 1, dtype=bool)
    for rows in columns:
        gaps |= np.diff(rows) != 1
    return list(pairwise([0, *(np.flatnonzero(gaps) + 1).tolist(), length]))


@dataclass(frozen=True)
class Layers:
    """Which rows of base and delta are shown, and in which order; positions count from 0."""

    base: int
    """Rows of the base, dead ones included."""
    tombstones: Rows
    """Base rows that are not shown: int64, strictly increasing."""
    places: Rows
    """For each delta row the base row that it stands before (``base``: after all): int64, in
    increasing order; rows with equal places stand in the order of the delta."""
    _alive_before: Rows = field(init=False, repr=False)
    _delta_at: Rows = field(init=False, repr=False)

    def __post_init__(self) -> None:
        tombstones = self.tombstones
        # How many live base rows stand before each tombstone, and where each delta row is shown.
        object.__setattr__(self, "_alive_before", tombstones - np.arange(len(tombstones)))
        shown = self.places - np.searchsorted(tombstones, self.places)
        object.__setattr__(self, "_delta_at", shown + np.arange(len(self.places)))

    def __len__(self) -> int:
        return self.base - len(self.tombstones) + len(self.places)

    @property
    def plain(self) -> bool:
        """Whether there is only the base, whole: its rows are the positions."""
        return not len(self.tombstones) and not len(self.places)

    @property
    def fault(self) -> str:
        """What is wrong with tombstones or places that were read from a file; empty if nothing."""
        dead, places = self.tombstones, self.places
        if len(dead) and not (dead[0] >= 0 and dead[-1] < self.base and (np.diff(dead) > 0).all()):
            return "its tombstones are not strictly increasing row numbers of the base"
        within = not len(places) or (places[0] >= 0 and places[-1] <= self.base)
        if not within or (np.diff(places) < 0).any():
            return "its places are not row numbers of the base in their order"
        return ""

    @property
    def live_base_rows(self) -> Rows:
        """Base rows that are shown."""
        live = np.ones(self.base, dtype=bool)
        live[self.tombstones] = False
        return np.flatnonzero(live)

    @property
    def delta_rows(self) -> Rows:
        """All rows of the delta."""
        return np.arange(len(self.places))

    def locate(self, positions: Rows) -> tuple[NDArray[np.bool_], Rows]:
        """For each position (int64, from 0 below ``len``): is it in the delta, and in which row."""
        before = np.searchsorted(self._delta_at, positions)
        in_delta = np.zeros(len(positions), dtype=bool)
        inside = before < len(self._delta_at)
        in_delta[inside] = self._delta_at[before[inside]] == positions[inside]
        alive = positions - before
        rows = alive + np.searchsorted(self._alive_before, alive, side="right")
        return in_delta, np.where(in_delta, before, rows)

    def dead(self, base_row: int) -> bool:
        """Whether a base row is not shown."""
        at = int(np.searchsorted(self.tombstones, base_row))
        return at < len(self.tombstones) and int(self.tombstones[at]) == base_row

    def base_positions(self, rows: Rows) -> Rows:
        """Where live base rows are shown; of dead ones, where they would be."""
        alive = rows - np.searchsorted(self.tombstones, rows)
        return alive + np.searchsorted(self.places, rows, side="right")

    def delta_positions(self, rows: Rows) -> Rows:
        """Where delta rows are shown."""
        positions: Rows = self._delta_at[rows]
        return positions


def in_one_layer(rows: int) -> Layers:
    """A base of ``rows`` rows, and nothing else."""
    none = np.empty(0, dtype=np.int64)
    return Layers(rows, none, none)


IDS: Final = "ids.table"
"""The file of a base's ids."""
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
            CorruptFileError: one is not what was written, or they do not belong together.
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
        """The delta's rows of those of ``entry_ids`` that are in it, in increasing order."""
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

        It looks at the places only, so it is complete where `out_of_order` finds nothing.
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
        raise CorruptFileError(files[PLACES], f"it has {len(places)} places for {delta} ids")
    layers = Layers(base, tombstones, places)
    if layers.fault:
        raise CorruptFileError(files[TOMBSTONES], layers.fault)
    return layers
