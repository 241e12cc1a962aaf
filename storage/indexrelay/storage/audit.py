"""The audit log: who had what done, in lines of JSON that are only ever appended.

Each line is one JSON object: ``time``, ``action``, ``who`` (``ada@host``, ``admin/NAME``,
``token/NAME``, ``schedule/NAME``, ``rebuilder/ID``), ``subject`` where there is one, and what else
the action is known by. It lies on the host on which it was done (``DATA_DIR/audit.jsonl``), for its
owner alone.

A line is one write to a file that is opened for appending, under a lock that is held for that
write: lines of several processes never mix, and none is lost while the file is changed for a new
one. That happens when it has grown past its size; the older files are ``audit.jsonl.1`` to
``audit.jsonl.9``, the newest first, and what is older is gone.

What cannot be written keeps nobody from working: it is a warning in the log.
"""

import errno
import fcntl
import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from indexrelay.schemas.clock import Clock, SystemClock
from indexrelay.schemas.diagnostics import without_secrets
from indexrelay.schemas.files import (
    LockWaits,
    holder_of,
    make_private_folder,
    open_private,
    wait_for_lock,
)
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.names import canonical_json, shortened
from indexrelay.schemas.settings import Settings

_log = get_logger(__name__)

FILE_NAME: Final = "audit.jsonl"
MAX_BYTES: Final = 10_000_000
"""Of one file: some 40,000 lines."""
_OLDER_FILES: Final = 9
_MOST_CHARACTERS: Final = 2000
"""Of one value."""
_MOST_ITEMS: Final = 1000
_LOCK_SECONDS: Final = 5.0
"""A line is written in microseconds: who holds the lock for so long was stopped."""
_CLOCK: Final = SystemClock()
"""For that wait, whatever the clock of the stamps is."""

AuditValue = str | int | float | bool | None | list[str]


class AuditAction(StrEnum):
    """What was done."""

    REBUILD_REQUESTED = "rebuild_requested"
    RELEASED = "released"
    ROLLED_BACK = "rolled_back"
    RELEASE_SIGNED = "release_signed"
    HELD = "held"
    LIFTED = "lifted"
    PAUSED = "paused"
    RESUMED = "resumed"
    DELETED = "deleted"
    """A collection, with its entries; a dead letter; or what a person cleaned up: releases,
    versions and blobs of the artifacts, and backups."""
    BACKED_UP = "backed_up"
    RESTORED = "restored"
    LOGGED_IN = "logged_in"
    """To the admin page."""
    LOGGED_OUT = "logged_out"
    REFUSED = "refused"
    """A login to the admin page, or what a viewer or a page of somebody else asked for there."""


class AuditLog:
    """Appends lines; safe to use from several threads and processes."""

    def __init__(
        self, path: Path, *, clock: Clock | None = None, max_bytes: int = MAX_BYTES
    ) -> None:
        """``max_bytes``: of one file, after which the next one begins."""
        self._path = path
        self._clock = clock or SystemClock()
        self._max_bytes = max_bytes
        self._waits = LockWaits(_CLOCK)

    @classmethod
    def of(cls, settings: Settings, *, clock: Clock | None = None) -> Self:
        """That of this host, in the data folder."""
        return cls(settings.data_dir / FILE_NAME, clock=clock)

    def record(
        self,
        action: AuditAction,
        *,
        who: str,
        subject: str | None = None,
        **fields: AuditValue,
    ) -> None:
        """Append one line; what cannot be written is a warning, and never raised.

        Args:
            who: a person, token, schedule or process.
            subject: what it was done to: a component, a collection, a release.
            fields: what else it is known by; ``None`` is left out.
        """
        given = {"subject": subject, **fields}
        line = {
            "time": self._clock.now().isoformat(timespec="milliseconds"),
            "action": str(action),
            "who": _shown(who),
            **{key: _shown(value) for key, value in given.items() if value is not None},
        }
        try:
            self._append(canonical_json(line) + b"\n")
        except OSError as error:
            _log.warning("audit.not_written", path=str(self._path), error=str(error), **line)

    def newest(self, most: int) -> list[dict[str, Any]]:
        """The newest lines that can be read, at most so many, oldest first.

        Raises:
            OSError: the log is there, and cannot be read.
        """
        found: list[dict[str, Any]] = []
        for path in (self._path, *map(self._numbered, range(1, _OLDER_FILES + 1))):
            try:
                lines = path.read_bytes().splitlines()
            except FileNotFoundError:
                continue
            read = [line for raw in lines if (line := _read(raw)) is not None]
            found = [*read, *found]
            if len(found) >= most:
                break
        return found[-most:]

    def _append(self, line: bytes) -> None:
        make_private_folder(self._path.parent)
        while True:
            with open_private(self._path, "ab") as file:
                self._lock(file.fileno())
                if not _is_at(self._path, file.fileno()):
                    continue  # another process has begun a new one meanwhile
                size = os.fstat(file.fileno()).st_size
                if size and size + len(line) > self._max_bytes:
                    self._begin_another()
                    continue
                written = os.write(file.fileno(), line)
                if written < len(line):  # the disk is full: half a line would spoil the next one
                    os.ftruncate(file.fileno(), size)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return

    def _lock(self, file: int) -> None:
        """Raises OSError: another process has held the lock for too long."""
        if not wait_for_lock(
            file,
            fcntl.LOCK_EX,
            name=f"the lock of {self._path}",
            waits=self._waits,
            clock=_CLOCK,
            most_seconds=_LOCK_SECONDS,
        ):
            raise OSError(errno.EAGAIN, f"{holder_of(file) or 'another process'} keeps its lock")

    def _begin_another(self) -> None:
        """Move each file to the next number; under the lock of the newest."""
        for number in range(_OLDER_FILES - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self._path.replace(self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _read(raw: bytes) -> dict[str, Any] | None:
    """A line; ``None``: somebody else wrote it."""
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    return line if isinstance(line, dict) and {"time", "action", "who"} <= line.keys() else None


def _is_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _shown(value: AuditValue) -> AuditValue:
    """The value without secrets, and not longer than a line should be."""
    if isinstance(value, str):
        # Whatever names a secret, or is a URL with one, has one of these.
        safe = without_secrets(value) if ":" in value or "=" in value else value
        return shortened(safe, _MOST_CHARACTERS)
    if isinstance(value, list):
        return [str(_shown(each)) for each in value[:_MOST_ITEMS]]
    return value
