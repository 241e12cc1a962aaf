"""What can go wrong in storage, what to do about it, and which errors are transient.

First come the errors of the catalog, of rows and of sources, then those of the artifacts. What the
database itself raises (unreachable, disk full) is not renamed: it arrives as SQLAlchemy's or the
driver's own error.

An error is transient where the same operation may succeed later without any change: not enough
memory, a full or failing disk, a network or a database that is away, a blob that is not visible
yet. A wrong digest, an unreadable format or a kind that is not installed is permanent: it fails in
the same way until something is changed, and retries only cost time and fill the log.
"""

import errno
import sqlite3
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from indexrelay.schemas import commands
from indexrelay.schemas.diagnostics import advice_on, errno_in
from indexrelay.schemas.errors import IndexRelayError, UnknownNameError, suggestion


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
    """Raised when too many requests are unanswered; this one was not recorded."""

    def __init__(self, most: int) -> None:
        super().__init__(
            f"{most:,} requests wait for a rebuilder, and no more may; see that one runs, and what "
            f"keeps it: {commands.STATUS}"
        )
        self.most = most


class RequestCoveredError(IndexRelayError):
    """Raised when an open request asks for as much already; nothing was recorded."""

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"rebuild {request_id} is under way and covers this; ask again when it has ended"
        )
        self.request_id = request_id


class UnknownCollectionError(UnknownNameError):
    """Raised when a collection is named that was never declared, or that was dropped."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"there is no collection {name!r} in the catalog; "
            f"declare it, or add [collections.{name}] to the settings"
        )
        self.name = name


class CatalogNotEmptyError(IndexRelayError):
    """Raised when a copy of a catalog is to be put where batches were committed already.

    Nothing was changed: what is there would be lost.
    """

    is_misuse = True

    def __init__(self, collections: Sequence[str]) -> None:
        super().__init__(
            f"the catalog holds {', '.join(collections)} already, and a catalog from a backup goes "
            "into an empty one only; point catalog.url at a new database (or move the file away "
            "while nothing runs), or restore without the catalog"
        )
        self.collections = tuple(collections)


class CatalogCopyError(IndexRelayError):
    """Raised when a file is not a copy of a catalog that can be taken over; nothing was changed."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(f"{file.name} is no copy of a catalog: {reason}")
        self.file = file
        self.reason = reason


class BackupUnknownError(UnknownNameError):
    """Raised when there is no backup of the id that was given."""

    def __init__(self, backup: str, known: Sequence[str], folder: Path) -> None:
        super().__init__(f"there is no backup {backup!r} in {folder}{suggestion(backup, known)}")
        self.backup = backup


class BackupsBusyError(IndexRelayError):
    """Raised when another process makes or removes backups in the same folder; try again later."""

    def __init__(self, folder: Path, *, holder: str) -> None:
        who = holder or "another process"
        super().__init__(f"{who} makes or removes backups in {folder}; try again when it has ended")
        self.folder = folder
        self.holder = holder


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

    The same batch again gets the commit that it got before. Another one under its id would be lost,
    and a wait until it is served would wait for the first one.
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
    """Raised when a text or payload is set of entries that do not exist; nothing is written."""

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


class GuardedEntriesError(IndexRelayError):
    """Raised when a batch changes entries that its writer may not change, or would make them such;
    nothing is written."""

    def __init__(self, collection: str, ids: Sequence[str], *, become: bool) -> None:
        """``become``: whether they may be changed, and not into what they would be."""
        shown = UnknownEntriesError.SHOWN
        named = ", ".join(f"{id_!r:.80}" for id_ in ids[:shown])
        more = f" and {len(ids) - shown} more" if len(ids) > shown else ""
        what = (
            "would have a payload that the filter of this writer does not match: give each the "
            "fields that the filter asks for"
            if become
            else "belong to others: choose other ids"
        )
        super().__init__(f"{len(ids)} entries of {collection!r} {what}: {named}{more}")
        self.collection = collection
        self.ids = tuple(ids)
        self.become = become


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

    def in_source(self, where: str, place: Callable[[int], str]) -> "SourceError":
        """The same in terms of a source: ``place`` names where a row of the chunk comes from."""
        places = ", ".join(place(row) for row in self.rows)
        more = f" … at least {self.total} rows" if self.total > len(self.rows) else ""
        return SourceError(f"{where}: {self.problem}{': ' if places else ''}{places}{more}")


class SourceError(IndexRelayError):
    """Raised when a source cannot be read, or holds what its collection cannot take.

    The message names the file or the rows; what the database or the file system said is chained.
    """


