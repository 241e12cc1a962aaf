"""Versions and releases: the documents that say what was built and what is served.

A version is one immutable build of one component, named by the sha256 of its manifest. The digest
is taken over the bytes on disk, so that a manifest with fields of a newer minor version is valid.

Releases are numbered, and linking one to its number is the only commit point. A release says which
one it was made from, and only the next number is free: of two publishers one wins, and the other
gets `ReleaseExistsError`, as does one that slept and would undo what was released meanwhile.

A release is the only file that cannot be made again: sources and builds do not know what was rolled
back and held. So it is written a second time once it is committed, and where the first file is
corrupt or gone the copy is the release. Where both are corrupt it keeps its number, and the release
before it is served.
"""

import contextlib
import functools
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.names import DIGEST_PATTERN, canonical_json, sha256_hex
from indexrelay.schemas.versions import Release, VersionManifest
from indexrelay.storage.artifacts.blobs import Blobs, file_identity, inode_of
from indexrelay.storage.artifacts.files import Layout, StoreLock, accessing, check_name, read_file
from indexrelay.storage.artifacts.signing import Signatures
from indexrelay.storage.errors import (
    ArtifactError,
    BlobCorruptError,
    BlobMissingError,
    NotAFileError,
    ReleaseExistsError,
    ReleaseUnreadableError,
    ReleaseUntrustedError,
    StoreAccessError,
    VersionUnreadableError,
)

_log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class OpenedVersion:
    """A version whose manifest and blobs were found intact."""

    manifest: VersionManifest
    files: Mapping[str, Path]
    """By the labels of the manifest; read-only, and removed only with the version."""
    identities: Mapping[str, str] = field(default_factory=dict)
    """By label: each file's identity when it was found to match its digest."""

    @property
    def inodes(self) -> dict[str, int]:
        """By the digest of each blob: the file that was found intact."""
        return {
            self.manifest.files[label].digest: inode_of(identity)
            for label, identity in self.identities.items()
        }


