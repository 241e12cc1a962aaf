"""How texts become words, and how what a person types becomes a query that cannot go wrong.

Query text is data, never syntax: it is cut into runs of letters and digits, each run is quoted, and
they are joined by OR. What FTS5 would take for an operator, a column filter or a syntax error is
either inside quotes or gone. FTS5 then applies its own tokenizer to each quoted run, the same as
it did to the texts.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Final, Literal

Tokenizer = Literal[
    "unicode61 remove_diacritics 2",
    "porter unicode61 remove_diacritics 2",
    "trigram",
]
"""Words without accents and case; those with English endings cut off; any three characters."""

MAX_RUNS: Final = 64
"""Runs of a query that are looked up; a pasted page would otherwise be a query of thousands."""

_RUN: Final = re.compile(r"[^\W_]+")
_LOOSE_ACCENT: Final = re.compile("[\u0300-\u036f]")


def match_expression(text: str) -> str:
    """The FTS5 query for any of the words of ``text``, each once; empty where there is none."""
    # An accent that stands by itself would cut a word in two here, but not in FTS5.
    whole = _LOOSE_ACCENT.sub("", unicodedata.normalize("NFC", text))
    runs = list(dict.fromkeys(_RUN.findall(whole)))
    return " OR ".join(map(quoted, runs[:MAX_RUNS]))


def all_of(terms: Iterable[str]) -> str:
    """The FTS5 query for entries that hold every one of ``terms``."""
    return " AND ".join(map(quoted, terms))


def quoted(term: str) -> str:
    """One term as an FTS5 string, in which nothing is syntax."""
    return '"' + term.replace('"', '""') + '"'
