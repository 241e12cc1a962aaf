"""Applies changes to a copy of a text index, so that it answers like one written in one piece.

FTS5 keeps words in sorted segments, like a log-structured tree: what changes is written beside what
is there, and merged bit by bit. BM25 needs no more than counts that FTS5 keeps up to date, so the
scores are those of a new file to the last digit.

FTS5 starts a new segment whenever row numbers do not grow. So the rows of a chunk are decided
first, and its texts then go in two passes, each in the order of the rows: out, then in. Rows stand
in the order of the ids, with room between them: a new id takes a number between its neighbours, and
where too few are free, neighbours to both sides are numbered again (order maintenance as Bender et
al. 2002 simplify it).
"""

import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Final

from indexrelay.components.text_index.analyser import Analyser
from indexrelay.components.text_index.database import (
    FORMAT,
    GAP,
    Counts,
    counts_of,
    format_of,
    open_database,
    reading,
    writing,
)
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.storage.entries import Changes


class CannotExtendError(IndexRelayError):
    """Raised inside an incremental build, which then is a full one; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What was applied."""

    upserts: int = 0
    """Entries that came or differ; one that is given again as it was counts for nothing."""
    deletes: int = 0
    moved: int = 0
    """Rows that were numbered again to make room."""

    @property
    def changes(self) -> int:
        """How many entries are not what they were; 0: the file is."""
        return self.upserts + self.deletes

    def __add__(self, other: "Applied") -> "Applied":
        return Applied(
            self.upserts + other.upserts, self.deletes + other.deletes, self.moved + other.moved
        )


@dataclass(frozen=True, kw_only=True)
class Change:
    """What changes made of a file."""

    applied: Applied
    counts: Counts
    rows: frozenset[int]
    """The rows that were written, deleted or numbered again, by their numbers before and after."""


def change_database(
    path: Path, last: Path, chunks: Iterable[Changes], *, analyser: Analyser, before: int, most: int
) -> Change:
    """Apply ``chunks`` to a copy of ``last``; the terms that they bring are merged bit by bit.

    Args:
        path: the new file.
        last: the file of the previous version.
        chunks: what changed since.
        analyser: cuts the texts; the same as cut those that are there.
        before: changes that were applied to ``last`` since it was written from scratch.
        most: so many changes at most, those ``before`` among them.

    Raises:
        CorruptFileError: ``last`` is not what was written.
        CannotExtendError: the file has to be written from scratch.
    """
    with closing(open_database(last)) as known, reading(last):
        if format_of(known) != FORMAT:
            raise CannotExtendError("the last version is from before there was an analyser")
        (identity,) = known.execute("SELECT analyser FROM facts").fetchone()
        if identity != analyser.identity:
            raise CannotExtendError(f"its texts were cut by {identity}, not {analyser.identity}")
    copy_file(last, path)
    applied, rows = Applied(), set[int]()
    with reading(last), writing(path) as connection:
        connection.execute("BEGIN")
        for chunk in chunks:
            applied += _apply(connection, chunk, analyser, rows)
            if before + applied.changes > most:
                raise CannotExtendError(
                    f"more than {most} entries changed since it was written from scratch"
                )
        # FTS5 keeps the size of every text in a row of its own, whose number is that of the text.
        connection.execute(
            "UPDATE facts SET entries = (SELECT count(*) FROM entries), "
            "texts = (SELECT count(text) FROM entries), "
            "findable = (SELECT count(*) FROM terms_docsize)"
        )
        connection.execute("COMMIT")
        counts = counts_of(connection)
    return Change(applied=applied, counts=counts, rows=frozenset(rows))


@dataclass(slots=True)
class _Pass:
    """The texts that a chunk takes out and puts in, by row."""

    rows: set[int]
    """All rows that are not what they were; added to."""
    taken_out: dict[int, str] = field(default_factory=dict)
    put_in: dict[int, str] = field(default_factory=dict)


_STORED: Final = "SELECT row, payload, text FROM entries WHERE id = ?"


def _apply(
    connection: sqlite3.Connection, changes: Changes, analyser: Analyser, rows: set[int]
) -> Applied:
    """Apply one chunk, inside the transaction that is open; ``rows`` get those that change.

    Raises:
        CannotExtendError: new ids find no row number.
    """
    texts = _Pass(rows)
    deletes = sum(_delete(connection, texts, entry_id) for entry_id in changes.deletes)
    given = changes.upserts
    new: list[tuple[str, str | None, str | None]] = []
    updates = 0
    for upsert in zip(given.ids, given.payloads, given.texts, strict=True):
        stored = connection.execute(_STORED, upsert[:1]).fetchone()
        if stored is None:
            new.append(upsert)
        elif stored[1:] != upsert[1:]:
            updates += 1
            _update(connection, texts, stored, upsert)
    moved = _insert(connection, texts, sorted(new))
    _index(connection, texts, analyser)
    return Applied(updates + len(new), deletes, moved)


def _index(connection: sqlite3.Connection, texts: _Pass, analyser: Analyser) -> None:
    """Let the terms and their frequencies follow the texts."""
    more: Counter[str] = Counter()
    out = dict(_cut(texts.taken_out, analyser))
    for terms in out.values():
        more.subtract(set(terms))
    connection.executemany(
        "INSERT INTO terms (terms, rowid, text) VALUES ('delete', ?, ?)",
        ((row, " ".join(terms)) for row, terms in out.items()),
    )
    put_in = dict(_cut(texts.put_in, analyser))
    for terms in put_in.values():
        more.update(set(terms))
    connection.executemany(
        "INSERT INTO terms (rowid, text) VALUES (?, ?)",
        ((row, " ".join(terms)) for row, terms in put_in.items()),
    )
    differing = sorted((term, count) for term, count in more.items() if count)
    connection.executemany(
        "INSERT INTO frequencies VALUES (?, ?) "
        "ON CONFLICT (term) DO UPDATE SET texts = texts + excluded.texts",
        differing,
    )
    fewer = [(term,) for term, count in differing if count < 0]
    connection.executemany("DELETE FROM frequencies WHERE term = ? AND texts <= 0", fewer)