class Versions:
    """The manifests of one store."""

    def __init__(self, layout: Layout, *, lock: StoreLock, blobs: Blobs) -> None:
        self._layout = layout
        self._lock = lock
        self._blobs = blobs

    def put(self, manifest: VersionManifest) -> str:
        """Write a manifest whose blobs all exist; returns its id.

        Raises:
            BlobMissingError, BlobCorruptError: it names a blob that is not in the store.
            StoreAccessError: it cannot be written.
        """
        data = manifest.canonical()
        return self._put(manifest, data, sha256_hex(data))

    def put_document(self, component: str, version_id: str, data: bytes) -> None:
        """Write a manifest as it was written elsewhere, fields of a newer minor version included.

        Raises:
            VersionUnreadableError: it is not that version of that component.
            BlobMissingError, BlobCorruptError, StoreAccessError: as `put` does.
        """
        self._put(_checked(component, version_id, data, "the document"), data, version_id)

    def _put(self, manifest: VersionManifest, data: bytes, version_id: str) -> str:
        path = self._layout.version(manifest.component, version_id)
        self._layout.make_folder(path.parent)
        with self._lock.writing():
            for ref in manifest.files.values():
                self._blobs.present(ref)
            if not self._layout.write_once(data, path) and not _holds(path, data):
                self._layout.overwrite(data, path)
        return version_id

    def read(self, component: str, version_id: str) -> VersionManifest:
        """The manifest, after it was found intact.

        Raises:
            VersionUnreadableError: it is missing, corrupt, or of another component.
            StoreAccessError: it cannot be read.
        """
        return _checked(component, version_id, *self._stored(component, version_id))

    def document(self, component: str, version_id: str) -> bytes:
        """The manifest as it lies on disk, after it was found intact. Raises as `read` does."""
        data, path = self._stored(component, version_id)
        _checked(component, version_id, data, path)
        return data

    def _stored(self, component: str, version_id: str) -> tuple[bytes, Path]:
        path = self._layout.version(component, version_id)
        try:
            return read_file(path), path
        except FileNotFoundError as error:
            reason = f"there is no {path}"
            raise VersionUnreadableError(component, version_id, reason, missing=True) from error
        except NotAFileError as error:
            reason = f"{path} is corrupt: it is not a regular file"
            raise VersionUnreadableError(component, version_id, reason, missing=False) from error

    def newest(self, component: str, *, most: int) -> list[str]:
        """The ids of the versions that were written last, newest first; none is read.

        Raises:
            StoreAccessError: the folder cannot be listed.
        """
        folder = self._layout.versions / check_name(component)
        with accessing(folder, "list"):
            try:
                found = [(entry.stat().st_mtime_ns, entry.name) for entry in os.scandir(folder)]
            except FileNotFoundError:  # never built, or removed while it was listed
                return []
        names = [name.removesuffix(".json") for _, name in sorted(found, reverse=True)]
        return [name for name in names if re.fullmatch(DIGEST_PATTERN, name)][:most]

    def open(self, component: str, version_id: str) -> OpenedVersion:
        """The manifest and the paths of its files, all checked.

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
        """Whether the files of an opened version are still those that were checked.

        A process that may write to the store may replace them between the check and the use.

        Raises:
            StoreAccessError: the operating system refuses.
        """
        for label, identity in opened.identities.items():
            path = opened.files[label]
            with accessing(path, "read"):
                if file_identity(path.lstat()) != identity:
                    return False
        return True

    def fingerprint(self, component: str, version_id: str) -> str:
        """A text that differs once one of the version's files was replaced, or came or went.

        Reads no blob.
        """
        paths = [self._layout.version(component, version_id)]
        with contextlib.suppress(ArtifactError):  # a corrupt manifest names no blobs
            manifest = self.read(component, version_id)
            paths += [self._layout.blob(ref.digest) for ref in manifest.files.values()]
        return "".join(map(_identity_at, paths))


def _holds(path: Path, data: bytes) -> bool:
    try:
        return read_file(path) == data
    except (FileNotFoundError, NotAFileError):
        return False


def _checked(component: str, version_id: str, data: bytes, path: Path | str) -> VersionManifest:
    """The manifest in ``data``, if it is that version of that component.

    Raises:
        VersionUnreadableError: it is not.
    """
    digest = sha256_hex(data)
    if digest != version_id:
        reason = f"{path} is corrupt: its content has the digest {digest}"
        raise VersionUnreadableError(component, version_id, reason, missing=False)
    try:
        manifest = _small_manifest(data) if len(data) <= _SMALL_BYTES else _manifest(data)
    except ValidationError as error:
        reason = f"{path} is not a manifest that this release of indexrelay can read"
        raise VersionUnreadableError(component, version_id, reason, missing=False) from error
    if manifest.component != component:
        reason = f"{path} is a version of {manifest.component}"
        raise VersionUnreadableError(component, version_id, reason, missing=False)
    return manifest


def _manifest(data: bytes) -> VersionManifest:
    return VersionManifest.model_validate_json(data)


_SMALL_BYTES: Final = 16 * 1024
_small_manifest = functools.lru_cache(maxsize=64)(_manifest)
"""A reload reads each manifest two or three times; a reader that serves it, at every look."""


def _identity_at(path: Path) -> str:
    try:
        return file_identity(path.lstat())
    except OSError as error:
        return f"{error.errno}\n"


class Releases:
    """The releases of one store."""

    def __init__(
        self,
        layout: Layout,
        *,
        lock: StoreLock,
        versions: Versions,
        signatures: Signatures,
        by: str = "",
    ) -> None:
        """``by``: the author of those that name none."""
        self._layout = layout
        self._signatures = signatures
        self._by = by
        self._lock = lock
        self._versions = versions
        self.broken: dict[int, ReleaseUnreadableError] = {}
        """The corrupt or untrusted ones above the newest intact one, at the last look."""

    def numbers(self) -> list[int]:
        """The numbers of all kept releases, intact or not, newest first.

        Raises:
            StoreAccessError: the folder cannot be listed.
        """
        return list(self._newest_first())

    def next_number(self) -> int:
        """The lowest number that was never used."""
        return next(self._newest_first(), 0) + 1

    def read(self, number: int) -> Release:
        """One release, after it was found intact.

        Raises:
            ReleaseUnreadableError: it is missing or corrupt.
            ReleaseUntrustedError: it is not signed by a key that is trusted here.
            StoreAccessError: it cannot be read.
        """
        release, _ = self._either(number)
        if self._signatures.required:
            self._signatures.check(release)
        return release

    def document(self, number: int) -> tuple[Release, bytes, bytes | None]:
        """One release, its document as it lies on disk, and its signatures' if there are any.

        Raises as `read` does.
        """
        release, data = self._either(number)
        if self._signatures.required:
            self._signatures.check(release)
        return release, data, self._signatures.document(release)

    def from_document(self, number: int, data: bytes, signatures: bytes | None) -> Release:
        """A release as it was written elsewhere, if it would be accepted in this store.

        Raises:
            ReleaseUnreadableError: it is corrupt.
            ReleaseUntrustedError: it is not signed by a key that is trusted here.
        """
        release = _release(number, data, "the document")
        if self._signatures.required:
            self._signatures.check(release, signatures or b"")
        return release

    def unverified(self, number: int) -> Release:
        """One intact release, trusted or not. Raises as `read` does."""
        return self._either(number)[0]

    def sign(self, number: int) -> tuple[str, ...]:
        """Sign an existing release; returns all public keys that it is signed with now.

        Raises:
            ReleaseUnreadableError: it is missing or corrupt.
            SigningRefusedError, SigningKeyError, MissingExtraError, StoreAccessError: it cannot be
                signed here.
        """
        release, _ = self._either(number)
        with self._lock.writing():
            self._signatures.sign(release)
        return self._signatures.signers(release)

    def intact(self) -> list[Release]:
        """Every release that can be read, the newest first."""
        found = []
        for number in self.numbers():
            with contextlib.suppress(ReleaseUnreadableError):
                found.append(self.read(number))
        return found

    def newest(self) -> Release | None:
        """The newest release that is intact and trusted; one above it that is not is logged once,
        and is in `broken`.

        Raises:
            StoreAccessError: the operating system refuses; then the newest one is not known.
        """
        broken: dict[int, ReleaseUnreadableError] = {}
        intact: Release | None = None
        for number in self._newest_first():
            try:
                intact = self.read(number)
                break
            except ReleaseUnreadableError as error:
                if not error.missing:  # else it was removed since it was listed
                    broken[number] = error
        for number in broken.keys() - self.broken.keys():
            untrusted = isinstance(broken[number], ReleaseUntrustedError)
            event = "release.untrusted" if untrusted else "release.unreadable"
            _log.error(event, release=number, error=str(broken[number]))
        self.broken = broken
        return intact

    def commit(self, release: Release, *, lost: int = 0) -> Release:
        """Make it the newest release, whole or not at all; returns it with its digest.

        ``lost``: numbers up to here were taken by releases that the store does not have any more.

        The versions that it adds to the newest release must be intact in the store; those of the
        newest release are not checked, so that one corrupt component does not block the others.

        Raises:
            ReleaseExistsError: the number is not the next one, or the release was not made from the
                newest one; read that again and decide again.
            VersionUnreadableError, BlobMissingError, BlobCorruptError: a version that it adds is
                not intact.
            SigningRefusedError, SigningKeyError: it has to be signed, and cannot be.
            StoreAccessError: it cannot be written; nothing was released then.
        """
        sealed = release.model_copy(update={"by": release.by or self._by}).sealed()
        with self._lock.writing():
            free, newest = max(self.next_number(), lost + 1), self.newest()
            made_from = newest.number if newest else 0
            # If another publisher is faster from here on, it takes the same number: our link fails.
            if (sealed.number, sealed.previous) != (free, made_from):
                raise ReleaseExistsError(sealed.number, next_number=free)
            carried = newest.components.items() if newest else ()
            for component, version_id in sealed.components.items() - carried:
                self._versions.open(component, version_id)
            path = self._layout.release(sealed.number)
            if self._signatures.wanted:
                self._signatures.sign(sealed)  # first: a reader that sees the release finds it
            failpoint("release.before_link")
            if not self._layout.write_once(sealed.canonical(), path):
                raise ReleaseExistsError(sealed.number, next_number=self.next_number())
            self._copy(sealed)
        failpoint("release.after_link")
        return sealed

    def repair(self) -> list[Path]:
        """Write those of the newest release's two files again that are corrupt; returns them.

        Raises:
            StoreAccessError: it cannot be written.
        """
        newest = self.newest()
        if newest is None:
            return []
        if all(_is_intact(newest.number, path) for path in self._files(newest.number)):
            return []  # without the lock, which a process that may not write cannot take
        repaired = []
        with self._lock.writing():
            _, whole = self._either(newest.number)
            for path in self._files(newest.number):
                if not _is_intact(newest.number, path):
                    self._layout.make_folder(path.parent)
                    # The bytes as they are: they may hold fields of a newer minor version.
                    self._layout.overwrite(whole, path)
                    repaired.append(path)
        return repaired

    def named(self, version_id: str, manifest: VersionManifest) -> bool:
        """Whether a release named the version, or may have.

        A release that was garbage collected named only what was built before it, and it came
        before all that are kept. So a version that is older than all of them may have been in one.

        Raises:
            StoreAccessError: the releases cannot be read.
        """
        numbers = self.numbers()
        forgotten = bool(numbers) and numbers[-1] > 1
        for number in numbers:
            try:
                release = self.read(number)
            except ReleaseUnreadableError as error:
                if error.missing:  # removed since it was listed
                    continue
                return True
            if (manifest.component, version_id) in release.versions:
                return True
            forgotten = forgotten and manifest.created_at <= release.created_at
        return forgotten

    def _files(self, number: int) -> tuple[Path, Path]:
        return self._layout.release(number), self._layout.copy(number)

    def _either(self, number: int) -> tuple[Release, bytes]:
        """The release and its bytes, from its file or else from the copy."""
        errors = []
        for path in self._files(number):
            try:
                return _parse(number, path)
            except ReleaseUnreadableError as error:
                errors.append(error)
        raise next((error for error in errors if not error.missing), errors[0])

    def _newest_first(self) -> Iterator[int]:
        names = _names(self._layout.releases)
        if self._layout.copies.is_dir():  # not in an older store
            names |= _names(self._layout.copies)
        # To find the newest one, one name is parsed and not all of them: the names sort as the
        # numbers do, since a number with more digits has a longer name.
        for name in sorted(names, key=lambda name: (len(name), name), reverse=True):
            number = self._layout.release_number(name)
            if number is not None:
                yield number

    def _copy(self, release: Release) -> None:
        """Write the release a second time; it is valid even where that fails."""
        path = self._layout.copy(release.number)
        try:
            self._layout.make_folder(path.parent)
            self._layout.write_once(release.canonical(), path)
        except StoreAccessError as error:
            _log.warning("release.not_copied", release=release.number, error=str(error))


def _parse(number: int, path: Path) -> tuple[Release, bytes]:
    """A release and its bytes, after they were found intact."""
    try:
        data = read_file(path)
    except FileNotFoundError as error:
        raise ReleaseUnreadableError(number, f"there is no {path}", missing=True) from error
    except NotAFileError as error:
        reason = f"{path} is corrupt: it is not a regular file"
        raise ReleaseUnreadableError(number, reason, missing=False) from error
    return _release(number, data, path), data


def _release(number: int, data: bytes, path: Path | str) -> Release:
    """The release in ``data``, if it carries the digest of its content and this number."""
    try:
        fields = json.loads(data)
        digest = _content_digest(fields)
        release = Release.model_validate(fields)
    except (ValueError, TypeError, RecursionError) as error:
        reason = f"{path} is corrupt or not a release: {_first_line(error)}"
        raise ReleaseUnreadableError(number, reason, missing=False) from error
    if release.digest != digest or release.number != number:
        reason = f"{path} is corrupt: it does not carry the digest of its content and number"
        raise ReleaseUnreadableError(number, reason, missing=False)
    return release


def _is_intact(number: int, path: Path) -> bool:
    try:
        _parse(number, path)
    except ReleaseUnreadableError:
        return False
    return True


def _names(folder: Path) -> set[str]:
    # Every reader lists them at every look: a `Path` for each would cost more than a load.
    with accessing(folder, "list"):
        return set(os.listdir(folder))  # noqa: PTH208 - as said


def _content_digest(fields: Any) -> str:
    """The digest over everything but itself, fields of a newer minor version included."""
    return sha256_hex(canonical_json({key: fields[key] for key in fields if key != "digest"}))


def _first_line(error: Exception) -> str:
    """A reason in one line; pydantic's would repeat the content of the file."""
    if isinstance(error, ValidationError):
        return f"{error.error_count()} field(s) that do not fit"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
