"""From verified versions to the next release, the only commit point; and its announcement.

No lock is needed. The release file is created only if its number is free. Of two publishers one
wins; the other looks again at what is released now and keeps only those of its versions that are
still newer. A publisher that was stopped during three releases changes nothing when it goes on.

A group is moved whole or left whole: see `indexrelay.rebuilder.release_groups`. A component that is
declared a member counts as one from the first release in which it agrees with the others. One that
left a group, or the settings, leaves at once, unless another rebuilder that runs still declares it
and would build it again; then it stays, outside of groups, until that one is started again.

A release stands from the moment its file exists. Announcing it saves readers the wait for their
next poll; one that could not be announced is announced by the reconcile loop.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
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
    Definitions,
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
    current_release,
    publish,
)

_NEWEST: Final = 5
"""How many of a component's versions are looked at: what waits for its group is among the last."""
_log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What came of publishing."""

    release: Release | None = None
    """``None``: there was nothing to change."""
    waiting: Mapping[str, GroupWait] = field(default_factory=dict)
    """By component: what was built and is not released, because its group waits, and for whom."""
    kept: AbstractSet[str] = frozenset()
    """Components of which the release has a version that was built, and checked, earlier."""


@dataclass(frozen=True, kw_only=True)
class _Staying:
    """What of a release is in the next one as well, at this version or another."""

    components: Mapping[str, str]
    lent: AbstractSet[str]
    """Those that are declared no longer, and stay because another rebuilder declares them. They are
    in no group: nobody here brings them to the state of the others."""


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
        by: str = "",
        elsewhere: Callable[[], AbstractSet[str]] = frozenset,
    ) -> None:
        """Publish to ``store``.

        Args:
            by: who says so in the releases.
            elsewhere: the components that rebuilders declare which run now; asked only where
                something would leave the release.
        """
        self._store = store
        self._by = by
        self._elsewhere = elsewhere
        self._clock = clock
        self._since = clock.now()

    def publish(
        self,
        built: Mapping[str, VersionManifest],
        *,
        definitions: Definitions,
        anyway: AbstractSet[str] = frozenset(),
        reason: str,
    ) -> Publication:
        """Release what is newer than what is released, as far as it leaves every group whole.

        Components that are no longer defined, and groups that changed, are put right on the way.
        Where nothing is defined any more the release is an empty one.

        Args:
            anyway: components whose new version replaces one that covers just as much, because
                someone asked for it, the released files are damaged, or its kind makes it
                otherwise since.

        Raises:
            ArtifactError: the store cannot be read or written; nothing was released.
        """
        while True:
            current = self._store.newest_release()
            newer = self._newer(built, current, definitions, anyway)
            staying = self._staying(current, definitions)
            choice = self._choice(newer, current, staying, definitions)
            release = self._next(current, staying, choice.chosen, definitions, reason)
            unchanged = current is not None and _same_content(current, release)
            if unchanged or (current is None and not release.components):
                return Publication(waiting=choice.waiting)
            try:
                committed = self._store.commit_release(release)
            except ReleaseExistsError:
                _log.info("release.contended", release=release.number)
            else:
                kept = choice.chosen.keys() - built.keys()
                return Publication(release=committed, waiting=choice.waiting, kept=frozenset(kept))

    def _next(
        self,
        current: Release | None,
        staying: "_Staying",
        chosen: Mapping[str, Candidate],
        definitions: Definitions,
        reason: str,
    ) -> Release:
        holds = current.holds if current is not None else {}
        new = {name: candidate.id for name, candidate in chosen.items()}
        components = {**staying.components, **new}
        declared = {name: each for name, each in components.items() if name not in staying.lent}
        return Release(
            number=self._store.next_number(),
            components=components,
            groups=self._groups(current, declared, chosen, definitions),
            holds={
                name: hold
                for name, hold in holds.items()
                if name in components and name not in chosen
            },
            created_at=self._clock.now(),
            by=self._by,
            reason=shortened(reason, MAX_ERROR),
            previous=current.number if current is not None else 0,
        ).sealed()

    def _staying(self, current: Release | None, definitions: Definitions) -> "_Staying":
        """What is released and stays, at this version or another: what is still defined."""
        before = current.components if current is not None else {}
        leaving = {
            name
            for name, version in before.items()
            if name not in definitions and not self._is_recent(name, version)
        }
        lent = leaving & self._elsewhere() if leaving else frozenset[str]()
        components = {
            name: version for name, version in before.items() if name not in leaving or name in lent
        }
        return _Staying(components=components, lent=frozenset(lent))

    def _choice(
        self,
        newer: Mapping[str, VersionManifest],
        current: Release | None,
        staying: "_Staying",
        definitions: Definitions,
    ) -> Choice:
        """What of the newer versions may be released without tearing a group."""
        if not newer:
            return Choice()
        members = {group: set(names) for group, names in groups_of(definitions).items()}
        if current is not None and current.created_at > self._since:
            # Whoever took up settings after us may have more in a group than we know of.
            for name in staying.components.keys() & current.groups.keys() - staying.lent:
                members.setdefault(current.groups[name], set()).add(name)
        released = {
            name: None
            if (manifest := self._released(name, version)) is None
            else Candidate(component=name, id=version, manifest=manifest)
            for name, version in staying.components.items()
        }
        holds = {} if current is None else current.holds
        chooser = Chooser(
            definitions=definitions,
            groups=groups_in_order(
                {group: sorted(names) for group, names in members.items() if len(names) > 1},
                definitions,
            ),
            released=released,
            holds={name: hold.reason for name, hold in holds.items()},
            kept=lambda name: self._kept(name, released.get(name), current, definitions),
        )
        return chooser.choose(
            {
                name: Candidate(component=name, id=manifest.id, manifest=manifest)
                for name, manifest in newer.items()
            }
        )

    def _kept(
        self,
        name: str,
        released: Candidate | None,
        current: Release | None,
        definitions: Definitions,
    ) -> list[Candidate]:
        """The versions that were built earlier, are whole, and were never released."""
        if name not in definitions:
            return []
        held = current is not None and name in current.holds
        after = {} if current is None else current.components
        found = []
        for version_id in self._store.newest_versions(name, most=_NEWEST):
            try:
                manifest = self._store.version(name, version_id)
                waits = (
                    manifest.definition == definitions[name].digest
                    and (
                        released is None
                        or (
                            manifest.created_at >= released.manifest.created_at
                            and _replaces(manifest, released.manifest, after, held, anyway=False)
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

    def _newer(
        self,
        built: Mapping[str, VersionManifest],
        current: Release | None,
        definitions: Definitions,
        anyway: AbstractSet[str],
    ) -> dict[str, VersionManifest]:
        """Those of the built versions that may replace what is released now."""
        before = current.components if current is not None else {}
        after = dict(before)
        newer = {}
        # Parents first: a child whose parent was overtaken must not come in on its account.
        for name in in_order(definitions):
            mine = built.get(name)
            if mine is None:
                continue
            released_id = before.get(name)
            released = self._released(name, released_id) if released_id is not None else None
            held = current is not None and name in current.holds
            # Nothing released yet, or nothing readable: anything whole is better.
            if released is None or (
                not self._is_later(mine, released)
                and mine.id != released_id
                and _replaces(mine, released, after, held, name in anyway)
            ):
                newer[name] = mine
                after[name] = mine.id
        return newer

    def _is_later(self, mine: VersionManifest, released: VersionManifest) -> bool:
        """Whether ``released`` follows other definitions, taken up after ours."""
        return mine.definition != released.definition and released.created_at > self._since

    def _is_recent(self, name: str, version_id: str) -> bool:
        """Whether a version was built since this publisher was made."""
        released = self._released(name, version_id)
        return released is not None and released.created_at > self._since

    def _groups(
        self,
        current: Release | None,
        components: Mapping[str, str],
        chosen: Mapping[str, Candidate],
        definitions: Definitions,
    ) -> dict[str, str]:
        """By component: its group, as defined here, or as a later publisher has it.

        Who is new to a group joins it in the first release in which all of it agrees: a reader must
        not take for a group what is of two states.
        """
        before = current.groups if current is not None else {}
        later = current is not None and current.created_at > self._since
        moved = {definitions[name].group for name in chosen} - {None}
        known = current.components.keys() - chosen if current is not None and later else set()
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
    held: bool,
    anyway: bool,
) -> bool:
    """Whether ``mine`` may take the place of ``released``; ``after``: the versions beside it."""
    if mine.definition != released.definition:
        return True
    if held:
        return False
    if mine.epochs != released.epochs:
        return True
    if any(mine.covers.get(name, -1) < covered for name, covered in released.covers.items()):
        return False
    fits_better = mine.parents != released.parents and all(
        after.get(parent) == version for parent, version in mine.parents.items()
    )
    return anyway or fits_better or mine.covers != released.covers


def _same_content(current: Release, release: Release) -> bool:
    return (
        current.components == release.components
        and current.groups == release.groups
        and current.holds == release.holds
    )


class Announcer:
    """Speaks for one rebuilder."""

    def __init__(self, connection: Connection, keys: Keys, *, source: str, clock: Clock) -> None:
        self._connection = connection
        self._keys = keys
        self._source = source
        self._clock = clock

    def announce(self, release: Release, result: RebuildResult | None) -> None:
        """Reload message, result (if this is the first time) and release key, in one script.

        Raises:
            redis.exceptions.RedisError: nobody was told; the release stands.
        """
        failpoint("announce.before")
        announce(
            self._connection,
            self._keys,
            number=release.number,
            release_event=self._event(_published(release)),
            result_event=None if result is None else self._event(_finished(result)),
        )
        failpoint("announce.after")
        _log.info("release.published", release=release.number)

    def report(self, result: RebuildResult) -> None:
        """A result without a release.

        Raises:
            redis.exceptions.RedisError: nobody was told.
        """
        publish(self._connection, self._keys.results, self._event(_finished(result)))

    def is_behind(self, release: Release) -> bool:
        """Whether Redis knows less than the store: after a failed announcement, or emptied."""
        return current_release(self._connection, self._keys) < release.number

    def _event(self, data: EventData) -> bytes:
        return Event.of(data, source=self._source, time=self._clock.now()).to_bytes()


def _published(release: Release) -> ReleasePublished:
    return ReleasePublished(
        release=release.number, digest=release.digest, components=release.components
    )


def _finished(result: RebuildResult) -> RebuildFinished:
    return RebuildFinished.model_validate(fitted_result(result).model_dump())
