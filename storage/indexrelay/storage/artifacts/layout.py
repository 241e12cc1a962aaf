"""Where each thing lies under the store's root, and the one place where names become paths.

    blobs/sha256/ab/abcdef…          immutable, read-only, named by content
    versions/<component>/<id>.json   manifests, named by content
    releases/00000042.json           the releases, numbered
    copies/00000042.json             a second file of each, for when the first is damaged
    signatures/<digest>.json         who signed the release of that digest, if anybody did
    staging/                         what is being written; on the same file system as the rest
    checked/<host>/<digest>          what this host has checked already
    opened/<host>/<digest>           what it has opened already, of files that may do harm
    lock                             shared by writers, exclusive to sweeping

Names and digests reach the store from manifests, messages and people, so each is matched again
here, whatever was checked before: nothing else can point outside the root.
"""

import re
from pathlib import Path

from indexrelay.schemas.names import DIGEST_PATTERN, is_name
from indexrelay.storage.artifacts.durable import Access, make_folder, overwrite, write_once
from indexrelay.storage.artifacts.errors import UnsafeNameError

_RELEASE = re.compile(r"(\d{8,18})\.json")


class Layout:
    """The paths of one store."""

    def __init__(
        self,
        root: Path,
        access: Access = Access(),  # noqa: B008 - frozen
        *,
        marks: Path | None = None,
    ) -> None:
        """``marks``: where this host remembers what it has checked; ``None``: in the store."""
        self.root = root
        self.access = access
        self.blobs = root / "blobs" / "sha256"
        self.versions = root / "versions"
        self.releases = root / "releases"
        self.copies = root / "copies"
        self.staging = root / "staging"
        self.checked = (marks or root) / "checked"
        self.opened = (marks or root) / "opened"
        self.signatures = root / "signatures"
        self.lock = root / "lock"
        self._made = False

    def make(self) -> None:
        """Make the folders that are not there yet; nothing once that was done.

        Raises:
            StoreAccessError: one of them cannot be made.
        """
        if not self._made:
            for folder in (self.blobs, self.versions, self.releases, self.staging):
                self.make_folder(folder)
            self._made = True

    def make_folder(self, path: Path) -> None:
        """Make one of the folders; see `durable.make_folder`."""
        make_folder(path, self.access.folder)

    def write_once(self, data: bytes, path: Path) -> bool:
        """Write a document; see `durable.write_once`."""
        return write_once(data, path, staging=self.staging, mode=self.access.file)

    def overwrite(self, data: bytes, path: Path) -> None:
        """Write a document in place of another; see `durable.overwrite`."""
        overwrite(data, path, staging=self.staging, mode=self.access.file)

    def blob(self, digest: str) -> Path:
        """The path of a blob."""
        return self.blobs / check_digest(digest)[:2] / digest

    def version(self, component: str, version_id: str) -> Path:
        """The path of a manifest."""
        return self.versions / check_name(component) / f"{check_digest(version_id)}.json"

    def release(self, number: int) -> Path:
        """The path of a release; eight digits, and more when eight are not enough."""
        if number < 1:
            raise UnsafeNameError("release number", str(number))
        return self.releases / f"{number:08d}.json"

    def copy(self, number: int) -> Path:
        """The path of a release's copy."""
        return self.copies / self.release(number).name

    def signature(self, digest: str) -> Path:
        """The path of the signatures of the release with this digest."""
        return self.signatures / f"{check_digest(digest)}.json"

    def release_number(self, file_name: str) -> int | None:
        """The number of the release that such a file holds; ``None``: it is not a release."""
        match = _RELEASE.fullmatch(file_name)
        if match is None:
            return None
        number = int(match[1])
        # `release()` must lead back to the same file, or two files would claim one number.
        return number if number > 0 and file_name == f"{number:08d}.json" else None


def check_digest(text: str) -> str:
    """Return ``text`` if it is a sha256 in lower-case hexadecimal.

    Raises:
        UnsafeNameError: it is not.
    """
    if re.fullmatch(DIGEST_PATTERN[1:-1], text) is None:
        raise UnsafeNameError("sha256", text)
    return text


def check_name(text: str) -> str:
    """Return ``text`` if it may name a component.

    Raises:
        UnsafeNameError: it may not.
    """
    if not is_name(text):
        raise UnsafeNameError("component name", text)
    return text
