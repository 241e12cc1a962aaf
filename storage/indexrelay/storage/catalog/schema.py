"""The catalog's tables, their column types, and how they are created.

Every table's name starts with ``indexrelay_``: the database may be shared with others. Entries and
batches refer to the collection's ``key``, which is never used twice, so rows of a dropped
collection can never appear in its successor. There are no foreign keys on the bulk tables: checking
them doubles the time of a bulk insert on PostgreSQL (1.7 s instead of 0.9 s for 100,000 rows), and
`Collections.drop` removes the rows under the lock that every commit takes first.
"""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import (
    DDL,
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    event,
    false,
    insert,
    inspect,
    select,
)

from indexrelay.storage.catalog.database import (
    ByteOrderedText,
    Database,
    ForeignText,
    Instant,
    Serial,
    sqlite_file,
)
from indexrelay.storage.errors import CatalogVersionError

SCHEMA_VERSION = 1
"""Counts up whenever a table changes so that earlier releases cannot work with it.

A new table, and a new column that may be NULL, are added to what is there, and do not count: a
release that does not know them goes on beside one that does.
"""

metadata = MetaData()

schema = Table("indexrelay_schema", metadata, Column("version", Integer, primary_key=True))

collections = Table(
    "indexrelay_collections",
    metadata,
    Column("key", Serial, primary_key=True),
    Column("name", ByteOrderedText, nullable=False, unique=True),
    Column("epoch", Text, nullable=False),
    Column("dimension", Integer, CheckConstraint("dimension > 0"), nullable=False),
    Column("metric", Text, nullable=False),
    Column("generation", BigInteger, nullable=False, server_default="0"),
    Column("live", BigInteger, CheckConstraint("live >= 0"), nullable=False, server_default="0"),
    # The oldest generation whose later changes are known: tombstones before it are purged.
    Column("floor", BigInteger, nullable=False, server_default="0"),
    # Where it continued after the catalog was restored from a backup; see `Collections.restore`.
    Column("restored", BigInteger),
    # The last fingerprint of a source outside of the catalog; see `Collections.number`.
    Column("fingerprint", Text),
    Column("declared_at", Instant, nullable=False),
    sqlite_autoincrement=True,
)

entries = Table(
    "indexrelay_entries",
    metadata,
    Column("collection", BigInteger, primary_key=True, autoincrement=False),
    Column("id", ByteOrderedText, primary_key=True),
    Column("generation", BigInteger, nullable=False),
    # A deleted entry stays as a tombstone, so that "what changed since" includes it.
    Column("deleted", Boolean, nullable=False, server_default=false()),
    Column("vector", LargeBinary),  # float32, little-endian; NULL in a tombstone
    Column("text", Text),
    Column("payload", Text),
    Index("indexrelay_entries_by_generation", "collection", "generation"),
)

