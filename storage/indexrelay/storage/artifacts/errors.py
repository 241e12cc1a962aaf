"""What can go wrong with artifacts, and what to do about it."""

import errno
from collections.abc import Iterable
from pathlib import Path

from indexrelay.schemas import commands
from indexrelay.schemas.errors import IndexRelayError, UnknownNameError
from indexrelay.schemas.mistakes import suggestion
from indexrelay.schemas.system_advice import advice_on


class ArtifactError(IndexRelayError):
    """The root of what the artifact store raises."""


class StoreAccessError(ArtifactError):
    """Raised when the operating system refuses to read or write a path of the store.

    The cause (`OSError`) is chained and its number is in ``errno``: a full or failing disk may
    pass, missing permissions need someone who grants them.
    """

    def __init__(self, path: Path, doing: str, error: OSError) -> None:
        advice = advice_on(error.errno)
        super().__init__(
            f"cannot {doing} {path}: {error.strerror or error}" + (f"; {advice}" if advice else "")
        )
        self.path = path
        self.errno = error.errno


class StoreBusyError(StoreAccessError):
    """Raised when another process holds the store's lock for longer than anyone has to wait.

    It may pass: a build that met it is tried again. See what that process does.
    """

    def __init__(self, path: Path, *, holder: str, seconds: float) -> None:
        who = holder or "another process"
        error = OSError(
            errno.EAGAIN,
            f"{who} has held it for {seconds:g} s; see what that does, and end it if it is stuck",
        )
        super().__init__(path, "lock", error)


class NotAFileError(StoreAccessError):
    """Raised when a folder, a symbolic link or a pipe lies where a file of the store should be.

    The store never makes one there: it counts as damage. Move it away.
    """


class UnsafeNameError(ArtifactError, ValueError):
    """Raised when a name or a digest does not look like one, before it can become a path."""

    def __init__(self, what: str, given: str) -> None:
        super().__init__(f"not a {what}: {given[:80]!r}")
        self.given = given


class BlobMissingError(ArtifactError):
    """Raised when a blob is not in the store.

    It may still be on its way here (a network file system shows new files late); if it stays away,
    rebuild the component that names it.
    """

    def __init__(self, digest: str, path: Path, *, component: str | None = None) -> None:
        super().__init__(
            f"blob {digest} is not in the store; it should be {path}; if it stays away, "
            f"{_repaired_by(component)}"
        )
        self.digest = digest
        self.path = path

    def of(self, component: str) -> "BlobMissingError":
        """The same, once it is known whose blob it is."""
        return BlobMissingError(self.digest, self.path, component=component)


class BlobCorruptError(ArtifactError):
    """Raised when a blob's bytes are not those that its name promises.

    Rebuild the component that names it: a build that yields the same bytes repairs the blob, any
    other names a new one.
    """

    def __init__(
        self, digest: str, path: Path, reason: str, *, component: str | None = None
    ) -> None:
        super().__init__(f"blob {digest} is damaged: {reason} ({path}); {_repaired_by(component)}")
        self.digest = digest
        self.path = path
        self.reason = reason

    def of(self, component: str) -> "BlobCorruptError":
        """The same, once it is known whose blob it is."""
        return BlobCorruptError(self.digest, self.path, self.reason, component=component)


class VersionUnreadableError(ArtifactError):
    """Raised when a version's manifest is missing or damaged; rebuild its component."""

    def __init__(self, component: str, version_id: str, reason: str, *, missing: bool) -> None:
        super().__init__(
            f"version {version_id} of {component} cannot be read: {reason}; "
            f"build another: {commands.rebuild(component)}"
        )
        self.component = component
        self.version_id = version_id
        self.reason = reason
        self.missing = missing


class ReleaseUnreadableError(ArtifactError):
    """Raised when a release is missing or damaged; the newest intact one is served meanwhile."""

    def __init__(self, number: int, reason: str, *, missing: bool) -> None:
        super().__init__(f"release {number} {self._said(number, reason, missing=missing)}")
        self.number = number
        self.reason = reason
        self.missing = missing

    def _said(self, number: int, reason: str, *, missing: bool) -> str:  # noqa: ARG002 - for others
        advice = (
            "it was swept, or never was: name one that is in that folder (rollback), or a later one"
            if missing
            else "the newest intact one is served meanwhile, and a rebuild makes the next"
        )
        return f"cannot be read: {reason}; {advice}"


class ReleaseUntrustedError(ReleaseUnreadableError):
    """Raised when a release is intact, and not signed by a key of ``artifacts.trusted_keys``."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(number, reason, missing=False)

    def _said(self, number: int, reason: str, *, missing: bool) -> str:  # noqa: ARG002 - never is
        return (
            f"is not taken: {reason}; see who wrote it, and if that was right sign it where the "
            f"signing key is: {commands.sign_release(number)}"
        )


class SigningRefusedError(ArtifactError):
    """Raised when a release has to be signed and this process cannot: nothing was released."""


class ReleaseNotWholeError(ArtifactError):
    """Raised when a release is to be served again that names files which are gone or damaged.

    What is served stays. Roll back to another release, or restore the file from a backup; the
    cause is chained and says which one it is.
    """

    def __init__(
        self, number: int, cause: VersionUnreadableError | BlobMissingError | BlobCorruptError
    ) -> None:
        match cause:
            case VersionUnreadableError():
                what = f"version {cause.version_id} of {cause.component}: {cause.reason}"
            case BlobCorruptError():
                what = f"{cause.path} is damaged: {cause.reason}"
            case BlobMissingError():
                what = f"{cause.path} is missing"
        super().__init__(
            f"release {number} cannot be served again, and what is served stays: {what}; restore "
            f"the file, or name another release: {commands.RELEASES}"
        )
        self.number = number


class GroupTornError(ArtifactError):
    """Raised when a rollback would leave the members of a group at two states.

    What is served stays. Roll back to a release in which the group was whole, or take the member
    that does not fit out of the group.
    """

    def __init__(self, number: int, group: str, why: Iterable[str]) -> None:
        super().__init__(
            f"release {number} cannot be served again, and what is served stays: group {group} "
            f"would not be whole: {'; '.join(why)}; name a release in which it was, or take the "
            "member that does not fit out of the group first"
        )
        self.number = number
        self.group = group


class ReleaseExistsError(ArtifactError):
    """Raised when a release does not follow the newest one, since somebody else published.

    Read the newest release again, decide again what to publish, and try ``next_number``.
    """

    def __init__(self, number: int, *, next_number: int) -> None:
        super().__init__(f"release {number} does not follow the newest one; next is {next_number}")
        self.number = number
        self.next_number = next_number


class NothingReleasedError(ArtifactError):
    """Raised when the newest release is to be changed and there is none yet; rebuild first."""

    def __init__(self) -> None:
        super().__init__(
            "nothing is released yet: commit a batch while a rebuilder runs, "
            f"or build what is due now: {commands.rebuild(here=True)}"
        )


class ComponentNotReleasedError(ArtifactError, UnknownNameError):
    """Raised when a hold, a lift or a rollback names a component that the release has not."""

    def __init__(self, component: str, released: Iterable[str]) -> None:
        near = suggestion(component, released)
        super().__init__(f"no version of {component!r} is released{near}")
        self.component = component


def _repaired_by(component: str | None) -> str:
    """What repairs a blob."""
    if component is None:
        return f"rebuild the component that names it; which is damaged: {commands.STATUS}"
    return f"rebuild what names it: {commands.rebuild(component)}"
