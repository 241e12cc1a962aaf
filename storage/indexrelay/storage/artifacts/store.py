"""The artifact store: what was built and what is to be served, as files under one root.

One object for every role: rebuilders put and commit, readers open, people hold and roll back. It
keeps no file open and has no thread, so it is safe to share between threads and survives a fork.

Rollback, hold and lift each make a new release from the newest one. A hold keeps one component
where it is, and with it everything that cannot move without it: the rest of its group. A rollback
of one member takes its group along. What the next release should be is a function of the newest
one, which is applied again when another publisher was faster, so that a hold never undoes what was
released meanwhile.
"""

from collections.abc import Callable, Collection
from concurrent.futures import Executor
from contextlib import AbstractContextManager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final, Self

from indexrelay.schemas.clock import Clock, SystemClock
from indexrelay.schemas.files import LockWaits, Pause
from indexrelay.schemas.names import MAX_ERROR, shortened
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import BlobRef, Hold, Release, VersionManifest, disagreements
from indexrelay.storage.artifacts.blobs import (
    BlobLook,
    Blobs,
    CheckedBlobs,
    GoOn,
    StagedBlob,
    host_id,
)
from indexrelay.storage.artifacts.files import Access, Layout, StoreLock, accessing
from indexrelay.storage.artifacts.gc import Collected, GarbageCollector
from indexrelay.storage.artifacts.releases import OpenedVersion, Releases, Versions
from indexrelay.storage.artifacts.signing import Signatures, Trust
from indexrelay.storage.errors import (
    BlobCorruptError,
    BlobMissingError,
    ComponentNotReleasedError,
    GroupTornError,
    NothingReleasedError,
    ReleaseExistsError,
    ReleaseNotWholeError,
    ReleaseUnreadableError,
    VersionUnreadableError,
)

Change = Callable[[Release], Release | None]
"""From the newest release to the next one; ``None``: nothing to change."""
_ATTEMPTS: Final = 100
"""Each lost one means that another publisher won."""


def commit_change(releases: Releases, change: Change, *, clock: Clock, lost: int = 0) -> Release:
    """Commit what ``change`` makes of the newest release; that one where it is nothing.

    ``lost``: numbers up to here are taken by releases that are not in the store any more.

    Raises:
        NothingReleasedError: there is no release.
        ReleaseExistsError: others were faster a hundred times.
    """
    attempts = 0
    while True:
        newest = releases.newest()
        if newest is None:
            raise NothingReleasedError
        changed = change(newest)
        if changed is None:
            return newest
        update = {
            "number": max(releases.next_number(), lost + 1),
            "previous": newest.number,
            "created_at": clock.now(),
            "by": "",  # whoever made the newest one
        }
        try:
            return releases.commit(changed.model_copy(update=update), lost=lost)
        except ReleaseExistsError:
            attempts += 1
            if attempts == _ATTEMPTS:
                raise


def was_named(releases: Releases, version_id: str, manifest: VersionManifest) -> bool:
    """Whether a release named the version, or may have.

    Raises:
        StoreAccessError: the releases cannot be read.
    """
    numbers = releases.numbers()
    forgotten = bool(numbers) and numbers[-1] > 1
    for number in numbers:
        try:
            release = releases.read(number)
        except ReleaseUnreadableError as error:
            if error.missing:  # swept since it was listed
                continue
            return True
        if release.components.get(manifest.component) == version_id:
            return True
        forgotten = forgotten and manifest.created_at <= release.created_at
    return forgotten


def _holding(components: Collection[str], *, reason: str, now: datetime) -> Change:
    """Keep these components at the versions that they have."""

    def change(newest: Release) -> Release:
        _check_released(components, newest)
        hold = Hold(reason=reason, since=now)
        holds = newest.holds | dict.fromkeys(components, hold)
        return newest.model_copy(update={"holds": holds, "reason": reason})

    return change


def _lifting(components: Collection[str], *, reason: str) -> Change:
    """Let these components follow their sources again."""

    def change(newest: Release) -> Release | None:
        # One that was dropped while it was held can be let go, too.
        _check_released([name for name in components if name not in newest.holds], newest)
        holds = {name: hold for name, hold in newest.holds.items() if name not in components}
        if len(holds) == len(newest.holds):
            return None
        return newest.model_copy(update={"holds": holds, "reason": reason})

    return change


