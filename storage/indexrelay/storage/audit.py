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
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Self

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
_BLOCK_BYTES: Final = 64 * 1024
_MAX_LINE_BYTES: Final = 8 * 1024 * 1024
"""Of `_MOST_ITEMS` values of `_MOST_CHARACTERS`, whatever they are."""
_PAGE_BYTES: Final = 4 * 1024 * 1024
"""Of lines that one page reads."""
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
    RETRIED = "retried"
    """A dead letter was read again."""
    BACKED_UP = "backed_up"
    VERIFIED = "verified"
    """A backup was read to its end."""
    RESTORED = "restored"
    MIGRATED = "migrated"
    """A catalog that an earlier release had made got the tables and columns of this one."""
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
        lines = (line for _, raw in self._backwards(None) if (line := _read(raw)) is not None)
        return [*islice(lines, most)][::-1]

    def page(self, most: int, *, before: str | None = None) -> "AuditPage":
        """At most so many lines, the newest first; reads no more of the files than that takes.

        Args:
            before: the `AuditPage.next` of the page before; ``None``: from the newest on. A file
                that is gone meanwhile ends the pages.

        Raises:
            ValueError: ``before`` is none of ours.
            OSError: the log is there, and cannot be read.
        """
        lines: list[AuditLine] = []
        read, last = 0, before
        for position, raw in self._backwards(None if before is None else _Position.of(before)):
            if len(lines) == most or read > _PAGE_BYTES:
                return AuditPage(lines=tuple(lines), next=last)
            line, last = _read(raw), str(position)
            read += len(raw)
            if line is not None:
                lines.append(AuditLine(id=last, fields=line))
        return AuditPage(lines=tuple(lines), next=None)

    def _backwards(self, before: "_Position | None") -> "Iterator[tuple[_Position, bytes]]":
        """Each line and where it begins, the newest first."""
        seen: set[int] = set()
        for path in (self._path, *map(self._numbered, range(1, _OLDER_FILES + 1))):
            try:
                file = path.open("rb")
            except FileNotFoundError:
                continue
            with file:
                found = os.fstat(file.fileno())
                if found.st_ino in seen:  # it was given the next number since
                    continue
                seen.add(found.st_ino)
                end = found.st_size
                if before is not None:
                    if found.st_ino != before.file:
                        continue
                    end, before = min(end, before.offset), None
                for offset, raw in _lines_before(file, end):
                    yield _Position(found.st_ino, offset), raw

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


@dataclass(frozen=True, kw_only=True)
class AuditLine:
    """One line as it stands in the log."""

    id: str
    """Where it stands; no other line has it."""
    fields: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class AuditPage:
    """Lines that follow each other, the newest first."""

    lines: tuple[AuditLine, ...]
    next: str | None
    """For `AuditLog.page`: the lines before these; ``None``: there are none."""


class _Position(NamedTuple):
    """Where a line begins: a file keeps its number of the file system when it gets another name."""

    file: int
    offset: int

    @classmethod
    def of(cls, text: str) -> "_Position":
        """Raises ValueError: it is none."""
        if not re.fullmatch(r"[0-9]{1,20}-[0-9]{1,12}", text):
            raise ValueError("it names no line of the audit log")
        file, offset = text.split("-")
        return cls(int(file), int(offset))

    def __str__(self) -> str:
        return f"{self.file}-{self.offset}"


def _lines_before(file: IO[bytes], end: int) -> Iterator[tuple[int, bytes]]:
    """The lines that begin before ``end``, the last first, read block by block."""
    begun = b""
    while end > 0:
        start = max(0, end - _BLOCK_BYTES)
        file.seek(start)
        first, *whole = (file.read(end - start) + begun).split(b"\n")
        offset, found = start + len(first) + 1, list[tuple[int, bytes]]()
        for line in whole:
            found.append((offset, line))
            offset += len(line) + 1
        yield from ((at, line) for at, line in reversed(found) if line)
        # It may have begun in the block before; none of ours is longer than that.
        begun, end = (first if len(first) <= _MAX_LINE_BYTES else b""), start
    if begun:
        yield 0, begun


def _read(raw: bytes) -> dict[str, Any] | None:
    """A line; ``None``: somebody else wrote it."""
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
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
