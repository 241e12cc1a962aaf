"""Writing batches of one collection inside a transaction that is the caller's.

The generations for all of them are taken first, in one statement, which locks the collection's row.
Then the ids that were committed before are looked up, under the lock: a batch that was committed is
held against what it was, and the generations that were taken for such are given back, since nobody
has seen them. Rows, the batches' own rows and the new count follow.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, insert, select, update

from indexrelay.schemas.clock import Clock
from indexrelay.storage.catalog.batch_content import DIGEST_FORM, BatchContent
from indexrelay.storage.catalog.bulk import BulkRows
from indexrelay.storage.catalog.collections import advance
from indexrelay.storage.catalog.commits import Commit
from indexrelay.storage.catalog.schema import batches, collections, entries
from indexrelay.storage.entries import Entries
from indexrelay.storage.errors import (
    BatchContentError,
    InvalidEntriesError,
    UnknownEntriesError,
)
from indexrelay.storage.validation import in_order

_IDS_AT_A_TIME: Final = 1000
"""Batch ids in one query: SQLite and PostgreSQL both bound the parameters of a statement."""

CollectionRow = Row[tuple[Any, ...]]


@dataclass(frozen=True, kw_only=True)
class SettledBatch:
    """One batch, ready to be written."""

    batch_id: str
    content: BatchContent | None
    """``None``: the job keeps the entries itself, and what changed is not known."""


@dataclass(frozen=True, kw_only=True)
class _Known:
    """A batch that was committed."""

    commit: Commit
    digest: str | None
    """``None``: its content is not known."""
    committed_at: datetime | None = None
    """``None``: in this transaction."""


class BatchWriter:
    """Writes batches through one connection, for one transaction."""

    def __init__(self, connection: Connection, bulk: BulkRows, clock: Clock) -> None:
        self._connection = connection
        self._bulk = bulk
        self._clock = clock

    def write(self, collection: str, batches: Sequence[SettledBatch]) -> list[Commit]:
        """One commit for each batch, in the same order.

        Raises:
            UnknownCollectionError: the collection is not there.
            InvalidEntriesError: the vectors are of another dimension than the collection's.
            BatchContentError: other content was committed under one of the ids.
            UnknownEntriesError: a text or payload is set of entries that are not there.
        """
        row = advance(self._connection, collection, by=len(batches))
        known = self._committed_before(row, list(dict.fromkeys(each.batch_id for each in batches)))
        generation = row.generation - len(batches)
        live = row.live
        written: dict[str, _Known] = {}
        commits: list[Commit] = []
        for each in batches:
            earlier = written.get(each.batch_id) or known.get(each.batch_id)
            if earlier is not None and each.content is not None:
                if not self._is_same(row, earlier, each.content):
                    raise _other_content(earlier, each.content)
                commits.append(replace(earlier.commit, repeated=True))
                continue
            generation += 1
            empty = not live and not written
            commit, grown = self._apply(row, each, generation, empty=empty)
            live += grown
            digest = None if each.content is None else each.content.digest
            written[each.batch_id] = _Known(commit=commit, digest=digest)
            commits.append(commit)
        if generation < row.generation or live != row.live:
            self._settle(row, generation, live)
        self._forget(row, [batch_id for batch_id in written if batch_id in known])
        self._record(row, written.values())
        return commits

    def _committed_before(self, row: CollectionRow, ids: Sequence[str]) -> dict[str, _Known]:
        """Those of ``ids`` that the collection knows."""
        found: dict[str, _Known] = {}
        for start in range(0, len(ids), _IDS_AT_A_TIME):
            some = ids[start : start + _IDS_AT_A_TIME]
            rows = self._connection.execute(
                select(batches)
                .where(batches.c.collection == row.key)
                .where(batches.c.batch_id.in_(some))
            )
            for batch in rows:
                found[batch.batch_id] = _Known(
                    commit=_commit(
                        row, batch.batch_id, batch.generation, batch.upserts, batch.deletes
                    ),
                    digest=batch.digest,
                    committed_at=batch.committed_at,
                )
        return found

    def _is_same(self, row: CollectionRow, earlier: _Known, content: BatchContent) -> bool:
        """Whether a batch that was committed is repeated, as far as its content is known."""
        if earlier.digest is None or earlier.digest.startswith(DIGEST_FORM):
            return earlier.digest in (None, content.digest)
        # Earlier releases wrote payloads with their keys as the job gave them, and digested that.
        as_written = self._as_written(row, earlier.commit.generation, content.payloads)
        return earlier.digest == content.digest_with(as_written).removeprefix(DIGEST_FORM)

    def _as_written(
        self, row: CollectionRow, generation: int, payloads: Mapping[str, str]
    ) -> dict[str, str]:
        """By id: the same payloads as they lie in the catalog since that generation."""
        found: dict[str, str] = {}
        ids = list(payloads)
        for start in range(0, len(ids), _IDS_AT_A_TIME):
            some = ids[start : start + _IDS_AT_A_TIME]
            rows = self._connection.execute(
                select(entries.c.id, entries.c.payload)
                .where(entries.c.collection == row.key, entries.c.generation == generation)
                .where(entries.c.id.in_(some), entries.c.payload.is_not(None))
            )
            found |= {id_: text for id_, text in rows if in_order(text) == payloads[id_]}
        return found

    def _apply(
        self, row: CollectionRow, batch: SettledBatch, generation: int, *, empty: bool
    ) -> tuple[Commit, int]:
        """Write the rows of one batch; its commit, and by how many the collection grew."""
        if batch.content is None:
            return _commit(row, batch.batch_id, generation, 0, 0), 0
        upserted = known = deleted = 0
        for chunk in batch.content.upserts:
            _check_dimension(chunk, row.dimension)
            if not empty:  # into an empty collection everything is new
                known += self._bulk.count_live(self._connection, row.key, chunk.ids)
            self._bulk.upsert(self._connection, row.key, generation, chunk)
            upserted += len(chunk)
        updated = self._update(row, batch.content, generation)
        if batch.content.deletes:
            deletes = batch.content.deletes
            deleted = self._bulk.delete(self._connection, row.key, generation, deletes)
        commit = _commit(row, batch.batch_id, generation, upserted + updated, deleted)
        return commit, upserted - known - deleted

    def _update(self, row: CollectionRow, content: BatchContent, generation: int) -> int:
        """Set and clear texts and payloads; how many entries that were not upserted has."""
        updates = content.updates
        if not updates:
            return 0
        found = self._bulk.update(self._connection, row.key, generation, updates)
        if found < len(updates):
            ids = [update.id for update in updates]
            there = self._bulk.live_among(self._connection, row.key, ids)
            # What is not there has no text that could be cleared: as with deletes, that is well.
            unknown = [
                update.id
                for update in updates
                if update.id not in there and (update.text, update.payload) != (None, None)
            ]
            if unknown:
                raise UnknownEntriesError(row.name, unknown)
        return found - (len(updates) - content.updated)  # what is upserted, too, counts there

    def _settle(self, row: CollectionRow, generation: int, live: int) -> None:
        """Give back the generations that nobody needed, and keep the count."""
        self._connection.execute(
            update(collections)
            .where(collections.c.key == row.key)
            .values(generation=generation, live=live)
        )

    def _forget(self, row: CollectionRow, ids: Sequence[str]) -> None:
        """Take out the rows of batches that are written again, of jobs that keep their own data."""
        if ids:
            self._connection.execute(
                delete(batches)
                .where(batches.c.collection == row.key)
                .where(batches.c.batch_id.in_(ids))
            )

    def _record(self, row: CollectionRow, written: Iterable[_Known]) -> None:
        """The batches' own rows."""
        now = self._clock.now()
        rows = [
            {
                "collection": row.key,
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
