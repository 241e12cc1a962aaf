"""Row numbers that stand in the order of the ids, with room between them.

Entries with equal scores are answered in the order of their rows. So that a file to which batches
were applied answers like one that was written in one piece, its rows have to stand in the same
order: that of the ids. A new file leaves `GAP` - 1 numbers free between two rows, and a new id
takes one between its neighbours. Where too few are free, the neighbours to both sides are numbered
again together with the new ones, as many of them as it takes to have room to spare (order
maintenance as Bender et al. 2002 simplify it). Past the last row there is always room.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from indexrelay.schemas.errors import IndexRelayError

GAP: Final = 64
"""Below 128, so that the distance of neighbours in an FTS5 list still is one byte."""
_ROOM: Final = 8
"""Numbers for each row in a stretch that is numbered again: the next ids there find room, too."""
_WIDEST: Final = 4096
"""Rows that may be numbered again for one place; a file in which that is too few is full of ids."""


class NoRoomError(IndexRelayError):
    """Raised inside of a build that continues another, which then is a full one."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """Rows for new ids, and for old ones that have to make way."""

    rows: tuple[int, ...]
    """Of the new ids, in their order."""
    moved: tuple[tuple[int, int], ...]
    """Old and new number of every row that gets another one."""


def first_numbers(first: int, count: int) -> range:
    """The row numbers of the ``count`` entries from the ``first``-th (0) on, in a new file."""
    return range((first + 1) * GAP, (first + count + 1) * GAP, GAP)


def runs(connection: sqlite3.Connection, new_ids: Sequence[str]) -> Iterator[list[str]]:
    """``new_ids``, sorted and none of them in the file, as runs between the same two entries.

    Each run is to be numbered and written before the next one is asked for. They are told apart by
    the id before them: its row may get another number meanwhile.
    """
    before = "SELECT id FROM entries WHERE id < ? ORDER BY id DESC LIMIT 1"
    for _, run in groupby(new_ids, key=lambda new: connection.execute(before, (new,)).fetchone()):
        yield list(run)


def number(connection: sqlite3.Connection, run: Sequence[str]) -> Numbered:
    """Find a row for every id of one run.

    Raises:
        NoRoomError: too many rows would have to be numbered again.
    """
    before = _row_before(connection, run[0])
    after = _row_after(connection, run[0])
    if after is None:
        last = -1 if before is None else before
        rows = range(last + GAP, last + GAP * (len(run) + 1), GAP)
        return Numbered(tuple(rows), ())
    low = -1 if before is None else before
    if after - low > len(run):
        return Numbered(_spread(low, after, len(run)), ())
    return _numbered_again(connection, low, after, len(run))


def _numbered_again(connection: sqlite3.Connection, low: int, high: int, new: int) -> Numbered:
    reach = 1
    while reach <= _WIDEST:
        left, below = _rows_up_to(connection, low, reach)
        right, above = _rows_from(connection, high, reach)
        total = len(left) + new + len(right)
        end = below + total * GAP + 1 if above is None else above
        if end - below > total * _ROOM:
            rows = _spread(below, end, total)
            ours = slice(len(left), len(left) + new)
            theirs = rows[: ours.start] + rows[ours.stop :]
            moved = zip((*left, *right), theirs, strict=True)
            return Numbered(rows[ours], tuple(pair for pair in moved if pair[0] != pair[1]))
        reach *= 2
    raise NoRoomError


def _spread(low: int, high: int, count: int) -> tuple[int, ...]:
    """``count`` different numbers between ``low`` and ``high``, as evenly as can be."""
    return tuple(low + (place * (high - low)) // (count + 1) for place in range(1, count + 1))


def _rows_up_to(
    connection: sqlite3.Connection, row: int, count: int
) -> tuple[tuple[int, ...], int]:
    """The last ``count`` rows up to ``row`` in their order, and the one before them (-1: none)."""
    query = "SELECT row FROM entries WHERE row <= ? ORDER BY row DESC LIMIT ?"
    rows = [found for (found,) in connection.execute(query, (row, count + 1))]
    bound = rows.pop() if len(rows) > count else -1
    return tuple(reversed(rows)), bound


def _rows_from(
    connection: sqlite3.Connection, row: int, count: int
) -> tuple[tuple[int, ...], int | None]:
    """The first ``count`` rows from ``row`` on, and the one after them (``None``: none)."""
    query = "SELECT row FROM entries WHERE row >= ? ORDER BY row LIMIT ?"
    rows = [found for (found,) in connection.execute(query, (row, count + 1))]
    bound = rows.pop() if len(rows) > count else None
    return tuple(rows), bound


def _row_before(connection: sqlite3.Connection, entry_id: str) -> int | None:
    return _row(
        connection, "SELECT row FROM entries WHERE id < ? ORDER BY id DESC LIMIT 1", entry_id
    )


def _row_after(connection: sqlite3.Connection, entry_id: str) -> int | None:
    return _row(connection, "SELECT row FROM entries WHERE id > ? ORDER BY id LIMIT 1", entry_id)


def _row(connection: sqlite3.Connection, query: str, entry_id: str) -> int | None:
    found = connection.execute(query, (entry_id,)).fetchone()
    return None if found is None else int(found[0])
