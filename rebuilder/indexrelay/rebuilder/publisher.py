"""From verified versions to the next release, the only commit point; and its announcement.

No lock is needed. The release file is created only if its number is free. Of two publishers one
wins; the other looks again at what is released now and keeps only those of its versions that are
still newer. A publisher that was stopped during three releases changes nothing when it goes on.

A group is moved whole or left whole: see `indexrelay.rebuilder.release_groups`. A component that is
declared a member counts as one from the first release in which it agrees with the others. One that
left a group, or the settings, leaves at once, unless another rebuilder that runs still declares it
and would build it again; then it stays, outside of groups, until that one is started again.

Where ``releases.canary_readers`` says so, a release that changes what is served is for few readers
first, and says what the others serve meanwhile. What nobody serves yet, and is in no group, is for
everyone at once. `indexrelay.rebuilder.rollout` promotes the release, or takes it back.

A release stands from the moment its file exists. Announcing it saves readers the wait for their
next poll; one that could not be announced is announced by the reconcile loop.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from indexrelay.health.due import GroupWait
from indexrelay.rebuilder.release_groups import Candidate, Choice, Chooser, groups_in_order
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import (
    Event,
    EventData,
    RebuildFinished,
    RebuildResult,
    ReleasePublished,
    fitted_result,
)
from indexrelay.schemas.names import MAX_ERROR, shortened
from indexrelay.schemas.versions import (
    Canary,
    Definitions,
    Hold,
    Release,
    VersionManifest,
    disagreements,
    groups_of,
    in_order,
)
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore, ReleaseExistsError
from indexrelay.streams import (
    Connection,
    Keys,
    announce,
    publish,
)

_NEWEST: Final = 5
"""How many of a component's versions are looked at: one that waits for its group is among the
last."""
_log = get_logger(__name__)


Canaries = Callable[[int, AbstractSet[str]], tuple[str, ...]]
"""Who takes the release of a number, in which these components change, first: labels of readers."""


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What was published."""

    release: Release | None = None
    """``None``: there was nothing to change."""
    waiting: Mapping[str, GroupWait] = field(default_factory=dict)
    """By component: what was built and is not released, because its group waits, and for whom."""
    kept: AbstractSet[str] = frozenset()
    """Components of which the release has a version that was built, and checked, earlier."""


class Publisher:
    """Commits releases to one artifact store.

    Of several publishers with different definitions the one that was made last decides: what
    others built or grouped since then is left as it is.
    """

    def __init__(
        self,
        *,
        store: ArtifactStore,
        clock: Clock,
        since: datetime | None = None,
        by: str = "",
        elsewhere: Callable[[], AbstractSet[str]] = frozenset,
        canaries: Canaries = lambda _number, _changed: (),
    ) -> None:
        """Publish to ``store``.

        Args:
            since: when the settings were read; ``None``: now. A release that is newer than they are
                may follow others.
            by: the author that the releases name.
            elsewhere: the components that running rebuilders declare; asked only where something
                would leave the release.
            canaries: the labels of the readers that take the release of a number, in which these
                components change, first; none: it is for everyone.
        """
        self._canaries = canaries
        self._store = store
        self._by = by
        self._elsewhere = elsewhere
        self._clock = clock
        self._since = since or clock.now()

    def publish(
        self,
        built: Mapping[str, VersionManifest],
        *,
        definitions: Definitions,
        anyway: AbstractSet[str] = frozenset(),
        reason: str,
    ) -> Publication:
        """Release what is newer than what is released, as far as it leaves every group whole.

        Components that are no longer defined leave, and groups that changed are changed. Where
        nothing is defined any more the release is an empty one.

        Args:
            anyway: components whose new version replaces one that covers just as much, because
                someone asked for it, the released files are corrupt, or its kind makes it in
                another way since.

        Raises:
            ArtifactError: the store cannot be read or written; nothing was released.
        """
        while True:
            draft = _Draft(self._store, definitions, since=self._since, elsewhere=self._elsewhere)
            choice = draft.choose(draft.newer(built, anyway))
            number = self._store.next_number()
            release = Release(
                number=number,
                components=draft.components(choice.chosen),
                groups=draft.groups(choice.chosen),
                holds=draft.holds(choice.chosen),
                created_at=self._clock.now(),
                by=self._by,
                reason=shortened(reason, MAX_ERROR),
                previous=draft.current.number if draft.current is not None else 0,
            )
            if draft.is_unchanged(release):
                return Publication(waiting=choice.waiting)
            release = draft.with_canary(release, choose=self._canaries)
            try:
                committed = self._store.commit_release(release)
            except ReleaseExistsError:
                _log.info("release.contended", release=number)
            else:
                kept = choice.chosen.keys() - built.keys()
                return Publication(release=committed, waiting=choice.waiting, kept=frozenset(kept))


