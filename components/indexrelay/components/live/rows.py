"""The changes of one collection since a generation, as rows that are only ever appended.

Each state of an entry is a row: the entry with its vector, text and payload, or that it was
deleted. A row has the generation in which it was **born** and the one in which it **died**, when
the same entry changed again. So all that a query needs to see one moment is two numbers, how many
rows there are and the generation (`LiveView`): rows that come later lie behind the first number,
and a row that dies later died above the second. One thread writes; any number reads, and none takes
a lock.

The arrays do not grow. Where there is no room left (`LiveRows.with_room`), and where a release
covers what was held (`LiveRows.above`), the writer makes new rows with what is still needed;
queries finish on the old ones.

Vectors lie without gaps in an array of their own, since most of what reads them reads all: a row
that says that its entry was deleted has none.
"""

import contextlib
import mmap
from array import array
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from indexrelay.components.vector_index.metrics import prepared
from indexrelay.schemas.filters import (
    All,
    AnyOf,
    Between,
    Condition,
    Exists,
    Fields,
    FieldType,
    Filter,
    Not,
    Some,
    Value,
    values_of,
)
from indexrelay.schemas.settings import Metric
from indexrelay.storage.entries import Changes, Vectors

if TYPE_CHECKING:
    from indexrelay.components.live.codes import LiveCodes
    from indexrelay.components.live.texts import RowTerms
    from indexrelay.components.text_index.analyser import Analyser

Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]
Places = NDArray[np.int32]

_NEVER: Final = 2**63 - 1
_SMALL_PAGES: Final[int | None] = getattr(mmap, "MADV_NOHUGEPAGE", None)
"""Linux has it."""
_FEWEST: Final = 1024
_FEWEST_SLOTS: Final = 1024
"""A power of two, as every larger number of them."""
_MOST_REPLACED: Final = 0.25
"""Of rows that are copied where there is no room left; of more the replaced ones are left out."""
_MOST_FILTERS: Final = 64
"""Filters whose matches are kept; a kilobyte for a thousand rows each."""
FieldValues = list[tuple[Value, ...] | None]
"""By row, what a payload has in one field; ``None``: it lacks it."""
Holds = Callable[[tuple[Value, ...]], bool]


class RowsById:
    """The newest row of each entry; one thread puts, any number finds without a lock.

    A hash table of row numbers, four bytes each: the ids lie in the list that it was made over. A
    dict takes 60 bytes more for each row, a ninth of a vector of 128 dimensions.
    """

    def __init__(self, ids: list[str]) -> None:
        """Nothing yet, of the rows that ``ids`` has the ids of."""
        self._ids = ids
        self._count = 0
        self._slots = array("i", [-1]) * _FEWEST_SLOTS

    def __len__(self) -> int:
        """How many entries have rows."""
        return self._count

    def __contains__(self, entry_id: object) -> bool:
        return isinstance(entry_id, str) and self.find(entry_id) >= 0

    def find(self, entry_id: str) -> int:
        """The row of an entry; -1: it has none."""
        return self._looked_up(self._slots, entry_id)[1]

    def put(self, entry_id: str, row: int, *, replaces: bool) -> None:
        """Have ``row``, which is in the list of ids, be the newest one of an entry.

        ``replaces``: whether it had one before.
        """
        slots = self._slots
        slots[self._looked_up(slots, entry_id)[0]] = row
        self._count += not replaces
        if 2 * self._count > len(slots):
            # A new table: others may be looking through the old one.
            larger = array("i", [-1]) * (2 * len(slots))
            for known in slots:
                if known >= 0:
                    larger[self._looked_up(larger, self._ids[known])[0]] = known
            self._slots = larger

    def over(self, ids: list[str]) -> "RowsById":
        """The same, over a longer list that begins with the same ids."""
        copied = RowsById(ids)
        copied._count, copied._slots = self._count, self._slots[:]
        return copied

    def _looked_up(self, slots: "array[int]", entry_id: str) -> tuple[int, int]:
        """Where the row of an entry is, or belongs, and what was there: it may be put meanwhile."""
        ids, last = self._ids, len(slots) - 1
        slot = hash(entry_id) & last
        while (row := slots[slot]) >= 0 and ids[row] != entry_id:
            slot = (slot + 1) & last
        return slot, row


