"""The best entries of one match expression, among those that may be found.

BM25 weighs a term by all texts, whatever a filter leaves of them, so a filtered answer is the whole
answer with entries taken out. Where few entries match the filter, their rows go into the query, and
FTS5 weighs only what is among them. Else the ranking is read from its top, and the entries are
taken that match, until there are enough: more of it each time where they are not.
"""

import json
import sqlite3
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np

from indexrelay.components.formats.string_table import Rows
from indexrelay.components.layered import among

Row = tuple[str, float, str | None]
"""An id, its score and its payload."""
_SEARCH: Final = """
    SELECT entries.id, -found.rank, entries.payload
    FROM (
        SELECT rowid, rank FROM {table} WHERE {table} MATCH ? {condition}
        ORDER BY rank, rowid LIMIT ?
    ) AS found
    JOIN entries ON entries.row = found.rowid
    ORDER BY found.rank, found.rowid
"""
_RANKED: Final = """
    SELECT rowid FROM {table} WHERE {table} MATCH ? ORDER BY rank, rowid LIMIT ?
"""
_AMONG: Final = "AND +rowid IN (SELECT value FROM json_each(?))"
"""The plus sign keeps SQLite from asking FTS5 for each of these rows by itself."""
_MOST_ROWS: Final = 20_000
"""That go into a query: SQLite sorts them in 5 ms."""
_MORE: Final = 8
"""So many times as much of the ranking is read where too few of it matched."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """What was found, and how."""

    entries: Iterable[Row]
    """Read as they are asked for."""
    plan: str
    """See `Explanation.plan`."""
    rounds: int = 1


@dataclass(frozen=True, slots=True)
class Ranking:
    """The entries of a file by how well they fit an expression."""

    connection: sqlite3.Connection
    table: str
    """The FTS5 table: ours, never a caller's."""
    expression: str
    """Of FTS5."""
    entries: int
    """How many the file has."""

    def best(self, k: int, matching: Rows | None, gone: AbstractSet[str]) -> Ranked:
        """The ``k`` that fit best.

        Args:
            k: how many.
            matching: rows that may be found, in increasing order; ``None``: all.
            gone: ids that may not.
        """
        most = k + len(gone)
        if matching is None:
            return self._ranked(self._of("", (), most), k, gone, "unfiltered")
        if len(matching) <= _MOST_ROWS:
            found = self._of(_AMONG, (json.dumps(matching.tolist()),), most)
            return self._ranked(found, k, gone, "exact")
        return self._from_the_top(k, most, matching, gone)

    def _from_the_top(self, k: int, most: int, matching: Rows, gone: AbstractSet[str]) -> Ranked:
        reach = 2 * most * max(self.entries, 1) // len(matching) + most
        query = _RANKED.format(table=self.table)
        rounds = 0
        while True:
            rounds += 1
            top = np.array(
                [row for (row,) in self.connection.execute(query, (self.expression, reach))],
                dtype=np.int64,
            )
            fitting = top[among(top, matching)][:most]
            if len(fitting) == most or len(top) < reach:
                break
            reach *= _MORE
        found = self._of(_AMONG, (json.dumps(fitting.tolist()),), most)
        return self._ranked(found, k, gone, "selector", rounds)

    def _of(self, condition: str, values: tuple[str, ...], most: int) -> Iterable[Row]:
        query = _SEARCH.format(table=self.table, condition=condition)
        return self.connection.execute(query, (self.expression, *values, most))

    def _ranked(
        self, found: Iterable[Row], k: int, gone: AbstractSet[str], plan: str, rounds: int = 1
    ) -> Ranked:
        kept = (row for row in found if row[0] not in gone) if gone else found
        return Ranked(islice(kept, k), plan, rounds)