def _cut(texts: Mapping[int, str], analyser: Analyser) -> Iterator[tuple[int, list[str]]]:
    """The terms of each text that has any, in the order of the rows."""
    for row, text in sorted(texts.items()):
        if terms := analyser.terms(text):
            yield row, terms


def _delete(connection: sqlite3.Connection, texts: _Pass, entry_id: str) -> bool:
    stored = connection.execute(_STORED, (entry_id,)).fetchone()
    if stored is None:
        return False
    row, _, text = stored
    if text is not None:
        texts.taken_out[row] = text
    texts.rows.add(row)
    connection.execute("DELETE FROM entries WHERE row = ?", (row,))
    return True


def _update(
    connection: sqlite3.Connection,
    texts: _Pass,
    stored: tuple[int, str | None, str | None],
    upsert: tuple[str, str | None, str | None],
) -> None:
    row, _, text = stored
    texts.rows.add(row)
    connection.execute("UPDATE entries SET payload = ?, text = ? WHERE row = ?", (*upsert[1:], row))
    if text != upsert[2]:
        if text is not None:
            texts.taken_out[row] = text
        if upsert[2] is not None:
            texts.put_in[row] = upsert[2]


def _insert(
    connection: sqlite3.Connection,
    texts: _Pass,
    new: Sequence[tuple[str, str | None, str | None]],
) -> int:
    """Number and write new entries; how many old ones had to move."""
    by_id = {entry_id: (payload, text) for entry_id, payload, text in new}
    moves = 0
    for run in runs(connection, list(by_id)):
        numbered = number(connection, run)
        _move(connection, texts, numbered.moved)
        moves += len(numbered.moved)
        for row, entry_id in zip(numbered.rows, run, strict=True):
            payload, text = by_id[entry_id]
            texts.rows.add(row)
            connection.execute(
                "INSERT INTO entries VALUES (?, ?, ?, ?)", (row, entry_id, payload, text)
            )
            if text is not None:
                texts.put_in[row] = text
    return moves


def _move(connection: sqlite3.Connection, texts: _Pass, moved: Iterable[tuple[int, int]]) -> None:
    """Give rows other numbers; all leave before the first arrives, since numbers are used again."""
    arriving = []
    for old, new in moved:
        entry_id, payload, text = connection.execute(
            "SELECT id, payload, text FROM entries WHERE row = ?", (old,)
        ).fetchone()
        if texts.put_in.pop(old, None) is None and text is not None:
            texts.taken_out[old] = text
        connection.execute("DELETE FROM entries WHERE row = ?", (old,))
        arriving.append((new, entry_id, payload, text))
        texts.rows.update((old, new))
    for new, entry_id, payload, text in arriving:
        connection.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?)", (new, entry_id, payload, text)
        )
        if text is not None:
            texts.put_in[new] = text


_ROOM: Final = 8
"""Numbers for each row in a stretch that is numbered again: the next ids there find room, too."""
_WIDEST: Final = 4096
"""Rows that may be numbered again for one place; a file in which that is too few is full of ids."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """Rows for new ids, and new numbers for old rows that have to move."""

    rows: tuple[int, ...]
    """Of the new ids, in their order."""
    moved: tuple[tuple[int, int], ...]
    """Old and new number of every row that gets another one."""


def runs(connection: sqlite3.Connection, new_ids: Sequence[str]) -> Iterator[list[str]]:
    """``new_ids``, sorted and none of them in the file, as runs between the same two entries.

    Each run is to be numbered and written before the next one is asked for. A run is identified by
    the id before it, since its row may get another number meanwhile.
    """
    before = "SELECT id FROM entries WHERE id < ? ORDER BY id DESC LIMIT 1"
    for _, run in groupby(new_ids, key=lambda new: connection.execute(before, (new,)).fetchone()):
        yield list(run)


def number(connection: sqlite3.Connection, run: Sequence[str]) -> Numbered:
    """Find a row for every id of one run.

    Raises:
        CannotExtendError: too many rows would have to be numbered again.
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
    raise CannotExtendError("new ids found no row numbers")


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


_PIECE: Final = 2**30


def copy_file(source: Path, target: Path) -> None:
    """Copy the bytes of ``source`` to the new file ``target``, which may be written to.

    Raises:
        OSError: one cannot be read, the other not be written.
    """
    with source.open("rb") as read, target.open("xb") as written:
        if not _copied_by_kernel(read.fileno(), written.fileno()):
            # Two file systems, or one that cannot do it: from the start, the usual way.
            os.lseek(read.fileno(), 0, os.SEEK_SET)
            os.lseek(written.fileno(), 0, os.SEEK_SET)
            shutil.copyfileobj(read, written, 2**20)


def _copied_by_kernel(source: int, target: int) -> bool:
    left = os.fstat(source).st_size
    try:
        while left > 0:
            copied = os.copy_file_range(source, target, min(left, _PIECE))
            if not copied:
                return False
            left -= copied
    except OSError:
        return False
    return True
