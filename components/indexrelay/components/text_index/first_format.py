"""Queries of files that were written before there was an analyser.

FTS5 cut the texts there, by the tokenizer that stood in the settings, and a query was cut into runs
of letters and digits. Readers serve such a version until it is built again, which is due as soon as
a rebuilder of this release runs.
"""

import re
import sqlite3
import unicodedata
from typing import Final

SEARCH: Final = """
    SELECT entries.id, -found.rank, entries.payload
    FROM (
        SELECT rowid, rank FROM texts WHERE texts MATCH ? ORDER BY rank, rowid LIMIT ?
    ) AS found
    JOIN entries ON entries.row = found.rowid
    ORDER BY found.rank, found.rowid
"""
TEXT: Final = """
    SELECT texts.body FROM entries LEFT JOIN texts ON texts.rowid = entries.row
    WHERE entries.id = ?
"""
_MOST_RUNS: Final = 64
_RUN: Final = re.compile(r"[^\W_]+")
_LOOSE_ACCENT: Final = re.compile("[\u0300-\u036f]")


def match_expression(text: str) -> str:
    """The FTS5 query for any of the words of ``text``; empty where there is none."""
    text = text.encode("utf-8", "ignore").decode()
    whole = _LOOSE_ACCENT.sub("", unicodedata.normalize("NFC", text))
    runs = list(dict.fromkeys(_RUN.findall(whole)))
    return " OR ".join(f'"{run}"' for run in runs[:_MOST_RUNS])


def texts_with(connection: sqlite3.Connection, term: str) -> int:
    """How many texts have ``term``."""
    expression = '"' + term.replace('"', '""') + '"'
    query = "SELECT count(*) FROM texts WHERE texts MATCH ?"
    (found,) = connection.execute(query, (expression,)).fetchone()
    return int(found)
