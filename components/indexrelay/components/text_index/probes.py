"""Whether words lead to the entries that hold them, and to no others.

Which words a text has is asked of FTS5 itself, in a small table in memory with the same tokenizer.
A word is looked up for one row at a time: FTS5 goes straight to that row in the word's list,
however long the list is. So it costs the same to try a common word as a rare one.
"""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

from indexrelay.components.judging import Verdict, equal
from indexrelay.components.text_index.database import reading
from indexrelay.components.text_index.query import MAX_RUNS, Tokenizer, all_of

_SAMPLED: Final = 100
_SAMPLE: Final = """
    SELECT rowid, body FROM texts WHERE rowid IN
        (SELECT id FROM texts_docsize ORDER BY (id * 2654435761) % 4294967296 LIMIT ?)
"""
"""Spread over the rows by a fixed multiplier, so the same sample each time."""


def found_by_own_words(
    connection: sqlite3.Connection, path: Path, *, tokenizer: Tokenizer
) -> Verdict:
    """Sampled entries are found by the words that they hold."""
    with reading(path):
        sample = connection.execute(_SAMPLE, (_SAMPLED,)).fetchall()
        words = words_of((text for _, text in sample), tokenizer)
        asked = [(row, terms) for (row, _), terms in zip(sample, words, strict=True) if terms]
        found = sum(finds(connection, row, sorted(terms)[:MAX_RUNS]) for row, terms in asked)
    return equal(found, len(asked), "entries are not found by words that they hold")


def finds(connection: sqlite3.Connection, row: int, terms: Iterable[str]) -> bool:
    """Whether one row is among those that hold all ``terms``."""
    query = "SELECT 1 FROM texts WHERE texts MATCH ? AND rowid = ?"
    return connection.execute(query, (all_of(terms), row)).fetchone() is not None


def words_of(texts: Iterable[str], tokenizer: Tokenizer) -> list[set[str]]:
    """The words of each text, as the tokenizer cuts them."""
    texts = list(texts)
    words: list[set[str]] = [set() for _ in texts]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE VIRTUAL TABLE sample USING fts5 (body, tokenize='{tokenizer}')")
        connection.execute("CREATE VIRTUAL TABLE words USING fts5vocab (sample, instance)")
        connection.executemany("INSERT INTO sample (rowid, body) VALUES (?, ?)", enumerate(texts))
        for row, term in connection.execute("SELECT DISTINCT doc, term FROM words"):
            words[row].add(term)
    return words
