"""Which failures may pass by themselves, so that the very same thing is worth trying again.

Short of memory, a full or failing disk, a network or a database that is away, a blob that is not
visible yet: the same may work in a moment. A wrong digest, a format that cannot be read, a kind
that is not installed: it fails in the same way until something is changed, and trying would only
burn time and fill the log.
"""

import errno
import sqlite3
import sys

from indexrelay.schemas.system_advice import errno_in
from indexrelay.storage.artifacts.errors import (
    BlobMissingError,
    StoreAccessError,
    VersionUnreadableError,
)
from indexrelay.storage.errors import SourceChangedError

_PASSING = frozenset(
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
        # Someone has to grant the permission, and should not have to restart every reader then.
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

_PASSING_SQLITE = frozenset(
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
"""Of https://sqlite.org/rescode.html, what the operating system or another process is behind."""


def may_pass(error: BaseException, *, memory: bool = True) -> bool:
    """Whether the same may work later; what the error was caused by counts as well.

    ``memory``: whether a want of memory may pass. Under a limit of one's own it does not.
    """
    cause: BaseException | None = error
    while cause is not None:
        if _passes(cause, memory):
            return True
        cause = cause.__cause__
    return False


def _passes(error: BaseException, memory: bool) -> bool:
    match error:
        case MemoryError():
            return memory
        case BlobMissingError() | SourceChangedError():
            return True
        case VersionUnreadableError():
            return error.missing
        case StoreAccessError() | OSError():
            network = isinstance(error, ConnectionError | TimeoutError)
            return network or error.errno in _PASSING or _is_short_write(error)
        case sqlite3.OperationalError():
            return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _PASSING_SQLITE
        case RuntimeError():
            # FAISS raises these, and says only in words what the operating system told it.
            return errno_in(str(error)) in _PASSING
        case _:
            return _is_databases(error)


def _is_short_write(error: Exception) -> bool:
    """What numpy raises where less was written than it gave, mostly for want of room."""
    return isinstance(error, OSError) and error.errno is None and " requested and " in str(error)


def _is_databases(error: BaseException) -> bool:
    """Whether a database is away, locked or full; a process without SQLAlchemy has none."""
    sqlalchemy = sys.modules.get("sqlalchemy.exc")
    return sqlalchemy is not None and isinstance(error, sqlalchemy.OperationalError)
