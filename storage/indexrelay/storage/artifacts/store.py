"""The artifact store: what was built and what is to be served, as files under one root.

One object for every role: rebuilders put and commit, readers open, people hold and roll back. It
keeps no file open and has no thread, so it is safe to share between threads and survives a fork.

Rollback, hold and lift each make a new release from the newest one. A hold keeps one component
where it is, and with it everything that cannot move without it: the rest of its group. A rollback
of one member takes its group along. What the next release should be is a function of the newest
one, which is applied again when another publisher was faster, so that a hold never undoes what was
released meanwhile.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Final, Self

from indexrelay.schemas.clock import Clock, SystemClock
from indexrelay.schemas.files import LockWaits, Pause
from indexrelay.schemas.names import MAX_ERROR, shortened
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import BlobRef, Hold, Release, VersionManifest
from indexrelay.storage.artifacts.blobs import (
    BlobLook,
    BlobMarks,
    Blobs,
    GoOn,
    StagedBlob,
    host_id,
)
from indexrelay.storage.artifacts.files import Access, Layout, StoreLock, accessing
from indexrelay.storage.artifacts.gc import Collected, GarbageCollector
from indexrelay.storage.artifacts.holds import rolled_back, with_holds, without_holds
from indexrelay.storage.artifacts.releases import OpenedVersion, Releases, Versions
from indexrelay.storage.artifacts.signing import Signatures, Trust
from indexrelay.storage.artifacts.usage import StoreUsage, usage_of
from indexrelay.storage.errors import (
    BlobCorruptError,
    BlobMissingError,
    NothingReleasedError,
    ReleaseExistsError,
    ReleaseNotWholeError,
    ReleaseUnreadableError,
    VersionUnreadableError,
)

_COMMIT_ATTEMPTS: Final = 100
"""Of a hold, a lift or a rollback; each failed one means that another publisher won."""


class ArtifactStore:
    """Blobs, versions and releases under ``root``; the folders are created if they are missing.

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
        """Open the store; create the folders.

        Args:
            may_be_away: the folders are created by the first `newest_release` instead, for a
                process that waits for the store.
            by: the author of the releases that are committed through this object.
            group_reads: whether the group of this process's user may read what is written from now
                on; otherwise that user alone may.
            trust: whose releases are accepted, and how this process signs its own.
            marks: where this host records which blobs it has checked; ``None``: in the store, so
                that every process that may write to the store is trusted with its checks.
            pause: sleeps while another process holds the store's lock; ``None``: really.
        """
        self._clock = clock or SystemClock()
        self._layout = Layout(root, Access(group_reads), marks=marks)
        if not may_be_away:
            self._layout.make()
        self.lock_waits = LockWaits(self._clock)
        """The waits for the store's lock, in this process."""
        self._lock = StoreLock(
            self._layout.lock, waits=self.lock_waits, clock=self._clock, pause=pause
        )
        access = self._layout.access
        self._checked = BlobMarks(
            self._layout.checked / host_id(), access=access, clock=self._clock
        )
        self._opened = BlobMarks(self._layout.opened / host_id(), access=access, clock=self._clock)
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
        """The store's folder."""
        return self._layout.root

    @property
    def staging(self) -> Path:
        """A folder on the store's file system: files that are built here are moved, not copied."""
        return self._layout.staging

    @property
    def broken_releases(self) -> dict[int, ReleaseUnreadableError]:
        """The corrupt releases above the newest intact one at the last look, and those that are
        intact and not trusted (`ReleaseUntrustedError`)."""
        return self._releases.broken

    def is_unchanged(self, opened: OpenedVersion) -> bool:
        """Whether the files of an opened version are still those that were checked."""
        return self._versions.is_unchanged(opened)

    def stage_blob(self, file: Path, forcing: Executor) -> StagedBlob:
        """Prepare a finished file for `put_blob`; it may be read where it is meanwhile.

        It must not be written to any more. It is made read-only and hashed; ``forcing`` forces it
        to disk.
        """
        return self._blobs.stage(file, forcing)

    def put_blob(self, file: Path | StagedBlob) -> BlobRef:
        """Move a finished file into the store; the same content again changes nothing.

        Waits until the file is on disk.
        """
        return self._blobs.put(file)

    def blob(self, ref: BlobRef) -> Path:
        """The path of a blob; its digest is checked once per host.

        Raises:
            BlobMissingError: it does not exist.
            BlobCorruptError: it is corrupt.
        """
        return self._blobs.path(ref)

    def look_at_blob(self, ref: BlobRef) -> BlobLook | None:
        """What is known of a blob without reading it; ``None``: it does not exist."""
        return self._blobs.look(ref)

    def recheck_blob(self, ref: BlobRef, *, go_on: GoOn) -> bool:
        """Hash a blob again, although this host has checked it; whether it was read to its end.

        A corrupt blob is not opened on this host any more until it was replaced.

        Args:
            go_on: called after each piece of at most a MiB; may wait, and may end it.

        Raises:
            BlobMissingError: it does not exist.
            BlobCorruptError: it is corrupt.
        """
        return self._blobs.recheck(ref, go_on=go_on)

    def was_opened(self, ref: BlobRef) -> bool:
        """Whether this host has opened the blob as it is now in a separate process, unharmed."""
        path = self._layout.blob(ref.digest)
        with accessing(path, "read"):
            return self._opened.known(ref.digest, path.lstat())

    def remember_opened(self, ref: BlobRef) -> None:
        """Record that this host has: the builder's gates, or a reader's sandbox."""
        path = self._layout.blob(ref.digest)
        with accessing(path, "read"):
            self._opened.remember(ref.digest, path.lstat())

    def scrubbing(self) -> AbstractContextManager[bool]:
        """Excludes the other scrubs of this host; scrub if it yields ``True``."""
        return self._checked.scrubbing()

    def put_version(self, manifest: VersionManifest) -> str:
        """Write a manifest whose blobs are all in the store; returns the version's id.

        Raises:
            BlobMissingError, BlobCorruptError: it names a blob that does not exist.
        """
        return self._versions.put(manifest)

    def version(self, component: str, version_id: str) -> VersionManifest:
        """A manifest; its digest is checked.

        Raises:
            VersionUnreadableError: it is missing or corrupt.
        """
        return self._versions.read(component, version_id)

    def version_document(self, component: str, version_id: str) -> bytes:
        """A manifest as it lies on disk, after it was found intact. Raises as `version` does."""
        return self._versions.document(component, version_id)

    def put_version_document(self, component: str, version_id: str, data: bytes) -> None:
        """Write a manifest as it was written elsewhere; its blobs are all in the store.

        Raises:
            VersionUnreadableError: it is not that version of that component.
            BlobMissingError, BlobCorruptError: it names a blob that does not exist.
        """
        self._versions.put_document(component, version_id, data)

    def pin_blobs(self, refs: Iterable[BlobRef]) -> None:
        """Keep blobs from garbage collection until the grace period from now is over.

        Raises:
            BlobMissingError, BlobCorruptError: one is gone already, or of another size.
        """
        self._blobs.pin(refs)

    def open_version(self, component: str, version_id: str) -> OpenedVersion:
        """A manifest and the paths of its files, all checked.

        Raises:
            VersionUnreadableError, BlobMissingError, BlobCorruptError: a part of it is not intact.
        """
        return self._versions.open(component, version_id)

    def newest_versions(self, component: str, *, most: int) -> list[str]:
        """The ids of a component's versions that were written last, newest first."""
        return self._versions.newest(component, most=most)

    def was_released(self, component: str, version_id: str) -> bool:
        """Whether a release ever named the version, or may have.

        Raises:
            VersionUnreadableError: the version is missing or corrupt.
        """
        return self._releases.named(version_id, self.version(component, version_id))

    def version_fingerprint(self, component: str, version_id: str) -> str:
        """A text that differs once one of a version's files was replaced; no blob is read.

        For a process that found the version corrupt and waits for its repair.
        """
        return self._versions.fingerprint(component, version_id)

    def forget_checks(self, component: str, version_id: str) -> None:
        """Check every blob of a version again before it is opened, as it was found corrupt.

        Raises:
            VersionUnreadableError: it is not known any more which blobs these were.
        """
        for ref in self._versions.read(component, version_id).files.values():
            self._blobs.forget_check(ref)

    def newest_release(self) -> Release | None:
        """The newest intact release; ``None``: there is none. See `broken_releases`."""
        self._layout.make()
        return self._releases.newest()

    def next_number(self) -> int:
        """The number for the next release: one more than the highest, intact or not."""
        return self._releases.next_number()

    def release_numbers(self) -> list[int]:
        """The numbers of all kept releases, intact or not, newest first; lost ones leave gaps."""
        return self._releases.numbers()

    def release(self, number: int) -> Release:
        """One release.

        Raises:
            ReleaseUnreadableError: it is missing or corrupt.
        """
        return self._releases.read(number)

    def release_document(self, number: int) -> tuple[Release, bytes, bytes | None]:
        """One release, its document as it lies on disk, and its signatures' if there are any.

        Raises:
            ReleaseUnreadableError: it is missing or corrupt, or not trusted here.
        """
        return self._releases.document(number)

    def release_from(self, number: int, data: bytes, signatures: bytes | None) -> Release:
        """A release as it was written elsewhere, if this store would accept it.

        Raises:
            ReleaseUnreadableError: it is corrupt, or not trusted here.
        """
        return self._releases.from_document(number, data, signatures)

    def releases(self) -> list[Release]:
        """Every intact release that is kept, the newest first."""
        return self._releases.intact()

    def repair_release(self) -> list[Path]:
        """Write those of the newest release's two files again that are corrupt; returns them."""
        return self._releases.repair()

    def commit_release(self, release: Release, *, lost: int = 0) -> Release:
        """Make it the newest release, whole or not at all; returns it with its digest.

        ``lost``: numbers up to here are taken by releases that are not in the store any more.

        Raises:
            ReleaseExistsError: it is not the next one, or ``previous`` is not the newest one: read
                that again, decide again, try again.
            VersionUnreadableError, BlobMissingError, BlobCorruptError: a version that it adds to
                the newest release is not intact.
        """
        return self._releases.commit(release, lost=lost)

    def sign_release(self, number: int) -> tuple[str, ...]:
        """Sign an existing release; returns the public keys that it is signed with now.

        Raises:
            ReleaseUnreadableError: it is missing or corrupt.
            SigningRefusedError, SigningKeyError: it cannot be signed here.
        """
        return self._releases.sign(number)

    def hold(self, *components: str, reason: str) -> Release:
        """Keep components at the versions that they have, until `lift`; the newest release if all
        of them are held for that reason.

        Raises:
            ComponentNotReleasedError: the newest release does not have one of them.
            NothingReleasedError: there is no release.
        """
        hold = self._hold(reason)
        return self._change(partial(with_holds, components=components, hold=hold))

    def lift(self, *components: str, reason: str) -> Release:
        """Let held components follow their sources again; the newest release if none is held.

        Raises:
            ComponentNotReleasedError: the newest release does not have one of them.
            NothingReleasedError: there is no release.
        """
        return self._change(partial(without_holds, components=components, reason=reason))

    def rollback(
        self,
        to: int,
        *,
        reason: str,
        components: Collection[str] | None = None,
        refused: Mapping[str, str] | None = None,
        decided_on: int | None = None,
    ) -> Release:
        """Serve again what release ``to`` served, and hold it; of a group all members or none.

        Components that ``to`` did not have yet stay as they are. A canary ends by it: what only
        canaries serve is taken back as well.

        Args:
            to: the number of an earlier release.
            reason: why, for the people who find the holds later.
            components: only these, and the others of their groups; ``None``: all that ``to`` names.
            refused: by component, the definition of the version that readers refused; ``None``: a
                person goes back.
            decided_on: the release that this follows from; ``None``: whichever is the newest.

        Raises:
            ReleaseUnreadableError: ``to`` is missing (it may have been removed) or corrupt.
            ComponentNotReleasedError: ``to`` does not have one of ``components``.
            ReleaseNotWholeError: what it named is not intact any more.
            GroupTornError: a group would not be whole, because ``to`` does not have all of it.
            ReleaseExistsError: another release than ``decided_on`` is the newest by now; nothing
                was done.
        """
        back = self._rollback(to, reason=reason, components=components, refused=refused or {})

        def changed(newest: Release) -> Release:
            if decided_on is not None and newest.number != decided_on:
                raise ReleaseExistsError(decided_on + 1, next_number=self.next_number())
            return back(newest)

        try:
            return self._change(changed)
        except (VersionUnreadableError, BlobMissingError, BlobCorruptError) as error:
            raise ReleaseNotWholeError(to, error) from error

    def preview_rollback(
        self, to: int, *, reason: str, components: Collection[str] | None = None
    ) -> tuple[Release, Release]:
        """The newest release, and what `rollback` would commit now, which is not committed.

        Every version that it would add was opened, as for the commit. Its digest is not filled in.

        Raises:
            NothingReleasedError: there is no release.
            ReleaseUnreadableError, ComponentNotReleasedError, ReleaseNotWholeError,
                GroupTornError: as `rollback`.
        """
        back = self._rollback(to, reason=reason, components=components, refused={})
        newest = self._releases.newest()
        if newest is None:
            raise NothingReleasedError
        try:
            changed = back(newest)
            for component, version_id in changed.components.items() - newest.components.items():
                self._versions.open(component, version_id)
        except (VersionUnreadableError, BlobMissingError, BlobCorruptError) as error:
            raise ReleaseNotWholeError(to, error) from error
        update = {"number": self._releases.next_number(), "previous": newest.number, "by": ""}
        return newest, changed.model_copy(update=update)

    def _rollback(
        self,
        to: int,
        *,
        reason: str,
        components: Collection[str] | None,
        refused: Mapping[str, str],
    ) -> Callable[[Release], Release]:
        """What makes the next release of the newest one."""
        target = self.release(to)
        return partial(
            rolled_back,
            target=target,
            named=set(target.components if components is None else components),
            hold=self._hold(reason),
            refused=refused,
            manifest=self.version,
        )

    def follow(self, number: int, change: Callable[[Release], Release]) -> Release | None:
        """Commit what ``change`` makes of release ``number``; ``None``: it is the newest no more.

        Args:
            number: what was decided on.
            change: gives the components, groups, holds, canary and reason; the rest is filled in.

        Raises:
            NothingReleasedError: there is no release.
            VersionUnreadableError, BlobMissingError, BlobCorruptError: a version that it adds is
                not intact.
        """
        is_newest = True

        def changed(newest: Release) -> Release | None:
            nonlocal is_newest
            is_newest = newest.number == number
            return change(newest) if is_newest else None

        release = self._change(changed)
        return release if is_newest else None

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

    def restore(self, release: Release, *, hold: bool, reason: str, lost: int = 0) -> Release:
        """Serve what a release from elsewhere names, as the next release here.

        Its versions are in the store already. Where there is a release, it is a `rollback` to the
        other one: what that does not name stays as it is. Where there is none, its holds come
        along, and it goes on above its own number.

        Args:
            hold: whether what it names is held, where there is a release already.
            lost: numbers up to here are taken by releases that are not in the store any more.

        Raises:
            ReleaseNotWholeError: what it names is not in the store.
            GroupTornError: a group would not be whole, because it does not have all of it.
        """
        kept = self._hold(reason)

        def restored(newest: Release) -> Release:
            names = set(release.components)
            found = rolled_back(
                newest, target=first, named=names, hold=kept, refused={}, manifest=self.version
            )
            if not hold:
                settled = newest.for_reader("").holds
                holds = {name: each for name, each in settled.items() if name not in names}
                found = found.model_copy(update={"holds": holds})
            return found.model_copy(update={"reason": kept.reason})

        first = release.promoted(reason=kept.reason)  # whoever tried it elsewhere
        try:
            return self._change(restored, lost=max(lost, release.number), first=first)
        except (VersionUnreadableError, BlobMissingError, BlobCorruptError) as error:
            raise ReleaseNotWholeError(release.number, error) from error

    def collect_garbage(
        self,
        *,
        keep_releases: int,
        used_versions: Collection[str],
        all_known: bool = True,
        grace_seconds: float,
        clock: Clock | None = None,
        dry_run: bool = False,
    ) -> Collected:
        """Remove what neither the kept releases nor the readers use; returns what was removed.

        Args:
            keep_releases: how many of the newest intact releases stay; at least 1.
            used_versions: ids of the versions that readers serve, as far as known; they stay.
            all_known: whether that is all of them. Otherwise releases stay, too, that were the
                newest one within ``grace_seconds``.
            grace_seconds: what got its name more recently is not removed; longer than the longest
                build, whose blobs no version names yet.
            clock: ``None``: the store's own.
            dry_run: remove nothing; returns what would be.
        """
        if keep_releases < 1:
            raise ValueError(f"keep_releases is {keep_releases}; at least 1 must stay")
        collector = GarbageCollector(
            self._layout,
            releases=self._releases,
            versions=self._versions,
            now=(clock or self._clock).now().timestamp(),
            grace_seconds=grace_seconds,
            dry_run=dry_run,
        )
        with self._lock.collecting():
            return collector.collect(
                keep_releases=keep_releases, used_versions=used_versions, all_known=all_known
            )

    def usage(self) -> StoreUsage:
        """What takes how much of the disk: each version, and what no version names.

        Nothing is locked, so what comes or goes meanwhile may be counted or not.
        """
        return usage_of(self._layout, self._releases, self._versions)

    def _hold(self, reason: str) -> Hold:
        return Hold(reason=shortened(reason, MAX_ERROR), since=self._clock.now())

    def _change(
        self,
        change: Callable[[Release], Release | None],
        *,
        lost: int = 0,
        first: Release | None = None,
    ) -> Release:
        """Commit what ``change`` makes of the newest release; ``None`` from it changes nothing.

        It is called again with a newer release when another publisher was faster.

        Args:
            change: makes the next release of the newest one.
            lost: numbers up to here are taken by releases that are not in the store any more.
            first: what is committed where there is no release yet.

        Raises:
            NothingReleasedError: there is no release.
            ReleaseExistsError: others were faster a hundred times.
        """
        attempts = 0
        while True:
            newest = self._releases.newest()
            if newest is None and first is None:
                raise NothingReleasedError
            changed = first if newest is None else change(newest)
            if changed is None:
                assert newest is not None  # noqa: S101 - as `first` is given where it is None
                return newest
            update = {
                "number": max(self._releases.next_number(), lost + 1),
                "previous": 0 if newest is None else newest.number,
                "created_at": self._clock.now(),
                "by": "",  # the author of the newest one
            }
            try:
                return self._releases.commit(changed.model_copy(update=update), lost=lost)
            except ReleaseExistsError:
                attempts += 1
                if attempts == _COMMIT_ATTEMPTS:
                    raise
