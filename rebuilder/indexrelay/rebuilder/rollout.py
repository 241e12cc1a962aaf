"""How a release reaches all readers, and how it is taken back: canaries, promotion, rollback.

**Canaries.** A release may be for few readers first (``releases.canary_readers``). It says itself
who they are and what the others serve meanwhile, so that no reader has to believe Redis, or any
other reader, about what to serve. The rebuilder looks at the presence of the canaries. Once each
of them has served the release for ``canary_seconds`` without a failure, the next release is the
same for everyone. A canary that refuses a version, of which a process dies, or that does not
serve it in time (``canary_load_seconds``) is in doubt: another reader takes its place, and the
time begins again. With the second in doubt the release is taken back, or with the first where
there is no other reader; it is held where it was refused, or killed two. So one reader with a
fault of its own, or one leaked password, neither stops a release nor takes it back. A reader that
is stopped is replaced without doubt. Nothing is built while a canary waits, and that has an end;
what comes meanwhile is built at once after it.

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
import math
from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from redis.exceptions import RedisError

from indexrelay.rebuilder.publisher import Announcer
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.gates import Doubt
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
    ReleaseExistsError,
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
class _Seen:
    """One process of a canary, by the monotonic clock."""

    updated_at: datetime
    """By its own clock; another one shows that it lives."""
    renewed: float
    """When that was seen to change."""
    last: float
    """When it was seen last."""


@dataclass
class _Watch:
    """What was seen of the canaries of one release."""

    number: int
    began: float
    """By the monotonic clock, as are the others."""
    processes: dict[str, _Seen] = field(default_factory=dict)
    """By member id."""
    there: dict[str, float] = field(default_factory=dict)
    """By label: when a process of it was seen last."""
    died: set[str] = field(default_factory=set)
    """Labels of which a process died."""
    serving_since: dict[str, float] = field(default_factory=dict)

    def note(self, label: str, processes: Mapping[str, ReaderState], *, now: float) -> None:
        """Note who is there under a label."""
        for member, state in processes.items():
            seen = self.processes.get(member)
            if seen is None or seen.updated_at != state.updated_at:
                seen = self.processes[member] = _Seen(state.updated_at, renewed=now, last=now)
            seen.last = now
        if processes:
            self.there[label] = now

    def note_missing(
        self, label: str, processes: Collection[str], *, longest_seconds: float
    ) -> None:
        """Note who is not there any more.

        A process that is stopped takes its presence along, and one that dies leaves it until it
        ends by itself. So one died that was seen without a renewal for ``longest_seconds``.
        """
        missing = {
            member
            for member in self.processes.keys() - set(processes)
            if split_member_id(member)[0] == label
        }
        for member in missing:
            seen = self.processes.pop(member)
            if seen.last - seen.renewed >= longest_seconds:
                self.died.add(label)


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
        watch = self._watch
        self._look_at(watch, canary, labels, unseen=unseen)
        refusing = _refusing(release.tried, labels)
        doubts: dict[str, tuple[Doubt, str]] = {}
        for label in canary.readers:
            if label in refusing:
                doubts[label] = Doubt.REFUSED, refusing[label]
            elif label in watch.died:
                doubts[label] = Doubt.DIED, "a process of it died"
        decided = None if doubts else self._promote_when_sure(release, canary, labels, watch)
        if decided is not None:
            return decided
        doubts = doubts or self._late(watch, canary)
        absent = set() if doubts else self._absent(watch, canary, unseen=unseen)
        if not doubts and not absent:
            return None
        return self._replace(release, canary, labels, doubts, absent=absent)

    def _look_at(
        self, watch: _Watch, canary: Canary, labels: Labels, *, unseen: Callable[[str], bool]
    ) -> None:
        now = self._clock.monotonic()
        for label in canary.readers:
            processes = labels.get(label, {})
            watch.note(label, processes, now=now)
            if not unseen(label):
                watch.note_missing(label, processes, longest_seconds=self._gone_seconds / 2)

    def _promote_when_sure(
        self, release: Release, canary: Canary, labels: Labels, watch: _Watch
    ) -> Release | None:
        now = self._clock.monotonic()
        for label in canary.readers:
            # Others under the label may be of another service, and serve none of it.
            trying = [
                state
                for state in labels.get(label, {}).values()
                if release.tried.keys() & state.components.keys()
            ]
            if trying and all(_serves(release, state) for state in trying):
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

    def _late(self, watch: _Watch, canary: Canary) -> dict[str, tuple[Doubt, str]]:
        """The canaries that had time to load the release and to serve it, and did not."""
        limits = self._limits
        waited = self._clock.monotonic() - watch.began
        if waited < limits.canary_load_seconds + limits.canary_seconds:
            return {}
        latest = watch.began + limits.canary_load_seconds
        why = f"it did not serve it within {limits.canary_load_seconds:g} s"
        return {
            label: (Doubt.LATE, why)
            for label in canary.readers
            if watch.serving_since.get(label, math.inf) > latest
        }

    def _absent(self, watch: _Watch, canary: Canary, *, unseen: Callable[[str], bool]) -> set[str]:
        """The canaries that were stopped, or never came, and are not back."""
        latest = self._clock.monotonic() - self._gone_seconds
        return {
            label
            for label in canary.readers
            if watch.there.get(label, watch.began) < latest and not unseen(label)
        }

    def _replace(
        self,
        release: Release,
        canary: Canary,
        labels: Labels,
        doubts: Mapping[str, tuple[Doubt, str]],
        *,
        absent: AbstractSet[str],
    ) -> Release | None:
        """Ask other readers, or take the release back.

        Args:
            release: the one that is tried.
            canary: who tries it.
            labels: the readers that are there.
            doubts: why some of the canaries are replaced.
            absent: those that are replaced without doubt.
        """
        doubted = canary.doubted | {label: doubt for label, (doubt, _) in doubts.items()}
        left = {*doubts, *absent}
        staying = tuple(each for each in canary.readers if each not in left)
        others = choose_canaries(
            labels,
            number=release.number,
            components=release.tried.keys(),
            count=len(canary.readers) - len(staying),
            without=(*staying, *doubted),
        )
        why = "; ".join(
            f"reader {label}: {reason}" for label, (_, reason) in sorted(doubts.items())
        )
        if len(doubted) >= _ENOUGH or (doubts and not others and not staying):
            kinds = list(doubted.values())
            refused, died = Doubt.REFUSED in kinds, kinds.count(Doubt.DIED) >= _ENOUGH
            how = "refused it" if refused else "died" if died else "did not serve it in time"
            return self._take_back(release, f"canaries {how}: {why}", held=refused or died)
        if not others and not staying:
            return None  # nobody is left who could try it; that has an end
        why = why or f"{', '.join(sorted(absent))} went away"
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
            # Whoever serves it, at any version: some may still load this one.
            asked = {
                label
                for label, processes in labels.items()
                if any(name in state.components for state in processes.values())
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
        try:
            taken = self._store.rollback(
                target,
                reason=why,
                components=[name],
                refused=definitions,
                decided_on=release.number,
            )
        except ReleaseExistsError:  # the next look decides on that one
            return None
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


def _serves(release: Release, state: ReaderState) -> bool:
    """Whether a process has worked through a release and serves all of it that only canaries do."""
    theirs = release.tried.keys() & state.components.keys()
    return (
        state.release >= release.number
        and bool(theirs)
        and all(state.components[name].version == release.tried[name] for name in theirs)
    )
