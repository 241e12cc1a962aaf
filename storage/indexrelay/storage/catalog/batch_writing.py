"""Writing batches of one collection inside a transaction that is the caller's.

The generations for all of them are taken first, in one statement, which locks the collection's row.
Then the ids that were committed before are looked up, under the lock, and the generations that were
taken for them are given back: nobody has seen them. Rows, the batches' own rows and the new count
follow.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, Row, insert, select, update

from indexrelay.schemas.clock import Clock
from indexrelay.storage.catalog.bulk import BulkRows
from indexrelay.storage.catalog.collections import advance
from indexrelay.storage.catalog.commits import BatchChanges, Commit, parts
from indexrelay.storage.catalog.schema import batches, collections
from indexrelay.storage.entries import CHUNK_ROWS, Entries
from indexrelay.storage.errors import InvalidEntriesError

_IDS_AT_A_TIME: Final = 1000
"""Batch ids in one query: SQLite and PostgreSQL both bound the parameters of a statement."""

CollectionRow = Row[tuple[Any, ...]]


class BatchWriter:
    """Writes batches through one connection, for one transaction."""

    def __init__(self, connection: Connection, bulk: BulkRows, clock: Clock) -> None:
        self._connection = connection
        self._bulk = bulk
        self._clock = clock

    def write(self, collection: str, changes: Sequence[BatchChanges]) -> list[Commit]:
        """One commit for each batch, in the same order; their changes are settled.

        Raises:
            UnknownCollectionError: the collection is not there.
            InvalidEntriesError: the vectors are of another dimension than the collection's.
        """
        ids = dict.fromkeys(each.batch_id for each in changes)
        row = advance(self._connection, collection, by=len(ids))
        known = self._committed_before(row, list(ids))
        generation = row.generation - len(ids)
        live = row.live
        written: list[Commit] = []
        commits: list[Commit] = []
        for each in changes:
            earlier = known.get(each.batch_id)
            if earlier is None:
                generation += 1
                earlier, grown = self._apply(row, each, generation, empty=not live and not written)
                live += grown
                written.append(earlier)
                commits.append(earlier)
            else:
                commits.append(replace(earlier, repeated=True))
            known[each.batch_id] = earlier
        if generation < row.generation or live != row.live:
            self._settle(row, generation, live)
        self._record(row, written)
        return commits

    def _committed_before(self, row: CollectionRow, ids: Sequence[str]) -> dict[str, Commit]:
        """The commits under those of ``ids`` that the collection knows."""
        found: dict[str, Commit] = {}
        for start in range(0, len(ids), _IDS_AT_A_TIME):
            some = ids[start : start + _IDS_AT_A_TIME]
            rows = self._connection.execute(
                select(batches)
                .where(batches.c.collection == row.key)
                .where(batches.c.batch_id.in_(some))
            )
            for batch in rows:
                found[batch.batch_id] = _commit(
                    row, batch.batch_id, batch.generation, batch.upserts, batch.deletes
                )
        return found

    def _apply(
        self, row: CollectionRow, changes: BatchChanges, generation: int, *, empty: bool
    ) -> tuple[Commit, int]:
        """Write the rows of one batch; its commit, and by how many the collection grew."""
        upserted = known = 0
        for chunk in changes.upserts:
            _check_dimension(chunk, row.dimension)
            for part in parts(chunk, CHUNK_ROWS):
                if not empty:  # into an empty collection everything is new
                    known += self._bulk.count_live(self._connection, row.key, part.ids)
                self._bulk.upsert(self._connection, row.key, generation, part)
            upserted += len(chunk)
        deleted = 0
        if changes.deletes:
            deleted = self._bulk.delete(self._connection, row.key, generation, changes.deletes)
        commit = _commit(row, changes.batch_id, generation, upserted, deleted)
        return commit, upserted - known - deleted

    def _settle(self, row: CollectionRow, generation: int, live: int) -> None:
        """Give back the generations that nobody needed, and keep the count."""
        self._connection.execute(
            update(collections)
            .where(collections.c.key == row.key)
            .values(generation=generation, live=live)
        )

    def _record(self, row: CollectionRow, commits: Iterable[Commit]) -> None:
        """The batches' own rows."""
        now = self._clock.now()
        rows = [
            {
                "collection": row.key,
                "batch_id": commit.batch_id,
                "generation": commit.generation,
                "upserts": commit.upserts,
                "deletes": commit.deletes,
                "committed_at": now,
            }
            for commit in commits
        ]
        if rows:
            self._connection.execute(insert(batches), rows)


def _commit(
    row: CollectionRow, batch_id: str, generation: int, upserts: int, deletes: int
) -> Commit:
    return Commit(
        collection=row.name,
        epoch=row.epoch,
        batch_id=batch_id,
        generation=generation,
        upserts=upserts,
        deletes=deletes,
        repeated=False,
    )


def _check_dimension(chunk: Entries, dimension: int) -> None:
    if chunk.vectors.shape != (len(chunk), dimension):
        raise InvalidEntriesError(
            f"vectors have shape {chunk.vectors.shape}, "
            f"the collection's have ({len(chunk)}, {dimension})"
        )
