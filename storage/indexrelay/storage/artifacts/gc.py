"""Garbage collection, mark and sweep: removes what nothing names any more, and only that.

Kept are the newest releases, every version that they name, every version that a reader says it
serves, and every blob that one of those versions names. What is younger than the grace period is
kept too, since a running build may have put it there without a version that names it yet (age is
the ctime: when a file got its name here). When it is not known what the readers serve, a release
also counts until the grace period after its successor is over.

Where a mark is uncertain, nothing is removed that it could concern: a kept version whose manifest
is damaged could name any blob. Names go before what they name, so that an interruption leaves
garbage and never a name that leads nowhere.
"""

import contextlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.versions import Release
from indexrelay.storage.artifacts.blobs import PIN_SUFFIX
from indexrelay.storage.artifacts.files import Layout, accessing, sync_folder
from indexrelay.storage.artifacts.releases import Releases, Versions
from indexrelay.storage.errors import (
    ReleaseUnreadableError,
    ReleaseUntrustedError,
    UnsafeNameError,
    VersionUnreadableError,
)

log = get_logger(__name__)


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


@dataclass
class _Marked:
    releases: set[int] = field(default_factory=set)
    signed: set[str] = field(default_factory=set)
    """The digests of the releases that stay."""
    versions: set[str] = field(default_factory=set)
    blobs: set[str] = field(default_factory=set)
    blobs_known: bool = True


class GarbageCollector:
    """One sweep over one store; the caller holds off the writers."""

    def __init__(
        self,
        layout: Layout,
        *,
        releases: Releases,
        versions: Versions,
        now: float,
        grace_seconds: float,
    ) -> None:
        self._layout = layout
        self._releases = releases
        self._versions = versions
        self._oldest = now - grace_seconds

    def sweep(
        self, *, keep_releases: int, used_versions: Collection[str], all_known: bool
    ) -> Collected:
        """Mark, then remove.

        Raises:
            StoreAccessError: something cannot be read or removed; what was removed until then was
                not needed.
        """
        marked = _Marked(versions=set(used_versions))
        self._mark_releases(marked, keep=keep_releases, presence_known=all_known)
        self._mark_versions(marked)
        releases = self._sweep_releases(marked)
        self._sweep_signatures(marked)
        versions = self._sweep_versions(marked)
        blobs, freed = self._sweep_blobs(marked)
        swept = Collected(
            releases=releases,
            versions=versions,
            blobs=blobs,
            staged=self._sweep_staging(),
            bytes=freed,
        )
        self._sweep_checked()
        return swept

    def _mark_releases(self, marked: _Marked, *, keep: int, presence_known: bool) -> None:
        successor: Path | None = None
        intact = 0
        for number in self._releases.numbers():
            path = self._layout.release(number)
            in_grace = successor is None or (not presence_known and self._young(successor))
            release, trusted = self._found(number)
            # A damaged one is kept as evidence while it stands among those that are kept; so is one
            # that nobody trusted has signed, which pushes no other one out.
            if intact < keep or in_grace:
                marked.releases.add(number)
                if release is not None:
                    marked.versions.update(release.components.values())
                    marked.signed.add(release.digest)
            intact += trusted
            successor = path

    def _mark_versions(self, marked: _Marked) -> None:
        for component, version_id, path in self._manifests():
            if version_id not in marked.versions and not self._young(path):
                continue
            marked.versions.add(version_id)
            try:
                manifest = self._versions.read(component, version_id)
            except VersionUnreadableError as error:
                log.warning(
                    "sweep.blobs_kept",
                    component=component,
                    version=version_id,
                    error=str(error),
                    consequence="no blob is removed while a kept version cannot say what it names",
                )
                marked.blobs_known = False
            else:
                marked.blobs.update(ref.digest for ref in manifest.files.values())
        marked.blobs.update(
            pin.name.removesuffix(PIN_SUFFIX)
            for pin in _listed(self._layout.staging)
            if pin.suffix == PIN_SUFFIX and self._young(pin)
        )

    def _sweep_releases(self, marked: _Marked) -> tuple[int, ...]:
        gone = [number for number in self._releases.numbers() if number not in marked.releases]
        _remove(self._layout.release(number) for number in gone)
        _remove(copy for number in gone if (copy := self._layout.copy(number)).exists())
        return tuple(gone)

    def _sweep_signatures(self, marked: _Marked) -> None:
        """Of releases that are gone, and of such that lost against another publisher's."""
        _remove(
            path
            for path in _listed(self._layout.signatures)
            if path.suffix == ".json" and path.stem not in marked.signed and not self._young(path)
        )

    def _sweep_versions(self, marked: _Marked) -> tuple[tuple[str, str], ...]:
        gone = [found for found in self._manifests() if found[1] not in marked.versions]
        _remove(path for _, _, path in gone)
        return tuple((component, version_id) for component, version_id, _ in gone)

    def _sweep_blobs(self, marked: _Marked) -> tuple[tuple[str, ...], int]:
        if not marked.blobs_known:
            return (), 0
        gone = [
            path
            for path in self._blob_files()
            if path.name not in marked.blobs and not self._young(path)
        ]
        with accessing(self._layout.blobs, "read"):
            freed = sum(path.lstat().st_size for path in gone)
        _remove(gone)
        return tuple(path.name for path in gone), freed

    def _sweep_staging(self) -> int:
        staged = _listed(self._layout.staging)
        gone = [path for path in staged if path.is_file() and not self._young(path)]
        _remove(gone)
        return len(gone)

    def _sweep_checked(self) -> None:
        """Forget that blobs were checked which are gone, on whatever host that was."""
        present = {path.name for path in self._blob_files()}
        for host in (*_listed(self._layout.checked), *_listed(self._layout.opened)):
            for mark in _listed(host):
                if not self._young(mark) and mark.name not in present:
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

    def _manifests(self) -> Iterator[tuple[str, str, Path]]:
        for folder in _listed(self._layout.versions):
            for path in _listed(folder):
                # What somebody else put here is not ours to remove.
                with contextlib.suppress(UnsafeNameError):
                    if path == self._layout.version(folder.name, path.stem):
                        yield folder.name, path.stem, path

    def _blob_files(self) -> Iterator[Path]:
        for folder in _listed(self._layout.blobs):
            for path in _listed(folder):
                with contextlib.suppress(UnsafeNameError):
                    if path == self._layout.blob(path.name):
                        yield path

    def _young(self, path: Path) -> bool:
        """Whether it is within the grace period; what has just gone is nothing to remove."""
        with accessing(path, "read"):
            try:
                return path.lstat().st_ctime > self._oldest
            except FileNotFoundError:
                return True


def _listed(folder: Path) -> list[Path]:
    """What is in a folder, in the order of names; a folder that is not there is empty."""
    with accessing(folder, "list"):
        return sorted(folder.iterdir()) if folder.is_dir() else []


def _remove(paths: Iterable[Path]) -> None:
    folders = set()
    for path in paths:
        with accessing(path, "remove"):
            path.unlink(missing_ok=True)
        folders.add(path.parent)
    for folder in folders:
        sync_folder(folder)
