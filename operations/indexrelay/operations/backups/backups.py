"""The backups of one installation: made, listed, verified, restored, removed.

A backup is of one moment. The release is chosen first, and a release is whole by itself; the
catalog is copied after it in one transaction, so that it has at least what the release covers.
Batches, builds and releases go on meanwhile. Garbage collection leaves the blobs alone: each of
them is pinned before the first is read, and again while that takes long.

What was begun and not finished leaves nothing: a backup gets its name when it is whole and on disk.
"""

import contextlib
import hashlib
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from indexrelay.operations.backups.archive import (
    Progress,
    read_backup,
    read_manifest,
    write_archive,
    write_folder,
)
from indexrelay.operations.backups.errors import BackupSourceError
from indexrelay.operations.backups.restore import (
    KEEP_SECONDS,
    Checked,
    Restored,
    Staging,
    discard_database,
    put_in_place,
)
from indexrelay.schemas import commands
from indexrelay.schemas.backups import (
    BackedUpCatalog,
    BackedUpRelease,
    BackupFile,
    BackupManifest,
    FileRef,
)
from indexrelay.schemas.clock import Clock, SystemClock
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.names import sha256_hex
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import BlobRef, Release, VersionManifest
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.artifacts.files import accessing, open_file
from indexrelay.storage.backups import BackupFolder, StoredBackup, discard, superfluous
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.catalog.copies import generations_in
from indexrelay.storage.errors import NothingReleasedError, UnknownCollectionError

_log = get_logger(__name__)
_PIECE_BYTES: Final = 1 << 20


def _unseen(done: int, total: int) -> None:
    """The progress that nobody looks at."""


@dataclass(frozen=True, kw_only=True)
class Created:
    """A backup that was made."""

    backup: StoredBackup
    manifest: BackupManifest
    removed: tuple[StoredBackup, ...]
    """Older ones that do not stay by the settings."""


@dataclass(frozen=True, kw_only=True)
class _Documents:
    """What a release consists of, read and checked, without the blobs."""

    release: Release
    data: bytes
    signatures: bytes | None
    versions: dict[str, bytes]
    manifests: dict[str, VersionManifest]

    @property
    def blobs(self) -> list[BlobRef]:
        """Every blob that the versions name, once."""
        found = {ref.digest: ref for each in self.manifests.values() for ref in each.files.values()}
        return [found[digest] for digest in sorted(found)]


