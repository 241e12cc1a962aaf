"""From one version's layers to the next one's: what a batch does to delta and tombstones.

Only the batch is looked up in the base: twenty comparisons for each id among a million. What the
delta held before is merged with it, so a row is in the delta once, with its last state, and the
delta itself needs no tombstones. Rows of several inputs stand input after input, so every look-up
stays inside the rows of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.id_table import IdTable
from indexrelay.components.layered_ids import DELTA_IDS, PLACES, TOMBSTONES, LayeredIds
from indexrelay.components.layers import Layers
from indexrelay.components.runs import runs
from indexrelay.components.string_table import Rows

NumberT = TypeVar("NumberT", bound=np.generic)


@dataclass(frozen=True, kw_only=True)
class InputRows:
    """How many rows of each input there are, in the order of the inputs."""

    base: tuple[int, ...]
    delta: tuple[int, ...]

    def of(self, number: int) -> tuple[slice, slice]:
        """The rows of one input, in the base and in the delta."""
        return _stretch(self.base, number), _stretch(self.delta, number)


@dataclass(frozen=True, kw_only=True)
class ChangedIds:
    """What changed in one input."""

    upserts: Sequence[str]
    """No id twice."""
    deletes: Sequence[str]
    """Ids that went, or never were."""


@dataclass(frozen=True, kw_only=True)
class Succession:
    """The next version's layers, and where each row of its delta comes from."""

    layers: Layers
    ids: list[str]
    """Of the delta's rows."""
    kept: Rows
    """For each row of the delta: its row in the last delta, or -1."""
    given: Rows
    """For each row of the delta: which of all upserts, counted over the inputs; or -1."""
    inputs: InputRows

    def column(self, kept: NDArray[NumberT], given: NDArray[NumberT]) -> NDArray[NumberT]:
        """One column of the delta, from the last delta's rows and from those of the upserts."""
        made = np.empty((len(self.ids), *given.shape[1:]), dtype=given.dtype)
        for start, stop in self.pieces():
            first = self.kept[start]
            if first >= 0:
                made[start:stop] = kept[first : first + stop - start]
        new = self.given >= 0
        made[new] = given[self.given[new]]
        return made

    def pieces(self) -> list[tuple[int, int]]:
        """The delta's rows, in pieces that stood so in the last delta; upserts one by one."""
        return runs(np.where(self.kept < 0, -2, self.kept))  # -1 would go on with row 0

    def write(self, folder: Path) -> dict[str, Path]:
        """Write what `LayeredIds` takes beside the base."""
        files = {name: folder / name for name in (DELTA_IDS, PLACES, TOMBSTONES)}
        IdTable.write(files[DELTA_IDS], self.ids).close()
        np.save(files[PLACES], self.layers.places, allow_pickle=False)
        np.save(files[TOMBSTONES], self.layers.tombstones, allow_pickle=False)
        return files


@dataclass(frozen=True, slots=True)
class _Stretch:
    """The delta's rows of one input; columns of equal length."""

    ids: list[str]
    places: Rows
    kept: Rows
    given: Rows

    def __len__(self) -> int:
        return len(self.ids)

    def merged(self, other: "_Stretch") -> "_Stretch":
        """Both, in the order of the ids."""
        ids = self.ids + other.ids
        # By code point, which is the order of the UTF-8 bytes; two sorted runs are merged.
        order = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
        return _Stretch(
            ids=[ids[row] for row in order.tolist()],
            places=np.concatenate([self.places, other.places])[order],
            kept=np.concatenate([self.kept, other.kept])[order],
            given=np.concatenate([self.given, other.given])[order],
        )


def succeed(last: LayeredIds, inputs: InputRows, changes: Sequence[ChangedIds]) -> Succession:
    """Apply one batch, which has ``changes`` for each of the inputs."""
    dead: list[int] = []
    stretches: list[_Stretch] = []
    first_given = 0
    for number, changed in enumerate(changes):
        of_base, of_delta = inputs.of(number)
        upserts = sorted(changed.upserts)
        found = [_base_row(last.base, entry_id, of_base) for entry_id in upserts]
        gone = [_base_row(last.base, entry_id, of_base) for entry_id in changed.deletes]
        dead += (place for place, there in found + gone if there)
        old = _last_stretch(last, of_delta, {*changed.upserts, *changed.deletes})
        given = {entry_id: row for row, entry_id in enumerate(changed.upserts, first_given)}
        new = _Stretch(
            ids=upserts,
            places=_column(place for place, _ in found),
            kept=np.full(len(upserts), -1),
            given=_column(given[entry_id] for entry_id in upserts),
        )
        stretches.append(old.merged(new))
        first_given += len(upserts)
    return Succession(
        layers=Layers(
            last.layers.base,
            np.union1d(last.layers.tombstones, np.array(dead, dtype=np.int64)),
            np.concatenate([one.places for one in stretches]),
        ),
        ids=[entry_id for one in stretches for entry_id in one.ids],
        kept=np.concatenate([one.kept for one in stretches]),
        given=np.concatenate([one.given for one in stretches]),
        inputs=InputRows(base=inputs.base, delta=tuple(map(len, stretches))),
    )


def _last_stretch(last: LayeredIds, stretch: slice, without: set[str]) -> _Stretch:
    ids = [] if last.delta is None else last.delta[stretch]
    rows = [row for row, entry_id in enumerate(ids) if entry_id not in without]
    kept = np.array(rows, dtype=np.int64) + stretch.start
    return _Stretch(
        ids=[ids[row] for row in rows],
        places=last.layers.places[kept],
        kept=kept,
        given=np.full(len(kept), -1),
    )


def _base_row(base: IdTable, entry_id: str, stretch: slice) -> tuple[int, bool]:
    """Where an id stands in the base or would stand, and whether it is there."""
    place = base.place(entry_id, stretch.start, stretch.stop)
    return place, place < stretch.stop and base[place] == entry_id


def _stretch(counts: tuple[int, ...], number: int) -> slice:
    bounds = list(pairwise(accumulate(counts, initial=0)))
    return slice(*bounds[number])


def _column(values: Iterator[int]) -> Rows:
    return np.fromiter(values, dtype=np.int64)
