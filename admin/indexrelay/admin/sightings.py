"""What earlier looks have shown: since when something is not well, who was there, what was rebuilt.

A look knows its own moment only. This remembers the looks before it, in this process; what must
outlive it is derived from what is durable: when a component was last rebuilt, from the kept
releases, and since when something is not well, where a fact says so.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from indexrelay.health.status import Code, Problem
from indexrelay.operations.observer import Observation
from indexrelay.schemas.messages import ReaderState, RebuildResult
from indexrelay.schemas.versions import Release, VersionManifest
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore
from indexrelay.storage.errors import ReleaseUnreadableError, VersionUnreadableError

GONE_FOR: Final = timedelta(hours=1)
"""How long a reader that is there no more is shown."""
RELEASES: Final = 50
"""Kept releases in which a component's newest version is looked for."""
_VERSIONS: Final = 10_000
"""Those that are remembered as looked at; then it begins again."""
_COMPONENTS: Final = 100
"""Of a reader that is there no more."""
MOST_GONE: Final = 100
"""Readers that are there no more, of those that were seen last."""


@dataclass(frozen=True, kw_only=True)
class LastRebuild:
    """The newest version of a component that was released."""

    at: datetime
    entries: int


class LastRebuilds:
    """When each component was last rebuilt, by the kept releases; for use by one thread."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self._looked_at: set[int] = set()
        self._versions: set[tuple[str, str]] = set()
        self._found: dict[str, LastRebuild] = {}

    def of(
        self, newest: Release | None, versions: Mapping[str, VersionManifest]
    ) -> dict[str, LastRebuild]:
        """By component; what cannot be read is left out.

        Args:
            newest: the newest release.
            versions: what it names, as it was read.
        """
        for name, manifest in versions.items():
            self._note(name, manifest)
        if newest is not None and newest.number not in self._looked_at:
            numbers = self._store.release_numbers()[:RELEASES]  # the newest come first
            self._looked_at &= set(numbers)
            for number in numbers:
                self._look_at(number)
        return dict(self._found)

    def _look_at(self, number: int) -> None:
        if number in self._looked_at:
            return
        try:
            release = self._store.release(number)
            for name, version in sorted(release.versions - self._versions):
                with suppress(VersionUnreadableError):
                    self._note(name, self._store.version(name, version))
        except ReleaseUnreadableError:
            pass  # it stays so
        except (ArtifactError, OSError):
            return  # the store is away: at the next look
        else:
            self._versions = self._versions if len(self._versions) < _VERSIONS else set()
            self._versions |= release.versions
        self._looked_at.add(number)

    def _note(self, name: str, manifest: VersionManifest) -> None:
        known = self._found.get(name)
        if known is None or known.at < manifest.created_at:
            self._found[name] = LastRebuild(at=manifest.created_at, entries=manifest.entries)


@dataclass(frozen=True, kw_only=True)
class Since:
    """When something began."""

    at: datetime
    at_least: bool
    """Whether it may have begun before: nobody saw that it was not so."""


class Sightings:
    """What the looks before have shown; for use by one thread."""

    def __init__(self, store: ArtifactStore) -> None:
        self.rebuilds = LastRebuilds(store)
        self._since: dict[tuple[str, str | None], Since] = {}
        self._saw_all = False
        """Whether the look before saw everything, so that what was not there began after it."""
        self._readers: dict[str, ReaderState] = {}
        self._seen_at: dict[str, datetime] = {}
        """When each of them was seen here last: what it says of the time is not trusted."""
        self._result: RebuildResult | None = None
        self._ended: dict[tuple[datetime, datetime, str], datetime] = {}
        """When each result ended, at the latest when it was seen first: clocks may be ahead."""

    def since(self, problems: Sequence[Problem], seen: Observation) -> list[Since]:
        """Since when each is known; what is over is forgotten."""
        found: dict[tuple[str, str | None], Since] = {}
        for problem in problems:
            key = str(problem.code), problem.subject
            known = _known_since(problem, seen)
            first = self._since.get(key) or Since(at=seen.at, at_least=not self._saw_all)
            if known is not None:
                first = Since(at=min(first.at, known), at_least=False)
            found[key] = first
        self._since, self._saw_all = found, seen.complete
        return [found[str(each.code), each.subject] for each in problems]

    def gone(self, live: Mapping[str, ReaderState], now: datetime) -> dict[str, ReaderState]:
        """Readers that were there, are not any more, and have no successor under their label."""
        self._readers |= {member: _small(state) for member, state in live.items()}
        self._seen_at |= dict.fromkeys(live, now)
        labels = {state.label for state in live.values()}
        newest: dict[str, str] = {}
        for member in sorted(
            self._readers.keys() - live.keys(), key=lambda each: (self._seen_at[each], each)
        ):
            label = self._readers[member].label
            if self._seen_at[member] >= now - GONE_FOR and label not in labels:
                newest.pop(label, None)
                newest[label] = member
        kept = [*live, *list(newest.values())[-MOST_GONE:]]
        self._readers = {member: self._readers[member] for member in kept}
        self._seen_at = {member: self._seen_at[member] for member in kept}
        return {member: self._readers[member] for member in kept if member not in live}

    def last_result(self, seen: Observation) -> RebuildResult | None:
        """The result that ended last, of all that were seen."""
        told = [state.last_result for state in seen.facts.known_rebuilders.values()]
        results = [each for each in (*seen.results, *told) if each is not None]
        ended: dict[tuple[datetime, datetime, str], datetime] = {}
        for each in results:
            key = each.started_at, each.finished_at, each.message
            ended[key] = self._ended.get(key, min(each.finished_at, seen.at))
            known = self._result
            if known is None or ended[key] > known.finished_at:
                self._result = each.model_copy(update={"finished_at": ended[key]})
        self._ended = ended
        return self._result


def _small(state: ReaderState) -> ReaderState:
    """A state that is kept when its reader has gone: what it says may be large."""
    components = dict(list(state.components.items())[:_COMPONENTS])
    return state.model_copy(update={"components": components, "declares": None, "live": {}})


def _known_since(problem: Problem, seen: Observation) -> datetime | None:
    """Since when, where a fact says so."""
    health = seen.verdict.components.get(problem.subject or "")
    if health is None:
        return None
    match problem.code:
        case Code.COMPONENT_FAILED:
            return health.failing_since or health.failed_at
        case Code.COMPONENT_HELD | Code.RELEASE_ROLLED_BACK:
            return None if health.held is None else health.held.since
        case Code.COMPONENT_PAUSED:
            return None if health.paused is None else health.paused.since
        case Code.COMPONENT_BEHIND | Code.COMPONENT_MISSING:
            seconds = seen.freshness.get(problem.subject or "")
            return seen.at - timedelta(seconds=seconds) if seconds else None
    return None