class SourceChangedError(SourceError):
    """Raised when a folder changed while it was read. It is transient: the read is tried again.

    To make it rare, write new files under another name (``.part``) and rename them.
    """


class ArtifactError(IndexRelayError):
    """The root of what the artifact store raises."""


class StoreAccessError(ArtifactError):
    """Raised when the operating system refuses to read or write a path of the store.

    The cause (`OSError`) is chained and its number is in ``errno``: a full or failing disk is
    transient, missing permissions have to be granted.
    """

    def __init__(self, path: Path, doing: str, error: OSError) -> None:
        advice = advice_on(error.errno)
        super().__init__(
            f"cannot {doing} {path}: {error.strerror or error}" + (f"; {advice}" if advice else "")
        )
        self.path = path
        self.errno = error.errno


class StoreBusyError(StoreAccessError):
    """Raised when another process holds the store's lock for too long.

    It is transient: the build is tried again. See what that process does.
    """

    def __init__(self, path: Path, *, holder: str, seconds: float) -> None:
        who = holder or "another process"
        error = OSError(
            errno.EAGAIN,
            f"{who} has held it for {seconds:g} s; see what that does, and end it if it is stuck",
        )
        super().__init__(path, "lock", error)


class NotAFileError(StoreAccessError):
    """Raised when a folder, a symbolic link or a pipe lies where a file of the store should be.

    The store never makes one there: it counts as corruption. Move it away.
    """


class UnsafeNameError(ArtifactError, ValueError):
    """Raised when a name or a digest does not look like one, before it can become a path."""

    def __init__(self, what: str, given: str) -> None:
        super().__init__(f"not a {what}: {given[:80]!r}")
        self.given = given


class BlobMissingError(ArtifactError):
    """Raised when a blob is not in the store.

    It may still be on its way here (a network file system shows new files late); if it stays away,
    rebuild the component that names it.
    """

    def __init__(self, digest: str, path: Path, *, component: str | None = None) -> None:
        super().__init__(
            f"blob {digest} is not in the store; it should be {path}; if it stays away, "
            f"{_repaired_by(component)}"
        )
        self.digest = digest
        self.path = path

    def of(self, component: str) -> "BlobMissingError":
        """The same, once it is known whose blob it is."""
        return BlobMissingError(self.digest, self.path, component=component)


class BlobCorruptError(ArtifactError):
    """Raised when a blob's bytes are not those that its name promises.

    Rebuild the component that names it: a build that yields the same bytes repairs the blob, any
    other names a new one.
    """

    def __init__(
        self, digest: str, path: Path, reason: str, *, component: str | None = None
    ) -> None:
        super().__init__(f"blob {digest} is corrupt: {reason} ({path}); {_repaired_by(component)}")
        self.digest = digest
        self.path = path
        self.reason = reason

    def of(self, component: str) -> "BlobCorruptError":
        """The same, once it is known whose blob it is."""
        return BlobCorruptError(self.digest, self.path, self.reason, component=component)


class VersionUnreadableError(ArtifactError):
    """Raised when a version's manifest is missing or corrupt; rebuild its component."""

    def __init__(self, component: str, version_id: str, reason: str, *, missing: bool) -> None:
        super().__init__(
            f"version {version_id} of {component} cannot be read: {reason}; "
            f"build another: {commands.rebuild(component)}"
        )
        self.component = component
        self.version_id = version_id
        self.reason = reason
        self.missing = missing


class ReleaseUnreadableError(ArtifactError):
    """Raised when a release is missing or corrupt; the newest intact one is served meanwhile."""

    def __init__(self, number: int, reason: str, *, missing: bool) -> None:
        super().__init__(f"release {number} {self._said(number, reason, missing=missing)}")
        self.number = number
        self.reason = reason
        self.missing = missing

    def _said(self, number: int, reason: str, *, missing: bool) -> str:  # noqa: ARG002 - for others
        advice = (
            "it was garbage collected, or never existed: roll back to one that is in that folder, "
            "or name a later one"
            if missing
            else "the newest intact one is served meanwhile, and a rebuild makes the next"
        )
        return f"cannot be read: {reason}; {advice}"


