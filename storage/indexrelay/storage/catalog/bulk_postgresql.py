"""Bulk rows on PostgreSQL: whole columns as arrays, one statement for each chunk, all in binary.

``unnest`` of four arrays is as fast as COPY into a temporary table (100,000 rows of 128: inserting
0.86 s against 0.78 s, overwriting 1.36 s against 1.47 s) and leaves no table behind in the system
catalogs, which a COPY per commit would fill with dead rows.
"""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from sqlalchemy import Connection

from indexrelay.storage.catalog.bulk import ChangedRow, Update, gathered, vector_bytes
from indexrelay.storage.entries import Entries

_UPSERT = """
INSERT INTO indexrelay_entries AS entry (collection, generation, deleted, id, vector, text, payload)
SELECT %s, %s, false, row.id, row.vector, row.text, row.payload
FROM unnest(%b::text[], %b::bytea[], %b::text[], %b::text[]) AS row (id, vector, text, payload)
ON CONFLICT (collection, id) DO UPDATE SET
  generation = excluded.generation, deleted = false, vector = excluded.vector,
  text = coalesce(excluded.text, entry.text), payload = coalesce(excluded.payload, entry.payload)
"""
_UPDATE = """
UPDATE indexrelay_entries AS entry
SET generation = %s,
    text = CASE WHEN row.sets_text THEN row.text ELSE entry.text END,
    payload = CASE WHEN row.sets_payload THEN row.payload ELSE entry.payload END
FROM unnest(%b::text[], %b::boolean[], %b::text[], %b::boolean[], %b::text[])
  AS row (id, sets_text, text, sets_payload, payload)
WHERE entry.collection = %s AND entry.id = row.id AND NOT entry.deleted
"""
_DELETE = """
UPDATE indexrelay_entries
SET generation = %s, deleted = true, vector = NULL, text = NULL, payload = NULL
WHERE collection = %s AND NOT deleted AND id = ANY (%b::text[])
"""
_COUNT_LIVE = """
SELECT count(*) FROM indexrelay_entries
WHERE collection = %s AND NOT deleted AND id = ANY (%b::text[])
"""
_LIVE_AMONG = """
SELECT id FROM indexrelay_entries
WHERE collection = %s AND NOT deleted AND id = ANY (%b::text[])
"""
_LIVE = """
SELECT id, vector, text, payload FROM indexrelay_entries
WHERE collection = %s AND NOT deleted ORDER BY id
"""
_CHANGED = """
SELECT id, vector, text, payload, deleted FROM indexrelay_entries
WHERE collection = %s AND generation > %s ORDER BY id
"""


class PostgresqlRows:
    """`BulkRows` on psycopg 3."""

    def __init__(self) -> None:
        self._numbers = count()  # a server-side cursor needs a name of its own

    def upsert(self, connection: Connection, key: int, generation: int, chunk: Entries) -> None:
        """One statement for the whole chunk."""
        vectors = list(vector_bytes(chunk.vectors))
        _execute(
            connection, _UPSERT, (key, generation, chunk.ids, vectors, chunk.texts, chunk.payloads)
        )

    def update(
        self, connection: Connection, key: int, generation: int, updates: Sequence[Update]
    ) -> int:
        """One statement for all of them."""
        columns = map(list, zip(*updates, strict=True))
        return int(_execute(connection, _UPDATE, (generation, *columns, key)).rowcount)

    def delete(self, connection: Connection, key: int, generation: int, ids: Sequence[str]) -> int:
        """One statement for all of them."""
        return int(_execute(connection, _DELETE, (generation, key, list(ids))).rowcount)

    def count_live(self, connection: Connection, key: int, ids: Sequence[str]) -> int:
        """One statement for all of them."""
        return int(_execute(connection, _COUNT_LIVE, (key, list(ids))).fetchone()[0])

    def live_among(self, connection: Connection, key: int, ids: Sequence[str]) -> set[str]:
        """One statement for all of them."""
        return {row[0] for row in _execute(connection, _LIVE_AMONG, (key, list(ids)))}

    def live(
        self, connection: Connection, key: int, dimension: int, rows: int
    ) -> Iterator[Entries]:
        """Through a server-side cursor; smaller portions would be more round trips."""
        with self._cursor(connection) as cursor:
            cursor.execute(_LIVE, (key,))
            yield from gathered(cursor.fetchmany, dimension, rows=rows, portion=rows)

    def changed(
        self, connection: Connection, key: int, after: int, rows: int
    ) -> Iterator[list[ChangedRow]]:
        """Through a server-side cursor."""
        with self._cursor(connection) as cursor:
            cursor.execute(_CHANGED, (key, after))
            while chunk := cursor.fetchmany(rows):
                yield chunk

    def _cursor(self, connection: Connection) -> Any:
        name = f"indexrelay_{next(self._numbers)}"
        return _driver(connection).cursor(name, binary=True)


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


def _execute(connection: Connection, statement: str, parameters: tuple[Any, ...]) -> Any:
    return _driver(connection).execute(statement, parameters)
