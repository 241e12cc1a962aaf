"""From verified versions to the next release: the only commit point of the pipeline.

No lock is needed. The release file is created only if its number is free; of two publishers one
wins, the other looks again at what is released now and keeps only those of its versions that are
still newer. A publisher that slept through three releases changes nothing by waking up.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from indexrelay.health.dependencies import Definitions, in_order
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.versions import Release, VersionManifest
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore, ReleaseExistsError

_log = get_logger(__name__)


class Publisher:
    """Commits releases to one artifact store.

    Of several publishers with different definitions the one that was made last decides: what
    others built or grouped since then is left as it is.
    """

    def __init__(self, *, store: ArtifactStore, clock: Clock, by: str = "") -> None:
        """``by``: who says so in the releases."""
        self._store = store
        self._by = by
        self._clock = clock
        self._since = clock.now()

    def publish(
        self,
        built: Mapping[str, VersionManifest],
        *,
        definitions: Definitions,
        anyway: AbstractSet[str] = frozenset(),
        reason: str,
    ) -> Release | None:
        """Release what is newer than what is released; ``None`` when nothing is.

        Components that are no longer defined, and groups that changed, are put right on the way.

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
            release = self._next(current, newer, definitions, reason)
            if current is not None and _same_content(current, release):
                return None
            if not release.components:
                return None
            try:
                return self._store.commit_release(release)
            except ReleaseExistsError:
                _log.info("release.contended", release=release.number)

    def _next(
        self,
        current: Release | None,
        newer: Mapping[str, VersionManifest],
        definitions: Definitions,
        reason: str,
    ) -> Release:
        before = current.components if current is not None else {}
        holds = current.holds if current is not None else {}
        components = {
            name: version
            for name, version in before.items()
            if name in definitions or self._is_recent(name, version)
        }
        components |= {name: manifest.id for name, manifest in newer.items()}
        return Release(
            number=self._store.next_number(),
            components=components,
            groups={
                name: group
                for name in components
                if (group := self._group(name, current, definitions)) is not None
            },
            holds={
                name: hold
                for name, hold in holds.items()
                if name in components and name not in newer
            },
            created_at=self._clock.now(),
            by=self._by,
            reason=reason,
            previous=current.number if current is not None else 0,
        ).sealed()

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

    def _group(self, name: str, current: Release | None, definitions: Definitions) -> str | None:
        """The group of a component: as defined here, or as a later publisher has it."""
        if current is not None and name in current.components:
            later = current.created_at > self._since
            if later or name not in definitions:
                return current.groups.get(name)
        return definitions[name].group

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
