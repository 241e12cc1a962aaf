"""What can go wrong with the catalog, with rows and with sources, and what to do about it.

What the database itself raises (unreachable, disk full) is not renamed: it arrives as SQLAlchemy's
or the driver's own error.
"""

from collections.abc import Sequence
from datetime import datetime

from indexrelay.schemas import commands
from indexrelay.schemas.errors import IndexRelayError, UnknownNameError


class CatalogUrlError(IndexRelayError):
    """Raised when a catalog's URL names no database that can hold one.

    The URL may hold a password, so the message does not repeat it.
    """


class CatalogVersionError(IndexRelayError):
    """Raised when a catalog was made by a release of indexrelay whose tables differ from ours."""

    def __init__(self, found: int, expected: int) -> None:
        super().__init__(
            f"the catalog's tables are of version {found}, this release of indexrelay works with "
            f"version {expected}; "
            + (
                "upgrade indexrelay"
                if found > expected
                else "point catalog.url at a new database and let the jobs fill it"
            )
        )
        self.found = found
        self.expected = expected


class TooManyRequestsError(IndexRelayError):
    """Raised when so many requests are unanswered that one more would not be; nothing was done."""

    def __init__(self, most: int) -> None:
        super().__init__(
            f"{most:,} requests wait for a rebuilder, and no more may; see that one runs, and what "
            f"keeps it: {commands.STATUS}"
        )
        self.most = most


class UnknownCollectionError(UnknownNameError):
    """Raised when a collection is named that was never declared, or that was dropped."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"there is no collection {name!r} in the catalog; "
            f"declare it, or add [collections.{name}] to the settings"
        )
        self.name = name


class CollectionMismatchError(IndexRelayError):
    """Raised when a collection is declared with another dimension or metric than it has."""

    def __init__(self, name: str, differences: Sequence[tuple[str, object, object]]) -> None:
        said = " and ".join(
            f"{what} {has} in the catalog but {wanted} in the declaration"
            for what, has, wanted in differences
        )
        super().__init__(
            f"collection {name!r} has {said}; change the declaration back, "
            f"or drop the collection and fill it again: {commands.drop_collection(name)}"
        )
        self.name = name
        self.differences = tuple(differences)
        """For each: what it is (``dimension``, ``metric``), the catalog's value, the declared."""


class InvalidBatchIdError(IndexRelayError):
    """Raised when a batch id is empty, longer than 200 characters or not plain Unicode text."""

    def __init__(self, batch_id: object) -> None:
        super().__init__(
            f"{batch_id!r:.300} cannot be a batch id; "
            "give 1 to 200 characters of Unicode text without NUL"
        )
        self.batch_id = batch_id


class BatchContentError(IndexRelayError):
    """Raised when a batch id is used again for other content; nothing is written.

    The same batch again gets what it got before; another one under its id would be lost, and
    whoever waits until it is served would wait for the first.
    """

    def __init__(
        self,
        collection: str,
        batch_id: str,
        *,
        generation: int,
        committed_at: datetime | None,
        before: tuple[int, int, str],
        now: tuple[int, int, str],
    ) -> None:
        upserts, deletes, digest = before
        before_that = (
            "is given twice in one call, first"
            if committed_at is None
            else f"was committed at {committed_at:%Y-%m-%d %H:%M:%S} UTC as generation {generation}"
        )
        super().__init__(
            f"batch {batch_id!r} of {collection!r} {before_that} "
            f"with other content: {upserts} upserts, {deletes} deletes (digest {digest[:12]}); now "
            f"it has {now[0]} upserts, {now[1]} deletes (digest {now[2][:12]}). Nothing was "
            "written: give new content an id of its own, such as one with a date, and repeat a "
            "batch only as it was"
        )
        self.collection = collection
        self.batch_id = batch_id
        self.generation = generation
        """What the id stands for."""
        self.committed_at = committed_at
        """``None``: in the same call."""
        self.before = before
        """Upserts, deletes and digest of what was committed."""
        self.now = now
        """The same of what was refused."""


class UnknownEntriesError(IndexRelayError):
    """Raised when a text or payload is set of entries that are not there; nothing is written."""

    SHOWN = 5
    """So many of the ids are named."""

    def __init__(self, collection: str, ids: Sequence[str]) -> None:
        named = ", ".join(f"{id_!r:.80}" for id_ in ids[: self.SHOWN])
        more = f" and {len(ids) - self.SHOWN} more" if len(ids) > self.SHOWN else ""
        super().__init__(
            f"a text or payload is set of {len(ids)} entries that {collection!r} does not hold: "
            f"{named}{more}; upsert them with their vectors first, in this batch or an earlier one"
        )
        self.collection = collection
        self.ids = tuple(ids)


class SnapshotClosedError(IndexRelayError):
    """Raised when a snapshot is read after the ``with`` that opened it has ended."""

    def __init__(self, collection: str) -> None:
        super().__init__(
            f"the snapshot of {collection!r} is closed; read it inside the with that opened it"
        )
        self.collection = collection


class InvalidEntriesError(IndexRelayError):
    """Raised when rows cannot be entries of their collection; nothing was written.

    ``problem`` says what is wrong, ``rows`` are the first offending row numbers, counted from 0
    in the call that was refused (none when a column as a whole is wrong), and ``total`` is how many
    there are in all.
    """

    SHOWN = 5
    """So many of the offending rows are named."""

    def __init__(
        self, problem: str, *, rows: Sequence[int] = (), ids: Sequence[object] = ()
    ) -> None:
        self.problem = problem
        self.rows = tuple(rows[: self.SHOWN])
        self.total = len(rows)
        places = [
            f"row {row} ({ids[row]!r:.80})" if row < len(ids) else f"row {row}" for row in self.rows
        ]
        if self.total > len(places):
            places[-1] += f" … {self.total} rows in all"
        super().__init__(f"{problem}: {', '.join(places)}" if places else problem)


class SourceError(IndexRelayError):
    """Raised when a source cannot be read, or holds what its collection cannot take.

    The message names the file or the rows; what the database or the file system said is chained.
    """


class SourceChangedError(SourceError):
    """Raised when a folder changed while it was read. It passes: the read is tried again.

    Write new files under another name (``.part``) and rename them, and it gets rare.
    """
