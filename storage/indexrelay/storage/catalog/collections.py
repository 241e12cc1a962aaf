"""Collections: which exist, and which generation each of them has reached.

The row of a collection is also its lock. Every change of a collection updates this row first, so
the database lets one writer through at a time, and the order of commits is the order of numbers.
"""

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.settings import Metric
from indexrelay.storage.catalog.database import Database
from indexrelay.storage.catalog.schema import batches, collections, entries
from indexrelay.storage.errors import (
    CollectionMismatchError,
    SourceError,
    UnknownCollectionError,
)
from indexrelay.storage.validation import EntryRules

_log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Collection:
    """A collection as it was when it was read."""

    name: str
    epoch: str
    """Drawn at random when it was declared: another epoch is another collection."""
    dimension: int
    metric: Metric
    generation: int
    """0 before the first commit."""
    count: int
    """Live entries; 0 where the entries are kept elsewhere."""


@dataclass(frozen=True, kw_only=True)
class CollectionLog:
    """Which commits some generations of a collection belong to.

    A number alone does not identify a commit: a catalog that was restored from an older backup
    assigns the numbers of the commits that it lost again. A **stamp** does: it is computed from the
    time and the id of the batch, or from the fingerprint of an outside source.
    """

    epoch: str
    generation: int
    """The last one."""
    stamps: Mapping[int, str]
    """By generation, of those that were asked for, as far as they are known."""
    batch_ids: Mapping[int, str]
    """By generation: its batch."""
    whole: bool
    """Whether a generation without a stamp was never committed here. Otherwise it may be forgotten:
    of an outside source only the last fingerprint is kept, and of a job with data of its own the
    last commit under each id."""
    restored: int = 0
    """The generation at which it continued above the numbers that a backup lost; 0: none."""

    def knows(self, generation: int, stamp: str | None) -> bool:
        """Whether a version that covers ``generation`` may have been built from this catalog.

        Args:
            stamp: what the version says; ``None``: an earlier release wrote it, without one.
        """
        if generation > self.generation:
            return False
        here = self.stamps.get(generation)
        if here is None:
            return not self.whole or not generation or stamp is None
        return stamp is None or stamp == here

    def lost(self, generation: int, stamp: str | None) -> bool:
        """Whether a version that covers ``generation`` shows that this catalog went back in time.

        After `Collections.restore` continued above it, such a version is merely behind.
        """
        return generation > self.restored and not self.knows(generation, stamp)


