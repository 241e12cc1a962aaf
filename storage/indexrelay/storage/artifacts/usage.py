"""What takes how much of the disk: by version, by blob, and what no version names.

Versions share blobs, so the bytes of two versions do not add up. What a version has for itself
(``own_bytes``) is what removing it would free; what it shares is kept by another one anyway.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from indexrelay.storage.artifacts.files import Layout, accessing, listed
from indexrelay.storage.artifacts.releases import Releases, Versions
from indexrelay.storage.errors import (
    ReleaseUnreadableError,
    ReleaseUntrustedError,
    VersionUnreadableError,
)


@dataclass(frozen=True, kw_only=True)
class VersionUsage:
    """One version in the store."""

    component: str
    version: str
    releases: tuple[int, ...]
    """Those that name it, the newest first."""
    blobs: Mapping[str, int]
    """The bytes of each blob that it names and that is there, by digest; empty where its manifest
    cannot be read."""
    own_bytes: int
    """Of the blobs that no other version names."""
    readable: bool

    @property
    def bytes(self) -> int:
        """Of all blobs that it names."""
        return sum(self.blobs.values())


@dataclass(frozen=True, kw_only=True)
class StoreUsage:
    """One artifact store."""

    versions: tuple[VersionUsage, ...]
    """By component, then by version."""
    blobs: int
    blob_bytes: int
    """Of all blobs, each counted once."""
    unnamed: int
    """Blobs that no version names: of builds that run or failed, until they are collected."""
    unnamed_bytes: int
    staged_bytes: int
    """What is being written, or was left behind by a writer."""


def usage_of(layout: Layout, releases: Releases, versions: Versions) -> StoreUsage:
    """Look at every name once; no blob is read.

    Raises:
        StoreAccessError: the operating system refuses.
    """
    sizes = {path.name: size for path in layout.blob_files() if (size := _size(path)) is not None}
    named_by: dict[str, list[int]] = {}
    for number in releases.numbers():
        try:
            release = releases.read(number)
        except ReleaseUntrustedError:
            release = releases.unverified(number)
        except ReleaseUnreadableError:
            continue
        for _, version in release.versions:
            named_by.setdefault(version, []).append(number)
    found: list[tuple[str, str, dict[str, int], bool]] = []
    for component, version, _ in layout.manifests():
        try:
            manifest = versions.read(component, version)
        except VersionUnreadableError as error:
            if not error.missing:
                found.append((component, version, {}, False))
            continue
        digests = {ref.digest for ref in manifest.files.values()}
        named = {each: sizes[each] for each in sorted(digests) if each in sizes}
        found.append((component, version, named, True))
    users = Counter(digest for _, _, named, _ in found for digest in named)
    return StoreUsage(
        versions=tuple(
            VersionUsage(
                component=component,
                version=version,
                releases=tuple(named_by.get(version, ())),
                blobs=named,
                own_bytes=sum(size for digest, size in named.items() if users[digest] == 1),
                readable=readable,
            )
            for component, version, named, readable in found
        ),
        blobs=len(sizes),
        blob_bytes=sum(sizes.values()),
        unnamed=len(sizes) - len(users),
        unnamed_bytes=sum(size for digest, size in sizes.items() if digest not in users),
        staged_bytes=sum(_size(path) or 0 for path in listed(layout.staging)),
    )


def _size(path: Path) -> int | None:
    """Bytes of a file; ``None``: it has just gone."""
    with accessing(path, "read"):
        try:
            return path.lstat().st_size
        except FileNotFoundError:
            return None
