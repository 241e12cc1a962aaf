"""The entries of a version by id, by filter, and in order: what needs no search.

Their order is that of their ids' UTF-8 bytes, over base and delta alike, so a page begins behind an
id, whether that is still there or not.
"""

from bisect import bisect_right
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from indexrelay.components.formats.string_table import Rows
from indexrelay.components.matches import Matches
from indexrelay.components.query import (
    Entry,
    Page,
    checked_after,
    checked_ids,
    checked_limit,
)
from indexrelay.components.served import Hit, check_payload_bytes, check_payload_values
from indexrelay.components.vector_index.metrics import (
    as_distances,
    as_scores,
    distances,
    prepared,
)
from indexrelay.components.vector_index.version import Contents
from indexrelay.schemas.filters import Fields
from indexrelay.storage.entries import Vectors


class VectorEntries:
    """What `VectorSearch` can say of its entries; safe to use from many threads."""

    contents: Contents

    @property
    def fields(self) -> Fields:
        """The fields that can be filtered by, and the type of each."""
        return self.contents.fields

    def count(self, filter: Any = None) -> int:  # noqa: A002 - as every search calls it
        """How many entries match ``filter``, a JSON object; ``None``: how many there are.

        Raises:
            InvalidFilterError: the filter cannot be answered.
        """
        condition = self.contents.columns.parse(filter)
        return len(self.contents if condition is None else self.contents.columns.matches(condition))

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
            max_payload_bytes: no payload is read where all have more; ``None``: any number.

        Raises:
            InvalidFilterError: the filter cannot be answered.
            InvalidQueryError: ``ids`` is no list of ids, or the payloads have more bytes than
                ``max_payload_bytes``.
        """
        wanted, condition = checked_ids(ids), self.contents.columns.parse(filter)
        rows = [self.contents.find(each) for each in wanted]
        if condition is not None:
            matches = self.contents.columns.matches(condition)
            is_among = np.concatenate([matches.base.mask, matches.delta.mask])
            rows = [None if row is None or not is_among[row] else row for row in rows]
        there = np.array([row for row in rows if row is not None], dtype=np.int64)
        payloads = iter(self._payloads(there, max_payload_bytes))
        return [
            None if row is None else Entry(entry_id, next(payloads))
            for entry_id, row in zip(wanted, rows, strict=True)
        ]

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
            max_payload_bytes: no payload is read where all have more; ``None``: any number.

        Raises:
            InvalidFilterError: the filter cannot be answered.
            InvalidQueryError: another argument cannot be.
        """
        limit, ids = checked_limit(limit), self.contents.ids
        condition = self.contents.columns.parse(filter)
        behind = checked_after(after)
        first = 0 if behind is None else _place_behind(ids, behind)
        if condition is None:
            end = min(first + limit, len(ids))
            positions, more = np.arange(first, end), end < len(ids)
        else:
            matching = self._positions(self.contents.columns.matches(condition))
            begin = int(np.searchsorted(matching, first))
            positions, more = matching[begin : begin + limit], begin + limit < len(matching)
        found = ids.many(positions)
        payloads = self._payloads(self._rows_at(positions), max_payload_bytes)
        entries = list(map(Entry, found, payloads))
        return Page(entries, found[-1] if more else None)

    def vector(self, entry_id: str) -> Vectors:
        """The vector of one entry, as it is indexed: at unit length under cosine.

        Raises:
            UnknownEntryError: it is not in here.
        """
        return self.contents.vector(self.contents.row(entry_id))

    def vector_at(self, position: int) -> Vectors:
        """The vector of ``ids[position]``; raises `IndexError` where there is none."""
        return self.contents.vector(self.contents.row_at(position))

    def vectors_of(self, hits: Sequence[Hit]) -> Vectors:
        """The vectors of hits, shape ``(n, dimension)``, as they are indexed."""
        rows = [self.contents.row(hit.id) for hit in hits]
        return self.contents.vectors(np.array(rows, dtype=np.int64))

    def scores_of(self, vector: Vectors, ids: Sequence[str]) -> dict[str, float]:
        """What a search by ``vector`` gives these entries, whether it would find them or not.

        Args:
            vector: shape ``(dimension,)``, one that can be searched with.
            ids: those that are not in here are left out.
        """
        found = [(each, row) for each in ids if (row := self.contents.find(each)) is not None]
        if not found:
            return {}
        metric = self.contents.facts.metric
        vectors = self.contents.vectors(np.array([row for _, row in found], dtype=np.int64))
        apart = distances(prepared(vector, metric)[None], vectors[None], metric)[0]
        scores = as_scores(as_distances(apart, metric).astype(np.float32), metric)
        return dict(zip([each for each, _ in found], scores.tolist(), strict=True))

    def payload(self, entry_id: str) -> Any:
        """The parsed payload of one entry, or ``None``.

        Raises:
            UnknownEntryError: it is not in here.
        """
        return self.contents.payloads_of(np.array([self.contents.row(entry_id)]))[0]

    def _positions(self, matches: Matches) -> Rows:
        """Where matches stand in the order of the ids, in increasing order."""
        layers = self.contents.ids.layers
        base = layers.base_positions(matches.base.rows)
        delta = layers.delta_positions(matches.delta.rows)
        return np.sort(np.concatenate([base, delta]), kind="stable")

    def _rows_at(self, positions: Rows) -> Rows:
        in_delta, rows = self.contents.ids.layers.locate(positions)
        return np.where(in_delta, rows + self.contents.first_of_delta, rows)

    def _payloads(self, rows: Rows, max_payload_bytes: int | None) -> list[Any]:
        if max_payload_bytes is not None:
            size = self.contents.payload_bytes_of(rows)
            check_payload_bytes(size, max_payload_bytes)
            check_payload_values(self.contents.payload_texts_of(rows), size)
        return self.contents.payloads_of(rows)


def _place_behind(ids: Sequence[str], wanted: bytes) -> int:
    """The position of the first id whose UTF-8 bytes come after ``wanted``."""
    return bisect_right(range(len(ids)), wanted, key=lambda place: ids[place].encode())
