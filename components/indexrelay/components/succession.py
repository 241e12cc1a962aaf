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
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from indexrelay.components.id_table import IdTable
from indexrelay.components.layered_ids import DELTA_IDS, PLACES, TOMBSTONES, LayeredIds
from indexrelay.components.layers import Layers
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
        old, new = self.kept >= 0, self.given >= 0
        made[old] = kept[self.kept[old]]
        made[new] = given[self.given[new]]
        return made

    def write(self, folder: Path) -> dict[str, Path]:
        """Write what `LayeredIds` takes beside the base."""
        files = {name: folder / name for name in (DELTA_IDS, PLACES, TOMBSTONES)}
        IdTable.write(files[DELTA_IDS], self.ids).close()
        np.save(files[PLACES], self.layers.places, allow_pickle=False)
        np.save(files[TOMBSTONES], self.layers.tombstones, allow_pickle=False)
        return files


class _Row(NamedTuple):
    """One row of the next delta; they sort as they will stand."""

    number: int
    """Which input."""
    entry_id: str  # by code point, which is the order of the UTF-8 bytes
    place: int
    kept: int
    given: int


def succeed(last: LayeredIds, inputs: InputRows, changes: Sequence[ChangedIds]) -> Succession:
    """Apply one batch, which has ``changes`` for each of the inputs."""
    dead = set(last.layers.tombstones.tolist())
    rows: list[_Row] = []
    first_given = 0
    for number, changed in enumerate(changes):
        of_base, of_delta = inputs.of(number)
        touched = {*changed.upserts, *changed.deletes}
        rows += (row for row in _old_rows(last, number, of_delta) if row.entry_id not in touched)
        for entry_id in changed.deletes:
            dead.update(_base_row(last.base, entry_id, of_base)[1])
        for given, entry_id in enumerate(changed.upserts, start=first_given):
            place, replaced = _base_row(last.base, entry_id, of_base)
            dead.update(replaced)
            rows.append(_Row(number, entry_id, place, -1, given))
        first_given += len(changed.upserts)
    rows.sort()
    return Succession(
        layers=Layers(
            last.layers.base,
            np.array(sorted(dead), dtype=np.int64),
            _column(row.place for row in rows),
        ),
        ids=[row.entry_id for row in rows],
        kept=_column(row.kept for row in rows),
        given=_column(row.given for row in rows),
        inputs=InputRows(
            base=inputs.base,
            delta=tuple(
                sum(row.number == number for row in rows) for number in range(len(inputs.base))
            ),
        ),
    )


def _old_rows(last: LayeredIds, number: int, stretch: slice) -> Iterator[_Row]:
    if last.delta is None:
        return
    places = last.layers.places[stretch].tolist()
    named = zip(last.delta[stretch], places, strict=True)
    for row, (entry_id, place) in enumerate(named, start=stretch.start):
        yield _Row(number, entry_id, place, row, -1)


def _base_row(base: IdTable, entry_id: str, stretch: slice) -> tuple[int, tuple[int, ...]]:
    """Where an id stands in the base or would stand, and the row that already is it, if one is."""
    place = base.place(entry_id, stretch.start, stretch.stop)
    there = place < stretch.stop and base[place] == entry_id
    return place, (place,) if there else ()


def _stretch(counts: tuple[int, ...], number: int) -> slice:
    bounds = list(pairwise(accumulate(counts, initial=0)))
    return slice(*bounds[number])


def _column(values: Iterator[int]) -> Rows:
    return np.fromiter(values, dtype=np.int64)