class Backups:
    """The backups that the settings name; every method may be called from any thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: ArtifactStore,
        open_catalog: Callable[[], Catalog],
        clock: Clock | None = None,
        by: str = "",
    ) -> None:
        """``open_catalog`` is called where the catalog is needed; ``by``: the author of backups."""
        self._settings = settings
        self._store = store
        self._open_catalog = open_catalog
        self._clock = clock or SystemClock()
        self._by = by
        self.folder = BackupFolder.of(settings)

    def create(
        self,
        *,
        release: int | None = None,
        with_catalog: bool | None = None,
        progress: Progress = _unseen,
    ) -> Created:
        """Back up a release, and remove older backups that do not stay by the settings.

        Args:
            release: its number; ``None``: the newest.
            with_catalog: whether the catalog is in it; ``None``: as the settings say.

        Raises:
            NothingReleasedError, ReleaseUnreadableError: there is no such release.
            BackupSourceError: something is corrupt, or the catalog is older than the release.
            BackupsBusyError: another process makes or removes backups.
            StoreAccessError: the backup cannot be written, or the artifacts cannot be read.
        """
        with self.folder.writing():
            return self._create(release, with_catalog, progress)

    def create_due(self, slot: datetime | None, *, progress: Progress = _unseen) -> Created | None:
        """Back up the newest release, unless a backup was begun since; ``None``: one was.

        Args:
            slot: since when; ``None``: whenever.

        Raises: as `create`.
        """
        with self.folder.writing():
            newest = self.folder.newest_at(self._clock.now())
            if newest is not None and (slot is None or newest >= slot):
                return None
            return self._create(None, None, progress)

    def manifest(self, id_: str, *, identity_file: Path | None = None) -> BackupManifest:
        """What a backup holds, by its manifest alone.

        Raises:
            BackupUnknownError: there is none of that id.
            BackupCorruptError, BackupKeyError: it cannot be read.
        """
        return read_manifest(self.folder.get(id_), identity_file=self.identity(identity_file))

    def verify(
        self, id_: str, *, identity_file: Path | None = None, progress: Progress = _unseen
    ) -> BackupManifest:
        """Read a backup to its end, check every digest and that it is whole, and open its catalog.

        Raises:
            BackupUnknownError: there is none of that id.
            BackupCorruptError, BackupKeyError: it could not be restored.
            BackupRefusedError: there is no room for the copy of its catalog.
            ReleaseUntrustedError: its release is not signed by a key that is trusted here.
        """
        backup = self.folder.get(id_)
        with Checked(self._store, clock=self._clock) as checked:
            manifest = read_backup(
                backup,
                checked,
                identity_file=self.identity(identity_file),
                progress=_keeping(checked, progress),
            )
            checked.release(backup.path)
            checked.catalog(backup.path)
        return manifest

    def restore(
        self,
        id_: str,
        *,
        with_catalog: bool = False,
        hold: bool | None = None,
        namespace: str | None = None,
        identity_file: Path | None = None,
        reason: str = "",
        progress: Progress = _unseen,
    ) -> Restored:
        """Serve what a backup holds, as the next release; nothing changes if any of it is wrong.

        Where there is a release already this is a rollback, and what it names is held, unless the
        catalog comes from the backup, too. The catalog has to be empty for that.

        Args:
            with_catalog: whether the catalog is taken from the backup as well.
            hold: whether what is restored is held; ``None``: as said above.
            namespace: that of the installation that made it; ``None``: the one of the settings.

        Raises:
            BackupUnknownError: there is none of that id.
            BackupCorruptError, BackupKeyError: it cannot be read, or is not sound.
            BackupRefusedError: it does not fit here, or there is no room for it.
            CatalogNotEmptyError: the catalog cannot be taken over.
            ReleaseUntrustedError: its release is not signed by a key that is trusted here.
        """
        backup = self.folder.get(id_)
        catalog = self._open_catalog() if with_catalog else None
        if catalog is not None:
            catalog.check_empty()
        with Staging(
            self._store,
            namespace=namespace or self._settings.namespace,
            with_catalog=with_catalog,
            clock=self._clock,
        ) as staging:
            read_backup(
                backup,
                staging,
                identity_file=self.identity(identity_file),
                progress=_keeping(staging, progress),
            )
            done = put_in_place(
                staging,
                backup.path,
                store=self._store,
                catalog=catalog,
                hold=not with_catalog if hold is None else hold,
                lost=0 if catalog is not None else self._highest_release(),
                reason=reason or f"restored the backup {id_}",
            )
        _log.info(
            "backup.restored",
            backup=id_,
            release=done.release.number,
            of_release=done.manifest.release.number,
            with_catalog=with_catalog,
        )
        return done

    def prune(self, *, dry_run: bool = False) -> tuple[StoredBackup, ...]:
        """Remove the backups that do not stay by the settings; returns them.

        Args:
            dry_run: remove nothing; returns what would be.

        Raises:
            BackupsBusyError: another process makes or removes backups.
            StoreAccessError: they cannot be removed.
        """
        if dry_run or not self._superfluous():
            return self._superfluous()
        with self.folder.writing():
            return self._prune()

    def _create(
        self, release: int | None, with_catalog: bool | None, progress: Progress
    ) -> Created:
        limits = self._settings.backups
        wanted = limits.with_catalog if with_catalog is None else with_catalog
        began = self._clock.now()
        id_ = self.folder.free_id(began)
        documents = self._documents(release)
        pinned = self._clock.monotonic()
        self._store.pin_blobs(documents.blobs)
        partial = self.folder.partial(id_)
        # In plain text, so not where backups lie, which may be meant for others to keep.
        copy = self._store.staging / f"backup-{secrets.token_hex(8)}-catalog.tmp"
        try:
            catalog = self._copied_catalog(documents, copy) if wanted else None
            manifest = self._manifest(id_, began, documents, catalog)
            source = self._source(documents, copy, pinned)
            if limits.format == "folder":
                write_folder(partial, manifest, source, progress)
            else:
                write_archive(partial, manifest, source, limits, progress)
            encrypted = bool(limits.recipients)
            final = self.folder.final(id_, folder=limits.format == "folder", encrypted=encrypted)
            self.folder.publish(partial, final)
        finally:
            discard(partial)
            discard_database(copy)
        removed = self._prune()
        created = Created(backup=self.folder.get(id_), manifest=manifest, removed=removed)
        _log.info(
            "backup.created",
            backup=id_,
            release=manifest.release.number,
            bytes=created.backup.bytes,
            with_catalog=catalog is not None,
            seconds=round((self._clock.now() - began).total_seconds(), 3),
        )
        return created

    def _superfluous(self) -> tuple[StoredBackup, ...]:
        return tuple(superfluous(self.folder.all(), self._settings.backups, self._clock.now()))

    def _prune(self) -> tuple[StoredBackup, ...]:
        gone = self._superfluous()
        for each in gone:
            self.folder.remove(each)
            _log.info("backup.removed", backup=each.id, bytes=each.bytes)
        return gone

    def identity(self, given: Path | None) -> Path | None:
        """The file of the private key: what is given, or else what the settings name."""
        return given or self._settings.backups.identity_file

    def _documents(self, number: int | None) -> _Documents:
        if number is None:
            newest = self._store.newest_release()
            if newest is None:
                raise NothingReleasedError
            number = newest.number
            if newest.canary is not None:  # what is for everyone, and not what is only tried
                settled = (each for each in self._store.releases() if each.canary is None)
                number = next((each.number for each in settled), number)
        release, data, signatures = self._store.release_document(number)
        versions = {
            name: self._store.version_document(name, id_)
            for name, id_ in release.components.items()
        }
        return _Documents(
            release=release,
            data=data,
            signatures=signatures,
            versions=versions,
            manifests={
                name: VersionManifest.model_validate_json(each) for name, each in versions.items()
            },
        )

    def _copied_catalog(self, documents: _Documents, copy: Path) -> BackedUpCatalog:
        catalog = self._open_catalog()
        known = {each.name for each in catalog.collections.all()}
        made_from = {each for one in documents.manifests.values() for each in one.covers}
        if made_from and known.isdisjoint(made_from):
            raise BackupSourceError(
                "the catalog",
                f"it knows none of the collections that release {documents.release.number} was "
                "made from: see that catalog.url is the right one, or back up without the catalog",
            )
        for name, manifest in documents.manifests.items():
            _check_history(catalog, name, manifest)
        try:
            with accessing(copy, "write"):
                catalog.write_copy(copy)
                size, digest = _digest_of(copy)
        except sqlite3.Error as error:  # the copy is SQLite's, whatever the catalog is
            raise BackupSourceError("the catalog cannot be copied", str(error)) from error
        return BackedUpCatalog(size=size, digest=digest, generations=generations_in(copy))

    def _manifest(
        self, id_: str, began: datetime, documents: _Documents, catalog: BackedUpCatalog | None
    ) -> BackupManifest:
        release, signatures = documents.release, documents.signatures
        return BackupManifest(
            id=id_,
            namespace=self._settings.namespace,
            created_at=began,
            by=self._by,
            software=version("indexrelay"),
            release=BackedUpRelease(
                number=release.number,
                release=release.digest,
                size=len(documents.data),
                digest=sha256_hex(documents.data),
            ),
            signatures=None
            if signatures is None
            else FileRef(size=len(signatures), digest=sha256_hex(signatures)),
            versions={
                name: FileRef(size=len(data), digest=sha256_hex(data))
                for name, data in documents.versions.items()
            },
            blobs=tuple(FileRef(size=ref.size, digest=ref.digest) for ref in documents.blobs),
            catalog=catalog,
        )

    def _source(
        self, documents: _Documents, copy: Path, pinned: float
    ) -> Callable[[BackupFile], Iterator[bytes]]:
        """The content of each file that a manifest lists; ``pinned``: since when blobs are."""
        texts = {sha256_hex(data): data for data in documents.versions.values()}
        texts[sha256_hex(documents.data)] = documents.data
        if documents.signatures is not None:
            texts[sha256_hex(documents.signatures)] = documents.signatures

        def keep() -> None:
            nonlocal pinned
            if self._clock.monotonic() - pinned > KEEP_SECONDS:
                pinned = self._clock.monotonic()
                self._store.pin_blobs(documents.blobs)
                with contextlib.suppress(FileNotFoundError):  # without the catalog
                    os.utime(copy)

        def pieces(file: BackupFile) -> Iterator[bytes]:
            keep()
            if not file.path.startswith("blobs/"):
                known = texts.get(file.digest)
                yield from _pieces(copy) if known is None else iter([known])
                return
            # A blob lies in a backup where it lies in the store.
            for piece in _pieces(self._store.root / file.path):
                yield piece
                keep()

        return pieces

    def _highest_release(self) -> int:
        """The highest release that the catalog knows of; 0: none, or there is no catalog."""
        if not Catalog.is_there(self._settings.catalog_url):
            return 0
        return self._open_catalog().release_record.highest()


def _check_history(catalog: Catalog, component: str, manifest: VersionManifest) -> None:
    """See that the catalog still has what a version covers.

    Raises:
        BackupSourceError: it was put back from a backup, and nobody has said so.
    """
    for name, generation in manifest.covers.items():
        with contextlib.suppress(UnknownCollectionError):  # dropped since
            log = catalog.collections.log(name, [generation])
            same = log.epoch == manifest.epochs.get(name)
            if same and log.lost(generation, manifest.stamps.get(name)):
                raise BackupSourceError(
                    component,
                    f"it covers commits of {name} that the catalog does not have any more; "
                    f"{commands.restore_collection(name)}, or back up without the catalog",
                )


def _keeping(checked: Checked, progress: Progress) -> Progress:
    """The progress of reading, which also keeps what was read."""

    def read(done: int, total: int) -> None:
        checked.keep()
        progress(done, total)

    return read


def _digest_of(file: Path) -> tuple[int, str]:
    with open_file(file) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return stream.tell(), digest


def _pieces(path: Path) -> Iterator[bytes]:
    with accessing(path, "read"), open_file(path) as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


class BackupFacts(BaseModel):
    """One backup in a list."""

    model_config = ConfigDict(frozen=True)

    id: str
    path: Path
    bytes: int
    begun_at: datetime
    encrypted: bool
    folder: bool
    release: int | None = None
    """``None``, as everything below it: it cannot be read, and ``error`` says why."""
    components: tuple[str, ...] = ()
    content_bytes: int | None = None
    catalog: bool | None = None
    generations: dict[str, int] | None = None
    by: str = ""
    error: str | None = None

    @classmethod
    def of(
        cls, stored: StoredBackup, manifest: BackupManifest | None, error: str | None = None
    ) -> "BackupFacts":
        """What a person asks of it."""
        facts = cls(
            id=stored.id,
            path=stored.path,
            bytes=stored.bytes,
            begun_at=stored.begun_at,
            encrypted=stored.is_encrypted,
            folder=stored.is_folder,
            error=error,
        )
        if manifest is None:
            return facts
        return facts.model_copy(
            update={
                "release": manifest.release.number,
                "components": tuple(sorted(manifest.versions)),
                "content_bytes": manifest.size,
                "catalog": manifest.catalog is not None,
                "generations": None if manifest.catalog is None else manifest.catalog.generations,
                "by": manifest.by,
            }
        )


def facts_of(backups: Backups, stored: StoredBackup, identity: Path | None) -> BackupFacts:
    """What the manifest of a backup says, or why it cannot be read."""
    if stored.is_encrypted and backups.identity(identity) is None:
        return BackupFacts.of(stored, None)  # no error: who makes backups cannot open them
    try:
        return BackupFacts.of(stored, backups.manifest(stored.id, identity_file=identity))
    except IndexRelayError as error:
        return BackupFacts.of(stored, None, error=str(error))


def verified_facts(
    backups: Backups,
    stored: StoredBackup,
    identity: Path | None,
    progress: Progress,
) -> BackupFacts:
    """What is in a backup once all of it was read, or why it is not sound."""
    try:
        manifest = backups.verify(stored.id, identity_file=identity, progress=progress)
    except IndexRelayError as error:
        return BackupFacts.of(stored, None, error=str(error))
    return BackupFacts.of(stored, manifest)
