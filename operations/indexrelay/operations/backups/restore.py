"""The way back: from what a backup holds to the next release.

All of a backup is read and checked before anything of it counts. Blobs, and the catalog's copy,
wait in the store's staging folder meanwhile, where garbage collection finds what a crash leaves;
what waits for long is touched, so that it stays.
Then blobs and versions are put into the store, which changes nothing that is served. The catalog's
rows and the release come last: the release is linked while the catalog's transaction is open, so
that a release that cannot be committed takes the rows back.
"""

import contextlib
import io
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from pydantic import ValidationError

from indexrelay.operations.backups.errors import BackupCorruptError, BackupRefusedError
from indexrelay.schemas.backups import CATALOG_FILE, BackupFile, BackupManifest
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.files import open_private
from indexrelay.schemas.versions import Release, VersionManifest
from indexrelay.storage.artifacts import (
    ArtifactStore,
    ReleaseUnreadableError,
    ReleaseUntrustedError,
)
from indexrelay.storage.artifacts.files import accessing
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.catalog.copies import check_copy
from indexrelay.storage.errors import CatalogCopyError

_DOCUMENT_BYTES: Final = 256 << 20
"""Of a release and its versions together: a thousand of ours take a tenth."""
KEEP_SECONDS: Final = 600.0
"""How often what has to outlast garbage collection is touched: what is younger than an hour stays
whatever the settings are."""


@dataclass(frozen=True, kw_only=True)
class Restored:
    """A backup that was restored."""

    release: Release
    """The new one."""
    manifest: BackupManifest
    generations: dict[str, int] | None
    """For each collection of the catalog, if that was restored: the generation where it goes on."""


