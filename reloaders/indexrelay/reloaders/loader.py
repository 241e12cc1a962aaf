"""Loads what a release names: each changed component by itself; the good ones flip.

A `Part` flips as a whole: a group, or a component without one. A load that fails changes its own
part only, which keeps its last good version; `indexrelay.reloaders.retry` says when it is retried.

What is served may turn out to be corrupt (`indexrelay.reloaders.scrubber`). It is loaded again,
which is enough where its files were replaced by good ones. Where that fails it is served no longer:
the newest earlier version that is whole replaces it (`indexrelay.reloaders.fallback`). A reader
that starts and has no last good version falls back in the same way. Where no version is whole the
component is withdrawn: no answer is better than a wrong one.

A memory budget bounds what is open, old and new together. A part that would exceed it comes last in
the round, after those that leave room; an earlier version that would is no fallback.

While a round loads, a newer release may arrive. What it names differently and was not loaded yet is
superseded: it is left for the next round and comes first there, so that a component whose versions
follow faster than others load gets its turn.

Meanwhile, and while the reader looks and reports, the interpreter's switch interval is short
(`SwitchInterval`), so that queries go first. A thread that comes out of FAISS waits for the
interpreter's lock until the thread that holds it has had it for a whole switch interval: 5 ms by
default, which is longer than nearly every query. A reload computes for a few milliseconds. Where it
keeps the lock for a tenth of one at most, a query that ends meanwhile hardly waits (figures:
docs/decisions/012).
"""

