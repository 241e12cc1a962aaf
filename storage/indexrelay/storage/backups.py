"""Where backups are kept: the folder, the names in it, and which of them stay.

A backup is one file or one folder: ``NAMESPACE-ID.tar.zst``, the same with ``.age``, or
``NAMESPACE-ID``. It gets its name once it is whole and on disk; until then it is
``.NAMESPACE-ID.partial``, and what a crash left under such a name is removed by the next one. Who
makes or removes backups holds the folder's lock, so that two schedules do not make one twice, and
none removes what another one counts on. Whoever only looks takes no lock.

Several installations may share the folder: each sees the names of its own namespace.

A backup whose time is still to come was made under a clock that was wrong. It can be restored; but
nobody takes it for the newest, and it neither goes nor counts when older ones go.
"""

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Self

from indexrelay.schemas.backups import BackupSettings, backup_id, backup_time
from indexrelay.schemas.clock import is_ahead
from indexrelay.schemas.files import holder_of, make_private_folder
from indexrelay.schemas.settings import Settings
from indexrelay.storage.artifacts.files import accessing, open_lock, release_lock, sync_folder
from indexrelay.storage.errors import BackupsBusyError, BackupUnknownError

_FILE_ENDS: Final = (".tar.zst", ".tar.zst.age")
_PARTIAL: Final = ".partial"


@dataclass(frozen=True, kw_only=True)
class StoredBackup:
    """One backup, as its name and its file show it without being read."""

    id: str
    path: Path
    bytes: int
    """What it takes in the folder."""

    @property
    def begun_at(self) -> datetime:
        """When it was begun, in UTC."""
        return backup_time(self.id)

    @property
    def is_encrypted(self) -> bool:
        """Whether it takes a private key to read it."""
        return self.path.name.endswith(".age")

    @property
    def is_folder(self) -> bool:
        """Whether its files lie in a folder as they are."""
        return not self.path.name.endswith(_FILE_ENDS)


class BackupFolder:
    """The backups of one installation; nothing is created until the first one is made."""

    def __init__(self, path: Path, namespace: str) -> None:
        self.path = path
        self._prefix = f"{namespace}-"
        self._name = re.compile(rf"{re.escape(namespace)}-(\d{{8}}_\d{{6}})(\.tar\.zst(\.age)?)?")

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The folder that the settings name."""
        return cls(settings.backups_dir, settings.namespace)

    def all(self) -> list[StoredBackup]:
        """Every finished backup, the newest first.

        Raises:
            StoreAccessError: the folder cannot be read.
        """
        found = []
        for id_, path in self._newest_first():
            with accessing(path, "read"), contextlib.suppress(FileNotFoundError):
                size = _size_of(path) if path.is_dir() else path.lstat().st_size
                found.append(StoredBackup(id=id_, path=path, bytes=size))
        return found

    def newest_at(self, now: datetime) -> datetime | None:
        """When the newest was begun, of those whose time is not still to come; ``None``: there is
        none. Sizes are not looked at.

        Raises:
            StoreAccessError: the folder cannot be read.
        """
        for id_, _ in self._newest_first():
            if not is_ahead(begun_at := backup_time(id_), now):
                return begun_at
        return None

    def ahead(self, now: datetime) -> list[str]:
        """The ids of those whose time is still to come.

        Raises:
            StoreAccessError: the folder cannot be read.
        """
        return [id_ for id_, _ in self._newest_first() if is_ahead(backup_time(id_), now)]

    def get(self, id_: str) -> StoredBackup:
        """One backup.

        Raises:
            BackupUnknownError: there is none of that id; names those there are.
        """
        found = self.all()
        for each in found:
            if each.id == id_:
                return each
        raise BackupUnknownError(id_, [each.id for each in found], self.path)

    def free_id(self, now: datetime) -> str:
        """An id for a backup that is begun now: the second, or the next one that is free."""
        taken = {each.id for each in self.all()}
        while (id_ := backup_id(now)) in taken:
            now += timedelta(seconds=1)
        return id_

    def final(self, id_: str, *, folder: bool, encrypted: bool) -> Path:
        """The path that a backup gets once it is whole."""
        end = "" if folder else _FILE_ENDS[encrypted]
        return self.path / f"{self._prefix}{id_}{end}"

    def partial(self, id_: str, part: str = "") -> Path:
        """The path of a backup, or a part of one, that is being made."""
        return self.path / f".{self._prefix}{id_}{part}{_PARTIAL}"

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Keep every other writer out; what earlier ones left behind is removed first.

        Raises:
            BackupsBusyError: another process makes or removes backups.
            StoreAccessError: the folder cannot be made or written to.
        """
        with accessing(self.path, "make the folder"):
            make_private_folder(self.path)
        lock = self.path / f".{self._prefix}lock"
        with accessing(lock, "lock"):
            file = open_lock(lock)
        try:
            with accessing(lock, "lock"):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise BackupsBusyError(self.path, holder=holder_of(file)) from None
            self._sweep()
            yield
        finally:
            release_lock(file)

    def publish(self, partial: Path, final: Path) -> None:
        """Give a whole backup its name; inside `writing`."""
        with accessing(final, "write"):
            partial.rename(final)  # nobody else takes the name: the lock is ours, the id was free
        sync_folder(self.path)

    def remove(self, backup: StoredBackup) -> None:
        """Remove one; inside `writing`. What is left of it by a crash is no backup any more."""
        gone = self.path / f".{backup.path.name}{_PARTIAL}"
        with accessing(backup.path, "remove"):
            backup.path.rename(gone)
        sync_folder(self.path)
        discard(gone)

    def _sweep(self) -> None:
        with accessing(self.path, "list"):
            left = [
                path
                for path in self.path.iterdir()
                if path.name.startswith(f".{self._prefix}") and _PARTIAL in path.name
            ]
        for path in left:
            discard(path)

    def _newest_first(self) -> Iterator[tuple[str, Path]]:
        """Id and path of everything that has the name and the form of a backup."""
        with accessing(self.path, "list"):
            try:
                names = sorted(os.listdir(self.path), reverse=True)  # noqa: PTH208 - names only
            except FileNotFoundError:
                return
        for name in names:
            match = self._name.fullmatch(name)
            path = self.path / name
            if match is None:
                continue
            with accessing(path, "read"):
                if path.is_symlink() or path.is_dir() != (match[2] is None):
                    continue
            with contextlib.suppress(ValueError):  # no moment in time
                backup_time(match[1])
                yield match[1], path


def superfluous(
    backups: Sequence[StoredBackup], settings: BackupSettings, now: datetime
) -> list[StoredBackup]:
    """Which of them, the newest first, do not stay by the settings; the newest one always does."""
    gone = []
    total = 0
    counted = (each for each in backups if not is_ahead(each.begun_at, now))
    for position, each in enumerate(counted):
        total += each.bytes
        too_many = settings.keep_count is not None and position >= settings.keep_count
        too_old = (
            settings.keep_seconds is not None
            and (now - each.begun_at).total_seconds() > settings.keep_seconds
        )
        too_large = settings.keep_bytes is not None and total > settings.keep_bytes
        if position and (too_many or too_old or too_large):
            gone.append(each)
    return gone


def newest_backup_at(settings: Settings, now: datetime) -> datetime | None:
    """When the newest backup was begun, of those whose time is not still to come; ``None``: there
    is none. No backup is opened.

    Raises:
        StoreAccessError: the folder cannot be read.
    """
    return BackupFolder.of(settings).newest_at(now)


def discard(path: Path) -> None:
    """Remove a file or a folder, as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _size_of(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
