"""How a release reaches all readers, and how it is taken back: canaries, promotion, rollback.

**Canaries.** A release may be for few readers first (``releases.canary_readers``). It says itself
who they are and what the others serve meanwhile, so that no reader has to believe Redis, or any
other reader, about what to serve. The rebuilder looks at the presence of the canaries. Once each
of them has served the release for ``canary_seconds`` without a failure, the next release is the
same for everyone. A canary that refuses a version, or whose process ends, is in doubt: another
reader takes its place, and the time begins again. With the second in doubt the release is taken
back, or with the first where there is no other reader. So one reader with a fault of its own, or
one leaked password, neither stops a release nor takes it back, and a version that kills whoever
loads it ends two readers at most. Nothing is built while a canary waits; what comes meanwhile is
built at once after it.

**Rollback.** Of what is for everyone, each label of readers has one vote, whatever its processes
say (``releases.enable_rollback``, ``rollback_quorum``): a label is what a key in Redis proves.

**Damage** that a reader reports is looked at before it counts. If the files are whole here, the
fault is the reader's; if they are not, the component is built again by itself, and a canary ends
without a hold that would keep it from that. All else that is taken back is held, with the reason,
and the definition that was refused is not built again before somebody lifts the hold or changes
it.

A rebuilder that starts counts the time of a canary anew; of several the first that is sure
decides.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

from redis.exceptions import RedisError

from indexrelay.rebuilder.publisher import Announcer
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.loggers import LogOnce, get_logger
from indexrelay.schemas.messages import ComponentState, LoadOutcome, ReaderState, Refusal
from indexrelay.schemas.names import MAX_ERROR, shortened, split_member_id
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import Canary, Hold, Release
from indexrelay.storage.artifacts import (
    ArtifactError,
    ArtifactStore,
    BlobCorruptError,
    BlobMissingError,
    GroupTornError,
    ReleaseNotWholeError,
    VersionUnreadableError,
)
from indexrelay.storage.audit import AuditAction, AuditLog
from indexrelay.streams.presence import Members

_log = get_logger(__name__)
_ENOUGH: Final = 2
"""Canaries in doubt with which a release is taken back."""

Labels = Mapping[str, Mapping[str, ReaderState]]
"""The readers that are there: by label, by member id."""


def labels_of(states: Mapping[str, ReaderState]) -> dict[str, dict[str, ReaderState]]:
    """The readers by their labels, as their keys prove them."""
    found: dict[str, dict[str, ReaderState]] = {}
    for member, state in states.items():
        found.setdefault(split_member_id(member)[0], {})[member] = state
    return found


def choose_canaries(
    labels: Labels,
    *,
    number: int,
    components: AbstractSet[str],
    count: int,
    without: Collection[str] = (),
) -> tuple[str, ...]:
    """Labels of readers that take a release first.

    Others for each release, so that the same readers do not try all of them.

    Args:
        labels: the readers that are there.
        number: of the release.
        components: those that change; a reader that serves none of them learns nothing.
        count: how many there may be.
        without: labels that are not asked.
    """
    serving = sorted(
        label
        for label, processes in labels.items()
        if label not in without
        and all(state.ready for state in processes.values())
        and any(components & state.components.keys() for state in processes.values())
    )
    order = sorted(
        serving, key=lambda label: hashlib.sha256(f"{number}\n{label}".encode()).digest()
    )
    return tuple(sorted(order[:count]))


@dataclass
class _Watch:
    """What was seen of the canaries of one release."""

    number: int
    began: float
    """By the monotonic clock, as are the others."""
    members: dict[str, set[str]] = field(default_factory=dict)
    """By label: the processes that were there."""
    serving_since: dict[str, float] = field(default_factory=dict)


class Rollout:
    """Decides on releases by what readers do with them; for use by one thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: ArtifactStore,
        announcer: Announcer,
        audit: AuditLog,
        by: str,
        clock: Clock,
    ) -> None:
        """``by``: who decides, for the audit log."""
        self._limits = settings.releases
        self._gone_seconds = settings.reader.presence_ttl_seconds
        self._store = store
        self._announcer = announcer
        self._audit = audit
        self._by = by
        self._clock = clock
        self._watch: _Watch | None = None
        self._complaints = LogOnce()
        self.waits = False
        """Whether a canary waited at the last look: nothing is built meanwhile."""

    def look(self) -> bool:
        """Whether a canary waits now.

        Raises:
            StoreAccessError: the store cannot be read.
        """
        newest = self._store.newest_release()
        self.waits = newest is not None and newest.canary is not None
        return self.waits

    def step(self, readers: Members[ReaderState]) -> Release | None:
        """Promote the newest release, ask other canaries, or take it back, if it is time.

        Returns:
            The release that came of it; ``None``: nothing is to be decided yet.

        Raises:
            ArtifactError: the store cannot be read or written.
        """
        newest = self._store.newest_release()
        if newest is None:
            return None
        labels = labels_of(readers.known)
        if newest.canary is not None:
            decided = self._of_canary(newest, newest.canary, labels, unseen=_unseen(readers))
        else:
            self._watch = None
            decided = self._of_everyone(newest, labels) if self._limits.enable_rollback else None
        self.waits = (decided or newest).canary is not None
        if decided is not None:
            back = decided.components.items() ^ newest.components.items()
            self._audit.record(
                AuditAction.ROLLED_BACK if back else AuditAction.RELEASED,
                who=self._by,
                subject=f"release {decided.number}",
                reason=decided.reason,
                components=sorted({name for name, _ in back} or newest.tried),
            )
            try:
                self._announcer.announce(decided, None)
            except RedisError as error:  # the next comparison does it
                _log.warning("release.not_announced", release=decided.number, error=str(error))
        return decided

    def _of_canary(
        self,
        release: Release,
        canary: Canary,
        labels: Labels,
        *,
        unseen: Callable[[str], bool],
    ) -> Release | None:
        """``unseen``: whether processes under a label may be there that are not in ``labels``."""
        number = release.number
        if not self._limits.canary_readers:
            return self._promote(release, "releases.canary_readers is 0")
        damage = self._damage(release, labels)
        if damage is not None:
            return self._take_back(release, f"a canary found damage: {damage}", held=False)
        if self._watch is None or self._watch.number != number:
            self._watch = _Watch(number, self._clock.monotonic())
        refusing = _refusing(release.tried, labels)
        doubts = {label: refusing[label] for label in canary.readers if label in refusing}
        gone = self._gone(self._watch, canary, labels)
        doubts |= {label: reason for label, reason in gone.items() if not unseen(label)}
        if doubts:
            return self._doubt(release, canary, labels, doubts, refused=bool(refusing))
        return self._promote_when_sure(release, canary, labels, self._watch)

    def _promote_when_sure(
        self, release: Release, canary: Canary, labels: Labels, watch: _Watch
    ) -> Release | None:
        now = self._clock.monotonic()
        for label in canary.readers:
            processes = labels.get(label, {}).values()
            if processes and all(_serves(release, state) for state in processes):
                watch.serving_since.setdefault(label, now)
            else:
                watch.serving_since.pop(label, None)
        since = [watch.serving_since.get(label) for label in canary.readers]
        if None in since:
            return None
        seconds = now - max(each for each in since if each is not None)
        if seconds < self._limits.canary_seconds:
            return None
        return self._promote(
            release, f"{', '.join(canary.readers)} served it for {seconds:.0f} s without a failure"
        )

    def _gone(self, watch: _Watch, canary: Canary, labels: Labels) -> dict[str, str]:
        """The canaries of which a process ended, or that were never seen."""
        gone, waited = {}, self._clock.monotonic() - watch.began
        for label in canary.readers:
            known, there = watch.members.setdefault(label, set()), labels.get(label, {}).keys()
            if known - there:
                gone[label] = "a process of it ended"
            elif not known | there and waited > self._gone_seconds:
                gone[label] = "it is not there"
            known.update(there)
        return gone

    def _doubt(
        self,
        release: Release,
        canary: Canary,
        labels: Labels,
        doubts: Mapping[str, str],
        *,
        refused: bool,
    ) -> Release | None:
        """Ask other readers, or take the release back."""
        doubted = tuple(sorted({*canary.doubted, *doubts}))
        staying = tuple(label for label in canary.readers if label not in doubts)
        others = choose_canaries(
            labels,
            number=release.number,
            components=release.tried.keys(),
            count=len(doubts),
            without=(*staying, *doubted),
        )
        why = "; ".join(f"reader {label}: {reason}" for label, reason in sorted(doubts.items()))
        if len(doubted) >= _ENOUGH or (refused and not (others or staying)):
            return self._take_back(release, f"canaries refused it: {why}", held=True)
        if not others and not staying:
            if doubts.keys().isdisjoint(labels):
                return None  # nobody is left who could try it
            return self._take_back(release, f"nobody else could try it: {why}", held=True)
        now = canary.model_copy(
            update={
                "readers": tuple(sorted((*staying, *others))),
                "doubted": doubted,
                "since": self._clock.now(),
            }
        )
        reason = shortened(f"other canaries try release {release.number}: {why}", MAX_ERROR)
        changed = self._store.follow(
            release.number,
            lambda newest: newest.model_copy(update={"canary": now, "reason": reason}),
        )
        if changed is not None:
            _log.warning(
                "canary.replaced", release=changed.number, canaries=now.readers, reason=why
            )
        return changed

    def _promote(self, release: Release, why: str) -> Release | None:
        reason = shortened(f"promoted release {release.number}: {why}", MAX_ERROR)
        promoted = self._store.follow(release.number, lambda newest: newest.promoted(reason=reason))
        if promoted is not None:
            _log.info("release.promoted", release=promoted.number, reason=why)
        return promoted

    def _take_back(self, release: Release, why: str, *, held: bool) -> Release | None:
        """For everyone what the others serve; held, so that the same is not built again."""
        others = {} if release.canary is None else release.canary.components
        tried = ", ".join(sorted(release.tried))
        reason = shortened(f"rolled back {tried} of release {release.number}: {why}", MAX_ERROR)
        holds = {
            name: Hold(
                reason=reason,
                since=self._clock.now(),
                refused=self._definition(name, version),
            )
            for name, version in release.tried.items()
            if held and name in others
        }
        taken = self._store.follow(
            release.number, lambda newest: newest.refused(reason=reason, holds=holds)
        )
        if taken is not None:
            _log.error("release.rolled_back", release=taken.number, reason=reason)
        return taken

    def _of_everyone(self, release: Release, labels: Labels) -> Release | None:
        """Go back with what too many labels refuse, if there is a version to go back to."""
        refused: dict[str, str] = {}
        for name, version in sorted(release.components.items()):
            if name in release.holds:
                continue
            asked = {
                label
                for label, processes in labels.items()
                if any(_wants(state, name, version) for state in processes.values())
            }
            against = {
                label: reason
                for label, reason in _refusing({name: version}, labels).items()
                if label in asked
            }
            if against and len(against) > self._limits.rollback_quorum * len(asked):
                label, reason = min(against.items())
                refused[name] = (
                    f"{len(against)} of {len(asked)} reader(s) refused it, {label}: {reason}"
                )
        missing: dict[str, str] = {}
        for name, why in refused.items():
            target = self._earlier(release, name)
            if target is None:
                missing[name] = why
                continue
            try:
                taken = self._go_back(release, name, target, why)
            except (GroupTornError, ReleaseNotWholeError) as error:
                missing[name] = f"{why}; {error}"
                continue
            if taken is not None:
                return taken  # the next look takes back what is left
        for name, why in self._complaints.new(missing).items():
            _log.error("rollback.impossible", component=name, reason=why)
        return None

    def _go_back(self, release: Release, name: str, target: int, why: str) -> Release | None:
        definitions = {
            each: definition
            for each, version in release.components.items()
            if (definition := self._definition(each, version)) is not None
        }
        taken = self._store.rollback(
            target, reason=why, components=[name], refused=definitions, decided_on=release.number
        )
        if taken.number == release.number or name not in taken.holds:
            return None
        _log.error("release.rolled_back", release=taken.number, component=name, reason=why)
        return taken

    def _earlier(self, release: Release, name: str) -> int | None:
        """The newest earlier release with another version of a component that is whole."""
        for number in self._store.release_numbers():
            if number >= release.number:
                continue
            try:
                earlier = self._store.release(number).for_reader("")  # no reader has this label
                version = earlier.components.get(name)
                if version is not None and version != release.components[name]:
                    self._store.open_version(name, version)
                    return number
            except ArtifactError:
                continue
        return None

    def _damage(self, release: Release, labels: Labels) -> str | None:
        """What is wrong with the files of a version that a reader calls damaged, if that is so."""
        for name, version in sorted(release.tried.items()):
            claimed = any(
                _refusal(state.components.get(name), version) is Refusal.DAMAGE
                for processes in labels.values()
                for state in processes.values()
            )
            if claimed:
                try:
                    self._store.open_version(name, version)
                except (BlobCorruptError, BlobMissingError, VersionUnreadableError) as error:
                    return str(error)
        return None

    def _definition(self, name: str, version: str) -> str | None:
        try:
            return self._store.version(name, version).definition
        except ArtifactError:
            return None


