"""Improves what serves when nothing else is to be built.

A kind may release first what is ready soonest (`Goal.QUICK`), and so may a compaction. The better
version is built behind it: by a thread and a child process of its own, at the lowest priority,
under a lease of its own. So new batches go on being built and released beside it, and no worker is
taken from them.

By the time it is built, what serves covers newer generations. A version that covers less is never
released, and a stream of batches without a pause would make every improvement worthless. So an
improvement is not released by whoever built it. It lies in the store, and each look at the facts
finds it there (`Improver.ready`). The next pass over its component, under the component's own
lease, continues it by the few changes since it was begun, and releases that. Where it cannot be
continued the pass goes on from what serves, and the improvement is given up.

What lies in the store is the truth: a rebuilder that restarts, or another one, finds an improvement
there and need not build it again.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

from indexrelay.components.registry import kind_class
from indexrelay.health.due import find_due
from indexrelay.health.facts import Facts, RetryPolicy
from indexrelay.health.improvements import find_failure, find_improvements
from indexrelay.health.survey import Survey
from indexrelay.rebuilder.builds import BuildCancelledError
from indexrelay.rebuilder.coalescer import Timer
from indexrelay.rebuilder.passes import ComponentBuilder
from indexrelay.rebuilder.scheduler import Leases
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import BuildOutcome, RebuildResult
from indexrelay.schemas.versions import VersionManifest
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore
from indexrelay.storage.catalog import Catalog

_log = get_logger(__name__)
_LOOK_SECONDS: Final = 30.0
"""How often the store is searched for what another rebuilder, or an earlier process, has built."""
_NEWEST: Final = 100
"""Versions of one component that are looked at there: under a stream of batches an improvement is
soon not among the last few."""


_BEGIN_SECONDS: Final = 1.0
"""How soon to ask again whether one may be begun."""
_PATIENCE_SECONDS: Final = 60.0
"""How long one waits for other builds to end. Where something is always built it would never begin,
and at the lowest priority it takes little from them."""


@dataclass(frozen=True, kw_only=True)
class Improvement:
    """One improvement that may be built now; its lease is held."""

    component: str
    reason: str
    facts: Facts


class Improver:
    """Finds what may be improved, builds it, and finds what was built.

    `begin` and `ready` are for the thread that looks at the facts; `run` for any one thread.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        store: ArtifactStore,
        survey: Survey,
        builder: ComponentBuilder,
        leases: Leases,
        retry_policy: RetryPolicy,
        clock: Clock,
    ) -> None:
        """``leases`` are those of improvements; what is passed in stays the caller's to close."""
        self._catalog = catalog
        self._store = store
        self._survey = survey
        self._builder = builder
        self._leases = leases
        self._retry_policy = retry_policy
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, VersionManifest]] = {}
        """By component: versions in the store that may be improvements."""
        self._looked_at: dict[str, float] = {}
        self.improving: tuple[str, ...] = ()
        """What is being improved now."""

    def ready(self, facts: Facts) -> dict[str, str]:
        """The better versions that are built and not released: see `Facts.improved`.

        Not while one that a pass could not take up cools down.
        """
        return {
            name: version
            for name in facts.improvable
            if name in facts.definitions
            and find_failure(name, facts, self._retry_policy) is None
            and (version := self._ready(name, facts, look=False)) is not None
        }

    def concerns(self, result: RebuildResult) -> bool:
        """Whether what was built may be improved."""
        return any(
            self._may_be_improved(name, component.version)
            for name, component in result.components.items()
            if component.outcome is BuildOutcome.REBUILT and component.version is not None
        )

    def begin(self) -> Improvement | None:
        """The next improvement, its lease taken; ``None``: there is none, or others build it.

        Raises:
            ArtifactError, CatalogVersionError, OSError, sqlalchemy.exc.SQLAlchemyError: the facts
                cannot be read.
        """
        facts = self._survey.of_builds()
        facts = replace(facts, improved=self.ready(facts))
        due = find_due(facts, self._retry_policy)
        for name, reason in find_improvements(facts, due, self._retry_policy).reasons.items():
            if not self._leases.take(name):
                continue
            # Under the lease: another rebuilder may have built it a moment ago.
            if self._ready(name, facts, look=True) is None:
                self.improving = (name,)
                return Improvement(component=name, reason=reason, facts=facts)
            self._leases.give_back([name])
        return None

    def run(self, improvement: Improvement) -> bool:
        """Build it; whether it is in the store now. A failure is recorded, and raises nothing."""
        name, facts = improvement.component, improvement.facts
        try:
            result = self._builder.improve(name, facts, improvement.reason)
            if result.outcome is not BuildOutcome.REBUILT or result.version is None:
                self._builder.improvement_failed(name, facts, result)
                return False
            built = self._store.version(name, result.version)
            with self._lock:
                self._known.setdefault(name, {})[result.version] = built
            self._succeeded(name)
        except BuildCancelledError:
            return False
        finally:
            self.improving = ()
            self._leases.give_back([name])
        _log.info(
            "improvement.built",
            component=name,
            version=result.version,
            seconds=round(result.seconds, 3),
        )
        return True

    def _ready(self, name: str, facts: Facts, *, look: bool) -> str | None:
        """The newest version in the store that makes what serves better; ``look``: search for it
        now, and not only every `_LOOK_SECONDS`."""
        served = facts.versions.get(name)
        if served is None or name not in facts.definitions:
            return None
        now = self._clock.monotonic()
        if look or now - self._looked_at.get(name, now - _LOOK_SECONDS) >= _LOOK_SECONDS:
            self._looked_at[name] = now
            self._search(name)
        with self._lock:
            known = list(self._known.get(name, {}).items())
        for version_id, built in sorted(known, key=lambda each: each[1].created_at, reverse=True):
            if self._improves(version_id, built, served, facts):
                return version_id
        return None

    def _search(self, name: str) -> None:
        """Look at the versions in the store that were written last."""
        found: dict[str, VersionManifest] = {}
        with self._lock:
            known = self._known.get(name, {})
        try:
            for version_id in self._store.newest_versions(name, most=_NEWEST):
                found[version_id] = known.get(version_id) or self._store.version(name, version_id)
        except (ArtifactError, OSError) as error:  # the next look meets the same store
            _log.debug("improvements.unknown", component=name, error=str(error))
        with self._lock:
            mine = self._known.get(name, {})
            # What was built here may not be among the last ones any more.
            self._known[name] = found | dict(list(mine.items())[-_NEWEST:])

    def _improves(
        self, version_id: str, built: VersionManifest, served: VersionManifest, facts: Facts
    ) -> bool:
        name = built.component
        if version_id in self._builder.given_up:
            return False
        released = {} if facts.release is None else facts.release.components
        try:
            return (
                built.definition == facts.definitions[name].digest == served.definition
                and built.epochs == served.epochs
                and built.parents == served.parents
                and all(released.get(parent) == each for parent, each in built.parents.items())
                and kind_class(built.kind).improves(built, served)
                and not self._store.was_released(name, version_id)
            )
        except Exception as error:  # noqa: BLE001 - a kind may be anybody's
            _log.debug("improvement.unknown", component=name, version=version_id, error=str(error))
            return False

    def _may_be_improved(self, name: str, version_id: str) -> bool:
        try:
            manifest = self._store.version(name, version_id)
            kind = kind_class(manifest.kind)
            return kind.has_quick_versions and kind.improvable(manifest) is not None
        except Exception as error:  # noqa: BLE001 - a kind may be anybody's; the next look shows it
            _log.debug("improvement.unknown", component=name, error=str(error))
            return False

    def _succeeded(self, name: str) -> None:
        """Forget earlier failures; a catalog that cannot be written is logged."""
        try:
            self._catalog.improvements.succeeded(name)
        except Exception as error:  # noqa: BLE001 - whatever the database raises
            _log.error("attempt.not_recorded", component=name, error=str(error))