class _Draft:
    """The next release, against the one that is the newest now."""

    def __init__(
        self,
        store: ArtifactStore,
        definitions: Definitions,
        *,
        since: datetime,
        elsewhere: Callable[[], AbstractSet[str]],
    ) -> None:
        """``since``: when the definitions were taken up; ``elsewhere``: see `Publisher`."""
        self._store = store
        self._definitions = definitions
        self._since = since
        self.current = store.newest_release()
        self._before = self.current.components if self.current is not None else {}
        self._held = self.current.holds if self.current is not None else {}
        leaving = {
            name
            for name, version in self._before.items()
            if name not in definitions and not self._is_recent(name, version)
        }
        self._lent = leaving & elsewhere() if leaving else frozenset[str]()
        """What is no longer declared here, and stays because another rebuilder declares it. It is
        in no group: no build here brings it to the state of the others."""
        self._staying = {
            name: version
            for name, version in self._before.items()
            if name not in leaving or name in self._lent
        }
        """What is released and stays, at this version or another."""

    def newer(
        self, built: Mapping[str, VersionManifest], anyway: AbstractSet[str]
    ) -> dict[str, VersionManifest]:
        """Those of the built versions that may replace what is released now."""
        after = dict(self._before)
        newer = {}
        # Parents first: a child whose parent was overtaken must not come in on its account.
        for name in in_order(self._definitions):
            mine = built.get(name)
            if mine is None:
                continue
            released_id = self._before.get(name)
            released = self._released(name, released_id) if released_id is not None else None
            # Nothing released yet, or nothing readable: anything whole is better.
            if released is None or (
                not self._is_later(mine, released)
                and mine.id != released_id
                and _replaces(mine, released, after, self._held.get(name), name in anyway)
            ):
                newer[name] = mine
                after[name] = mine.id
        return newer

    def choose(self, newer: Mapping[str, VersionManifest]) -> Choice:
        """What of the newer versions may be released and leaves every group whole."""
        candidates = {
            name: Candidate(component=name, id=manifest.id, manifest=manifest)
            for name, manifest in newer.items()
        }
        members = {group: set(names) for group, names in groups_of(self._definitions).items()}
        if self.current is not None and self.current.created_at > self._since:
            # A publisher that took up settings after us may have more in a group than we know of.
            for name in self._staying.keys() & self.current.groups.keys() - self._lent:
                members.setdefault(self.current.groups[name], set()).add(name)
        groups = {group: sorted(names) for group, names in members.items() if len(names) > 1}
        if not candidates or not groups:
            return Choice(chosen=candidates)
        released = {
            name: None
            if (manifest := self._released(name, version)) is None
            else Candidate(component=name, id=version, manifest=manifest)
            for name, version in self._staying.items()
        }
        chooser = Chooser(
            definitions=self._definitions,
            groups=groups_in_order(groups, self._definitions),
            released=released,
            holds={name: hold.reason for name, hold in self._held.items()},
            kept=lambda name: self._kept(name, released.get(name)),
        )
        return chooser.choose(candidates)

    def components(self, chosen: Mapping[str, Candidate]) -> dict[str, str]:
        """The version of each component."""
        return {**self._staying, **{name: candidate.id for name, candidate in chosen.items()}}

    def groups(self, chosen: Mapping[str, Candidate]) -> dict[str, str]:
        """By component: its group, as defined here, or as a later publisher has it.

        A new member joins in the first release in which all of the group agrees: a reader must not
        take for a group what is of two states.
        """
        current, definitions = self.current, self._definitions
        components = {
            name: version
            for name, version in self.components(chosen).items()
            if name not in self._lent
        }
        before = current.groups if current is not None else {}
        later = current is not None and current.created_at > self._since
        moved = {definitions[name].group for name in chosen} - {None}
        known = self._before.keys() - chosen if later else set()
        wanted = {
            name: before.get(name)
            if name not in definitions or (name in known and definitions[name].group not in moved)
            else definitions[name].group
            for name in components
        }
        groups: dict[str, str] = {}
        for name, group in wanted.items():
            if group is None:
                continue
            mates = [other for other in components if wanted[other] == group]
            if before.get(name) == group or self._agree(mates, components, chosen):
                groups[name] = group
        return groups

    def holds(self, chosen: Mapping[str, Candidate]) -> dict[str, Hold]:
        """What is held already and not replaced."""
        return {
            name: hold
            for name, hold in self._held.items()
            if name in self._staying and name not in chosen
        }

    def is_unchanged(self, release: Release) -> bool:
        """Whether ``release`` says what is released already, or nothing at all."""
        current = self.current
        if current is None:
            return not release.components
        return (
            current.components == release.components
            and current.groups == release.groups
            and current.holds == release.holds
        )

    def with_canary(self, release: Release, *, choose: Canaries) -> Release:
        """The release with who takes it first, where it changes what is served.

        One that follows a canary which still waits is for the same readers, and their time begins
        again: the others stay where they are.
        """
        if self.current is None:
            return release
        before = self.current.canary
        if before is not None:
            readers = before.readers
        else:
            new = release.components.items() - self.current.components.items()
            readers = choose(release.number, {name for name, _ in new}) if new else ()
        if not readers:
            return release
        others = self.current.for_reader("")  # no reader has this label
        stays = {
            name: each for name, each in others.components.items() if name in release.components
        }
        alone = {
            name: version
            for name, version in release.components.items()
            if name not in self.current.components and name not in release.groups
        }
        canary = Canary(
            readers=readers,
            since=release.created_at,
            components={**alone, **stays},
            groups={name: each for name, each in others.groups.items() if name in stays},
            holds={name: each for name, each in others.holds.items() if name in stays},
            doubted={} if before is None else before.doubted,
        )
        tried = release.model_copy(update={"canary": canary})
        return tried if tried.tried else release

    def _kept(self, name: str, released: Candidate | None) -> list[Candidate]:
        """The versions that were built earlier, are whole, and were never released."""
        if name not in self._definitions:
            return []
        found = []
        for version_id in self._store.newest_versions(name, most=_NEWEST):
            try:
                manifest = self._store.version(name, version_id)
                waits = (
                    manifest.definition == self._definitions[name].digest
                    and (
                        released is None
                        or (
                            manifest.created_at >= released.manifest.created_at
                            and _replaces(
                                manifest,
                                released.manifest,
                                self._before,
                                self._held.get(name),
                                anyway=False,
                            )
                        )
                    )
                    and not self._store.was_released(name, version_id)
                )
                if waits:
                    self._store.open_version(name, version_id)
                    found.append(Candidate(component=name, id=version_id, manifest=manifest))
            except (ArtifactError, OSError) as error:
                _log.debug("version.not_kept", component=name, version=version_id, error=str(error))
        return found

    def _is_later(self, mine: VersionManifest, released: VersionManifest) -> bool:
        """Whether ``released`` follows other definitions, taken up after ours."""
        return mine.definition != released.definition and released.created_at > self._since

    def _is_recent(self, name: str, version_id: str) -> bool:
        """Whether a version was built since the definitions were taken up."""
        released = self._released(name, version_id)
        return released is not None and released.created_at > self._since

    def _agree(
        self, names: list[str], components: Mapping[str, str], chosen: Mapping[str, Candidate]
    ) -> bool:
        """Whether these components of a release are at one state."""
        manifests = {
            name: chosen[name].manifest
            if name in chosen
            else self._released(name, components[name])
            for name in names
        }
        readable = {name: each for name, each in manifests.items() if each is not None}
        return len(readable) == len(names) and not disagreements(readable, components)

    def _released(self, name: str, version_id: str) -> VersionManifest | None:
        """The manifest of a released version; ``None``: it cannot be read any more."""
        try:
            return self._store.version(name, version_id)
        except ArtifactError as error:
            _log.error("version.unreadable", component=name, version=version_id, error=str(error))
            return None