batches = Table(
    "indexrelay_batches",
    metadata,
    Column("collection", BigInteger, primary_key=True, autoincrement=False),
    Column("batch_id", Text, primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("upserts", BigInteger, nullable=False),
    Column("deletes", BigInteger, nullable=False),
    Column("committed_at", Instant, nullable=False),
    # Of its content; NULL where that is unknown: jobs with data of their own, earlier releases.
    Column("digest", Text),
    UniqueConstraint("collection", "generation"),
)

inbox = Table(
    "indexrelay_inbox",
    metadata,
    Column("position", Serial, primary_key=True),
    Column("event_id", ForeignText, nullable=False, unique=True),
    Column("type", ForeignText, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("received_at", Instant, nullable=False),
    Column("finished_at", Instant, index=True),
    # Whether `Inbox.request` wrote the row, so that its body counts. NULL: it came from a stream,
    # or from an earlier release, which did not distinguish the two.
    Column("requested", Boolean),
    # The key of the answer to a request; NULL: none, or from an earlier release.
    Column("answer", BigInteger),
    sqlite_autoincrement=True,
)

# The results of requests; several that one pass answered share one.
answers = Table(
    "indexrelay_answers",
    metadata,
    Column("key", Serial, primary_key=True),
    Column("result", LargeBinary, nullable=False),
    Column("answered_at", Instant, nullable=False, index=True),
    sqlite_autoincrement=True,
)


def _failures(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("component", Text, primary_key=True),
        Column("failures", Integer, nullable=False),
        Column("error", ForeignText, nullable=False),
        Column("inputs", Text, nullable=False),
        Column("targets", JSON, nullable=False),
        # Named by an earlier release: whether the error was transient.
        Column("passing", Boolean, nullable=False, key="transient"),
        Column("failed_at", Instant, nullable=False),
        # When it failed first since it was built; NULL where an earlier release wrote the row.
        Column("first_failed_at", Instant),
    )


attempts = _failures("indexrelay_attempts")
# Of builds that were to improve a version. It serves meanwhile, so that no component has failed.
improvements = _failures("indexrelay_improvements")

pauses = Table(
    "indexrelay_pauses",
    metadata,
    Column("component", Text, primary_key=True),
    Column("reason", ForeignText, nullable=False),
    Column("since", Instant, nullable=False),
)

# Of each schedule that an operator looked at: what was decided of its slots.
schedules = Table(
    "indexrelay_schedules",
    metadata,
    Column("schedule", Text, primary_key=True),
    # What its slots follow from, by the operator that started last.
    Column("definition", Text, nullable=False),
    # The newest slot that was decided on; at first the moment when it was looked at.
    Column("decided", Instant, nullable=False),
    # The newest slot that made a request, and when, and the request.
    Column("slot", Instant),
    Column("fired_at", Instant),
    Column("request", ForeignText),
    # The newest slot that was missed, and not made up for.
    Column("missed", Instant),
    # When the next one starts.
    Column("next_at", Instant, nullable=False),
)

# Which operator tells people, and what the next one has to go on with; one row.
notices = Table(
    "indexrelay_notices",
    metadata,
    Column("key", Integer, primary_key=True, autoincrement=False),
    Column("owner", Text, nullable=False),
    # Counted up by the owner at each look.
    Column("beat", BigInteger, nullable=False),
    Column("state", JSON, nullable=False),
)

dead_letters = Table(
    "indexrelay_dead_letters",
    metadata,
    Column("id", Serial, primary_key=True),
    Column("stream", ForeignText, nullable=False),
    Column("entry_id", ForeignText, nullable=False),
    Column("digest", Text, nullable=False),
    # The part of it that is kept; the digest is that of all of it.
    Column("raw", LargeBinary, nullable=False),
    # Of all of it; NULL: an earlier release wrote the row, and kept all of it.
    Column("size", BigInteger),
    Column("reason", ForeignText, nullable=False),
    Column("buried_at", Instant, nullable=False, key="added_at"),
    UniqueConstraint("stream", "entry_id", "digest"),
    sqlite_autoincrement=True,
)

# The highest release number so far; one row.
release_record = Table(
    "indexrelay_release_record",
    metadata,
    Column("key", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    Column("noted_at", Instant, nullable=False),
)

# Letters that were not kept because there were too many.
dropped_letters = Table(
    "indexrelay_letters_let_go",
    metadata,
    Column("stream", ForeignText, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("first_at", Instant, nullable=False),
    Column("last_at", Instant, nullable=False),
)

# Float32 values do not compress; without this PostgreSQL tries for each vector above 2 kB.
event.listen(
    entries,
    "after_create",
    DDL(  # type: ignore[no-untyped-call] # SQLAlchemy leaves this one without annotations
        "ALTER TABLE indexrelay_entries ALTER COLUMN vector SET STORAGE EXTERNAL"
    ).execute_if(dialect="postgresql"),
)


def create_tables(database: Database) -> list[str]:
    """Create the tables and columns that are missing.

    Returns those that a catalog which was there lacked, ``TABLE`` or ``TABLE.COLUMN``: an earlier
    release has made it. Of a new catalog nothing.

    Raises:
        CatalogVersionError: the tables are of another version.
    """
    with database.read() as connection:
        if _is_current(connection):
            return []
    with database.write() as connection:
        database.take_turn(connection, 7241936508)  # any fixed number will do
        if _is_current(connection):  # another process was faster
            return []
        found = inspect(connection)
        was_there = found.has_table(schema.name)
        added = [table.name for table in metadata.sorted_tables if not found.has_table(table.name)]
        metadata.create_all(connection)
        for table, column in list(_missing_columns(connection)):
            added.append(f"{table.name}.{column.name}")
            kind = column.type.compile(connection.dialect)
            name = connection.dialect.identifier_preparer.quote(column.name)
            connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {name} {kind}")
        if connection.scalar(select(schema.c.version)) is None:
            connection.execute(insert(schema).values(version=SCHEMA_VERSION))
        return added if was_there else []


def tables_exist(url: str) -> bool:
    """Whether a catalog with all of its tables and columns is at ``url``; nothing is created.

    Raises:
        CatalogUrlError: the URL names no database that can hold a catalog.
        CatalogVersionError: the tables are of another version.
        MissingExtraError: psycopg is needed and not installed.
    """
    file = sqlite_file(url)
    if file is not None and not file.exists():
        return False
    database = Database(url)
    try:
        with database.read() as connection:
            return _is_current(connection)
    finally:
        database.close()


def _is_current(connection: Connection) -> bool:
    """Whether all tables exist, with every column."""
    if not inspect(connection).has_table(schema.name):
        return False
    found = connection.scalar(select(schema.c.version))
    if found is not None and found != SCHEMA_VERSION:
        raise CatalogVersionError(found, SCHEMA_VERSION)
    tables = inspect(connection)
    return (
        found is not None
        and all(tables.has_table(table.name) for table in metadata.sorted_tables)
        and not any(_missing_columns(connection))
    )


def _missing_columns(connection: Connection) -> Iterator[tuple[Table, Column[Any]]]:
    """Columns that an earlier release did not create, of the tables that exist."""
    tables = inspect(connection)
    for table in metadata.sorted_tables:
        if tables.has_table(table.name):
            known = {column["name"] for column in tables.get_columns(table.name)}
            yield from ((table, column) for column in table.columns if column.name not in known)
