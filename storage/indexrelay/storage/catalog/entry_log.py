"""The entry log: batches go in, each under its own generation; consistent snapshots come out.

Each id has one row, which holds its last state and the generation that gave it. So "everything at
G" is all live rows, "what changed since A" is all rows younger than A, and both hold only inside a
snapshot: without one, a row that is upserted meanwhile moves past G and is in neither.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import delete, select, update

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.settings import Metric
from indexrelay.storage.catalog.batch_content import content_of
from indexrelay.storage.catalog.batch_writing import BatchWriter, SettledBatch
from indexrelay.storage.catalog.collections import lock, require
from indexrelay.storage.catalog.commits import BatchChanges, Commit, check_batch_id
from indexrelay.storage.catalog.database import Database
from indexrelay.storage.catalog.schema import batches, collections, entries
from indexrelay.storage.catalog.snapshot import CatalogSnapshot
from indexrelay.storage.entries import Entries


class EntryLog:
    """The entries and batches of all collections."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def commit(
        self, collection: str, batch_id: str, *, upserts: Sequence[Entries], deletes: Sequence[str]
    ) -> Commit:
        """Write a batch, whole or not at all, under the collection's next generation.

        The same batch again changes nothing and gets what it got then. Within one batch deletes
        apply after upserts, and the last upsert of an id wins; a text or payload that is ``None``
        in it stays what it is.

        The rows are taken as `indexrelay.storage.validation.check_entries` gives them.

        Raises:
            UnknownCollectionError: the collection is not there.
            InvalidBatchIdError: the id cannot be stored.
            InvalidEntriesError: the vectors are of another dimension than the collection's.
            BatchContentError: other content was committed under the id.
        """
        changes = BatchChanges(
            collection=collection, batch_id=batch_id, upserts=upserts, deletes=deletes
        )
        return self.commit_many([changes])[0]

    def commit_many(self, batches: Sequence[BatchChanges]) -> list[Commit]:
        """Write batches, of any collections, all of them or none, in one transaction.

        Each gets a generation of its own, in the order in which they are given; so a job with many
        small batches pays for one fsync instead of many. What `commit` says of one holds for each.

        Raises:
            UnknownCollectionError, InvalidBatchIdError, InvalidEntriesError, BatchContentError: as
                `commit`; nothing is written.
            UnknownEntriesError: a text or payload is set of entries that are not there.
        """
        by_collection: dict[str, list[SettledBatch]] = {}
        for each in batches:
            check_batch_id(each.batch_id)
            content = None if each.own_data else content_of(each)
            settled = SettledBatch(batch_id=each.batch_id, content=content)
            by_collection.setdefault(each.collection, []).append(settled)
        if not batches:
            return []
        with self._database.write() as connection:
            writer = BatchWriter(connection, self._database.bulk, self._clock)
            done = {
                # In this order, so that no two transactions wait for each other.
                name: iter(writer.write(name, by_collection[name]))
                for name in sorted(by_collection)
            }
            failpoint("producer.before_commit")
        return [next(done[each.collection]) for each in batches]

    def mark(self, collection: str, batch_id: str) -> Commit:
        """Number a batch of a job that keeps its own data: a commit without rows.

        What changed is not known here, so the same id again may be other content: it gets the next
        generation, and stands for that from then on.

        Raises:
            UnknownCollectionError: the collection is not there.
            InvalidBatchIdError: the id cannot be stored.
        """
        changes = BatchChanges(collection=collection, batch_id=batch_id, own_data=True)
        return self.commit_many([changes])[0]

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
            floor = min(below, row.generation)
            if floor <= row.floor:
                return 0
            connection.execute(
                update(collections).where(collections.c.key == key).values(floor=floor)
            )
            purged = connection.execute(
                delete(entries)
                .where(entries.c.collection == key, entries.c.deleted)
                # Below the old floor there are none, but every row that did not change lately.
                .where(entries.c.generation > row.floor, entries.c.generation <= floor)
            )
            return purged.rowcount
