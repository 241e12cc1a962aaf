"""Applies changes to a copy of a text index, so that it answers like one written in one piece.

FTS5 keeps words in sorted segments, like a log-structured tree: what changes is written beside what
is there, and merged bit by bit as more comes. BM25 needs no more than counts that FTS5 keeps up to
date, so the scores are those of a new file to the last digit, where a second, small index beside
the first would have scores of its own.

FTS5 starts a new segment whenever row numbers do not grow. So the rows of a chunk are decided
first, and its texts then go in two passes, each in the order of the rows: out, then in. FTS5 keeps
no text of its own; what goes out is cut into terms once more, by the analyser that cut it before.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from indexrelay.components.text_index.analyser import Analyser
from indexrelay.components.text_index.row_numbers import number, runs
from indexrelay.storage.entries import Changes

_STORED: Final = "SELECT row, payload, text FROM entries WHERE id = ?"


@dataclass(frozen=True, slots=True)
class Applied:
    """What changes came to."""

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


@dataclass(slots=True)
class _Pass:
    """The texts that a chunk takes out and puts in, by row."""

    taken_out: dict[int, str] = field(default_factory=dict)
    put_in: dict[int, str] = field(default_factory=dict)


def apply(connection: sqlite3.Connection, changes: Changes, analyser: Analyser) -> Applied:
    """Apply one chunk, inside the transaction that is open.

    Raises:
        NoRoomError: new ids find no row number.
    """
    texts = _Pass()
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
    connection.execute("DELETE FROM entries WHERE row = ?", (row,))
    return True


def _update(
    connection: sqlite3.Connection,
    texts: _Pass,
    stored: tuple[int, str | None, str | None],
    upsert: tuple[str, str | None, str | None],
) -> None:
    row, _, text = stored
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
    """Number and write new entries, and say how many old ones had to move."""
    by_id = {entry_id: (payload, text) for entry_id, payload, text in new}
    moves = 0
    for run in runs(connection, list(by_id)):
        numbered = number(connection, run)
        _move(connection, texts, numbered.moved)
        moves += len(numbered.moved)
        for row, entry_id in zip(numbered.rows, run, strict=True):
            payload, text = by_id[entry_id]
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
    for new, entry_id, payload, text in arriving:
        connection.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?)", (new, entry_id, payload, text)
        )
        if text is not None:
            texts.put_in[new] = text