class BackgroundImprovements:
    """Builds improvements on a thread of its own, one at a time: no other build waits for it."""

    def __init__(
        self, improver: Improver, *, changed: Callable[[], None], built: Callable[[], None]
    ) -> None:
        """Prepare; nothing is begun yet.

        Args:
            changed: called when one begins, and when it has ended.
            built: called when one is in the store.
        """
        self._improver = improver
        self._changed = changed
        self._built = built
        self._timer = Timer(_BEGIN_SECONDS)
        self._waiting_since: float | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="indexrelay-improve")

    def free(self, now: float, *, busy: bool) -> bool:
        """Whether none is built, and it is time to ask for one.

        Args:
            now: seconds on a monotonic clock.
            busy: whether something else is built.
        """
        if self._improver.improving:
            return False
        if self._waiting_since is None:
            self._waiting_since = now
        if busy and now - self._waiting_since < _PATIENCE_SECONDS:
            return False
        return self._timer.due(now)

    def begin(self) -> bool:
        """Begin one, if there is one; to be called by the thread that looks at the facts.

        Raises:
            ArtifactError, CatalogVersionError, OSError, sqlalchemy.exc.SQLAlchemyError: as
                `Improver.begin`.
        """
        improvement = self._improver.begin()
        self._waiting_since = None
        if improvement is None:
            return False
        self._thread.submit(self._run, improvement)
        return True

    def stop(self) -> None:
        """Return when the last one has ended, which the runner of builds cancels; safe twice."""
        self._thread.shutdown()

    def _run(self, improvement: Improvement) -> None:
        try:
            self._changed()
            if self._improver.run(improvement):
                self._built()
            self._changed()
        except Exception as error:  # noqa: BLE001 - what serves stays; another look begins it again
            _log.exception("improvement.failed", error=f"{type(error).__name__}: {error}")