def _rolling_back(
    target: Release,
    components: Collection[str] | None,
    *,
    manifest: Callable[[str, str], VersionManifest],
    reason: str,
    now: datetime,
) -> Change:
    """Serve what ``target`` served, and hold it; of a group all members or none.

    Components that ``target`` did not have yet stay as they are: it says nothing about them.

    Args:
        components: those to go back, with the others of their groups; ``None``: all.
        manifest: reads the manifest of a component's version.
    """

    def change(newest: Release) -> Release:
        named = set(target.components if components is None else components)
        _check_released(named, target)
        chosen = _with_groups(named, newest, target)
        hold = Hold(reason=reason, since=now)
        groups = {name: group for name, group in newest.groups.items() if name not in chosen}
        groups |= {name: group for name, group in target.groups.items() if name in chosen}
        versions = {name: target.components[name] for name in chosen}
        release = newest.model_copy(
            update={
                "components": newest.components | versions,
                "groups": groups,
                "holds": newest.holds | dict.fromkeys(chosen, hold),
                "reason": reason,
            }
        )
        for group in sorted({groups[name] for name in chosen if name in groups}):
            torn = _torn(group, release, manifest)
            if torn:
                raise GroupTornError(target.number, group, torn)
        return release

    return change


def _with_groups(names: set[str], newest: Release, target: Release) -> set[str]:
    """``names`` and, of what ``target`` has, whoever is or was in a group with one of them."""
    found: set[str] = set()
    more = set(names)
    while more != found:
        found = set(more)
        for release in (newest, target):
            groups = {release.groups[name] for name in found if name in release.groups}
            more |= {name for name, group in release.groups.items() if group in groups}
        more &= target.components.keys()
    return found


def _torn(
    group: str, release: Release, manifest: Callable[[str, str], VersionManifest]
) -> tuple[str, ...]:
    """Why the members of a group would not be at one state, as far as one can read."""
    versions = {}
    for name, theirs in release.groups.items():
        if theirs == group:
            with suppress(VersionUnreadableError):
                versions[name] = manifest(name, release.components[name])
    return disagreements(versions, release.components)


def _check_released(components: Collection[str], release: Release) -> None:
    for name in components:
        if name not in release.components:
            raise ComponentNotReleasedError(name, release.components)


