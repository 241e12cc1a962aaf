"""Manifests: each immutable build of one component, named by the sha256 of its manifest.

The digest is taken over the bytes as they lie on disk, so that a manifest with fields of a newer
minor version is as good as any.
"""

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from indexrelay.schemas.canonical import sha256_hex
from indexrelay.schemas.names import DIGEST_PATTERN
from indexrelay.schemas.versions import VersionManifest
from indexrelay.storage.artifacts.blobs import Blobs
from indexrelay.storage.artifacts.checked import file_identity
from indexrelay.storage.artifacts.durable import (
    accessing,
    read_file,
)
from indexrelay.storage.artifacts.errors import (
    ArtifactError,
    BlobCorruptError,
    BlobMissingError,
    NotAFileError,
    VersionUnreadableError,
)
from indexrelay.storage.artifacts.layout import Layout, check_name
from indexrelay.storage.artifacts.locking import StoreLock


@dataclass(frozen=True, kw_only=True)
class OpenedVersion:
    """A version whose manifest and blobs were found intact."""

    manifest: VersionManifest
    files: Mapping[str, Path]
    """By the labels of the manifest; read-only, and gone only when the version is swept."""
    identities: Mapping[str, str] = field(default_factory=dict)
    """By label: what each file looked like when it was found to be what its digest says."""


class Versions:
    """The manifests of one store."""

    def __init__(self, layout: Layout, *, lock: StoreLock, blobs: Blobs) -> None:
        self._layout = layout
        self._lock = lock
        self._blobs = blobs

    def put(self, manifest: VersionManifest) -> str:
        """Write a manifest, once everything that it names is there; returns its id.

        Raises:
            BlobMissingError, BlobCorruptError: it names a blob that is not in the store.
            StoreAccessError: it cannot be written.
        """
        data = manifest.canonical()
        version_id = sha256_hex(data)
        path = self._layout.version(manifest.component, version_id)
        self._layout.make_folder(path.parent)
        with self._lock.writing():
            for ref in manifest.files.values():
                self._blobs.present(ref)
            if not self._layout.write_once(data, path) and not _holds(path, data):
                self._layout.overwrite(data, path)
        return version_id

    def read(self, component: str, version_id: str) -> VersionManifest:
        """The manifest, once it is known to be intact.

        Raises:
            VersionUnreadableError: it is not there, damaged, or of another component.
            StoreAccessError: it cannot be read.
        """
        path = self._layout.version(component, version_id)
        try:
            data = read_file(path)
        except FileNotFoundError as error:
            reason = f"there is no {path}"
            raise VersionUnreadableError(component, version_id, reason, missing=True) from error
        except NotAFileError as error:
            reason = f"{path} is damaged: it is not a regular file"
            raise VersionUnreadableError(component, version_id, reason, missing=False) from error
        digest = sha256_hex(data)
        if digest != version_id:
            reason = f"{path} is damaged: its content has the digest {digest}"
            raise VersionUnreadableError(component, version_id, reason, missing=False)
        try:
            manifest = VersionManifest.model_validate_json(data)
        except ValidationError as error:
            reason = f"{path} is not a manifest that this release of indexrelay can read"
            raise VersionUnreadableError(component, version_id, reason, missing=False) from error
        if manifest.component != component:
            reason = f"{path} is a version of {manifest.component}"
            raise VersionUnreadableError(component, version_id, reason, missing=False)
        return manifest

    def newest(self, component: str, *, most: int) -> list[str]:
        """The ids of the versions that were written last, newest first; none is read.

        Raises:
            StoreAccessError: the folder cannot be listed.
        """
        folder = self._layout.versions / check_name(component)
        with accessing(folder, "list"):
            try:
                found = [(entry.stat().st_mtime_ns, entry.name) for entry in os.scandir(folder)]
            except FileNotFoundError:  # never built, or swept while it was listed
                return []
        names = [name.removesuffix(".json") for _, name in sorted(found, reverse=True)]
        return [name for name in names if re.fullmatch(DIGEST_PATTERN, name)][:most]

    def open(self, component: str, version_id: str) -> OpenedVersion:
        """The manifest and where its files lie, all checked.

        Raises:
            VersionUnreadableError, BlobMissingError, BlobCorruptError, StoreAccessError: as `read`
                and `Blobs.path` do.
        """
        manifest = self.read(component, version_id)
        try:
            found = {label: self._blobs.checked(ref) for label, ref in manifest.files.items()}
        except (BlobMissingError, BlobCorruptError) as error:
            raise error.of(component) from error
        return OpenedVersion(
            manifest=manifest,
            files={label: path for label, (path, _) in found.items()},
            identities={label: identity for label, (_, identity) in found.items()},
        )

    def is_unchanged(self, opened: OpenedVersion) -> bool:
        """Whether the files of a version that was opened are still those that were checked.

        Who may write to the store may put others in their place between the check and the use.

        Raises:
            StoreAccessError: it cannot be seen.
        """
        for label, identity in opened.identities.items():
            path = opened.files[label]
            with accessing(path, "read"):
                if file_identity(path.lstat()) != identity:
                    return False
        return True

    def looks(self, component: str, version_id: str) -> str:
        """What the version's files look like: other text once one of them was replaced.

        Reads no blob. What is missing or damaged is a look, too.
        """
        paths = [self._layout.version(component, version_id)]
        with contextlib.suppress(ArtifactError):  # a damaged manifest names no blobs
            manifest = self.read(component, version_id)
            paths += [self._layout.blob(ref.digest) for ref in manifest.files.values()]
        return "".join(map(_look, paths))


def _holds(path: Path, data: bytes) -> bool:
    try:
        return read_file(path) == data
    except (FileNotFoundError, NotAFileError):
        return False


def _look(path: Path) -> str:
    try:
        return file_identity(path.lstat())
    except OSError as error:
        return f"{error.errno}\n"
