"""The entry log: batches go in, each under its own generation; consistent snapshots come out.

Each id has one row, which holds its last state and the generation that gave it. So "everything at
G" is all live rows, "what changed since A" is all rows younger than A, and both hold only inside a
snapshot: without one, a row that is upserted meanwhile moves past G and is in neither.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection, Row, delete, insert, select, update

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.settings import Metric
from indexrelay.storage.catalog.collections import advance, lock, require
from indexrelay.storage.catalog.commits import Commit, check_batch_id, parts, settled
from indexrelay.storage.catalog.database import Database
from indexrelay.storage.catalog.schema import batches, collections, entries
from indexrelay.storage.catalog.snapshot import CatalogSnapshot
from indexrelay.storage.entries import CHUNK_ROWS, Entries
from indexrelay.storage.errors import InvalidEntriesError


class EntryLog:
    """The entries and batches of all collections."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def commit(
        self, collection: str, batch_id: str, *, upserts: Sequence[Entries], deletes: Sequence[str]
    ) -> Commit:
        """Write a batch, whole or not at all, under the collection's next generation.

        A ``batch_id`` that was committed before changes nothing and gets what it got then. Within
        one batch deletes apply after upserts, and the last upsert of an id wins.

        The rows are taken as `indexrelay.storage.validation.check_entries` gives them.

        Raises:
            UnknownCollectionError: the collection is not there.
            InvalidBatchIdError: the id cannot be stored.
            InvalidEntriesError: the vectors are of another dimension than the collection's.
        """
        check_batch_id(batch_id)
        chunks = settled(upserts, deletes)
        with self._database.write() as connection:
            row = advance(connection, collection)
            earlier = _batch(connection, row.key, batch_id)
            if earlier is not None:
                connection.rollback()  # the generation that was taken for nothing
                return _commit(row, earlier, repeated=True)
            upserted, deleted, grown = self._apply(connection, row, chunks, deletes)
            if grown:
                connection.execute(
                    update(collections)
                    .where(collections.c.key == row.key)
                    .values(live=collections.c.live + grown)
                )
            written = connection.execute(
                insert(batches)
                .values(
                    collection=row.key,
                    batch_id=batch_id,
                    generation=row.generation,
                    upserts=upserted,
                    deletes=deleted,
                    committed_at=self._clock.now(),
                )
                .returning(batches)
            ).one()
            failpoint("producer.before_commit")
            return _commit(row, written, repeated=False)

    def mark(self, collection: str, batch_id: str) -> Commit:
        """Number a batch of a job that keeps its own data: a commit without rows.

        Raises:
            UnknownCollectionError: the collection is not there.
            InvalidBatchIdError: the id cannot be stored.
        """
        return self.commit(collection, batch_id, upserts=(), deletes=())

    def batch_ids(self, collection: str, *, after: int, upto: int) -> list[str]:
        """The batches with a generation in (``after``, ``upto``], oldest first.

        Raises:
            UnknownCollectionError: the collection is not there.
        """
        with self._database.read() as connection:
            row = require(connection, collection)
            return list(
                connection.scalars(
                    select(batches.c.batch_id)
                    .where(batches.c.collection == row.key)
                    .where(batches.c.generation > after, batches.c.generation <= upto)
                    .order_by(batches.c.generation)
                )
            )

    @contextmanager
    def snapshot(self, collection: str) -> Iterator[CatalogSnapshot]:
        """The collection's entries as they stand now, for as long as the ``with`` lasts.

        Keep it short: SQLite's log cannot be folded back into the database meanwhile, nor can
        PostgreSQL clean up.

        Raises:
            UnknownCollectionError: the collection is not there.
        """
        with self._database.snapshot() as connection:
            row = require(connection, collection)  # the first read: it fixes the view
            yield CatalogSnapshot(
                collection=row.name,
                epoch=row.epoch,
                generation=row.generation,
                dimension=row.dimension,
                metric=Metric(row.metric),
                count=row.live,
                floor=row.floor,
                _key=row.key,
                _connection=connection,
                _bulk=self._database.bulk,
            )

    def forget_deletes(self, collection: str, *, below: int) -> int:
        """Purge the tombstones that nobody who is at generation ``below`` or later asks for.

        From then on `SourceSnapshot.changes` of an older generation is ``None``. The floor never
        falls, and never passes the collection's generation. Returns how many were purged.

        Raises:
            UnknownCollectionError: the collection is not there.
        """
        with self._database.write() as connection:
            key = lock(connection, collection)
            row = require(connection, collection)
            floor = max(row.floor, min(below, row.generation))
            connection.execute(
                update(collections).where(collections.c.key == key).values(floor=floor)
            )
            purged = connection.execute(
                delete(entries)
                .where(entries.c.collection == key, entries.c.deleted)
                .where(entries.c.generation <= floor)
            )
            return purged.rowcount

    def _apply(
        self,
        connection: Connection,
        row: Row[tuple[object, ...]],
        chunks: Sequence[Entries],
        deletes: Sequence[str],
    ) -> tuple[int, int, int]:
        """Write the rows: how many were upserted, how many deleted, by how many the count grew."""
        bulk = self._database.bulk
        upserted = known = 0
        for chunk in chunks:
            _check_dimension(chunk, row.dimension)
            for part in parts(chunk, CHUNK_ROWS):
                if row.live:  # into an empty collection everything is new
                    known += bulk.count_live(connection, row.key, part.ids)
                bulk.upsert(connection, row.key, row.generation, part)
            upserted += len(chunk)
        deleted = bulk.delete(connection, row.key, row.generation, deletes) if deletes else 0
        return upserted, deleted, upserted - known - deleted


def _check_dimension(chunk: Entries, dimension: int) -> None:
    if chunk.vectors.shape != (len(chunk), dimension):
        raise InvalidEntriesError(
            f"vectors have shape {chunk.vectors.shape}, "
            f"the collection's have ({len(chunk)}, {dimension})"
        )


def _batch(connection: Connection, key: int, batch_id: str) -> Row[tuple[object, ...]] | None:
    return connection.execute(
        select(batches).where(batches.c.collection == key, batches.c.batch_id == batch_id)
    ).one_or_none()


def _commit(
    collection: Row[tuple[object, ...]], batch: Row[tuple[object, ...]], *, repeated: bool
) -> Commit:
    return Commit(
        collection=collection.name,
        epoch=collection.epoch,
        batch_id=batch.batch_id,
        generation=batch.generation,
        upserts=batch.upserts,
        deletes=batch.deletes,
        repeated=repeated,
    )