def _replaces(
    mine: VersionManifest,
    released: VersionManifest,
    after: Mapping[str, str],
    hold: Hold | None,
    anyway: bool,
) -> bool:
    """Whether ``mine`` may take the place of ``released``; ``after``: the versions beside it."""
    if hold is not None and hold.refused == mine.definition:
        return False  # readers refused what this definition makes
    if mine.definition != released.definition:
        return True
    if hold is not None:
        return False
    if mine.epochs != released.epochs:
        return True
    if any(mine.covers.get(name, -1) < covered for name, covered in released.covers.items()):
        return False
    fits_better = mine.parents != released.parents and all(
        after.get(parent) == version for parent, version in mine.parents.items()
    )
    return anyway or fits_better or mine.covers != released.covers


class Announcer:
    """Sends the messages of one rebuilder to readers, jobs and people."""

    def __init__(self, connection: Connection, keys: Keys, *, source: str, clock: Clock) -> None:
        self._connection = connection
        self._keys = keys
        self._source = source
        self._clock = clock

    def announce(
        self, release: Release, result: RebuildResult | None, *, traceparent: str | None = None
    ) -> None:
        """Reload message, result (if this is the first time) and release key, in one script.

        Args:
            release: what is announced.
            result: of the rebuild that made it; ``None``: it was reported before.
            traceparent: the trace context that both messages carry.

        Raises:
            redis.exceptions.RedisError: nothing was sent; the release stands.
        """
        failpoint("announce.before")
        published = ReleasePublished(
            release=release.number, digest=release.digest, components=release.components
        )
        announce(
            self._connection,
            self._keys,
            number=release.number,
            release_event=self._event(published, traceparent),
            result_event=None if result is None else self._event(_finished(result), traceparent),
        )
        failpoint("announce.after")
        _log.info("release.published", release=release.number)

    def report(self, result: RebuildResult, *, traceparent: str | None = None) -> None:
        """A result without a release.

        Args:
            result: of a rebuild.
            traceparent: the trace context that the message carries.

        Raises:
            redis.exceptions.RedisError: nothing was sent.
        """
        publish(self._connection, self._keys.results, self._event(_finished(result), traceparent))

    def _event(self, data: EventData, traceparent: str | None) -> bytes:
        now = self._clock.now()
        return Event.of(data, source=self._source, time=now, traceparent=traceparent).to_bytes()


def _finished(result: RebuildResult) -> RebuildFinished:
    return RebuildFinished.model_validate(fitted_result(result).model_dump())
