"""Numbered releases; linking one to its number is the pipeline's only commit point.

A release says which one it was made from, and only the very next number is free: so of two
publishers one wins, and the other gets `ReleaseExistsError`, as does one that slept and would undo
what was released meanwhile.

A release is the only file that cannot be made anew: sources and builds do not know what was rolled
back and held. So it is written a second time once it is committed, and where the first file is
damaged or gone the copy is the release. Where both are damaged it keeps its number, and the release
before it is served.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from indexrelay.schemas.canonical import canonical_json, sha256_hex
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.versions import Release
from indexrelay.storage.artifacts.durable import (
    accessing,
    read_file,
)
from indexrelay.storage.artifacts.errors import (
    NotAFileError,
    ReleaseExistsError,
    ReleaseUnreadableError,
    ReleaseUntrustedError,
    StoreAccessError,
)
from indexrelay.storage.artifacts.layout import Layout
from indexrelay.storage.artifacts.locking import StoreLock
from indexrelay.storage.artifacts.signing import Signatures
from indexrelay.storage.artifacts.versions import Versions

log = get_logger(__name__)


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
        """``by``: who makes those that do not say it themselves."""
        self._layout = layout
        self._signatures = signatures
        self._by = by
        self._lock = lock
        self._versions = versions
        self.broken: dict[int, ReleaseUnreadableError] = {}
        """The damaged ones that stood above the newest intact one when it was last looked for."""

    def numbers(self) -> list[int]:
        """The numbers that are there, intact or not, newest first.

        Raises:
            StoreAccessError: the folder cannot be listed.
        """
        return list(self._newest_first())

    def next_number(self) -> int:
        """The lowest number that was never used."""
        return next(self._newest_first(), 0) + 1

    def read(self, number: int) -> Release:
        """One release, once it is known to be intact.

        Raises:
            ReleaseUnreadableError: it is not there, or damaged.
            ReleaseUntrustedError: it is not signed by a key that is trusted here.
            StoreAccessError: it cannot be read.
        """
        release, _ = self._either(number)
        self._signatures.check(release)
        return release

    def unverified(self, number: int) -> Release:
        """One release that is intact, signed by whomever it may be. Raises as `read` does."""
        return self._either(number)[0]

    def sign(self, number: int) -> tuple[str, ...]:
        """Sign a release that is there; all public keys that it is signed with by now.

        Raises:
            ReleaseUnreadableError: it is not there, or damaged.
            SigningRefusedError, SigningKeyError, MissingExtraError, StoreAccessError: it cannot be
                signed here.
        """
        release, _ = self._either(number)
        with self._lock.writing():
            self._signatures.sign(release, asked=True)
        return self._signatures.signers(release)

    def intact(self) -> list[Release]:
        """Every release that can be read, the newest first."""
        found = []
        for number in self.numbers():
            with suppress(ReleaseUnreadableError):
                found.append(self.read(number))
        return found

    def newest(self) -> Release | None:
        """The newest release that is intact and trusted; one above it that is not is logged once,
        and is in `broken`.

        Raises:
            StoreAccessError: the operating system refuses; then nobody knows which is the newest.
        """
        broken: dict[int, ReleaseUnreadableError] = {}
        intact: Release | None = None
        for number in self._newest_first():
            try:
                intact = self.read(number)
                break
            except ReleaseUnreadableError as error:
                if not error.missing:  # else it was swept since it was listed
                    broken[number] = error
        for number in broken.keys() - self.broken.keys():
            untrusted = isinstance(broken[number], ReleaseUntrustedError)
            event = "release.untrusted" if untrusted else "release.unreadable"
            log.error(event, release=number, error=str(broken[number]))
        self.broken = broken
        return intact

    def commit(self, release: Release, *, lost: int = 0) -> Release:
        """Make it the newest release, whole or not at all; returns it with its digest.

        ``lost``: numbers up to here were given to releases that the store does not have any more.

        What it names beyond the newest release must be intact in the store; what it only carries
        along is not looked at, so that one damaged component does not hold up the others.

        Raises:
            ReleaseExistsError: the number is not the next one, or the release was not made from the
                newest one; read that again and decide anew.
            VersionUnreadableError, BlobMissingError, BlobCorruptError: a version that it brings is
                not there as a whole.
            SigningRefusedError, SigningKeyError: it has to be signed, and cannot be.
            StoreAccessError: it cannot be written; nothing was released then.
        """
        sealed = release.model_copy(update={"by": release.by or self._by}).sealed()
        with self._lock.writing():
            free, newest = max(self.next_number(), lost + 1), self.newest()
            made_from = newest.number if newest else 0
            # Whoever is faster from here on takes the same number, and our link fails.
            if (sealed.number, sealed.previous) != (free, made_from):
                raise ReleaseExistsError(sealed.number, next_number=free)
            carried = newest.components.items() if newest else ()
            for component, version_id in sealed.components.items() - carried:
                self._versions.open(component, version_id)
            path = self._layout.release(sealed.number)
            self._signatures.sign(sealed)  # first: whoever sees the release finds its signature
            failpoint("release.before_link")
            if not self._layout.write_once(sealed.canonical(), path):
                raise ReleaseExistsError(sealed.number, next_number=self.next_number())
            self._copy(sealed)
        failpoint("release.after_link")
        return sealed

    def mend(self) -> list[Path]:
        """Write anew what is damaged of the newest release, its file or the copy; which it was.

        Raises:
            StoreAccessError: it cannot be written.
        """
        newest = self.newest()
        if newest is None:
            return []
        if all(_is_intact(newest.number, path) for path in self._files(newest.number)):
            return []  # without the lock, which somebody who may not write cannot have
        with self._lock.writing():
            return list(self._mend(newest.number))

    def _mend(self, number: int) -> Iterator[Path]:
        _, whole = self._either(number)  # which `newest` has found to be trusted
        for path in self._files(number):
            if not _is_intact(number, path):
                self._layout.make_folder(path.parent)
                # The very bytes: they may hold fields that a newer minor version has written.
                self._layout.overwrite(whole, path)
                yield path

    def _files(self, number: int) -> tuple[Path, Path]:
        return self._layout.release(number), self._layout.copy(number)

    def _either(self, number: int) -> tuple[Release, bytes]:
        """The release and its bytes, out of its file or else out of the copy."""
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
        # Whoever wants the newest one reads one number, and not those of all that are kept: the
        # names sort as the numbers do, since a number with more digits has a longer name.
        for name in sorted(names, key=lambda name: (len(name), name), reverse=True):
            number = self._layout.release_number(name)
            if number is not None:
                yield number

    def _copy(self, release: Release) -> None:
        """Write the release a second time; it stands also where that cannot be done."""
        path = self._layout.copy(release.number)
        try:
            self._layout.make_folder(path.parent)
            self._layout.write_once(release.canonical(), path)
        except StoreAccessError as error:
            log.warning("release.not_copied", release=release.number, error=str(error))


def _parse(number: int, path: Path) -> tuple[Release, bytes]:
    """A release and its bytes, once they are known to be intact."""
    try:
        data = read_file(path)
    except FileNotFoundError as error:
        raise ReleaseUnreadableError(number, f"there is no {path}", missing=True) from error
    except NotAFileError as error:
        reason = f"{path} is damaged: it is not a regular file"
        raise ReleaseUnreadableError(number, reason, missing=False) from error
    try:
        fields = json.loads(data)
        digest = _content_digest(fields)
        release = Release.model_validate(fields)
    except (ValueError, TypeError, RecursionError) as error:
        reason = f"{path} is damaged or not a release: {_first_line(error)}"
        raise ReleaseUnreadableError(number, reason, missing=False) from error
    if release.digest != digest or release.number != number:
        reason = f"{path} is damaged: it does not carry the digest of its content and number"
        raise ReleaseUnreadableError(number, reason, missing=False)
    return release, data


def _is_intact(number: int, path: Path) -> bool:
    try:
        _parse(number, path)
    except ReleaseUnreadableError:
        return False
    return True


def _names(folder: Path) -> set[str]:
    # Every look of every reader lists them: a `Path` for each would cost it more than a load.
    with accessing(folder, "list"):
        return set(os.listdir(folder))  # noqa: PTH208 - as said


def _content_digest(fields: Any) -> str:
    """The digest over everything but itself, fields of a newer minor version included."""
    return sha256_hex(canonical_json({key: fields[key] for key in fields if key != "digest"}))


def _first_line(error: Exception) -> str:
    """A reason in one line; pydantic's would repeat whatever the file holds."""
    if isinstance(error, ValidationError):
        return f"{error.error_count()} field(s) that do not fit"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