class LiveRows:
    """Rows above a generation; written by one thread, read by any without a lock."""

    def __init__(
        self, *, epoch: str, floor: int, dimension: int, metric: Metric, capacity: int = _FEWEST
    ) -> None:
        """No rows yet.

        Args:
            epoch: the life of the collection that generations count in.
            floor: every change above it will be in here.
            dimension: of every vector.
            metric: under cosine vectors are brought to unit length, as they are in an index.
            capacity: rows that there is room for.
        """
        self.epoch = epoch
        self.floor = floor
        self.dimension = dimension
        self.metric = metric
        self.ids: list[str] = []
        self.texts: list[str | None] = []
        self.payloads: list[bytes | None] = []
        """Each as JSON in UTF-8."""
        self.vectors: Vectors = _room_for(capacity, dimension)
        """Shape ``(capacity, dimension)``, by place."""
        self.places: Places = np.empty(capacity, dtype=np.int32)
        """By row, the place of its vector; -1: it has none, as its entry was deleted."""
        self.rows_at: Places = np.empty(capacity, dtype=np.int32)
        """By place, the row whose vector it is."""
        self.codes: LiveCodes | None = None
        """Of the vectors at the first places; replaced by those of more, never changed."""
        self.terms: dict[Analyser, list[RowTerms]] = {}
        """What text indexes made of the texts of the first rows; lists are replaced by longer ones,
        never changed."""
        self.born: Rows = np.empty(capacity, dtype=np.int64)
        self.died: Rows = np.empty(capacity, dtype=np.int64)
        self.present: Mask = np.zeros(capacity, dtype=bool)
        """Whether the row is an entry; else its entry was deleted."""
        self._before: Places = np.empty(capacity, dtype=np.int32)
        """By row: the row with the state before of the same entry; -1: there is none."""
        self._placed = 0
        self._newest = RowsById(self.ids)
        self.changed: Container[str] = self._newest
        """The entries that have rows, in views that came later, too."""
        self._fields: dict[tuple[str, FieldType], FieldValues] = {}
        self._matches: dict[tuple[Filter, tuple[tuple[str, FieldType], ...]], Mask] = {}
        self.view = LiveView(self, 0, floor, 0, 0)
        """What the newest query sees; replaced, never changed."""

    @property
    def entries(self) -> int:
        """How many entries were written or deleted, each counted once."""
        return len(self._newest)

    def has_room(self, changes: Sequence[Changes]) -> bool:
        """Whether so many rows can be appended."""
        return len(self.ids) + _count(changes) <= len(self.vectors)

    def grown_by(self, changes: Sequence[Changes]) -> int:
        """How many `entries` there would be with these changes."""
        known = self._newest
        return len(known) + sum(
            each not in known
            for some in changes
            for column in (some.upserts.ids, some.deletes)
            for each in column
        )

    def append(self, changes: Sequence[Changes], generation: int) -> None:
        """Append what changed up to ``generation``, each id at most once, and let it be seen.

        There has to be room for it. Queries see all of it or, in an older view, nothing.
        """
        for some in changes:
            upserts = some.upserts
            vectors = prepared(upserts.vectors, self.metric)
            for row, entry_id in enumerate(upserts.ids):
                payload = upserts.payloads[row]
                self._put(
                    entry_id,
                    vectors[row],
                    upserts.texts[row],
                    None if payload is None else payload.encode(),
                    generation,
                )
            for entry_id in some.deletes:
                self._put(entry_id, None, None, None, generation)
        self._show(generation)

    def with_room(self, changes: Sequence[Changes]) -> "LiveRows":
        """New rows above the same floor, with room for ``changes``."""
        count = len(self.ids)
        if count - self.entries > _MOST_REPLACED * count:
            return self.above(self.floor, room_for=changes)
        grown = LiveRows(
            epoch=self.epoch,
            floor=self.floor,
            dimension=self.dimension,
            metric=self.metric,
            capacity=max(_FEWEST, 2 * (count + _count(changes))),
        )
        # As they are, so that what was made of them stays right.
        for own, old in (
            (grown.places, self.places),
            (grown.born, self.born),
            (grown.died, self.died),
            (grown.present, self.present),
            (grown._before, self._before),
        ):
            own[:count] = old[:count]
        grown.rows_at[: self._placed] = self.rows_at[: self._placed]
        grown.vectors[: self._placed] = self.vectors[: self._placed]
        grown.ids += self.ids
        grown.texts += self.texts
        grown.payloads += self.payloads
        grown.terms = dict(self.terms)
        grown._newest = grown.changed = self._newest.over(grown.ids)
        grown._placed = self._placed
        grown.codes = self.codes
        grown._show(self.view.generation)
        return grown

    def above(self, floor: int, *, room_for: Sequence[Changes] = ()) -> "LiveRows":
        """New rows with the newest states of what was born above ``floor``, and room for more."""
        count = len(self.ids)
        is_newest = (self.died[:count] == _NEVER) & (self.born[:count] > floor)
        newest = np.flatnonzero(is_newest).tolist()
        rows = LiveRows(
            epoch=self.epoch,
            floor=floor,
            dimension=self.dimension,
            metric=self.metric,
            capacity=max(_FEWEST, 2 * (len(newest) + _count(room_for))),
        )
        for row in newest:
            rows._put(
                self.ids[row],
                self.vector(row) if self.present[row] else None,
                self.texts[row],
                self.payloads[row],
                int(self.born[row]),
            )
        for analyser, terms in self.terms.copy().items():
            rows.terms[analyser] = [terms[row] for row in newest if row < len(terms)]
        rows._show(max(floor, self.view.generation))
        return rows

    def vector(self, row: int) -> Vectors:
        """The vector of a row that is an entry; not to be changed."""
        vector: Vectors = self.vectors[self.places[row]]
        return vector

    def born_before(self, row: int, *, above: int) -> bool:
        """Whether the entry of a row has an earlier one that was born above a generation."""
        before = self._before.item(row)
        return before >= 0 and bool(self.born[before] > above)

    def newest_row(self, entry_id: str, view: "LiveView") -> int | None:
        """The row that a view has for an entry, whichever state it says; ``None``: none."""
        row = self._newest.find(entry_id)
        while row >= view.count:  # it came after the view
            row = self._before.item(row)
        return None if row < 0 else row

    def matching(self, asked: Filter, kinds: Fields, count: int) -> Mask:
        """Which of the first ``count`` rows have a payload that a filter matches.

        Args:
            asked: a filter over some of ``kinds``.
            kinds: the type of each field.
            count: rows that a view has.
        """
        # Versions that were declared differently read one payload differently.
        key = asked, tuple(kinds.items())
        known = self._matches.get(key)
        if known is not None and len(known) >= count:
            return known[:count]
        first = 0 if known is None else len(known)
        more = self._evaluated(asked.condition, kinds, first, count)
        found = more if known is None else np.concatenate([known, more])
        # Another thread may have come further meanwhile: either is right for its rows.
        matches = self._matches if len(self._matches) < _MOST_FILTERS else {}
        self._matches = {**matches, key: found}
        return found

    def _show(self, generation: int) -> None:
        """Let queries see what there is."""
        count = len(self.ids)
        self.view = LiveView(self, count, generation, self._placed, count - self.entries)

    def _put(
        self,
        entry_id: str,
        vector: Vectors | None,
        text: str | None,
        payload: bytes | None,
        generation: int,
    ) -> None:
        row = len(self.ids)
        before = self._newest.find(entry_id)
        self.born[row], self.died[row], self._before[row] = generation, _NEVER, before
        self.present[row] = vector is not None
        self.places[row] = -1
        if vector is not None:
            place = self._placed
            self.vectors[place], self.rows_at[place], self.places[row] = vector, row, place
            self._placed = place + 1
        self.texts.append(text)
        self.payloads.append(payload)
        self.ids.append(entry_id)
        self._newest.put(entry_id, row, replaces=before >= 0)
        if before >= 0:
            self.died[before] = generation

    def _evaluated(self, condition: Condition, kinds: Fields, first: int, end: int) -> Mask:
        match condition:
            case AnyOf(field, values):
                wanted = frozenset(values)
                return self._each(
                    field, kinds, first, end, lambda given: not wanted.isdisjoint(given)
                )
            case Between():
                return self._each(
                    condition.field, kinds, first, end, lambda given: _lies(given[0], condition)
                )
            case Exists(field):
                return self._each(field, kinds, first, end, lambda _: True)
            case Not(part):
                return ~self._evaluated(part, kinds, first, end)
            case All(parts):
                found = np.ones(end - first, dtype=bool)
                for part in parts:
                    found &= self._evaluated(part, kinds, first, end)
                return found
            case Some(parts):
                found = np.zeros(end - first, dtype=bool)
                for part in parts:
                    found |= self._evaluated(part, kinds, first, end)
                return found

    def _each(self, field: str, kinds: Fields, first: int, end: int, holds: Holds) -> Mask:
        values = self._values(field, kinds[field], end)[first:end]
        return np.fromiter((given is not None and holds(given) for given in values), dtype=bool)

    def _values(self, field: str, kind: FieldType, end: int) -> FieldValues:
        known = self._fields.get((field, kind), [])
        if len(known) < end:
            more = [_values(payload, field, kind) for payload in self.payloads[len(known) : end]]
            known = known + more  # a new list: another query may be reading the old one
            self._fields = {**self._fields, (field, kind): known}
        return known