class Checked:
    """Keeps the documents of a backup, and checks that they belong together.

    The catalog's copy is kept aside, to be opened; it is removed when the ``with`` ends.
    """

    def __init__(self, store: ArtifactStore, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._token = secrets.token_hex(8)
        self._staged: list[Path] = []
        self._touched = clock.monotonic()
        self._manifest: BackupManifest | None = None
        self._documents: dict[str, io.BytesIO] = {}

    @property
    def manifest(self) -> BackupManifest:
        """The manifest of the backup that was read."""
        assert self._manifest is not None  # noqa: S101 - `begin` comes first
        return self._manifest

    def begin(self, manifest: BackupManifest) -> None:
        """See `indexrelay.operations.backups.archive.Taker`."""
        small = sum(each.size for each in manifest.files() if _is_document(each))
        if small > _DOCUMENT_BYTES:
            raise BackupRefusedError(
                f"the backup {manifest.id} has {small:,} bytes of documents, of at most "
                f"{_DOCUMENT_BYTES:,}"
            )
        needed = sum(each.size for each in manifest.files() if self._is_staged(each))
        free = shutil.disk_usage(self._store.staging).free
        if needed > free:
            raise BackupRefusedError(
                f"the backup {manifest.id} needs {needed:,} bytes in {self._store.root}, and "
                f"{free:,} are free"
            )
        self._manifest = manifest

    def open(self, file: BackupFile) -> IO[bytes] | None:
        """See `indexrelay.operations.backups.archive.Taker`."""
        if self._is_staged(file):
            path = self.path(file.digest)
            self._staged.append(path)
            with accessing(path, "write"):
                return open_private(path, "wb")
        if not _is_document(file):
            return None
        self._documents[file.path] = _Kept(file.path)
        return self._documents[file.path]

    def path(self, digest: str) -> Path:
        """Where the file of that digest is until it is put."""
        return self._store.staging / f"restore-{self._token}-{digest}.tmp"

    def keep(self) -> None:
        """Touch what is kept aside, unless that was done of late; called while more is read."""
        if self._clock.monotonic() - self._touched > KEEP_SECONDS:
            self._touched = self._clock.monotonic()
            for path in self._staged:
                with contextlib.suppress(OSError):  # put into the store meanwhile
                    os.utime(path)

    def catalog(self, path: Path) -> None:
        """See that the catalog, if it was kept, could be taken over; after everything was read.

        Args:
            path: that of the backup, for errors.

        Raises:
            BackupCorruptError: it could not, or it is not the one that the manifest is about.
        """
        announced = self.manifest.catalog
        if announced is None or self.path(announced.digest) not in self._staged:
            return
        try:
            found = check_copy(self.path(announced.digest))
        except CatalogCopyError as error:
            raise BackupCorruptError(path, f"its catalog is none: {error.reason}") from error
        if found != announced.generations:
            raise BackupCorruptError(
                path, "its catalog is at other generations than its manifest says"
            )

    def versions(self) -> Iterator[tuple[str, str, bytes]]:
        """Component, id and document of each version."""
        for name, ref in self.manifest.versions.items():
            path = f"versions/{name}/{ref.digest}.json"
            yield name, ref.digest, self._documents[path].getvalue()

    def release(self, path: Path) -> Release:
        """The release, after everything was read.

        Args:
            path: that of the backup, for errors.

        Raises:
            BackupCorruptError: the documents do not belong together.
            ReleaseUntrustedError: the release is not signed by a key that is trusted here.
        """
        manifest = self.manifest
        texts = {name: kept.getvalue() for name, kept in self._documents.items()}
        number = manifest.release.number
        try:
            release = self._store.release_from(
                number,
                texts[f"releases/{number:08d}.json"],
                texts.get(f"signatures/{manifest.release.release}.json"),
            )
        except ReleaseUntrustedError:
            raise
        except ReleaseUnreadableError as error:
            raise BackupCorruptError(path, error.reason) from error
        if release.digest != manifest.release.release:
            raise BackupCorruptError(path, "its release is another one than its manifest says")
        if release.components != {name: ref.digest for name, ref in manifest.versions.items()}:
            raise BackupCorruptError(path, "its release names other versions than are in it")
        named = set()
        for name, _, document in self.versions():
            try:
                found = VersionManifest.model_validate_json(document)
            except ValidationError as error:
                raise BackupCorruptError(
                    path, f"its version of {name} is none that can be read here"
                ) from error
            if found.component != name:
                raise BackupCorruptError(path, f"its version of {name} is one of another component")
            named |= {(ref.digest, ref.size) for ref in found.files.values()}
        if named != {(ref.digest, ref.size) for ref in manifest.blobs}:
            raise BackupCorruptError(path, "its versions name other blobs than are in it")
        return release

    def _is_staged(self, file: BackupFile) -> bool:
        return file.path == CATALOG_FILE

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for path in self._staged:
            discard_database(path)


class Staging(Checked):
    """Keeps all of a backup aside until it is known to be right; removed when the ``with`` ends."""

    def __init__(
        self, store: ArtifactStore, *, namespace: str, with_catalog: bool, clock: Clock
    ) -> None:
        super().__init__(store, clock=clock)
        self._namespace = namespace
        self._with_catalog = with_catalog

    def begin(self, manifest: BackupManifest) -> None:
        """See `Checked`; refuses what does not fit here."""
        if manifest.namespace != self._namespace:
            raise BackupRefusedError(
                f"the backup {manifest.id} is of the namespace {manifest.namespace!r}, not "
                f"{self._namespace!r}; if it is meant: --namespace {manifest.namespace}"
            )
        if self._with_catalog and manifest.catalog is None:
            raise BackupRefusedError(
                f"the backup {manifest.id} was made without the catalog; restore it without"
            )
        super().begin(manifest)

    def _is_staged(self, file: BackupFile) -> bool:
        if file.path == CATALOG_FILE:
            return self._with_catalog
        return not _is_document(file)


def put_in_place(
    staging: Staging,
    path: Path,
    *,
    store: ArtifactStore,
    catalog: Catalog | None,
    hold: bool,
    lost: int,
    reason: str,
) -> Restored:
    """Put what was staged into the store, and commit the release.

    Args:
        staging: after the whole backup was read.
        path: that of the backup, for errors.
        catalog: takes over the copy in the backup; ``None``: it stays as it is.
        hold, lost, reason: see `ArtifactStore.restore`.
    """
    release, manifest = staging.release(path), staging.manifest
    staging.catalog(path)
    for ref in manifest.blobs:
        staging.keep()
        store.put_blob(staging.path(ref.digest))
    for component, version_id, document in staging.versions():
        store.put_version_document(component, version_id, document)
    if catalog is None or manifest.catalog is None:
        made = store.restore(release, hold=hold, reason=reason, lost=lost)
        return Restored(release=made, manifest=manifest, generations=None)
    copy = staging.path(manifest.catalog.digest)
    with catalog.importing(copy, copied_at=manifest.created_at) as imported:
        made = store.restore(release, hold=hold, reason=reason, lost=max(lost, imported.release))
    return Restored(release=made, manifest=manifest, generations=imported.generations)


def discard_database(path: Path) -> None:
    """Remove a file, and what SQLite may have left beside it, as far as that is possible."""
    for end in ("", "-journal", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            path.with_name(path.name + end).unlink(missing_ok=True)


class _Kept(io.BytesIO):
    """A document in memory; closing it keeps it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def close(self) -> None:
        """Nothing: it is read later."""


def _is_document(file: BackupFile) -> bool:
    return not file.path.startswith("blobs/") and file.path != CATALOG_FILE
