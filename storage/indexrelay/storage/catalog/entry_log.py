"""The entry log: batches go in, each under its own generation; consistent snapshots come out.

Each id has one row, with its last state and the generation that wrote it. So "everything at G" is
all live rows, "what changed since A" is all rows younger than A, and both hold only inside a
snapshot: without one, a row that is upserted meanwhile moves past G and is in neither.

A commit first takes the generations of all its batches in one statement, which locks the
collection's row. Under the lock it looks up the ids that were committed before: such a batch is
compared with the first one, and its generation is given back, since it was never visible. Rows, the
rows of the batches and the new count follow.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.settings import Metric
from indexrelay.storage.catalog.collections import advance, lock, require
from indexrelay.storage.catalog.database import BulkRows, Database, entries_of, savepoint
from indexrelay.storage.catalog.schema import batches, collections, entries
from indexrelay.storage.entries import (
    CHUNK_ROWS,
    DIGEST_FORM,
    BatchChanges,
    BatchContent,
    Changes,
    Commit,
    Entries,
    Guard,
    SnapshotBase,
    StoredEntry,
    check_batch_id,
    content_of,
)
from indexrelay.storage.errors import (
    BatchContentError,
    GuardedEntriesError,
    InvalidEntriesError,
    SnapshotClosedError,
    UnknownCollectionError,
    UnknownEntriesError,
)
from indexrelay.storage.validation import in_order


@dataclass(frozen=True, kw_only=True)
class ChangeCount:
    """How many entries changed since a generation, each counted once, as it is now."""

    upserts: int
    """That are there."""
    deletes: int
    """That are deleted; some of them may have been written since, too."""

    @property
    def entries(self) -> int:
        """All of them."""
        return self.upserts + self.deletes


class EntryLog:
    """The entries and batches of all collections."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def commit(
        self, collection: str, batch_id: str, *, upserts: Sequence[Entries], deletes: Sequence[str]
    ) -> Commit:
        """Write a batch, whole or not at all, under the collection's next generation.

        The same batch again changes nothing and gets the same commit. Within one batch deletes
        apply after upserts, and the last upsert of an id wins; a text or payload that is ``None``
        in it stays as it is.

        The rows are expected as `indexrelay.storage.validation.check_entries` gives them.

        Raises:
            UnknownCollectionError: the collection does not exist.
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
            UnknownEntriesError: a text or payload is set of entries that do not exist.
            GuardedEntriesError: a batch changes entries that its writer may not change.
        """
        commits: list[Commit] = []
        for outcome in self._written(batches, alone=False):
            if not isinstance(outcome, Commit):
                raise outcome
            commits.append(outcome)
        return commits

    def commit_each(self, batches: Sequence[BatchChanges]) -> list[Commit | IndexRelayError]:
        """Write batches of writers that have nothing to do with each other, in one transaction.

        As `commit_many`, but what is wrong with one batch is the outcome of that batch, in its
        place, and the others are written: each by itself is written whole or not at all.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the catalog cannot be written; where the connection
                broke at the commit, it is not known whether all of them were written, or none.
        """
        return self._written(batches, alone=True)

    def _written(
        self, batches: Sequence[BatchChanges], *, alone: bool
    ) -> list[Commit | IndexRelayError]:
        """The outcome of each; without ``alone`` the first error is raised instead."""
        by_collection: dict[str, list[SettledBatch]] = {}
        for each in batches:
            check_batch_id(each.batch_id)
            content = None if each.own_data else content_of(each)
            settled = SettledBatch(batch_id=each.batch_id, content=content, guard=each.guard)
            by_collection.setdefault(each.collection, []).append(settled)
        if not batches:
            return []
        with self._database.write() as connection:
            done: dict[str, Iterator[Commit | IndexRelayError]] = {}
            for name in sorted(by_collection):  # so that no two transactions wait for each other
                settled_ones = by_collection[name]
                try:
                    row = advance(connection, name, by=len(settled_ones))
                except UnknownCollectionError as error:
                    if not alone:
                        raise
                    done[name] = iter([error] * len(settled_ones))
                    continue
                writer = BatchWriter(connection, self._database.bulk, self._clock, row)
                done[name] = iter(writer.write(settled_ones, alone=alone))
            failpoint("producer.before_commit")
        failpoint("producer.after_commit")
        return [next(done[each.collection]) for each in batches]

    def get(self, collection: str, entry_id: str) -> StoredEntry | None:
        """One entry as it is now; ``None``: the collection does not hold it.

        Raises:
            UnknownCollectionError: the collection does not exist.
        """
        with self._database.snapshot() as connection:
            row = require(connection, collection)  # the first read: it fixes the view
            found = self._database.bulk.find(connection, row.key, entry_id)
        if found is None:
            return None
        text, payload = found
        return StoredEntry(
            id=entry_id, text=text, payload=payload, epoch=row.epoch, generation=row.generation
        )

    def mark(self, collection: str, batch_id: str) -> Commit:
        """Number a batch of a job that keeps its own data: a commit without rows.

        What changed is not known here, so the same id again may be other content: it gets the next
        generation, and belongs to that from then on.

        Raises:
            UnknownCollectionError: the collection does not exist.
            InvalidBatchIdError: the id cannot be stored.
        """
        changes = BatchChanges(collection=collection, batch_id=batch_id, own_data=True)
        return self.commit_many([changes])[0]

    def batch_ids(self, collection: str, *, after: int, upto: int) -> list[str]:
        """The batches with a generation in (``after``, ``upto``], oldest first.

        Raises:
            UnknownCollectionError: the collection does not exist.
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

    def count_changes(self, collection: str, *, after: int, most: int) -> ChangeCount:
        """How many entries changed after a generation.

        Args:
            collection: its name.
            after: the generation.
            most: no more are counted, which bounds what it costs.

        Raises:
            UnknownCollectionError: the collection does not exist.
        """
        with self._database.read() as connection:
            row = require(connection, collection)
            changed = (
                select(entries.c.deleted)
                .where(entries.c.collection == row.key, entries.c.generation > after)
                .limit(most)
                .subquery()
            )
            counted = select(changed.c.deleted, func.count()).group_by(changed.c.deleted)
            found = {bool(deleted): int(count) for deleted, count in connection.execute(counted)}
        return ChangeCount(upserts=found.get(False, 0), deletes=found.get(True, 0))

    @contextmanager
    def snapshot(self, collection: str) -> "Iterator[CatalogSnapshot]":
        """The collection's entries as they are now, for as long as the ``with`` lasts.

        Keep it short: meanwhile SQLite cannot fold its log back into the database, and PostgreSQL
        cannot clean up.

        Raises:
            UnknownCollectionError: the collection does not exist.
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
        """Purge the tombstones that no reader at generation ``below`` or later asks for.

        From then on `SourceSnapshot.changes` of an older generation is ``None``. The floor never
        falls, and never passes the collection's generation. Returns how many were purged.

        Raises:
            UnknownCollectionError: the collection does not exist.
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
                # Below the old floor there are no tombstones, only rows that did not change.
                .where(entries.c.generation > row.floor, entries.c.generation <= floor)
            )
            return purged.rowcount


@dataclass(frozen=True, kw_only=True)
class CatalogSnapshot(SnapshotBase):
    """`SourceSnapshot` of entries that the catalog keeps.

    Nothing is left out: what cannot be an entry is refused when it is committed.
    """

    floor: int
    """The oldest generation whose changes are still known."""
    _key: int = field(repr=False)
    _connection: Connection = field(repr=False)
    _bulk: BulkRows = field(repr=False)

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Entries]:
        """Every live entry once, in the order of the ids' UTF-8 bytes.

        Raises:
            SnapshotClosedError: the ``with`` is over.
        """
        self._check_open()
        for chunk in self._bulk.live(self._connection, self._key, self.dimension, rows):
            yield chunk
            self._check_open()

    def changes(self, after: int, rows: int = CHUNK_ROWS) -> Iterator[Changes] | None:
        """What changed in (``after``, ``generation``], in the order of the ids' UTF-8 bytes.

        A delete may name an entry that was written after ``after`` and deleted again. ``None``
        when ``after`` is older than the oldest remembered delete, or in the future.

        Raises:
            SnapshotClosedError: the ``with`` is over.
        """
        if not self.floor <= after <= self.generation:
            return None
        return self._changes(after, rows)

    def _changes(self, after: int, rows: int) -> Iterator[Changes]:
        self._check_open()
        for chunk in self._bulk.changed(self._connection, self._key, after, rows):
            yield Changes(
                upserts=entries_of([row for row in chunk if not row[4]], self.dimension),
                deletes=[row[0] for row in chunk if row[4]],
            )
            self._check_open()

    def _check_open(self) -> None:
        """A cursor of SQLite would continue outside of the transaction, with newer rows."""
        if self._connection.closed:
            raise SnapshotClosedError(self.collection)


_IDS_AT_A_TIME: Final = 1000
"""Batch ids in one query: SQLite and PostgreSQL both bound the parameters of a statement."""

CollectionRow = Row[tuple[Any, ...]]


@dataclass(frozen=True, kw_only=True)
class SettledBatch:
    """One batch, ready to be written."""

    batch_id: str
    content: BatchContent | None
    """``None``: the job keeps the entries itself, and what changed is not known."""
    guard: Guard | None = None
    """See `BatchChanges.guard`."""


@dataclass(frozen=True, kw_only=True)
class _Known:
    """A batch that was committed."""

    commit: Commit
    digest: str | None
    """``None``: its content is not known."""
    committed_at: datetime | None = None
    """``None``: in this transaction."""


class BatchWriter:
    """Writes batches of one collection through one connection, in one transaction."""

    def __init__(
        self, connection: Connection, bulk: BulkRows, clock: Clock, row: CollectionRow
    ) -> None:
        """``row``: the collection's, after the generations of all batches were taken."""
        self._connection = connection
        self._bulk = bulk
        self._clock = clock
        self._row = row

    def write(
        self, batches: Sequence[SettledBatch], *, alone: bool = False
    ) -> list[Commit | IndexRelayError]:
        """One commit for each batch, in the same order.

        Args:
            batches: to be written.
            alone: whether an error takes its batch's place, and the others are written.

        Raises:
            InvalidEntriesError: the vectors are of another dimension than the collection's.
            BatchContentError: other content was committed under one of the ids.
            UnknownEntriesError: a text or payload is set of entries that do not exist.
            GuardedEntriesError: a batch changes entries that its writer may not change.
        """
        row = self._row
        known = self._committed_before(list(dict.fromkeys(each.batch_id for each in batches)))
        generation = row.generation - len(batches)
        live = row.live
        written: dict[str, _Known] = {}
        outcomes: list[Commit | IndexRelayError] = []
        for each in batches:
            earlier = written.get(each.batch_id) or known.get(each.batch_id)
            empty = not live and not written
            try:
                if earlier is not None and each.content is not None:
                    outcomes.append(self._repeated(earlier, each.content))
                    continue
                # What a batch has written when it fails is taken back without the others.
                with savepoint(self._connection) if alone else nullcontext():
                    commit, grown = self._apply(each, generation + 1, empty=empty)
            except IndexRelayError as error:
                if not alone:
                    raise
                outcomes.append(error)
                continue
            generation += 1
            live += grown
            digest = None if each.content is None else each.content.digest
            written[each.batch_id] = _Known(commit=commit, digest=digest)
            outcomes.append(commit)
        if generation < row.generation or live != row.live:
            self._settle(generation, live)
        self._forget([batch_id for batch_id in written if batch_id in known])
        self._record(written.values())
        return outcomes

    def _committed_before(self, ids: Sequence[str]) -> dict[str, _Known]:
        """Those of ``ids`` that the collection knows."""
        found: dict[str, _Known] = {}
        for start in range(0, len(ids), _IDS_AT_A_TIME):
            some = ids[start : start + _IDS_AT_A_TIME]
            rows = self._connection.execute(
                select(batches)
                .where(batches.c.collection == self._row.key)
                .where(batches.c.batch_id.in_(some))
            )
            for batch in rows:
                found[batch.batch_id] = _Known(
                    commit=self._commit(
                        batch.batch_id, batch.generation, batch.upserts, batch.deletes
                    ),
                    digest=batch.digest,
                    committed_at=batch.committed_at,
                )
        return found

    def _repeated(self, earlier: _Known, content: BatchContent) -> Commit:
        """The commit that the same batch got before; raises `BatchContentError` for another one."""
        if not self._is_same(earlier, content):
            raise _other_content(earlier, content)
        return replace(earlier.commit, repeated=True)

    def _is_same(self, earlier: _Known, content: BatchContent) -> bool:
        """Whether ``content`` is that of a committed batch, as far as that is known."""
        if earlier.digest is None or earlier.digest.startswith(DIGEST_FORM):
            return earlier.digest in (None, content.digest)
        # Earlier releases stored and digested payloads with their keys as the job gave them.
        as_written = self._as_written(earlier.commit.generation, content.payloads)
        return earlier.digest == content.digest_with(as_written).removeprefix(DIGEST_FORM)

    def _as_written(self, generation: int, payloads: Mapping[str, str]) -> dict[str, str]:
        """By id: the same payloads as the catalog stores them since that generation."""
        found: dict[str, str] = {}
        ids = list(payloads)
        for start in range(0, len(ids), _IDS_AT_A_TIME):
            some = ids[start : start + _IDS_AT_A_TIME]
            rows = self._connection.execute(
                select(entries.c.id, entries.c.payload)
                .where(entries.c.collection == self._row.key, entries.c.generation == generation)
                .where(entries.c.id.in_(some), entries.c.payload.is_not(None))
            )
            found |= {id_: text for id_, text in rows if in_order(text) == payloads[id_]}
        return found

    def _apply(self, batch: SettledBatch, generation: int, *, empty: bool) -> tuple[Commit, int]:
        """Write the rows of one batch; its commit, and by how many the collection grew."""
        if batch.content is None:
            return self._commit(batch.batch_id, generation, 0, 0), 0
        key = self._row.key
        upserted = known = deleted = 0
        content = batch.content
        if batch.guard is not None:
            content = self._guarded(content, batch.guard)
        for chunk in content.upserts:
            _check_dimension(chunk, self._row.dimension)
            if not empty:  # into an empty collection everything is new
                known += self._bulk.count_live(self._connection, key, chunk.ids)
            self._bulk.upsert(self._connection, key, generation, chunk)
            upserted += len(chunk)
        updated = self._update(content, generation)
        if content.deletes:
            deleted = self._bulk.delete(self._connection, key, generation, content.deletes)
        commit = self._commit(batch.batch_id, generation, upserted + updated, deleted)
        return commit, upserted - known - deleted

    def _guarded(self, content: BatchContent, guard: Guard) -> BatchContent:
        """The content as if what the guard does not accept were not there.

        Raises:
            UnknownEntriesError: a text or payload is set of an entry of somebody else's.
            GuardedEntriesError: one is upserted, or what is written would not be the writer's.
        """
        upserted = [id_ for chunk in content.upserts for id_ in chunk.ids]
        updated = {each.id for each in content.updates}.difference(upserted)
        ids = [*upserted, *updated, *content.deletes]
        stored: dict[str, str | None] = {}
        for start in range(0, len(ids), _IDS_AT_A_TIME):
            some = ids[start : start + _IDS_AT_A_TIME]
            stored |= self._bulk.payloads(self._connection, self._row.key, some)
        others = {id_ for id_, payload in stored.items() if not guard(payload)}
        updates = [each for each in content.updates if each.id not in updated & others]
        if hidden := [each.id for each in content.updates if each not in updates and each.sets]:
            raise UnknownEntriesError(self._row.name, hidden)
        if taken := [id_ for id_ in upserted if id_ in others]:
            raise GuardedEntriesError(self._row.name, taken, become=False)
        becoming = {
            id_: stored.get(id_) if payload is None else payload
            for chunk in content.upserts
            for id_, payload in zip(chunk.ids, chunk.payloads, strict=True)
        }
        becoming |= {
            each.id: each.payload
            for each in updates
            if each.sets_payload and (each.id in stored or each.id in becoming)
        }
        if lost := [id_ for id_, payload in becoming.items() if not guard(payload)]:
            raise GuardedEntriesError(self._row.name, lost, become=True)
        deletes = [id_ for id_ in content.deletes if id_ not in others]
        return replace(content, updates=updates, deletes=deletes)

    def _update(self, content: BatchContent, generation: int) -> int:
        """Set and clear texts and payloads; returns of how many entries that are not upserted."""
        updates, key = content.updates, self._row.key
        if not updates:
            return 0
        found = self._bulk.update(self._connection, key, generation, updates)
        if found < len(updates):
            ids = [update.id for update in updates]
            there = self._bulk.live_among(self._connection, key, ids)
            # To clear what does not exist is no error, as with deletes.
            unknown = [update.id for update in updates if update.id not in there and update.sets]
            if unknown:
                raise UnknownEntriesError(self._row.name, unknown)
        return found - (len(updates) - content.updated)  # `found` counts upserted ones, too

    def _settle(self, generation: int, live: int) -> None:
        """Give back the generations that were not needed, and store the count."""
        self._connection.execute(
            update(collections)
            .where(collections.c.key == self._row.key)
            .values(generation=generation, live=live)
        )

    def _forget(self, ids: Sequence[str]) -> None:
        """Remove the rows of batches that are numbered again, of jobs that keep their own data."""
        if ids:
            self._connection.execute(
                delete(batches)
                .where(batches.c.collection == self._row.key)
                .where(batches.c.batch_id.in_(ids))
            )

    def _record(self, written: Iterable[_Known]) -> None:
        """Insert the rows of the batches."""
        now = self._clock.now()
        rows = [
            {
                "collection": self._row.key,
                "batch_id": each.commit.batch_id,
                "generation": each.commit.generation,
                "upserts": each.commit.upserts,
                "deletes": each.commit.deletes,
                "committed_at": now,
                "digest": each.digest,
            }
            for each in written
        ]
        if rows:
            self._connection.execute(insert(batches), rows)

    def _commit(self, batch_id: str, generation: int, upserts: int, deletes: int) -> Commit:
        return Commit(
            collection=self._row.name,
            epoch=self._row.epoch,
            batch_id=batch_id,
            generation=generation,
            upserts=upserts,
            deletes=deletes,
            repeated=False,
        )


def _other_content(earlier: _Known, content: BatchContent) -> BatchContentError:
    commit = earlier.commit
    upserts = sum(map(len, content.upserts)) + content.updated
    return BatchContentError(
        commit.collection,
        commit.batch_id,
        generation=commit.generation,
        committed_at=earlier.committed_at,
        before=(commit.upserts, commit.deletes, earlier.digest or ""),
        now=(upserts, len(content.deletes), content.digest),
    )


def _check_dimension(chunk: Entries, dimension: int) -> None:
    if chunk.vectors.shape != (len(chunk), dimension):
        raise InvalidEntriesError(
            f"vectors have shape {chunk.vectors.shape}, "
            f"the collection's have ({len(chunk)}, {dimension})"
        )
