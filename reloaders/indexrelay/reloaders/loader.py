"""Works through one release: each changed component is loaded by itself, and the good ones flip.

A load that fails costs nobody else anything, and the component keeps its last good version. Only
the members of a group wait for each other. A failure that may pass is tried again with growing
waits; any other is remembered by its version, and not tried until another version is named or its
files are replaced (restore a damaged blob from a backup, and every reader takes it up by itself).

What is served may turn out to be damaged (`indexrelay.reloaders.scrubber`). It is loaded again,
which is enough where its files were replaced by good ones. Where that fails, it is not served any
longer: the newest earlier version that is whole stands in (`indexrelay.reloaders.fallback`), as
it does for a reader that starts and has no last good version; and if there is none, there is no
answer rather than a wrong one.

While it loads, a newer release may arrive. What that names differently and was not loaded yet is
`superseded`: left for the next round, where it comes first, so that a component whose versions
follow faster than others load gets its turn.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from indexrelay.reloaders.fallback import StandIns
from indexrelay.reloaders.opener import Opener
from indexrelay.reloaders.plan import Part, parts_of
from indexrelay.reloaders.retry import Failures
from indexrelay.reloaders.scrubber import Doubt
from indexrelay.reloaders.snapshot import Contents, ServedComponent
from indexrelay.schemas import commands
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.versions import Release
from indexrelay.storage.artifacts import ArtifactStore, StoreAccessError

log = get_logger(__name__)


@dataclass
class Round:
    """What became of the components in one round."""

    contents: Contents
    """What to serve from now on."""
    applied: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    fell_back: list[str] = field(default_factory=list)
    """Served at an earlier version than before, or than the release names."""
    failed: dict[str, str] = field(default_factory=dict)
    """By component: why; the ones that are waiting for another try are among them."""
    superseded: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether something else is to be served."""
        return bool(self.applied or self.dropped or self.fell_back)