class ArtifactStore:
    """Blobs, versions and releases under ``root``; the folders are made where they are missing.

    Every method that touches a file raises `StoreAccessError` when the operating system refuses.
    """

    def __init__(
        self,
        root: Path,
        *,
        clock: Clock | None = None,
        may_be_away: bool = False,
        by: str = "",
        group_reads: bool = False,
        trust: Trust = Trust(),  # noqa: B008 - frozen
        marks: Path | None = None,
        pause: Pause | None = None,
    ) -> None:
        """Take where it is; make the folders.

        Args:
            may_be_away: whoever waits for the store has `newest_release` make the folders.
            by: who makes the releases that are committed through this object.
            group_reads: whether the group of this process's user may read what is written from now
                on; otherwise that user alone may.
            trust: whose releases are taken, and how one's own are signed.
            marks: where this host remembers which blobs it has checked; ``None``: in the store,
                whose writers then are believed to have checked what they say.
            pause: sleeps while another process holds the store's lock; ``None``: really.
        """
        self._clock = clock or SystemClock()
        self._layout = Layout(root, Access(group_reads), marks=marks)
        self._made = False
        if not may_be_away:
            self._make()
        self.lock_waits = LockWaits(self._clock)
        """The waits for the store's lock, in this process."""
        self._lock = StoreLock(
            self._layout.lock, waits=self.lock_waits, clock=self._clock, pause=pause
        )
        self._checked = CheckedBlobs(
            self._layout.checked / host_id(), access=self._layout.access, clock=self._clock
        )
        self._opened = CheckedBlobs(
            self._layout.opened / host_id(), access=self._layout.access, clock=self._clock
        )
        self._blobs = Blobs(self._layout, lock=self._lock, checked=self._checked)
        self._versions = Versions(self._layout, lock=self._lock, blobs=self._blobs)
        self._releases = Releases(
            self._layout,
            lock=self._lock,
            versions=self._versions,
            signatures=Signatures(self._layout, trust),
            by=by,
        )

    @classmethod
    def of(
        cls,
        settings: Settings,
        *,
        clock: Clock | None = None,
        may_be_away: bool = False,
        by: str = "",
    ) -> Self:
        """The store that the settings name; the arguments are those of the class."""
        return cls(
            settings.artifacts_dir,
            clock=clock,
            may_be_away=may_be_away,
            by=by,
            group_reads=settings.artifacts.group_readable,
            trust=Trust(
                namespace=settings.namespace,
                signing_key_file=settings.artifacts.signing_key_file,
                trusted_keys=settings.artifacts.trusted_keys,
            ),
            marks=settings.marks_dir,
        )

    @property
    def root(self) -> Path:
        """Where the store is."""
        return self._layout.root

    @property
    def staging(self) -> Path:
        """A folder on the store's file system: files that are built here are moved, not copied."""
        return self._layout.staging

    @property
    def broken_releases(self) -> dict[int, ReleaseUnreadableError]:
        """The damaged ones that stood above the newest intact one at the last look, and those that
        are intact and not trusted (`ReleaseUntrustedError`)."""
        return dict(self._releases.broken)

    def is_unchanged(self, opened: OpenedVersion) -> bool:
        """Whether the files of a version that was opened are still those that were checked."""
        return self._versions.is_unchanged(opened)

    def stage_blob(self, file: Path, forcing: Executor) -> StagedBlob:
        """Make a finished file ready for `put_blob`, while it may be looked at where it lies.

        Nobody may write to the file any more. It is made read-only and hashed; forcing it to disk
        is left to ``forcing``.
        """
        return self._blobs.stage(file, forcing)

    def put_blob(self, file: Path | StagedBlob) -> BlobRef:
        """Move a finished file into the store; the same content again is nothing.

        A staged one is waited for until it is on disk; any other is staged and waited for here.
        """
        return self._blobs.put(file)

    def blob(self, ref: BlobRef) -> Path:
        """Where a blob lies; its digest is checked once per host.

        Raises:
            BlobMissingError: it is not there.
            BlobCorruptError: it is damaged.
        """
        return self._blobs.path(ref)

    def look_at_blob(self, ref: BlobRef) -> BlobLook | None:
        """What there is of a blob, without reading it; ``None``: nothing."""
        return self._blobs.look(ref)

    def recheck_blob(self, ref: BlobRef, *, go_on: GoOn) -> bool:
        """Hash a blob again, whatever this host remembers of it; whether it was read to its end.

        Found damaged, it is not opened on this host any more until it was replaced.

        Args:
            go_on: called after each piece of at most a MiB; may wait, and may end it.

        Raises:
            BlobMissingError: it is not there.
            BlobCorruptError: it is damaged.
        """
        return self._blobs.recheck(ref, go_on=go_on)

    def was_opened(self, ref: BlobRef) -> bool:
        """Whether this host has opened the blob as it is now, in a process of its own, unharmed."""
        path = self._layout.blob(ref.digest)
        with accessing(path, "read"):
            return self._opened.known(ref.digest, path.lstat())

    def remember_opened(self, ref: BlobRef) -> None:
        """This host has: the builder's gates, or a reader's sandbox."""
        path = self._layout.blob(ref.digest)
        with accessing(path, "read"):
            self._opened.remember(ref.digest, path.lstat())

    def scrubbing(self) -> AbstractContextManager[bool]:
        """Keeps the scrubs of one host apart: enter it, and scrub if it says so."""
        return self._checked.scrubbing()

    def put_version(self, manifest: VersionManifest) -> str:
        """Write a manifest whose blobs are all in the store; returns the version's id.

        Raises:
            BlobMissingError, BlobCorruptError: it names a blob that is not there.
        """
        return self._versions.put(manifest)

    def version(self, component: str, version_id: str) -> VersionManifest:
        """A manifest; its digest is checked.

        Raises:
            VersionUnreadableError: it is missing or damaged.
        """
        return self._versions.read(component, version_id)

    def open_version(self, component: str, version_id: str) -> OpenedVersion:
        """A manifest and the paths of its files, all checked.

        Raises:
            VersionUnreadableError, BlobMissingError, BlobCorruptError: it is not there as a whole.
        """
        return self._versions.open(component, version_id)

    def newest_versions(self, component: str, *, most: int) -> list[str]:
        """The ids of a component's versions that were written last, newest first."""
        return self._versions.newest(component, most=most)

    def was_released(self, component: str, version_id: str) -> bool:
        """Whether a release ever named the version; where nobody knows any more it counts as so.

        Raises:
            VersionUnreadableError: the version is missing or damaged.
        """
        return was_named(self._releases, version_id, self.version(component, version_id))

    def version_looks(self, component: str, version_id: str) -> str:
        """What a version's files look like: other text once one of them was replaced.

        For whoever found it damaged and waits for its repair: no blob is read.
        """
        return self._versions.looks(component, version_id)

    def doubt_version(self, component: str, version_id: str) -> None:
        """Check every blob of a version again before it is opened: somebody found it damaged.

        Raises:
            VersionUnreadableError: nobody knows any more which blobs these were.
        """
        for ref in self._versions.read(component, version_id).files.values():
            self._blobs.doubt(ref)

    def newest_release(self) -> Release | None:
        """The newest intact release; ``None``: there is none. See `broken_releases`."""
        if not self._made:
            self._make()
        return self._releases.newest()

    def _make(self) -> None:
        """Make the folders, once: a store that is taken away later is not made anew by a look."""
        self._layout.make()
        self._made = True

    def next_number(self) -> int:
        """The number for the next release: one more than the highest, intact or not."""
        return self._releases.next_number()

    def release_numbers(self) -> list[int]:
        """Of all that are kept, intact or not, the newest first; what a store lost leaves gaps."""
        return self._releases.numbers()

    def release(self, number: int) -> Release:
        """One release.

        Raises:
            ReleaseUnreadableError: it is missing or damaged.
        """
        return self._releases.read(number)

    def releases(self) -> list[Release]:
        """Every intact release that is kept, the newest first."""
        return self._releases.intact()

    def mend_release(self) -> list[Path]:
        """Write anew what is damaged of the newest release's two files; which of them was."""
        return self._releases.mend()

    def commit_release(self, release: Release, *, lost: int = 0) -> Release:
        """Make it the newest release, whole or not at all; returns it with its digest.

        ``lost``: numbers up to here are taken by releases that are not in the store any more.

        Raises:
            ReleaseExistsError: it is not the next one, or ``previous`` is not the newest one: read
                that again, decide again, try again.
            VersionUnreadableError, BlobMissingError, BlobCorruptError: a version that it adds to
                the newest release is not there as a whole.
        """
        return self._releases.commit(release, lost=lost)

    def sign_release(self, number: int) -> tuple[str, ...]:
        """Sign a release that is there; the public keys that it is signed with by now.

        Raises:
            ReleaseUnreadableError: it is missing or damaged.
            SigningRefusedError, SigningKeyError: it cannot be signed here.
        """
        return self._releases.sign(number)

    def hold(self, *components: str, reason: str) -> Release:
        """Keep components at the versions that they have, until `lift`.

        Raises:
            ComponentNotReleasedError: the newest release does not have one of them.
            NothingReleasedError: there is no release.
        """
        reason = shortened(reason, MAX_ERROR)
        return self._change(_holding(components, reason=reason, now=self._clock.now()))

    def lift(self, *components: str, reason: str) -> Release:
        """Let held components follow their sources again; the newest release if none is held.

        Raises:
            ComponentNotReleasedError: the newest release does not have one of them.
            NothingReleasedError: there is no release.
        """
        return self._change(_lifting(components, reason=shortened(reason, MAX_ERROR)))

    def rollback(
        self, to: int, *, reason: str, components: Collection[str] | None = None
    ) -> Release:
        """Serve again what release ``to`` served, and hold it.

        Args:
            to: the number of an earlier release.
            reason: why, for the people who find the holds later.
            components: only these, and the others of their groups; ``None``: all that ``to`` names.

        Raises:
            ReleaseUnreadableError: ``to`` is missing (it may have been swept) or damaged.
            ComponentNotReleasedError: ``to`` does not have one of ``components``.
            ReleaseNotWholeError: what it named is not there as a whole any more.
            GroupTornError: a group would not be whole, because ``to`` does not have all of it.
        """
        target, now = self.release(to), self._clock.now()
        reason = shortened(reason, MAX_ERROR)
        try:
            return self._change(
                _rolling_back(target, components, manifest=self.version, reason=reason, now=now)
            )
        except (VersionUnreadableError, BlobMissingError, BlobCorruptError) as error:
            raise ReleaseNotWholeError(to, error) from error

    def renumber(self, *, lost: int, reason: str) -> Release:
        """Serve what the newest release serves, under a number above ``lost``.

        For a store that was wiped or restored from a backup while readers serve a later release:
        they follow no lower number.

        Raises:
            NothingReleasedError: there is no release.
        """
        return self._change(
            lambda newest: (
                newest.model_copy(update={"reason": reason}) if newest.number <= lost else None
            ),
            lost=lost,
        )

    def sweep(
        self,
        *,
        keep_releases: int,
        used_versions: Collection[str],
        all_known: bool = True,
        grace_seconds: float,
        clock: Clock | None = None,
    ) -> Collected:
        """Remove what neither the kept releases nor the readers use; returns what was removed.

        Args:
            keep_releases: how many of the newest intact releases stay; at least 1.
            used_versions: ids of the versions that readers serve, as far as one knows; they stay.
            all_known: whether that is all of them. Otherwise releases stay, too, that were the
                newest one within ``grace_seconds``.
            grace_seconds: nothing that got its name later than this ago is removed; longer than the
                longest build, whose blobs no version names yet.
            clock: whose time it is; ``None``: the store's own.
        """
        if keep_releases < 1:
            raise ValueError(f"keep_releases is {keep_releases}; at least 1 must stay")
        sweeper = GarbageCollector(
            self._layout,
            releases=self._releases,
            versions=self._versions,
            now=(clock or self._clock).now().timestamp(),
            grace_seconds=grace_seconds,
        )
        with self._lock.sweeping():
            return sweeper.sweep(
                keep_releases=keep_releases, used_versions=used_versions, all_known=all_known
            )

    def _change(self, change: Change, *, lost: int = 0) -> Release:
        return commit_change(self._releases, change, clock=self._clock, lost=lost)
