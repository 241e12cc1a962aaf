"""Garbage collection, mark and sweep: removes what nothing names any more, and only that.

Kept are the newest releases, every version that they name, every version that a reader says it
serves, and every blob that one of those versions names. What is younger than the grace period is
kept too, since a running build may have put it there without a version that names it yet (age is
the ctime: when a file got its name here). When it is not known what the readers serve, a release
also counts until the grace period after its successor is over.

Where a mark is uncertain, nothing is removed that it could concern: a kept version whose manifest
is corrupt could name any blob. Names go before what they name, so that an interruption leaves
garbage and never a name that leads nowhere.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.versions import Release
from indexrelay.storage.artifacts.blobs import PIN_SUFFIX
from indexrelay.storage.artifacts.files import Layout, accessing, listed, sync_folder
from indexrelay.storage.artifacts.releases import Releases, Versions
from indexrelay.storage.errors import (
    ReleaseUnreadableError,
    ReleaseUntrustedError,
    VersionUnreadableError,
)

_log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What was removed."""

    releases: tuple[int, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    """Each with its component and its id."""
    blobs: tuple[str, ...] = ()
    """Their digests."""
    staged: int = 0
    """Files that writers left behind."""
    bytes: int = 0
    """What the blobs took on disk."""


class GarbageCollector:
    """One garbage collection of one store; the caller keeps the writers out."""

    def __init__(
        self,
        layout: Layout,
        *,
        releases: Releases,
        versions: Versions,
        now: float,
        grace_seconds: float,
        dry_run: bool = False,
    ) -> None:
        """``dry_run``: find what would be removed, and remove nothing."""
        self._dry_run = dry_run
        self._layout = layout
        self._releases = releases
        self._versions = versions
        self._oldest = now - grace_seconds
        # What stays:
        self._kept_releases: set[int] = set()
        self._kept_signatures: set[str] = set()
        self._kept_versions: set[str] = set()
        self._kept_blobs: set[str] = set()
        self._blobs_known = True

    def collect(
        self, *, keep_releases: int, used_versions: Collection[str], all_known: bool
    ) -> Collected:
        """Mark, then remove; see `ArtifactStore.collect_garbage`.

        Raises:
            StoreAccessError: something cannot be read or removed; what was removed until then was
                not needed.
        """
        self._kept_versions.update(used_versions)
        self._mark_releases(keep=keep_releases, presence_known=all_known)
        self._mark_versions()
        releases = self._remove_releases()
        self._remove_signatures()
        versions = self._remove_versions()
        blobs, freed = self._remove_blobs()
        staged = self._remove_staged()
        self._remove_marks()
        return Collected(
            releases=releases, versions=versions, blobs=blobs, staged=staged, bytes=freed
        )

    def _mark_releases(self, *, keep: int, presence_known: bool) -> None:
        successor: Path | None = None
        intact = 0
        for number in self._releases.numbers():
            path = self._layout.release(number)
            in_grace = successor is None or (not presence_known and self._young(successor))
            release, trusted = self._found(number)
            # A corrupt one among those that are kept stays as evidence. So does an untrusted one;
            # neither counts as one of the releases to keep.
            if intact < keep or in_grace:
                self._kept_releases.add(number)
                if release is not None:
                    self._kept_versions.update(version for _, version in release.versions)
                    self._kept_signatures.add(release.digest)
            intact += trusted
            successor = path

    def _mark_versions(self) -> None:
        for component, version_id, path in self._layout.manifests():
            if version_id not in self._kept_versions and not self._young(path):
                continue
            self._kept_versions.add(version_id)
            try:
                manifest = self._versions.read(component, version_id)
            except VersionUnreadableError as error:
                _log.warning(
                    "gc.blobs_kept",
                    component=component,
                    version=version_id,
                    error=str(error),
                    consequence="no blob is removed while a kept version cannot be read",
                )
                self._blobs_known = False
            else:
                self._kept_blobs.update(ref.digest for ref in manifest.files.values())
        self._kept_blobs.update(
            pin.name.removesuffix(PIN_SUFFIX)
            for pin in listed(self._layout.staging)
            if pin.suffix == PIN_SUFFIX and self._young(pin)
        )

    def _remove_releases(self) -> tuple[int, ...]:
        gone = [number for number in self._releases.numbers() if number not in self._kept_releases]
        self._remove(self._layout.release(number) for number in gone)
        self._remove(copy for number in gone if (copy := self._layout.copy(number)).exists())
        return tuple(gone)

    def _remove_signatures(self) -> None:
        """Those of releases that are gone, or that lost against another publisher's."""
        self._remove(
            path
            for path in listed(self._layout.signatures)
            if path.suffix == ".json"
            and path.stem not in self._kept_signatures
            and not self._young(path)
        )

    def _remove_versions(self) -> tuple[tuple[str, str], ...]:
        gone = [found for found in self._layout.manifests() if found[1] not in self._kept_versions]
        self._remove(path for _, _, path in gone)
        return tuple((component, version_id) for component, version_id, _ in gone)

    def _remove_blobs(self) -> tuple[tuple[str, ...], int]:
        if not self._blobs_known:
            return (), 0
        gone = [
            path
            for path in self._layout.blob_files()
            if path.name not in self._kept_blobs and not self._young(path)
        ]
        with accessing(self._layout.blobs, "read"):
            freed = sum(path.lstat().st_size for path in gone)
        self._remove(gone)
        return tuple(path.name for path in gone), freed

    def _remove_staged(self) -> int:
        staged = listed(self._layout.staging)
        gone = [path for path in staged if path.is_file() and not self._young(path)]
        self._remove(gone)
        return len(gone)

    def _remove_marks(self) -> None:
        """Those of blobs that are gone, from all hosts."""
        present = {path.name for path in self._layout.blob_files()}
        for host in (*listed(self._layout.checked), *listed(self._layout.opened)):
            for mark in listed(host):
                if not self._dry_run and not self._young(mark) and mark.name not in present:
                    with accessing(mark, "remove"):
                        mark.unlink(missing_ok=True)

    def _found(self, number: int) -> tuple[Release | None, bool]:
        """The release, if it is intact, and whether it is trusted as well."""
        try:
            return self._releases.read(number), True
        except ReleaseUntrustedError:
            return self._releases.unverified(number), False
        except ReleaseUnreadableError:
            return None, False

    def _young(self, path: Path) -> bool:
        """Whether it is within the grace period; a file that has just gone counts as young."""
        with accessing(path, "read"):
            try:
                return path.lstat().st_ctime > self._oldest
            except FileNotFoundError:
                return True

    def _remove(self, paths: Iterable[Path]) -> None:
        if self._dry_run:
            return
        folders = set()
        for path in paths:
            with accessing(path, "remove"):
                path.unlink(missing_ok=True)
            folders.add(path.parent)
        for folder in folders:
            sync_folder(folder)
