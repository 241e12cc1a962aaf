"""From one version's layers to the next one's: what a batch does to delta and tombstones.

Only the batch is looked up in the base: twenty comparisons for each id among a million. What the
delta held before is merged with it, so a row is in the delta once, with its last state, and the
delta itself needs no tombstones. Rows of several inputs stand input after input, so every look-up
stays inside the rows of its own. `Unchanged` are the gates on that: what a batch did not touch is
as it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.formats.entry_tables import IdTable
from indexrelay.components.formats.mapped_array import mapped_array, save_array
from indexrelay.components.formats.string_table import Rows, StringTable, StringTableWriter
from indexrelay.components.kind import Verdict, equal
from indexrelay.components.layered.layers import (
    DELTA_IDS,
    PLACES,
    TOMBSTONES,
    LayeredIds,
    Layers,
    row_set_of,
    runs,
    without,
)

NumberT = TypeVar("NumberT", bound=np.generic)


@dataclass(frozen=True, kw_only=True)
class InputRows:
    """How many rows of each input there are, in the order of the inputs."""

    base: tuple[int, ...]
    delta: tuple[int, ...]

    @classmethod
    def of_one(cls, layers: Layers) -> "InputRows":
        """Those of a version that is made from one input."""
        return cls(base=(layers.base,), delta=(len(layers.places),))

    def of(self, number: int) -> tuple[slice, slice]:
        """The rows of one input, in the base and in the delta."""
        return _stretch(self.base, number), _stretch(self.delta, number)


@dataclass(frozen=True, kw_only=True)
class ChangedIds:
    """What changed in one input."""

    upserts: Sequence[str]
    """No id twice."""
    deletes: Sequence[str]
    """Ids that are deleted, or never were there."""


@dataclass(frozen=True, kw_only=True)
class Succession:
    """The next version's layers, and where each row of its delta comes from."""

    layers: Layers
    kept: Rows
    """For each row of the delta: its row in the last delta, or -1."""
    given: Rows
    """For each row of the delta: which of all upserts, counted over the inputs; or -1."""
    inputs: InputRows
    last: IdTable | None
    """The ids of the last delta; they have to be open for as long as this is used."""
    upserts: Sequence[str]
    """The ids of all upserts, input after input."""

    def __len__(self) -> int:
        """How many rows the delta has."""
        return len(self.kept)

    @cached_property
    def pieces(self) -> "list[Piece]":
        """All rows of the delta, in their order."""
        # An upsert is -2, since row 0 would go on from -1.
        return [self._piece(*cut) for cut in runs(np.where(self.kept < 0, -2, self.kept))]

    def moved(self, rows: int) -> Rows:
        """Where each of the ``rows`` rows of the last delta is now; -1: it is not."""
        moved: Rows = np.full(rows, -1, dtype=np.int64)
        stayed = np.flatnonzero(self.kept >= 0)
        moved[self.kept[stayed]] = stayed
        return moved

    def column(self, kept: NDArray[NumberT], given: NDArray[NumberT]) -> NDArray[NumberT]:
        """One column of the delta, from the last delta's rows and from those of the upserts."""
        made = np.empty((len(self), *given.shape[1:]), dtype=given.dtype)
        for piece in self.pieces:
            made[piece.rows] = given[piece.given] if piece.kept is None else kept[piece.kept]
        return made

    def save_column(
        self, path: Path, kept: NDArray[NumberT], given: NDArray[NumberT]
    ) -> NDArray[NumberT]:
        """Write `column` to a ``.npy`` file, and map it: it is never held in memory as a whole."""
        shape = (len(self), *given.shape[1:])
        descr = np.lib.format.dtype_to_descr(given.dtype)
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for piece in self.pieces:
                rows = given[piece.given] if piece.kept is None else kept[piece.kept]
                file.write(np.ascontiguousarray(rows, dtype=given.dtype).data)
        return mapped_array(path, shape, given.dtype)

    def save_texts(self, path: Path, kept: StringTable | None, given: Sequence[str | None]) -> None:
        """Write a column of texts to a string table, as `save_column` does with numbers."""
        with StringTableWriter(path) as writer:
            for piece in self.pieces:
                if piece.kept is None or kept is None:
                    writer.extend([given[piece.given]])
                else:
                    writer.copy(kept, piece.kept)

    def write(self, folder: Path) -> dict[str, Path]:
        """Write what `LayeredIds` takes beside the base."""
        files = {name: folder / name for name in (DELTA_IDS, PLACES, TOMBSTONES)}
        with IdTable.writer(files[DELTA_IDS]) as ids:
            for piece in self.pieces:
                if piece.kept is None or self.last is None:
                    ids.extend([self.upserts[piece.given]])
                else:
                    self.last.copy(ids, piece.kept)
        save_array(files[PLACES], self.layers.places)
        save_array(files[TOMBSTONES], self.layers.tombstones)
        return files

    def _piece(self, start: int, stop: int) -> "Piece":
        old = int(self.kept[start])
        return Piece(
            rows=slice(start, stop),
            kept=slice(old, old + stop - start) if old >= 0 else None,
            given=int(self.given[start]),
        )


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of the next delta that stood so in the last one, or a single upsert."""

    rows: slice
    """Where they are."""
    kept: slice | None
    """Where they were in the last delta; ``None``: it is an upsert."""
    given: int
    """Which of all upserts; -1: it is none."""


@dataclass(frozen=True, slots=True)
class _Stretch:
    """The delta's rows of one input; columns of equal length."""

    places: Rows
    kept: Rows
    given: Rows

    def __len__(self) -> int:
        return len(self.kept)


