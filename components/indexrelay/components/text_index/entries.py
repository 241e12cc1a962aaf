"""The entries of a text index by id, by filter, and in order: what needs no search.

The rows of the database stand in the order of the ids' UTF-8 bytes, which is SQLite's own order of
texts, so a page begins behind an id, whether that is still there or not.
"""

import json
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final

import numpy as np

from indexrelay.components.formats.string_table import Rows
from indexrelay.components.query import Entry, Page, checked_after, checked_ids, checked_limit
from indexrelay.components.served import check_payload_bytes, check_payload_values
from indexrelay.components.text_index.database import (
    FIRST_FORMAT,
    GuardedConnection,
    format_of,
)
from indexrelay.components.text_index.fields import TextFields
from indexrelay.schemas.filters import Fields

_Stored = tuple[str, str | None, str | None]
"""Id, payload and text."""
_BY_ID: Final = "SELECT id, payload, text FROM entries WHERE id = CAST(? AS TEXT)"
_ROW_OF: Final = "SELECT row FROM entries WHERE id = CAST(? AS TEXT)"
_BY_ROW: Final = "SELECT id, payload, text FROM entries WHERE row = ?"
_BEHIND: Final = (
    "SELECT id, payload, text FROM entries WHERE id > CAST(? AS TEXT) ORDER BY id LIMIT ?"
)
_ROW_BEHIND: Final = "SELECT row FROM entries WHERE id > CAST(? AS TEXT) ORDER BY id LIMIT 1"
_FIRST: Final = (
    " FROM (SELECT row, id, payload, body AS text "
    "FROM entries LEFT JOIN texts ON texts.rowid = entries.row)"
)
"""Where a file of the first format has what others have in ``entries``."""


class TextEntries:
    """What `TextSearch` can say of its entries; safe to use from many threads."""

    _fields: TextFields

    @property
    def fields(self) -> Fields:
        """The fields that can be filtered by, and the type of each."""
        return self._fields.columns.fields

    def count(self, filter: Any = None) -> int:  # noqa: A002 - as every search calls it
        """How many entries match ``filter``, a JSON object; ``None``: how many there are.

        Raises:
            InvalidFilterError: the filter cannot be answered.
        """
        asked = self._fields.columns.parse(filter)
        return len(self) if asked is None else self._fields.count(asked)

    def get(
        self,
        ids: Collection[str],
        *,
        filter: Any = None,  # noqa: A002 - as every search calls it
        max_payload_bytes: int | None = None,
    ) -> list[Entry | None]:
        """The entries with these ids, in that order; ``None`` for an id that is not in here.

        Args:
            ids: in any order; one may come several times.
            filter: a JSON object; an entry that it does not match is ``None`` as well.
            max_payload_bytes: no more payloads are read than have so many bytes; ``None``: any.

        Raises:
            InvalidFilterError: the filter cannot be answered.
            InvalidQueryError: ``ids`` is no list of ids, or the payloads have more bytes than
                ``max_payload_bytes``.
        """
        wanted = list(map(_raw, checked_ids(ids)))
        asked = self._fields.columns.parse(filter)
        with self._connection() as connection:
            if asked is not None:
                is_among = np.isin(_rows_of(connection, wanted), self._fields.rows(asked))
            else:
                is_among = np.ones(len(wanted), dtype=np.bool_)
            query = _in(connection, _BY_ID)
            stored = [
                connection.execute(query, (each,)).fetchone() if may else None
                for each, may in zip(wanted, is_among.tolist(), strict=True)
            ]
            entries = iter(_entries((row for row in stored if row), max_payload_bytes))
            return [None if row is None else next(entries) for row in stored]

    def scroll(
        self,
        filter: Any = None,  # noqa: A002 - as every search calls it
        *,
        after: str | None = None,
        limit: int = 100,
        max_payload_bytes: int | None = None,
    ) -> Page:
        """The next ``limit`` entries that match ``filter``, in the order of their ids.

        Args:
            filter: a JSON object; ``None``: all entries.
            after: the id behind which to begin; ``None``: at the first. It need not be in here.
            limit: at most so many, up to 10,000.
            max_payload_bytes: no more payloads are read than have so many bytes; ``None``: any.

        Raises:
            InvalidFilterError: the filter cannot be answered.
            InvalidQueryError: another argument cannot be.
        """
        limit = checked_limit(limit)
        asked = self._fields.columns.parse(filter)
        behind = checked_after(after) or b""
        with self._connection() as connection:
            if asked is None:
                stored = connection.execute(
                    _in(connection, _BEHIND), (behind, limit + 1)
                ).fetchall()
                more = len(stored) > limit
            else:
                rows = self._fields.rows(asked)
                first = connection.execute(_ROW_BEHIND, (behind,)).fetchone()
                begin = int(np.searchsorted(rows, first[0])) if first else len(rows)
                some = rows[begin : begin + limit].tolist()
                stored = [connection.execute(_BY_ROW, (row,)).fetchone() for row in some]
                more = begin + limit < len(rows)
            if None in stored:
                raise ValueError("a column names a row that does not exist")
            entries = list(_entries(stored[:limit], max_payload_bytes))
        return Page(entries, entries[-1].id if more else None)

    def rows_of(self, ids: Collection[str]) -> Rows:
        """The row of each of these entries, shape ``(n,)``; -1: it is not in here."""
        with self._connection() as connection:
            return _rows_of(connection, map(_raw, ids))

    def count_rows(self, rows: Rows, filter: Any = None) -> int:  # noqa: A002 - as `count` has it
        """How many of the rows of `rows_of` are entries that ``filter`` matches; as `count`."""
        asked = self._fields.columns.parse(filter)
        matching = rows >= 0 if asked is None else np.isin(rows, self._fields.rows(asked))
        return int(np.count_nonzero(matching))

    @abstractmethod
    def _connection(self) -> AbstractContextManager[GuardedConnection]: ...

    @abstractmethod
    def __len__(self) -> int: ...


def _raw(entry_id: str) -> bytes:
    """Its bytes: half a surrogate pair has no UTF-8, and then it is simply not found."""
    return entry_id.encode("utf-8", "surrogatepass")


def _rows_of(connection: GuardedConnection, wanted: Iterable[bytes]) -> Rows:
    rows = (connection.execute(_ROW_OF, (each,)).fetchone() for each in wanted)
    return np.array([-1 if row is None else row[0] for row in rows], dtype=np.int64)


def _in(connection: GuardedConnection, query: str) -> str:
    """The query as the format of the file has it."""
    if format_of(connection) == FIRST_FORMAT:
        return query.replace(" FROM entries", _FIRST)
    return query


def _entries(stored: Iterable[_Stored], max_payload_bytes: int | None) -> Iterator[Entry]:
    """Entries with their payloads parsed; a `ValueError` where the file holds something else."""
    rows = list(stored)
    payloads = [payload for _, payload, _ in rows if payload is not None]
    if max_payload_bytes is not None:
        size = sum(len(payload.encode()) for payload in payloads)
        check_payload_bytes(size, max_payload_bytes)
        check_payload_values(payloads, size)
    for entry_id, payload, text in rows:
        if not (isinstance(entry_id, str) and isinstance(text, str | None)):
            raise ValueError(f"an entry of the id {entry_id!r:.60}")  # noqa: TRY004 - of a file
        yield Entry(entry_id, None if payload is None else json.loads(payload), text)