import os
import sys
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from indexrelay.components.errors import ContractError
from indexrelay.components.kind import Kind
from indexrelay.components.registry import kind_class, served
from indexrelay.components.served import VersionFiles
from indexrelay.reloaders.errors import (
    AnswersDifferError,
    KindNotAllowedError,
    MemoryBudgetError,
)
from indexrelay.reloaders.fallback import fallback_versions
from indexrelay.reloaders.retry import Failures, error_text
from indexrelay.reloaders.sandbox import SANDBOX
from indexrelay.reloaders.scrubber import Corruption
from indexrelay.reloaders.slow_queries import time_queries
from indexrelay.reloaders.snapshot import Contents, ServedComponent
from indexrelay.schemas import commands
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.diagnostics import describe_error
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import Refusal
from indexrelay.schemas.names import split_member_id
from indexrelay.schemas.settings import ComponentDefinition, Settings
from indexrelay.schemas.versions import Release, VersionManifest
from indexrelay.storage.artifacts import (
    ArtifactError,
    ArtifactStore,
    BlobCorruptError,
    OpenedVersion,
    StoreAccessError,
    VersionUnreadableError,
)

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Components that flip together."""

    name: str
    """The group, or the component."""
    wanted: Mapping[str, str | None]
    """By member: the version to serve; ``None``: serve it no more."""
    changed: Mapping[str, str | None]
    """Those of ``wanted`` that are to be loaded or dropped, in the order of their names."""


class Round:
    """What is served after one round, and what became of each component in it."""

    def __init__(self, release: Release, before: Contents, *, started_at: float) -> None:
        self.release = release
        self.started_at = started_at
        """By the monotonic clock."""
        self.components = dict(before.components)
        self.groups = dict(before.groups)
        self.applied: list[str] = []
        self.dropped: list[str] = []
        self.fell_back: list[str] = []
        """Served at an earlier version than before, or than the release names."""
        self.failed: dict[str, str] = {}
        """By component: why; those that wait for a retry are among them."""
        self.refused: dict[str, Refusal] = {}
        """By component: why its version is not taken, for good."""
        self.superseded: list[str] = []
        self.retry_at: float | None = None
        """When a failed part may be retried, by the monotonic clock; ``None``: none may."""
        self.seconds = 0.0
        """How long it took until it was served."""

    @property
    def contents(self) -> Contents:
        """What to serve from now on."""
        return Contents(
            release=self.release.number,
            digest=self.release.digest,
            components=self.components,
            groups=self.groups,
            held=frozenset(self.release.holds),
        )

    @property
    def changed(self) -> bool:
        """Whether something else is to be served."""
        return bool(self.applied or self.dropped or self.fell_back)

    def apply(self, part: Part, loaded: Mapping[str, ServedComponent]) -> None:
        """Serve the part as the release wants it."""
        self.components |= loaded
        self.applied += loaded
        self.dropped += (name for name in part.changed if name not in loaded)
        self.settle(part)

    def settle(self, part: Part) -> None:
        """Drop the members of the part that left the release, and take over its groups."""
        for name, version in part.wanted.items():
            self.groups.pop(name, None)
            if version is None:
                self.components.pop(name, None)
            elif name in self.release.groups:
                self.groups[name] = self.release.groups[name]

    def fail(
        self, reasons: Mapping[str, str], *, refused: Mapping[str, Refusal], retry_at: float | None
    ) -> None:
        """These components are not served as the release wants them."""
        self.failed |= reasons
        self.refused |= refused
        if retry_at is not None:
            self.look_again(retry_at)

    def look_again(self, at: float) -> None:
        """Have another round of the same release, by the monotonic clock."""
        self.retry_at = at if self.retry_at is None else min(self.retry_at, at)

    def fall_back(self, found: Mapping[str, ServedComponent]) -> None:
        """Serve earlier versions."""
        self.components |= found
        self.groups |= {
            name: self.release.groups[name] for name in found if name in self.release.groups
        }
        self.fell_back += found

    def withdraw(self, names: Iterable[str]) -> None:
        """Serve these components no longer."""
        for name in names:
            del self.components[name]
            self.groups.pop(name, None)
            self.dropped.append(name)


class Loader:
    """Loads what releases name; used by one thread at a time."""

    def __init__(
        self, settings: Settings, *, member: str, store: ArtifactStore, clock: Clock
    ) -> None:
        """Nothing has failed yet; ``member`` spreads the retries of different readers."""
        self._store = store
        self._label, _ = split_member_id(member)
        self._chosen = settings.reader.components
        self._budget_bytes = settings.reader.memory_budget_bytes
        self._min_overlap = settings.releases.canary_min_overlap
        self._clock = clock
        self._opener = Opener(
            store,
            definitions=settings.components,
            clock=clock,
            slow_query_ms=settings.reader.slow_query_ms,
        )
        self._failures = Failures(
            store,
            first_wait_seconds=settings.reader.retry_seconds,
            spread_key=member,
            clock=clock,
        )
        self.forget()

    def forget(self) -> None:
        """Forget every failure, so that everything is loaded in the next round."""
        self._failures.forget()
        self._corruption: dict[str, Corruption] = {}
        self._first: set[str] = set()
        self.retry_at: float | None = None
        """When a failed part may be retried, by the monotonic clock; ``None``: none may."""

    @property
    def damaged(self) -> dict[str, str]:
        """By component: the wanted version whose files are corrupt or missing."""
        return self._failures.damaged()

    def retry_all(self) -> None:
        """Let everything that failed be retried at the next look, however it failed."""
        if self._failures.retry_all():
            self.retry_at = self._clock.monotonic()

    def retry_repaired(self) -> None:
        """Let permanent failures be retried where files were replaced since."""
        if self._failures.retry_repaired():
            self.retry_at = self._clock.monotonic()

    def take_corruption(self, corruption: Corruption, current: Contents) -> None:
        """Load something again at the next look, because its files have changed."""
        name = corruption.served.name
        known = self._corruption.get(name)
        if current.components.get(name) is not corruption.served or (
            known is not None
            and known.served is corruption.served
            and known.wrong >= corruption.wrong
        ):
            return
        self._corruption[name] = corruption
        self.retry_at = self._clock.monotonic()
        log.error(
            "component.corrupt",
            component=name,
            version=corruption.served.version,
            error=corruption.reason,
            answers="may be wrong, and end now" if corruption.wrong else "are right, from memory",
            advice="a running rebuilder builds it from scratch, unless it is held or paused; "
            f"or: {commands.rebuild(name)}",
        )

    def load(self, release: Release, current: Contents) -> Round:
        """Load what changed and may be loaded; nothing is served differently yet."""
        done = Round(release, current, started_at=self._clock.monotonic())
        loads = 0
        waiting, fits = self._parts(release, current), True
        while waiting:
            # What does not fit waits for what the others leave; where they leave nothing more, it
            # is refused.
            left: list[Part] = []
            for part in waiting:
                if not part.changed:
                    done.settle(part)
                elif fits and not self._fits(part, done):
                    left.append(part)
                elif not self._failures.may_load(part.changed, fits=fits):
                    self._fail(part, done)
                elif loads and self._superseded(part, release):
                    done.superseded += part.changed
                else:
                    loads += 1
                    loaded = self._load(part, current, done)
                    if loaded is None:
                        self._fail(part, done)
                    else:
                        done.apply(part, loaded)
            waiting, fits = left, len(left) < len(waiting)
        self._first = set(done.superseded)
        self.retry_at = done.retry_at
        self._failures.keep(done.failed)
        self._corruption = {
            name: corruption
            for name, corruption in self._corruption.items()
            if done.components.get(name) is corruption.served
        }
        return done

    def _parts(self, release: Release, current: Contents) -> list[Part]:
        """Every part of the release; those that were superseded last time come first."""
        parts = parts_of(release, current, self._chosen, corrupt=self._corruption)
        return sorted(parts, key=lambda part: self._first.isdisjoint(part.changed))

    def _load(
        self, part: Part, current: Contents, done: Round
    ) -> dict[str, ServedComponent] | None:
        """Load the changed members; ``None`` when one failed, and then none of them flips."""
        loaded: dict[str, ServedComponent] = {}
        for name, version in part.changed.items():
            if version is None:
                continue
            # Before the load: a repair in the middle of it must look like one afterwards.
            looks = self._store.version_fingerprint(name, version)
            serving = current.components.get(name)
            # A new version shares nothing with one whose files have changed.
            before = None if name in self._corruption else serving
            try:
                self._check_budget({name: version}, [*done.components.values(), *loaded.values()])
                loaded[name] = self._opener.open(
                    name, version, serving=before, compare=name in done.release.tried
                )
                self._check_overlap(loaded[name])
            except Exception as error:  # noqa: BLE001 - this component fails, and nothing else
                self._load_failed(name, version, looks, error, serving)
            else:
                self._failures.succeeded(name)
        if self._failures.known(part.changed):
            return None
        for name, served_now in loaded.items():
            log.info(
                "component.reloaded",
                component=name,
                version=served_now.version,
                entries=served_now.manifest.entries,
                seconds=round(served_now.seconds, 6),
            )
        return loaded

    def _fits(self, part: Part, done: Round) -> bool:
        """Whether the budget has room for the part beside what is open."""
        wanted = {name: version for name, version in part.changed.items() if version is not None}
        try:
            self._check_budget(wanted, done.components.values())
        except MemoryBudgetError:
            return False
        except ArtifactError:
            pass  # the load says so
        return True

    def _check_budget(self, versions: Mapping[str, str], opened: Iterable[ServedComponent]) -> None:
        """Refuse versions before they are loaded where they would not fit beside what is open.

        Raises:
            MemoryBudgetError: they would not.
            ArtifactError: a manifest cannot be read.
        """
        if self._budget_bytes is None:
            return
        manifests = [self._store.version(name, version) for name, version in versions.items()]
        manifests += (each.manifest for each in opened)
        sizes = {ref.digest: ref.size for each in manifests for ref in each.files.values()}
        needed = sum(sizes.values())
        if needed > self._budget_bytes:
            names = ", ".join(versions)
            raise MemoryBudgetError(names, needed=needed, budget=self._budget_bytes)

    def _check_overlap(self, opened: ServedComponent) -> None:
        """Refuse what only canaries serve where it answers too many of the last queries otherwise.

        Raises:
            AnswersDifferError: it does.
        """
        least = self._min_overlap
        if opened.overlap is not None and least is not None and opened.overlap < least:
            raise AnswersDifferError(opened.name, overlap=opened.overlap, least=least)

    def _load_failed(
        self,
        name: str,
        version: str,
        looks: str,
        error: Exception,
        serving: ServedComponent | None,
    ) -> None:
        failure = self._failures.remember(name, version, looks, error)
        retry_in = None
        if failure.retry_at is not None:
            retry_in = failure.retry_at - self._clock.monotonic()
        log.error(
            "component.load_failed",
            component=name,
            version=version,
            serving=serving.version if serving is not None else None,
            error=failure.error,
            retry_in_seconds=retry_in,
        )

    def _fail(self, part: Part, done: Round) -> None:
        """Keep what is served of a part that cannot flip, or fall back where that is not good."""
        failures = self._failures
        done.fail(
            failures.reasons(part.changed, part=part.name),
            refused=failures.refusals(part.changed),
            retry_at=failures.retry_at(part.changed),
        )
        serving = [name for name in part.wanted if name in done.components]
        wrong = [name for name in serving if self._is_wrong(done.components[name])]
        # A member that just joined, and cannot be loaded, changes nothing of what is served.
        if any(part.wanted[name] for name in serving) and not wrong:
            return
        found = self._fallback(part, done)
        if found is not None:
            done.fall_back(found)
            # Members that left the release stay only as long as the others stay where they are.
            wrong = [name for name in serving if name not in found]
        elif wrong:
            log.error("components.withdrawn", components=wrong, reason="no version can be served")
            if self._budget_bytes is not None:  # there may be room for an earlier one after that
                done.look_again(self._clock.monotonic())
        done.withdraw(wrong)

    def _fallback(self, part: Part, done: Round) -> dict[str, ServedComponent] | None:
        """The newest earlier versions that can be served; ``None``: there is none."""
        wanted = {name: version for name, version in part.wanted.items() if version is not None}
        candidates = fallback_versions(
            self._store, wanted, done.release, served=done.components.keys()
        )
        for versions in candidates:
            found = self._open_all(versions, done.components)
            if found is not None:
                log.warning(
                    "components.fell_back",
                    versions=versions,
                    wanted=dict(part.wanted),
                    advice="they follow the release again once that can be served",
                )
                return found
        return None

    def _open_all(
        self, versions: Mapping[str, str], serving: Mapping[str, ServedComponent]
    ) -> dict[str, ServedComponent] | None:
        """These versions, opened where they are not served; ``None`` when one cannot be."""
        found: dict[str, ServedComponent] = {}
        for name, version in versions.items():
            now = serving.get(name)
            if now is not None and now.version == version and not self._is_wrong(now):
                found[name] = now
                continue
            try:
                self._check_budget({name: version}, [*serving.values(), *found.values()])
                found[name] = self._opener.open(name, version, serving=None)
            except Exception as error:  # noqa: BLE001 - an older one may be whole
                log.info(
                    "component.fallback_failed",
                    component=name,
                    version=version,
                    error=error_text(error),
                )
                return None
        return found

    def _is_wrong(self, serving: ServedComponent) -> bool:
        """Whether it may answer wrongly."""
        corruption = self._corruption.get(serving.name)
        return corruption is not None and corruption.served is serving and corruption.wrong

    def _superseded(self, part: Part, release: Release) -> bool:
        """Whether a newer release wants something else of this part."""
        try:
            newest = newest_for(self._store, self._label)
        except StoreAccessError as error:
            log.debug("release.newer_unknown", error=str(error))  # the next look warns of it
            return False
        if newest is None or newest.number <= release.number:
            return False
        return any(newest.components.get(name) != version for name, version in part.changed.items())


def newest_for(store: ArtifactStore, label: str) -> Release | None:
    """The newest release as a reader under this label has to serve it; ``None``: there is none.

    Raises:
        StoreAccessError: the store cannot be read.
    """
    newest = store.newest_release()
    return None if newest is None else newest.for_reader(label)


def served_names(release: Release, chosen: Collection[str] | None) -> set[str]:
    """The components of a release that a reader serves; ``chosen`` is ``None``: all of them."""
    names = set(release.components)
    return names if chosen is None else names & set(chosen)


def parts_of(
    release: Release,
    current: Contents,
    chosen: Collection[str] | None,
    *,
    corrupt: Collection[str] = (),
) -> list[Part]:
    """Every part of the release and of what is served now, in the order of their names.

    A component that left the release goes with the group that it was served in, so that a group is
    never served half old and half new.

    Args:
        corrupt: components that are loaded again although they are at the wanted version.
    """
    names = served_names(release, chosen)
    members: dict[tuple[str, str], list[str]] = {}
    for name in sorted(names | current.components.keys()):
        group = release.groups.get(name) if name in names else current.groups.get(name)
        # A component may be called like a group and still be a part of its own.
        key = ("group", group) if group is not None else ("component", name)
        members.setdefault(key, []).append(name)
    parts = []
    for (_, part_name), part_members in sorted(members.items()):
        wanted = {
            name: release.components[name] if name in names else None for name in part_members
        }
        changed = {
            name: version
            for name, version in wanted.items()
            if _version(current, name) != version or name in corrupt
        }
        parts.append(Part(name=part_name, wanted=wanted, changed=changed))
    return parts


def _version(current: Contents, name: str) -> str | None:
    serving = current.components.get(name)
    return serving.version if serving is not None else None


class Opener:
    """Makes an object that answers queries from a version in the store.

    A release and its manifests are data. They choose only among what this process may run: kinds
    that are installed as entry points, and the class that the reader's own settings declare for
    that very component. They never choose a path, since files are found by digest.
    """

    def __init__(
        self,
        store: ArtifactStore,
        *,
        definitions: Mapping[str, ComponentDefinition],
        clock: Clock,
        slow_query_ms: float | None = None,
    ) -> None:
        """``slow_query_ms``: queries that take longer are logged; ``None``: none are timed."""
        self._store = store
        self._definitions = definitions
        self._clock = clock
        self._slow_query_ms = slow_query_ms

    def open(
        self,
        component: str,
        version: str,
        *,
        serving: ServedComponent | None,
        compare: bool = False,
    ) -> ServedComponent:
        """Check every file of the version and load it, warm.

        Args:
            serving: the version that is served now, whose open files a kind may share; ``None``:
                share nothing.
            compare: whether to ask it what ``serving`` was asked last. What that was stays in this
                process.

        Raises:
            Exception: whatever the store or the kind raises; nothing is left open then.
        """
        failpoint("reader.before_load")
        started = self._clock.monotonic()
        opened = self._store.open_version(component, version)
        kind = self._kind(opened.manifest, version)
        files = VersionFiles(opened.files)
        self._open_in_sandbox(kind, opened)
        try:
            if serving is not None and _may_share(serving, opened.manifest, opened.inodes):
                value = served(kind, kind.reload(files, serving.value))
            else:
                value = served(kind, kind.load(files))
            if not self._store.is_unchanged(opened):
                value.close()
                raise _changed(opened)
        except SystemExit as error:  # of a user's code: it must not end the thread that reloads
            raise ContractError(f"load ended the process: {describe_error(error)}") from error
        failpoint("reader.after_load")
        overlap = kind.overlap(value, serving.value) if compare and serving is not None else None
        if self._slow_query_ms is not None:
            time_queries(
                value, component=component, version=version, threshold_ms=self._slow_query_ms
            )
        return ServedComponent(
            value,
            version=version,
            manifest=opened.manifest,
            inodes=opened.inodes,
            seconds=self._clock.monotonic() - started,
            applied_at=self._clock.now(),
            overlap=overlap,
        )

    def _open_in_sandbox(self, kind: Kind[Any, Any], opened: OpenedVersion) -> None:
        """Let the sandbox open what this host has not opened yet."""
        refs = {
            label: opened.manifest.files[label]
            for label in kind.sandboxed & opened.files.keys()
            if not self._store.was_opened(opened.manifest.files[label])
        }
        if refs:
            SANDBOX.open_first(kind, opened.manifest, opened.files, refs.keys())
            for ref in refs.values():
                self._store.remember_opened(ref)

    def _kind(self, manifest: VersionManifest, version: str) -> Kind[Any, Any]:
        component, kind = manifest.component, manifest.kind
        declared = self._definitions.get(component)
        if ":" in kind and (declared is None or declared.kind != kind):
            raise KindNotAllowedError(component, kind)
        found = kind_class(kind)
        try:
            return found(found.Parameters.model_validate(manifest.parameters))
        except ValidationError as error:
            reason = f"{kind} does not take {error.error_count()} of the parameters in its manifest"
            raise VersionUnreadableError(component, version, reason, missing=False) from error


def _changed(opened: OpenedVersion) -> BlobCorruptError:
    ref, path = next((opened.manifest.files[label], path) for label, path in opened.files.items())
    reason = "a file of this version was replaced while it was opened"
    return BlobCorruptError(ref.digest, path, reason, component=opened.manifest.component)


def _may_share(
    serving: ServedComponent, manifest: VersionManifest, inodes: Mapping[str, int]
) -> bool:
    """Whether what is open already is of the same kind, and of the files that were checked now."""
    return serving.manifest.kind == manifest.kind and all(
        inodes.get(digest, inode) == inode for digest, inode in serving.inodes.items()
    )


INTERVAL_SECONDS: Final = 0.0001
"""Ten to twenty times what it costs to hand the lock over."""
_MICROSECOND: Final = 1e-6
"""Python keeps whole ones, and not always the nearest."""


class SwitchInterval:
    """The switch interval is one for the whole process, so all reloads of a process share this."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reloads = 0
        self._before = self._mine = 0.0

    @contextmanager
    def shortened(self) -> Iterator[None]:
        """Shorten it as long as the ``with`` lasts.

        What the process had is put back afterwards; an interval that is shorter already stays, and
        so does one that other code sets meanwhile.
        """
        with self._lock:
            self._reloads += 1
            if self._reloads == 1:
                self._before = sys.getswitchinterval()
                self._mine = min(self._before, INTERVAL_SECONDS)
                sys.setswitchinterval(self._mine)
        try:
            yield
        finally:
            with self._lock:
                if self._reloads == 1:
                    self._put_back()
                self._reloads = max(0, self._reloads - 1)  # 0: forked meanwhile

    def after_fork_in_child(self) -> None:
        """The reloads of the parent end there and not here."""
        self._lock = threading.Lock()
        if self._reloads:
            self._put_back()
        self._reloads = 0

    def _put_back(self) -> None:
        if abs(sys.getswitchinterval() - self._mine) <= _MICROSECOND:
            sys.setswitchinterval(self._before)


switch_interval: Final = SwitchInterval()
os.register_at_fork(after_in_child=switch_interval.after_fork_in_child)