def succeed(last: LayeredIds, inputs: InputRows, changes: Sequence[ChangedIds]) -> Succession:
    """Apply one batch, which has ``changes`` for each of the inputs."""
    dead: list[int] = []
    stretches: list[_Stretch] = []
    all_upserts: list[str] = []
    for number, changed in enumerate(changes):
        of_base, of_delta = inputs.of(number)
        # By code point, which is the order of the UTF-8 bytes.
        order = sorted(range(len(changed.upserts)), key=changed.upserts.__getitem__)
        upserts = [changed.upserts[row] for row in order]
        in_base = _rows(last.base, upserts, of_base)
        gone = _rows(last.base, changed.deletes, of_base)
        dead += (row for row, there in in_base + gone if there)
        kept, before = _untouched(last, of_delta, upserts, changed.deletes)
        first = len(all_upserts)
        places = np.array([row for row, _ in in_base], dtype=np.int64)
        stretches.append(
            _Stretch(
                places=np.insert(last.layers.places[kept], before, places),
                kept=np.insert(kept, before, -1),
                given=np.insert(np.full(len(kept), -1), before, np.array(order, np.int64) + first),
            )
        )
        all_upserts += changed.upserts
    return Succession(
        layers=Layers(
            last.layers.base,
            row_set_of(last.layers.tombstones, np.array(dead, dtype=np.int64)),
            np.concatenate([one.places for one in stretches]),
        ),
        kept=np.concatenate([one.kept for one in stretches]),
        given=np.concatenate([one.given for one in stretches]),
        inputs=InputRows(base=inputs.base, delta=tuple(map(len, stretches))),
        last=last.delta,
        upserts=all_upserts,
    )


def _untouched(
    last: LayeredIds, stretch: slice, upserts: Sequence[str], deletes: Sequence[str]
) -> tuple[Rows, Rows]:
    """The last delta's rows that stay, and before which of them each upsert stands."""
    kept = np.arange(stretch.start, stretch.stop)
    if last.delta is None:
        return kept, np.zeros(len(upserts), dtype=np.int64)
    found = _rows(last.delta, upserts, stretch)
    touched = [row for row, there in found + _rows(last.delta, deletes, stretch) if there]
    kept = without(kept, row_set_of(np.array(touched, dtype=np.int64)))
    return kept, np.searchsorted(kept, np.array([row for row, _ in found], dtype=np.int64))


def _rows(ids: IdTable, entry_ids: Sequence[str], stretch: slice) -> list[tuple[int, bool]]:
    """Where each id stands in a stretch or would stand, and whether it is there."""
    return [_row(ids, entry_id, stretch) for entry_id in entry_ids]


def _row(ids: IdTable, entry_id: str, stretch: slice) -> tuple[int, bool]:
    row = ids.place(entry_id, stretch.start, stretch.stop)
    return row, row < stretch.stop and ids[row] == entry_id


def _stretch(counts: tuple[int, ...], number: int) -> slice:
    bounds = list(pairwise(accumulate(counts, initial=0)))
    return slice(*bounds[number])


class Unchanged:
    """Gates on ids: what a batch did not touch is in the new version as it was in the last one.

    Args:
        new: the version that is checked.
        last: the one that it continues.
        touched: the ids that the batch brought, changed or deleted.
    """

    def __init__(self, new: LayeredIds, last: LayeredIds, touched: set[str]) -> None:
        self._new = new
        self._last = last
        self._touched = touched

    def kept(self, same_delta: Callable[[int, int, int], bool]) -> Verdict:
        """Everything is where it was: in the base, or in the delta with all it had.

        ``same_delta(new, last, count)`` says whether ``count`` rows of the new delta from row
        ``new`` on hold what those of the last delta from row ``last`` on hold.
        """
        was, is_now = self._last.layers, self._new.layers
        if len(without(was.tombstones, is_now.tombstones)):
            return Verdict(False, "an entry of the base that was deleted is back")
        newly = without(is_now.tombstones, was.tombstones)
        if not self._touched.issuperset(self._new.base.many(newly)):
            return Verdict(False, "an entry of the base is gone that did not change")
        last = without(was.delta_rows, self._last.delta_rows(self._touched))
        new = without(is_now.delta_rows, self._brought)
        if len(last) != len(new):
            return Verdict(False, "the delta lost an entry that did not change, or made one up")
        if not np.array_equal(was.places[last], is_now.places[new]):
            return Verdict(False, "an entry of the delta stands elsewhere that did not change")
        changed = sum(
            not self._same(start_new, start_last, count, same_delta)
            for start_new, start_last, count in (
                (int(new[start]), int(last[start]), stop - start) for start, stop in runs(last, new)
            )
        )
        return equal(changed, 0, "rows of the delta changed that the batch did not touch")

    def in_order(self) -> Verdict:
        """What the batch brought stands where the order of the ids has it; the rest did before."""
        wrong = self._new.out_of_order(rows=self._brought)
        return equal(wrong, 0, "ids of the delta stand elsewhere")

    def unique(self) -> Verdict:
        """What the batch brought has no id of a live row of the base."""
        return equal(self._new.repeats(self._brought), 0, "ids repeat each other")

    @cached_property
    def _brought(self) -> Rows:
        """The new delta's rows that the batch touched."""
        return self._new.delta_rows(self._touched)

    def _same(
        self, new: int, last: int, count: int, same_delta: Callable[[int, int, int], bool]
    ) -> bool:
        if self._new.delta is None or self._last.delta is None:
            return not count
        ids_alike = self._new.delta.same(new, self._last.delta, last, count=count)
        return ids_alike and same_delta(new, last, count)
