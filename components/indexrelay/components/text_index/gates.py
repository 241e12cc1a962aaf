"""The gates of a text index: the file, in fresh handles, held against the collection.

Every row is compared with the source. That words lead to their entries is tried on a sample: each
entry must be found by the rarest of its own words. Which words those are is asked of FTS5 itself,
in a small table in memory with the same tokenizer.
"""

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import Final

from indexrelay.components.errors import DamagedFileError
from indexrelay.components.judging import Verdict, equal, judge
from indexrelay.components.kind import Built
from indexrelay.components.text_index.database import open_database, reading
from indexrelay.components.text_index.tokens import Tokenizer, all_of
from indexrelay.schemas.versions import Check
from indexrelay.storage.entries import SourceSnapshot

_SAMPLED: Final = 100
_RAREST: Final = 3
"""Words that an entry is asked for by."""
_SAMPLE: Final = """
    SELECT rowid, body FROM texts WHERE rowid IN
        (SELECT rowid FROM texts ORDER BY (rowid * 2654435761) % 4294967296 LIMIT ?)
"""
"""Spread over the rows by a fixed multiplier, so the same sample each time."""
_VOCABULARY: Final = "CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab (main, texts, row)"


def gates(
    source: SourceSnapshot, built: Built, path: Path, *, tokenizer: Tokenizer, scratch: Path
) -> Iterator[Check]:
    """Yield one `Check` for each gate; nothing else is judged where the file does not open.

    ``scratch`` is a folder for a copy of the file while it is checked.
    """
    started = perf_counter()
    try:
        connection = open_database(path)
    except DamagedFileError as error:
        yield Check(name="reads_back", passed=False, detail=str(error))
        return
    yield Check(name="reads_back", passed=True, seconds=perf_counter() - started)
    with closing(connection):
        gate = _Gates(connection, path, source, tokenizer)
        yield judge("integrity", lambda: _integrity(path, scratch))
        yield judge("count", lambda: gate.count(built))
        yield judge("ids_unique", gate.ids_unique)
        yield judge("entries_match_source", gate.entries)
        yield judge("found_by_own_words", gate.found)


def _integrity(path: Path, scratch: Path) -> Verdict:
    """SQLite's own check and that of FTS5, which wants to write: so on a copy."""
    copy = scratch / f"{path.name}.check"
    shutil.copyfile(path, copy)
    try:
        with closing(sqlite3.connect(copy)) as connection, reading(path):
            found = connection.execute("PRAGMA integrity_check").fetchone()[0]
            if found != "ok":
                return Verdict(False, found)
            connection.execute("INSERT INTO texts (texts) VALUES ('integrity-check')")
    finally:
        copy.unlink()
    return Verdict(True)


class _Gates:
    """The gates that only read."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        source: SourceSnapshot,
        tokenizer: Tokenizer,
    ) -> None:
        self._connection = connection
        self._path = path
        self._source = source
        self._tokenizer = tokenizer

    def count(self, built: Built) -> Verdict:
        """As many entries as the collection has, and as the file says."""
        with reading(self._path):
            rows, said = self._connection.execute(
                "SELECT (SELECT count(*) FROM entries), (SELECT entries FROM facts)"
            ).fetchone()
        if not rows == said == built.entries:
            return equal(rows, built.entries, "the file and the build count differently")
        return equal(rows, self._source.count, "other entries than the collection has")

    def ids_unique(self) -> Verdict:
        """No id stands in two rows."""
        with reading(self._path):
            (repeats,) = self._connection.execute(
                "SELECT count(*) - count(DISTINCT id) FROM entries"
            ).fetchone()
        return equal(repeats, 0, "ids repeat in the source")

    def entries(self) -> Verdict:
        """Every id, payload and text stands in the row where the source has it."""
        query = """
            SELECT entries.id, entries.payload, texts.body
            FROM entries LEFT JOIN texts ON texts.rowid = entries.row ORDER BY entries.row
        """
        count = texts = 0
        with reading(self._path):
            ours = self._connection.execute(query)
            for chunk in self._source.chunks():
                theirs = list(zip(chunk.ids, chunk.payloads, chunk.texts, strict=True))
                if ours.fetchmany(len(chunk)) != theirs:
                    return Verdict(
                        False, f"rows {count} to {count + len(chunk)} hold other entries"
                    )
                count += len(chunk)
                texts += sum(text is not None for text in chunk.texts)
            (stored,) = self._connection.execute("SELECT count(*) FROM texts").fetchone()
        return equal(stored, texts, "texts without an entry")

    def found(self) -> Verdict:
        """Sampled entries are found by their own rarest words."""
        with reading(self._path):
            sample = self._connection.execute(_SAMPLE, (_SAMPLED,)).fetchall()
            self._connection.execute(_VOCABULARY)
            words = _words([body for _, body in sample], self._tokenizer)
            asked = [
                (row, self._rarest(terms))
                for (row, _), terms in zip(sample, words, strict=True)
                if terms
            ]
            missed = [row for row, terms in asked if not self._finds(row, terms)]
        return equal(
            len(asked) - len(missed), len(asked), "entries are not found by words that they hold"
        )

    def _rarest(self, terms: Sequence[str]) -> list[str]:
        """The rarest of ``terms`` in the whole index; one that it lacks counts as rarest."""
        held = "SELECT doc FROM temp.vocabulary WHERE term = ?"

        def documents(term: str) -> int:
            row = self._connection.execute(held, (term,)).fetchone()
            return row[0] if row else 0

        return sorted(terms, key=lambda term: (documents(term), term))[:_RAREST]

    def _finds(self, row: int, terms: Sequence[str]) -> bool:
        query = "SELECT 1 FROM texts WHERE texts MATCH ? AND rowid = ?"
        return self._connection.execute(query, (all_of(terms), row)).fetchone() is not None


def _words(texts: Sequence[str], tokenizer: Tokenizer) -> list[list[str]]:
    """The different words of each text, as the tokenizer cuts them."""
    words: list[list[str]] = [[] for _ in texts]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE VIRTUAL TABLE sample USING fts5 (body, tokenize='{tokenizer}')")
        connection.execute("CREATE VIRTUAL TABLE words USING fts5vocab (sample, instance)")
        connection.executemany("INSERT INTO sample (rowid, body) VALUES (?, ?)", enumerate(texts))
        for row, term in connection.execute("SELECT DISTINCT doc, term FROM words"):
            words[row].append(term)
    return words
