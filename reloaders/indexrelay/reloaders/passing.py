"""Which failures of a load may pass by themselves, and when to try again.

Short of memory, a full or failing disk, a network that is away, a blob that is not visible yet: the
same load may work in a moment. A wrong digest, a format that cannot be read, a kind that is not
installed: it will fail in the same way until another version is named or its files are replaced,
and trying would only burn time and fill the log.
"""

import errno
import os
from dataclasses import dataclass

from indexrelay.schemas.backoff import backoff_seconds
from indexrelay.storage.artifacts import (
    BlobMissingError,
    StoreAccessError,
    VersionUnreadableError,
)

MAX_WAIT_SECONDS = 60.0
MAX_WORDS = 1000

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


def may_pass(error: BaseException) -> bool:
    """Whether the same load may work later; what the error was caused by counts as well."""
    cause: BaseException | None = error
    while cause is not None:
        if _passes(cause):
            return True
        cause = cause.__cause__
    return False


def _passes(error: BaseException) -> bool:
    match error:
        case MemoryError() | BlobMissingError():
            return True
        case VersionUnreadableError():
            return error.missing
        case StoreAccessError() | OSError():
            network = isinstance(error, ConnectionError | TimeoutError)
            return network or error.errno in _PASSING
        case RuntimeError():
            # FAISS raises these, and says only in words what the operating system told it.
            return any(str(error).endswith(os.strerror(code)) for code in _PASSING)
        case _:
            return False


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The last failed load of a component."""

    version: str
    """The version that could not be loaded."""
    error: str
    count: int
    """How often in a row."""
    looks: str
    """What the version's files looked like then."""
    retry_at: float | None
    """By the monotonic clock; ``None``: not as long as they look like that."""

    def due(self, now: float) -> bool:
        """Whether it is time to try again."""
        return self.retry_at is not None and now >= self.retry_at


def failure_of(
    error: BaseException,
    *,
    version: str,
    looks: str,
    before: Failure | None,
    first_wait_seconds: float,
    key: str,
    now: float,
) -> Failure:
    """What to remember of a failed load; ``key``: whose load of what, see `backoff_seconds`."""
    count = before.count + 1 if before is not None and before.version == version else 1
    wait = backoff_seconds(count, first=first_wait_seconds, longest=MAX_WAIT_SECONDS, key=key)
    return Failure(
        version=version,
        looks=looks,
        error=in_words(error),
        count=count,
        retry_at=now + wait if may_pass(error) else None,
    )


def in_words(error: BaseException) -> str:
    """The error's type and its message in one line, of which the first `MAX_WORDS` characters.

    Presence and reports carry it, and what a kind raises may quote a whole file.
    """
    sentence = " ".join(str(error).split()) or "no message"
    words = f"{type(error).__name__}: {sentence}"
    return words if len(words) <= MAX_WORDS else f"{words[:MAX_WORDS]}…"
