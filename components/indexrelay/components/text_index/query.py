"""What a query asks the index: the terms of its text, the rarest first, as quoted FTS5 strings.

A query finds what holds any of its terms; BM25 puts first what holds many of them, and rare ones.
The text of a query is data, never syntax: only terms of the analyser come through, each quoted.

A pasted page has thousands of terms, and FTS5's work grows with their number times the texts that
they are in. So how many texts a term is in is looked up first (``frequencies``). Terms that no text
has are left out; of more than `MOST_PHRASES` the rarest count. A term that is in more than half of
many texts is left out too while there is a rarer one: BM25 gives it no weight at all, but each of
those texts would have to be scored.
"""

import sqlite3
from collections.abc import Iterable
from typing import Final

from indexrelay.components.text_index.analyser import Analyser, Phrase

MOST_PHRASES: Final = 64
MOST_CHARACTERS: Final = 100_000
"""Of a query; what comes after does not count."""
_COMMON: Final = 1_000
"""Texts that a term may be in, however few there are in all, before it can be left out."""


def match_expression(
    connection: sqlite3.Connection, analyser: Analyser, text: str, *, findable: int
) -> str:
    """The FTS5 query for any of the terms of ``text``; empty where no text has one of them.

    ``findable`` is how many texts there are.
    """
    phrases = analyser.phrases(text[:MOST_CHARACTERS])
    counted = sorted(
        (texts, place, phrase)
        for place, phrase in enumerate(phrases)
        if (texts := texts_with(connection, phrase))
    )
    common = common_above(findable)
    rare = [each for each in counted if each[0] <= common] or counted[:1]
    return " OR ".join(quoted(phrase) for _, _, phrase in rare[:MOST_PHRASES])


def common_above(findable: int) -> int:
    """In how many of ``findable`` texts a term may be and still count beside rarer ones."""
    return max(findable // 2, _COMMON)


def texts_with(connection: sqlite3.Connection, phrase: Phrase) -> int:
    """How many texts have the rarest term of ``phrase``; of one term: how many it is in."""
    query = "SELECT texts FROM frequencies WHERE term = ?"
    fewest: int | None = None
    for term in phrase:
        found = connection.execute(query, (term,)).fetchone()
        if found is None:
            return 0
        if not isinstance(found[0], int):
            raise ValueError("a frequency is no number")  # noqa: TRY004 - of a file, not of a caller
        fewest = found[0] if fewest is None else min(fewest, found[0])
    return fewest or 0


def all_of(phrases: Iterable[Phrase]) -> str:
    """The FTS5 query for texts that hold every one of ``phrases``."""
    return " AND ".join(map(quoted, phrases))


def quoted(phrase: Phrase) -> str:
    """Terms that follow each other as an FTS5 string, in which nothing is syntax."""
    return '"' + " ".join(phrase) + '"'