def _unseen(readers: Members[ReaderState]) -> Callable[[str], bool]:
    """Whether a look may have missed processes under a label."""
    dropped = {split_member_id(member)[0] for member in readers.dropped}
    anybody = readers.cut or bool(readers.late)
    return lambda label: anybody or label in dropped or label in readers.crowded


def _refusal(component: ComponentState | None, version: str) -> Refusal | None:
    """Why a reader refuses a version for good; ``None``: it does not."""
    if component is None or component.wanted != version:
        return None
    return component.refusal if component.outcome is LoadOutcome.FAILED else None


def _refusing(versions: Mapping[str, str], labels: Labels) -> dict[str, str]:
    """By label: why a process under it refuses one of these versions; damage is not counted."""
    found: dict[str, str] = {}
    for label, processes in labels.items():
        for state in processes.values():
            for name, version in versions.items():
                component = state.components.get(name)
                if _refusal(component, version) not in {None, Refusal.DAMAGE}:
                    found.setdefault(label, f"{name}: {component and component.error}")
    return found


def _wants(state: ReaderState, name: str, version: str) -> bool:
    component = state.components.get(name)
    return component is not None and component.wanted == version


def _serves(release: Release, state: ReaderState) -> bool:
    """Whether a process has worked through a release and serves all of it that only canaries do."""
    theirs = release.tried.keys() & state.components.keys()
    return (
        state.release >= release.number
        and bool(theirs)
        and all(state.components[name].version == release.tried[name] for name in theirs)
    )