class ReleaseUntrustedError(ReleaseUnreadableError):
    """Raised when a release is intact, and not signed by a key of ``artifacts.trusted_keys``."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(number, reason, missing=False)

    def _said(self, number: int, reason: str, *, missing: bool) -> str:  # noqa: ARG002 - never is
        return (
            f"is not taken: {reason}; see who wrote it, and if that was right sign it where the "
            f"signing key is: {commands.sign_release(number)}"
        )


class SigningRefusedError(ArtifactError):
    """Raised when a release has to be signed and this process cannot: nothing was released."""


class ReleaseNotWholeError(ArtifactError):
    """Raised when a rollback names a release whose files are gone or corrupt.

    What is served stays. Roll back to another release, or restore the file from a backup; the
    chained cause names it.
    """

    def __init__(
        self, number: int, cause: VersionUnreadableError | BlobMissingError | BlobCorruptError
    ) -> None:
        match cause:
            case VersionUnreadableError():
                what = f"version {cause.version_id} of {cause.component}: {cause.reason}"
            case BlobCorruptError():
                what = f"{cause.path} is corrupt: {cause.reason}"
            case BlobMissingError():
                what = f"{cause.path} is missing"
        super().__init__(
            f"release {number} cannot be served again, and what is served stays: {what}; restore "
            f"the file, or name another release: {commands.RELEASES}"
        )
        self.number = number


class GroupTornError(ArtifactError):
    """Raised when a rollback would leave the members of a group at two states.

    What is served stays. Roll back to a release in which the group was whole, or take the member
    that does not fit out of the group.
    """

    def __init__(self, number: int, group: str, why: Iterable[str]) -> None:
        super().__init__(
            f"release {number} cannot be served again, and what is served stays: group {group} "
            f"would not be whole: {'; '.join(why)}; name a release in which it was, or take the "
            "member that does not fit out of the group first"
        )
        self.number = number
        self.group = group


class ReleaseExistsError(ArtifactError):
    """Raised when a release does not follow the newest one, since another process published.

    Read the newest release again, decide again what to publish, and try ``next_number``.
    """

    def __init__(self, number: int, *, next_number: int) -> None:
        super().__init__(f"release {number} does not follow the newest one; next is {next_number}")
        self.number = number
        self.next_number = next_number


class NothingReleasedError(ArtifactError):
    """Raised when the newest release is to be changed and there is none yet; rebuild first."""

    def __init__(self) -> None:
        super().__init__(
            "nothing is released yet: commit a batch while a rebuilder runs, "
            f"or build what is due now: {commands.rebuild(here=True)}"
        )


class ComponentNotReleasedError(ArtifactError, UnknownNameError):
    """Raised when a hold, a lift or a rollback names a component that the release has not."""

    def __init__(self, component: str, released: Iterable[str]) -> None:
        near = suggestion(component, released)
        super().__init__(f"no version of {component!r} is released{near}")
        self.component = component


def _repaired_by(component: str | None) -> str:
    """What repairs a blob."""
    if component is None:
        return f"rebuild the component that names it; which one is corrupt: {commands.STATUS}"
    return f"rebuild what names it: {commands.rebuild(component)}"


def is_transient(error: BaseException, *, memory: bool = True) -> bool:
    """Whether the same operation may succeed later; the causes of the error count as well.

    ``memory``: whether a lack of memory is transient; under a limit of the process it is not.
    """
    cause: BaseException | None = error
    while cause is not None:
        if _is_transient_itself(cause, memory):
            return True
        cause = cause.__cause__
    return False


_TRANSIENT: Final = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EDQUOT,
        errno.EINTR,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOLCK,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.ESTALE,
        # Once the permission is granted, no reader should have to be restarted.
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        # The network under a file system, or under what a kind fetches by itself.
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.ENOTCONN,
        errno.EPIPE,
        errno.ETIMEDOUT,
    }
)

_TRANSIENT_SQLITE: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)
"""Of https://sqlite.org/rescode.html, those that the operating system or another process causes."""


def _is_transient_itself(error: BaseException, memory: bool) -> bool:
    match error:
        case MemoryError():
            return memory
        case BlobMissingError() | SourceChangedError():
            return True
        case VersionUnreadableError():
            return error.missing
        case StoreAccessError() | OSError():
            network = isinstance(error, ConnectionError | TimeoutError)
            return network or error.errno in _TRANSIENT or _is_short_write(error)
        case sqlite3.OperationalError():
            return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _TRANSIENT_SQLITE
        case RuntimeError():
            # FAISS raises these, with the operating system's error only in the message.
            return errno_in(str(error)) in _TRANSIENT
        case _:
            return _is_database_error(error)


def _is_short_write(error: Exception) -> bool:
    """What numpy raises where less was written than requested, usually on a full disk."""
    return isinstance(error, OSError) and error.errno is None and " requested and " in str(error)


def _is_database_error(error: BaseException) -> bool:
    """Whether a database is away, locked or full; a process without SQLAlchemy has none."""
    sqlalchemy = sys.modules.get("sqlalchemy.exc")
    return sqlalchemy is not None and isinstance(error, sqlalchemy.OperationalError)