class Loader:
    """Loads what a release names; used by one thread at a time."""

    def __init__(
        self,
        opener: Opener,
        store: ArtifactStore,
        *,
        failures: Failures,
        chosen: Collection[str] | None,
        clock: Clock,
    ) -> None:
        self._opener = opener
        self._stand_ins = StandIns(opener, store)
        self._store = store
        self._failures = failures
        self._chosen = chosen
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """Know of no failure, so that everything is tried at the next round."""
        self._failures.forget()
        self._doubts: dict[str, Doubt] = {}
        self._first: set[str] = set()
        self.retry_at: float | None = None
        """When a failed part may be tried again, by the monotonic clock; ``None``: none may."""

    def try_again(self) -> None:
        """Let everything that failed be tried at the next look, however it failed."""
        if self._failures.try_again():
            self.retry_at = self._clock.monotonic()

    def notice_repairs(self) -> None:
        """Let what failed for good be tried again where its files were replaced since."""
        if self._failures.notice_repairs():
            self.retry_at = self._clock.monotonic()

    def doubt(self, doubt: Doubt, current: Contents) -> None:
        """Load something again at the next look, because its files are not what they were."""
        name = doubt.served.name
        known = self._doubts.get(name)
        if current.components.get(name) is not doubt.served or (
            known is not None and known.served is doubt.served and known.wrong >= doubt.wrong
        ):
            return
        self._doubts[name] = doubt
        self.retry_at = self._clock.monotonic()
        log.error(
            "component.damaged",
            component=name,
            version=doubt.served.version,
            error=doubt.reason,
            answers="may be wrong, and end now" if doubt.wrong else "are right, from memory",
            advice="a running rebuilder builds it anew, unless it is held or paused; "
            f"or: {commands.rebuild(name)}",
        )

    def parts(self, release: Release, current: Contents) -> list[Part]:
        """Every part of the release; the ones whose turn it is come first."""
        parts = parts_of(release, current, self._chosen, doubted=self._doubts)
        return sorted(parts, key=lambda part: self._first.isdisjoint(part.changed))

    def work_through(self, release: Release, current: Contents, parts: Iterable[Part]) -> Round:
        """Load what changed and may be tried; say what came of every component that changed."""
        components = dict(current.components)
        groups = dict(current.groups)
        result = Round(contents=current)
        retries: list[float | None] = []
        loads = 0
        for part in parts:
            if not part.changed:
                self._settle(part, components, groups, release)
            elif not self._failures.may_try(part):
                result.failed |= self._failures.reasons(part)
                retries.append(self._failures.retry_at(part))
                self._make_do(part, release, components, groups, result)
            elif loads and self._superseded(part, release):
                result.superseded += part.changed
            else:
                loads += 1
                loaded = self._load(part, current, result)
                if loaded is None:
                    retries.append(self._failures.retry_at(part))
                    self._make_do(part, release, components, groups, result)
                else:
                    components |= loaded
                    self._settle(part, components, groups, release)
                    result.applied += loaded
                    result.dropped += (name for name in part.changed if name not in loaded)
        self._first = set(result.superseded)
        self.retry_at = min((at for at in retries if at is not None), default=None)
        self._failures.keep(result.failed)
        self._doubts = {
            name: doubt
            for name, doubt in self._doubts.items()
            if components.get(name) is doubt.served
        }
        result.contents = Contents(
            release=release.number, digest=release.digest, components=components, groups=groups
        )
        return result

    def _settle(
        self,
        part: Part,
        components: dict[str, ServedComponent],
        groups: dict[str, str],
        release: Release,
    ) -> None:
        """The part is as the release wants it: drop what left, and take over the groups."""
        for name, version in part.wanted.items():
            groups.pop(name, None)
            if version is None:
                components.pop(name, None)
            elif name in release.groups:
                groups[name] = release.groups[name]

    def _make_do(
        self,
        part: Part,
        release: Release,
        components: dict[str, ServedComponent],
        groups: dict[str, str],
        result: Round,
    ) -> None:
        """Serve what is good instead of what is not there or damaged, if that is how it is."""
        wrong = [
            name for name in part.wanted if name in components and self._is_wrong(components[name])
        ]
        # A member that just joined, and cannot be loaded, changes nothing of what is served.
        served = [name for name, version in part.wanted.items() if version and name in components]
        if served and not wrong:
            return
        found = self._stand_ins.find(part, release, components, is_wrong=self._is_wrong)
        if found is not None:
            components |= found
            groups |= {name: release.groups[name] for name in found if name in release.groups}
            result.fell_back += found
            # Who left the release stays only as long as the others stay where they are.
            wrong = [name for name in part.wanted if name in components and name not in found]
        elif wrong:
            log.error("components.withdrawn", components=wrong, reason="no version is whole")
        for name in wrong:
            del components[name]
            groups.pop(name, None)
            result.dropped.append(name)

    def _good(self, served: ServedComponent | None) -> ServedComponent | None:
        """What a new version may share with: nothing that is in doubt."""
        return None if served is not None and served.name in self._doubts else served

    def _is_wrong(self, served: ServedComponent) -> bool:
        doubt = self._doubts.get(served.name)
        return doubt is not None and doubt.served is served and doubt.wrong

    def _superseded(self, part: Part, release: Release) -> bool:
        """Whether a newer release wants something else of this part."""
        try:
            newest = self._store.newest_release()
        except StoreAccessError as error:
            log.debug("release.newer_unknown", error=str(error))  # the next look says so aloud
            return False
        if newest is None or newest.number <= release.number:
            return False
        return any(newest.components.get(name) != part.wanted[name] for name in part.changed)

    def _load(
        self, part: Part, current: Contents, result: Round
    ) -> dict[str, ServedComponent] | None:
        """Load the changed members; ``None`` when one failed, and then none of them flips."""
        loaded: dict[str, ServedComponent] = {}
        for name in part.changed:
            version = part.wanted[name]
            if version is None:
                continue
            # Before the load: a repair in the middle of it must look like one afterwards.
            looks = self._store.version_looks(name, version)
            try:
                loaded[name] = self._opener.open(
                    name, version, serving=self._good(current.components.get(name))
                )
            except Exception as error:  # noqa: BLE001 - this component fails, and nothing else
                self._failed(name, version, looks, error, current)
            else:
                self._failures.succeeded(name)
        if self._failures.known(part):
            result.failed |= self._failures.reasons(part)
            return None
        for name, served in loaded.items():
            log.info(
                "component.reloaded",
                component=name,
                version=served.version,
                entries=served.manifest.entries,
                seconds=round(served.seconds, 6),
            )
        return loaded

    def _failed(
        self, name: str, version: str, looks: str, error: Exception, current: Contents
    ) -> None:
        failure = self._failures.remember(name, version, looks, error)
        served = current.components.get(name)
        log.error(
            "component.load_failed",
            component=name,
            version=version,
            serving=served.version if served is not None else None,
            error=failure.error,
            retry_in_seconds=None
            if failure.retry_at is None
            else failure.retry_at - self._clock.monotonic(),
        )
