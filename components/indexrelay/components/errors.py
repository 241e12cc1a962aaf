"""What goes wrong with kinds, with their builds, and with what they serve.

FAISS makes every error a `RuntimeError`, SQLite most of them a `DatabaseError`. `of_faiss` and
`of_sqlite` say which of them mean that a file is corrupt: what it holds is not what was written.
A lack of descriptors, memory or permission says nothing about the file: it may open in a moment,
and another build would not help.
"""

import errno
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from indexrelay.schemas.diagnostics import errno_in
from indexrelay.schemas.errors import IndexRelayError, Mistake
from indexrelay.schemas.errors import (
    InvalidQueryError as InvalidQueryError,  # noqa: PLC0414 - handed on: everybody has it from here
)


class KindNotFoundError(IndexRelayError):
    """Raised when a kind is neither installed nor importable as ``module:Class``."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"kind {name!r}: {reason}")
        self.name = name
        self.reason = reason


class ContractError(IndexRelayError):
    """Raised when a kind does not do what `Kind` asks for: change its class, then rebuild."""


class InvalidParametersError(IndexRelayError):
    """Raised when a definition's keys are not what its kind takes; ``mistakes`` lists every one."""

    def __init__(self, kind: str, mistakes: Iterable[Mistake]) -> None:
        self.kind = kind
        self.mistakes = tuple(mistakes)
        super().__init__(f"kind {kind!r}: " + "; ".join(str(mistake) for mistake in self.mistakes))


class UnusableInputError(IndexRelayError):
    """Raised when a component is made from something that its kind cannot use.

    Change ``from`` in the component's definition.
    """


class UnbuildableIndexError(IndexRelayError):
    """Raised when FAISS cannot make the index that was asked for over these vectors."""


class MemoryLimitError(IndexRelayError):
    """Raised when an index cannot be made as small as its definition's ``max_bytes`` asks."""


class NotContinuedError(IndexRelayError):
    """Raised when a build was to continue a version and nothing else, and cannot."""


class CorruptFileError(IndexRelayError):
    """Raised when a file of a version is not what was written: cut short, or changed.

    The version has to be fetched or built again.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path.name} is corrupt: {reason}")
        self.path = path
        self.reason = reason


class ClosedVersionError(IndexRelayError, AttributeError):
    """Raised when something of a snapshot is used after the snapshot was given back.

    Ask inside the ``with reloader.acquire() as snapshot``, and take along only answers.
    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"this {what} was closed: a snapshot's parts may be used inside "
            "`with reloader.acquire() as snapshot` only"
        )


class UnknownEntryError(IndexRelayError, KeyError):
    """Raised when an id is asked for that this version does not hold."""

    def __init__(self, entry_id: str) -> None:
        super().__init__(entry_id)
        self.entry_id = entry_id

    def __str__(self) -> str:
        return f"there is no entry {self.entry_id!r} in this version"


class FunctionError(IndexRelayError):
    """Raised when a function that a component's table names cannot be imported, or called."""

    def __init__(self, function: str, reason: str) -> None:
        super().__init__(f"function {function!r}: {reason}")
        self.function = function
        self.reason = reason


class DocumentFunctionError(FunctionError):
    """Raised when a JSON cache's function cannot be imported, or called as its table says.

    Change ``function`` or ``arguments`` in the component's definition, or install its module where
    the rebuilder runs.
    """


class RerankFunctionError(FunctionError):
    """Raised when the function that ``rerank`` names cannot be imported, or gives no scores.

    Change ``rerank`` in the component's definition, or install its module where the readers run.
    """


class GateFunctionError(FunctionError):
    """Raised when a function that ``gates.functions`` names cannot be imported.

    Change ``gates.functions`` in the component's table, or install its module where the rebuilder
    runs.
    """


class EmbedderFunctionError(FunctionError):
    """Raised when the function that ``embedder`` names cannot be imported.

    Change ``embedder`` in the collection's table, or install its module where jobs hand over texts
    and where searches are answered.
    """


class DocumentError(IndexRelayError):
    """Raised when what a JSON cache's function returned is not JSON; ``path`` is where.

    Change the function: leave the value out, or turn it into numbers, text, lists and objects.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"the document is not JSON at {path}: {reason}")
        self.path = path
        self.reason = reason


_CORRUPTION: Final = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_FORMAT,
        sqlite3.SQLITE_IOERR_SHORT_READ,  # it is shorter than its header says
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_TOOBIG,
    }
)
_SYSTEM: Final = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_READONLY: errno.EACCES,
    sqlite3.SQLITE_AUTH: errno.EACCES,
    sqlite3.SQLITE_BUSY: errno.EBUSY,
    sqlite3.SQLITE_LOCKED: errno.EBUSY,
}
"""By SQLite's primary result codes, https://sqlite.org/rescode.html."""
_LACKS: Final = (
    "no such table",
    "no such column",
    "no such function",
    "no such module",
    "no such tokenizer",
    "vtable constructor failed",
    "invalid fts5 file format",
    "unsafe use of",
    "integer overflow",
    "Could not decode to UTF-8",  # of Python itself, without a code
    "unsupported file format",
    "fts5:",
)
"""What a statement of ours meets in a file that is not what was written."""
_SOME_BYTES: Final = 64 << 20
"""Where there is this much, memory is not what is wanting."""
_NO_FTS5: Final = "no such module: fts5"
"""What it meets on a host whose SQLite has none."""


def of_faiss(path: Path, error: RuntimeError) -> Exception:
    """What FAISS's error about ``path`` means; raise it from ``error``."""
    number = errno_in(str(error))
    if number is not None:
        return OSError(number, os.strerror(number), str(path))
    if "bad_alloc" in str(error):
        return of_memory(path)
    return CorruptFileError(path, f"FAISS cannot read it: {error}")


def of_sqlite(path: Path, error: sqlite3.DatabaseError) -> Exception:
    """What SQLite's error about ``path`` means; raise it from ``error``, or again if it is that."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if str(error).startswith(_NO_FTS5):
        return error
    if code is None:  # Python's own, about an argument or a value
        lacks = any(words in str(error) for words in _LACKS)
        return CorruptFileError(path, str(error)) if lacks else error
    if code & 0xFF == sqlite3.SQLITE_INTERRUPT:
        return CorruptFileError(path, "what it is asked does not end")
    primary = code & 0xFF
    if (
        code in _CORRUPTION
        or primary in _CORRUPTION
        or any(words in str(error) for words in _LACKS)
    ):
        return CorruptFileError(path, str(error))
    if primary == sqlite3.SQLITE_CANTOPEN:
        return _why_not_opened(path)
    if primary == sqlite3.SQLITE_NOMEM:
        return of_memory(path)
    if primary in _SYSTEM:
        number = _SYSTEM[primary]
        return OSError(number, os.strerror(number), str(path))
    return error


def of_memory(path: Path) -> Exception:
    """What it means that a library got no memory for ``path``: that there is none, or that the file
    has it ask for more than anybody has."""
    try:
        bytearray(_SOME_BYTES)
    except MemoryError:
        return MemoryError(f"{path.name} does not fit into memory")
    return CorruptFileError(path, "its header asks for more memory than there is")


def _why_not_opened(path: Path) -> OSError:
    """SQLite keeps to itself what the operating system said, so it is asked once more."""
    try:
        with path.open("rb"):
            return OSError(errno.EAGAIN, "it could not be opened a moment ago", str(path))
    except OSError as error:
        return error
