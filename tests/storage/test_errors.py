import errno
import os
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from indexrelay.storage.artifacts import BlobCorruptError, BlobMissingError, StoreAccessError
from indexrelay.storage.errors import SourceChangedError, is_transient


def sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("what SQLite says")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOSPC, "x"), True),
        (OSError(errno.EIO, "x"), True),
        (OSError(errno.ENOMEM, "x"), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (BlobMissingError("a" * 64, Path("x")), True),
        (StoreAccessError(Path("x"), "read", OSError(errno.ESTALE, "x")), True),
        (RuntimeError("could not mmap(): " + os.strerror(errno.ENOMEM)), True),
        (RuntimeError("write error: 40 != 80 (" + os.strerror(errno.ENOSPC) + ")"), True),
        (OSError("128 requested and 40 written"), True),
        (sqlite_error(sqlite3.SQLITE_FULL), True),
        (sqlite_error(sqlite3.SQLITE_IOERR | 3 << 8), True),
        (sqlite_error(sqlite3.SQLITE_ERROR), False),
        (RuntimeError("Index type 0x62726167 not recognized"), False),
        (BlobCorruptError("a" * 64, Path("x"), "cut"), False),
        (OSError("Not a gzipped file"), False),
        (FileNotFoundError(errno.ENOENT, "x"), False),
        (ValueError("format"), False),
        (SourceChangedError("a folder changed"), True),
        (OperationalError("SELECT 1", {}, Exception("database is locked")), True),
        (IntegrityError("INSERT", {}, Exception("duplicate")), False),
    ],
    ids=repr,
)
def test_which_failures_may_pass(error: Exception, *, passes: bool) -> None:
    assert is_transient(error) is passes
    wrapped = LookupError()
    wrapped.__cause__ = error
    assert is_transient(wrapped) is passes


def test_a_want_of_memory_does_not_pass_under_a_limit_of_ones_own() -> None:
    assert is_transient(MemoryError())
    assert not is_transient(MemoryError(), memory=False)