class Collections:
    """The rows of all collections."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def declare(self, name: str, *, dimension: int, metric: Metric) -> Collection:
        """Create the collection if it is missing; the same declaration again changes nothing.

        Two processes may declare it at the same moment: one creates it, both get it.

        Raises:
            CollectionMismatchError: it exists with another dimension or metric.
        """
        with self._database.read() as connection:
            row = find(connection, name)
        if row is None:
            row = self._declare(name, dimension=dimension, metric=metric)
        return _expected(row, dimension=dimension, metric=metric)

    def expect(self, name: str, *, dimension: int, metric: Metric) -> Collection:
        """The collection, if it is as it is declared; nothing is created.

        Raises:
            UnknownCollectionError: it does not exist.
            CollectionMismatchError: it exists with another dimension or metric.
        """
        with self._database.read() as connection:
            return _expected(require(connection, name), dimension=dimension, metric=metric)

    def get(self, name: str) -> Collection:
        """The collection.

        Raises:
            UnknownCollectionError: it was never declared, or was dropped.
        """
        with self._database.read() as connection:
            return _collection(require(connection, name))

    def all(self) -> list[Collection]:
        """Every collection, by name."""
        with self._database.read() as connection:
            rows = connection.execute(select(collections).order_by(collections.c.name))
            return [_collection(row) for row in rows]

    def log(self, name: str, generations: Iterable[int]) -> CollectionLog:
        """Which commits these generations belong to, and the last one.

        Raises:
            UnknownCollectionError: it does not exist.
        """
        with self._database.snapshot() as connection:
            row = require(connection, name)
            found = connection.execute(
                select(batches)
                .where(batches.c.collection == row.key)
                .where(batches.c.generation.in_({*generations, row.generation}))
            ).all()
        stamps = {each.generation: _stamp(each.batch_id, each.committed_at) for each in found}
        if row.fingerprint is not None:
            stamps.setdefault(row.generation, _stamp(row.fingerprint))
        newest = next((each for each in found if each.generation == row.generation), None)
        kept_here = newest is None or newest.digest is not None or row.generation == row.restored
        return CollectionLog(
            epoch=row.epoch,
            generation=row.generation,
            stamps=stamps,
            batch_ids={each.generation: each.batch_id for each in found},
            whole=row.fingerprint is None and kept_here,
            restored=row.restored or 0,
        )

    def committed_after(self, name: str, generation: int) -> datetime | None:
        """When the first commit after ``generation`` was made.

        ``None``: there is none, or it is of an outside source, whose changes have no such time.

        Raises:
            UnknownCollectionError: it does not exist.
        """
        with self._database.read() as connection:
            row = require(connection, name)
            found: datetime | None = connection.scalar(
                select(func.min(batches.c.committed_at))
                .where(batches.c.collection == row.key)
                .where(batches.c.generation > generation)
            )
            return found

    def restore(self, name: str, *, above: int) -> int:
        """Continue above a number that was assigned before this catalog was restored from a backup.

        The next generation, a commit without rows, is above every one that any version covers.
        Changes before it are no longer known, so that the next build is a full one.

        Args:
            above: the highest generation of this epoch that any version covers.

        Raises:
            UnknownCollectionError: it does not exist.
        """
        with self._database.write() as connection:
            generation = go_on_above(connection, name, above, self._clock)
        _log.info("collection.restored", collection=name, generation=generation)
        return generation

    def drop(self, name: str) -> None:
        """Remove the collection with its entries and batches; a running snapshot still sees them.

        Raises:
            UnknownCollectionError: it does not exist.
        """
        with self._database.write() as connection:
            # Commits update this row before they write entries: after this none is running.
            key = lock(connection, name)
            for table in (entries, batches):
                connection.execute(delete(table).where(table.c.collection == key))
            connection.execute(delete(collections).where(collections.c.key == key))
        _log.info("collection.dropped", collection=name)

    def number(self, name: str, fingerprint: str) -> int:
        """The generation of an outside source with this fingerprint.

        ``fingerprint`` is any text that differs when the source does. The one that was numbered
        last gets its generation again; every other takes the next, once, however many processes
        see it at the same time.

        Raises:
            UnknownCollectionError: the collection does not exist.
        """
        with self._database.read() as connection:
            row = require(connection, name)
        if row.fingerprint == fingerprint:  # nearly always; no lock is needed
            return int(row.generation)
        with self._database.write() as connection:
            generation = connection.scalar(
                update(collections)
                .where(collections.c.name == name)
                .where(collections.c.fingerprint.is_distinct_from(fingerprint))
                .values(generation=collections.c.generation + 1, fingerprint=fingerprint)
                .returning(collections.c.generation)
            )
            return int(generation or require(connection, name).generation)

    def _declare(self, name: str, *, dimension: int, metric: Metric) -> Row[tuple[object, ...]]:
        epoch = secrets.token_hex(8)
        statement = self._database.insert(collections).values(
            name=name,
            epoch=epoch,
            dimension=dimension,
            metric=metric.value,
            declared_at=self._clock.now(),
        )
        # An update that changes nothing returns the existing row; DO NOTHING returns none.
        statement = statement.on_conflict_do_update(
            index_elements=[collections.c.name], set_={"name": name}
        )
        with self._database.write() as connection:
            row = connection.execute(statement.returning(collections)).one()
        if row.epoch == epoch:
            _log.info("collection.declared", collection=name, epoch=epoch)
        return row


@dataclass(frozen=True, kw_only=True)
class DeclaredCollection:
    """A collection as the settings declare it, which a source outside the catalog belongs to."""

    collections: Collections | None
    """``None``: there is no catalog yet, so that the source can be looked at and nothing else."""
    name: str
    dimension: int
    metric: Metric
    rules: EntryRules

    def current(self) -> Collection:
        """The collection; created where it is missing, also after it was dropped.

        Raises:
            CollectionMismatchError: the catalog has it with another dimension or metric.
            SourceError: there is no catalog yet.
        """
        if self.collections is None:
            raise SourceError(f"there is no catalog yet to number {self.name!r} in")
        return self.collections.declare(self.name, dimension=self.dimension, metric=self.metric)

    def numbered(self, fingerprint: str) -> Collection:
        """The same, after this fingerprint of its source has got a generation.

        Epoch and generation come from one read of the row, so they belong together.
        """
        self.current()
        if self.collections is not None:
            self.collections.number(self.name, fingerprint)
        return self.current()


def find(connection: Connection, name: str) -> Row[tuple[object, ...]] | None:
    """The collection's row, if it exists."""
    return connection.execute(select(collections).where(collections.c.name == name)).one_or_none()


