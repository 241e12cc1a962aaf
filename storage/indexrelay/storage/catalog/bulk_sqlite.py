"""Bulk rows on SQLite: executemany for what is written, one JSON array for what is looked up.

``json_each`` turns a list of ids into a table inside one statement; a temporary table or a
statement per id would cost several times as much.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import repeat
from typing import Any

from sqlalchemy import Connection

from indexrelay.storage.catalog.bulk import ChangedRow, Update, gathered, vector_bytes
from indexrelay.storage.entries import Entries

_UPSERT = """
INSERT INTO indexrelay_entries (collection, generation, deleted, id, vector, text, payload)
VALUES (?, ?, 0, ?, ?, ?, ?)
ON CONFLICT (collection, id) DO UPDATE SET
  generation = excluded.generation, deleted = 0, vector = excluded.vector,
  text = coalesce(excluded.text, text), payload = coalesce(excluded.payload, payload)
"""
_UPDATE = """
UPDATE indexrelay_entries
SET generation = ?1,
    text = CASE WHEN ?4 THEN ?5 ELSE text END,
    payload = CASE WHEN ?6 THEN ?7 ELSE payload END
WHERE collection = ?2 AND id = ?3 AND NOT deleted
"""
_DELETE = """
UPDATE indexrelay_entries
SET generation = ?, deleted = 1, vector = NULL, text = NULL, payload = NULL
WHERE collection = ? AND NOT deleted AND id IN (SELECT value FROM json_each(?))
"""
_COUNT_LIVE = """
SELECT count(*) FROM indexrelay_entries
WHERE collection = ? AND NOT deleted AND id IN (SELECT value FROM json_each(?))
"""
_LIVE_AMONG = """
SELECT id FROM indexrelay_entries
WHERE collection = ? AND NOT deleted AND id IN (SELECT value FROM json_each(?))
"""
_LIVE = """
SELECT id, vector, text, payload FROM indexrelay_entries
WHERE collection = ? AND NOT deleted ORDER BY id
"""
_CHANGED = """
SELECT id, vector, text, payload, deleted FROM indexrelay_entries
WHERE collection = ? AND generation > ? ORDER BY id
"""
_PORTION = 500
"""Rows that are fetched and taken apart at a time: a quarter of a megabyte at 128 dimensions."""


class SqliteRows:
    """`BulkRows` on the standard library's `sqlite3`."""

    def upsert(self, connection: Connection, key: int, generation: int, chunk: Entries) -> None:
        """One prepared statement, run for each row."""
        rows = zip(
            repeat(key),
            repeat(generation),
            chunk.ids,
            vector_bytes(chunk.vectors),
            chunk.texts,
            chunk.payloads,
            strict=False,  # the first two never end
        )
        _cursor(connection).executemany(_UPSERT, rows)

    def update(
        self, connection: Connection, key: int, generation: int, updates: Sequence[Update]
    ) -> int:
        """One prepared statement, run for each row."""
        rows = ((generation, key, *update) for update in updates)
        return int(_cursor(connection).executemany(_UPDATE, rows).rowcount)

    def delete(self, connection: Connection, key: int, generation: int, ids: Sequence[str]) -> int:
        """One statement for all of them."""
        cursor = _cursor(connection).execute(_DELETE, (generation, key, _array(ids)))
        return int(cursor.rowcount)

    def count_live(self, connection: Connection, key: int, ids: Sequence[str]) -> int:
        """One statement for all of them."""
        found = _cursor(connection).execute(_COUNT_LIVE, (key, _array(ids))).fetchone()
        return int(found[0])

    def live_among(self, connection: Connection, key: int, ids: Sequence[str]) -> set[str]:
        """One statement for all of them."""
        return {row[0] for row in _cursor(connection).execute(_LIVE_AMONG, (key, _array(ids)))}

    def live(
        self, connection: Connection, key: int, dimension: int, rows: int
    ) -> Iterator[Entries]:
        """Through the primary key, which has the order."""
        with closing(_cursor(connection)) as cursor:
            cursor.execute(_LIVE, (key,))
            yield from gathered(cursor.fetchmany, dimension, rows=rows, portion=_PORTION)

    def changed(
        self, connection: Connection, key: int, after: int, rows: int
    ) -> Iterator[list[ChangedRow]]:
        """Through the index by generation, then sorted."""
        with closing(_cursor(connection)) as cursor:
            cursor.execute(_CHANGED, (key, after))
            while chunk := cursor.fetchmany(rows):
                yield chunk


def _cursor(connection: Connection) -> Any:
    return connection.connection.cursor()


def _array(ids: Sequence[str]) -> str:
    return json.dumps(ids, ensure_ascii=False)