@dataclass(frozen=True, slots=True)
class LiveView:
    """The rows as they were at one moment."""

    rows: LiveRows
    count: int
    """How many rows there were."""
    generation: int
    """The newest generation in them."""
    placed: int
    """How many of them have a vector."""
    replaced: int
    """How many of them have a newer one of the same entry."""

    def current(self, above: int) -> Rows:
        """The newest row of each entry that changed after the generation ``above``."""
        rows, count = self.rows, self.count
        return np.flatnonzero((rows.died[:count] > self.generation) & (rows.born[:count] > above))

    def find(self, entry_id: str, above: int) -> int | None:
        """The newest row of an entry; ``None``: it did not change after ``above``."""
        row = self.rows.newest_row(entry_id, self)
        return None if row is None or self.rows.born[row] <= above else row


def _room_for(capacity: int, dimension: int) -> Vectors:
    """Vectors whose pages take no memory before they are written.

    Small ones: NumPy asks for pages of 2 MB, of which ten thousand rows leave half a page empty.
    """
    memory = mmap.mmap(-1, 4 * capacity * dimension, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if _SMALL_PAGES is not None:
        with contextlib.suppress(OSError):  # a kernel without large ones
            memory.madvise(_SMALL_PAGES)
    return np.frombuffer(memory, dtype=np.float32).reshape(capacity, dimension)


def _count(changes: Iterable[Changes]) -> int:
    return sum(len(some.upserts) + len(some.deletes) for some in changes)


def _lies(value: Any, limits: Between) -> bool:
    low, high = limits.low, limits.high
    above = low is None or (value > low if limits.above_low else value >= low)
    return above and (high is None or (value < high if limits.below_high else value <= high))


def _values(payload: bytes | None, field: str, kind: FieldType) -> tuple[Value, ...] | None:
    """What a payload has in a field; what is of another type counts as missing, as in a version."""
    if payload is None:
        return None
    try:
        return values_of(from_json(payload), field, kind)
    except ValueError:
        return None