def require(connection: Connection, name: str) -> Row[tuple[object, ...]]:
    """The collection's row.

    Raises:
        UnknownCollectionError: it does not exist.
    """
    row = find(connection, name)
    if row is None:
        raise UnknownCollectionError(name)
    return row


def advance(connection: Connection, name: str, *, by: int = 1) -> Row[tuple[object, ...]]:
    """Take the next generations; a transaction does this before it touches the collection.

    Until the transaction ends no other one gets a generation of this collection: a number is never
    visible before the numbers below it. Taken last instead, transactions deadlock. One that
    advances several collections does so in the order of their names, for the same reason.

    Raises:
        UnknownCollectionError: it does not exist.
    """
    row = connection.execute(
        update(collections)
        .where(collections.c.name == name)
        .values(generation=collections.c.generation + by)
        .returning(collections)
    ).one_or_none()
    if row is None:
        raise UnknownCollectionError(name)
    return row


def lock(connection: Connection, name: str) -> int:
    """Lock the collection against every other writer until this transaction ends; returns its key.

    Raises:
        UnknownCollectionError: it does not exist.
    """
    key = connection.scalar(
        select(collections.c.key).where(collections.c.name == name).with_for_update()
    )
    if key is None:
        raise UnknownCollectionError(name)
    return int(key)


def go_on_above(connection: Connection, name: str, above: int, clock: Clock) -> int:
    """Take the generation after ``above``, and forget the changes before it; returns it.

    Raises:
        UnknownCollectionError: it does not exist.
    """
    key = lock(connection, name)
    row = require(connection, name)
    generation = max(int(row.generation), above) + 1
    connection.execute(
        update(collections)
        .where(collections.c.key == key)
        .values(generation=generation, floor=generation, restored=generation)
    )
    connection.execute(
        insert(batches).values(
            collection=key,
            batch_id=f"restored-{secrets.token_hex(8)}",
            generation=generation,
            upserts=0,
            deletes=0,
            committed_at=clock.now(),
        )
    )
    return generation


def _stamp(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]


def _expected(row: Row[tuple[object, ...]], *, dimension: int, metric: Metric) -> Collection:
    differences: list[tuple[str, object, object]] = []
    if row.dimension != dimension:
        differences.append(("dimension", row.dimension, dimension))
    if row.metric != metric:
        differences.append(("metric", row.metric, metric.value))
    if differences:
        raise CollectionMismatchError(str(row.name), differences)
    return _collection(row)


def _collection(row: Row[tuple[object, ...]]) -> Collection:
    return Collection(
        name=row.name,
        epoch=row.epoch,
        dimension=row.dimension,
        metric=Metric(row.metric),
        generation=row.generation,
        count=row.live,
    )
