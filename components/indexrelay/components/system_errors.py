"""What libraries say of a file, told apart: damaged, or not to be had at the moment.

FAISS makes every error a `RuntimeError`, SQLite most of them a `DatabaseError`. A file is damaged
when what it holds is not what was written. That no descriptor, no memory or no permission was to be
had says nothing of it: the same file may open in a moment, and building it anew would not help.
"""

import errno
import os
import sqlite3
from pathlib import Path
from typing import Final

from indexrelay.components.errors import DamagedFileError
from indexrelay.schemas.system_advice import errno_in

_DAMAGE: Final = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_FORMAT,
        sqlite3.SQLITE_IOERR_SHORT_READ,  # it ends before it says that it does
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
    return DamagedFileError(path, f"FAISS cannot read it: {error}")


def of_sqlite(path: Path, error: sqlite3.DatabaseError) -> Exception:
    """What SQLite's error about ``path`` means; raise it from ``error``, or again if it is that."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if str(error).startswith(_NO_FTS5):
        return error
    if code is None:  # Python's own, about an argument or a value
        lacks = any(words in str(error) for words in _LACKS)
        return DamagedFileError(path, str(error)) if lacks else error
    if code & 0xFF == sqlite3.SQLITE_INTERRUPT:
        return DamagedFileError(path, "what it is asked does not end")
    primary = code & 0xFF
    if code in _DAMAGE or primary in _DAMAGE or any(words in str(error) for words in _LACKS):
        return DamagedFileError(path, str(error))
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
    return DamagedFileError(path, "what it says of itself takes more memory than there is")


def _why_not_opened(path: Path) -> OSError:
    """SQLite keeps to itself what the operating system said, so it is asked once more."""
    try:
        with path.open("rb"):
            return OSError(errno.EAGAIN, "it could not be opened a moment ago", str(path))
    except OSError as error:
        return error
