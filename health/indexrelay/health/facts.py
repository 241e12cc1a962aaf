"""What there is, at one moment: the facts that decide what is due and whether all is well.

Facts only, frozen. What could not be looked at stands in ``unknown`` with the reason: nothing is
concluded from it, and nothing that depends on it counts as well.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from indexrelay.components.kind import Improvable
from indexrelay.schemas.clock import backoff_seconds
from indexrelay.schemas.messages import ReaderState, RebuilderState, Role
from indexrelay.schemas.schedules import ScheduleSettings
from indexrelay.schemas.settings import (
    CatalogSource,
    CollectionSettings,
    ReaderSettings,
    RebuilderSettings,
    ReleaseSettings,
    TableSource,
)
from indexrelay.schemas.versions import Definitions, Hold, Release, VersionManifest
from indexrelay.storage.artifacts import ReleaseUnreadableError, ReleaseUntrustedError

if TYPE_CHECKING:  # a reader judges itself, and needs no SQLAlchemy
    from indexrelay.storage.catalog import (
        Attempt,
        ChangeCount,
        Collection,
        CollectionLog,
        DroppedLetters,
        Pause,
        ScheduleState,
    )
    from indexrelay.streams.leases import HeldLease
    from indexrelay.streams.repair import WrongKey
    from indexrelay.streams.retention import ServerMemory


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """The cool-down after each failure in a row, and when to stop trying."""

    cooldown_seconds: float
    max_cooldown_seconds: float
    max_consecutive_failures: int
    definitions: Definitions = field(default_factory=dict)
    """Components may have a first wait and a count of their own."""

    @classmethod
    def of(cls, limits: RebuilderSettings, definitions: Definitions) -> Self:
        """What the settings say."""
        return cls(
            cooldown_seconds=limits.failure_cooldown_seconds,
            max_cooldown_seconds=limits.max_failure_cooldown_seconds,
            max_consecutive_failures=limits.max_consecutive_failures,
            definitions=definitions,
        )

    def gives_up(self, attempt: "Attempt") -> bool:
        """Whether a component failed so often that it waits for something to change.

        What failed for a cause outside is tried for as long as that lasts, and counts all the same.
        """
        definition = self.definitions.get(attempt.component)
        own = None if definition is None else definition.max_consecutive_failures
        return attempt.failures >= (own or self.max_consecutive_failures)

    def rests_until(self, attempt: "Attempt", cooldown_seconds: float) -> datetime | None:
        """Until when a schedule leaves it alone; ``None``: it did not fail so often."""
        if not self.gives_up(attempt):
            return None
        return attempt.failed_at + timedelta(seconds=cooldown_seconds)

    def retry_at(self, attempt: "Attempt") -> datetime | None:
        """When the same build may be tried again; ``None``: not by itself any more.

        What failed for a cause outside, such as a full disk, is tried for as long as that lasts.
        Every rebuilder computes the same wait: it follows from the component and the count.
        """
        if not attempt.transient and self.gives_up(attempt):
            return None
        definition = self.definitions.get(attempt.component)
        own = None if definition is None else definition.failure_cooldown_seconds
        first = own or self.cooldown_seconds
        wait = backoff_seconds(
            attempt.failures,
            first=first,
            longest=max(first, self.max_cooldown_seconds),
            key=attempt.component,
        )
        return attempt.failed_at + timedelta(seconds=wait)


class Area(StrEnum):
    """A place where facts come from."""

    CATALOG = "catalog"
    ARTIFACTS = "artifacts"
    REDIS = "redis"


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """Why something could not be looked at, and what to do about it."""

    reason: str
    advice: str


@dataclass(frozen=True, kw_only=True)
class SourceFact:
    """What is committed to a collection."""

    epoch: str
    generation: int
    entries: int | None = None
    """How many there are; ``None``: a look does not count them."""
    log: "CollectionLog | None" = None
    """Which commits made the generations that are covered; ``None``: not looked at."""
    changed: "Mapping[int, ChangeCount]" = field(default_factory=dict)
    """By a generation that is covered: what changed since. Counted of live collections whose
    changes are not built at once."""

    def knows(self, manifest: VersionManifest, collection: str) -> bool:
        """Whether what a version covers of it, in the same epoch, is committed here."""
        covered = manifest.covers.get(collection, 0)
        if self.log is None:
            return covered <= self.generation
        return self.log.knows(covered, manifest.stamps.get(collection))

    def lost(self, manifest: VersionManifest, collection: str) -> bool:
        """Whether a version covers commits of it that the catalog had, and has not any more."""
        covered = manifest.covers.get(collection, 0)
        if manifest.epochs.get(collection) != self.epoch:
            return False
        if self.log is None:
            return covered > self.generation
        return self.log.lost(covered, manifest.stamps.get(collection))


@dataclass(frozen=True, kw_only=True)
class BackupsFact:
    """The backups of an installation that has them scheduled."""

    folder: str
    """Where they lie, seen from the host that looks."""
    max_age_seconds: float
    """The newest is to be younger."""
    newest_at: datetime | None = None
    """When it was begun; ``None``: there is none."""
    ahead: tuple[str, ...] = ()
    """The ids of those whose time is still to come."""
    unreadable: str | None = None
    """Why the folder cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Untaken:
    """Events that wait for a consumer, or that one took and did not acknowledge."""

    count: int
    seconds: float
    """For how long the oldest waits, or its consumer has read nothing."""
    consumer: str | None = None
    """The consumer that took them; ``None``: none yet."""


@dataclass(frozen=True, kw_only=True)
class RedisFacts:
    """What Redis shows. None of it is the truth about anything but who is there."""

    announced: int = 0
    """The newest release that was announced there; 0: none."""
    readers: Mapping[str, ReaderState | None] = field(default_factory=dict)
    """By presence; ``None``: in a form that is not understood here."""
    rebuilders: Mapping[str, RebuilderState | None] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)
    """What was found in the place of a state and does not count, and why; by its key, as in
    ``seconds_left``."""
    crowded: frozenset[str] = frozenset()
    """Labels with more processes than are looked at: ``reader:web``."""
    cut: frozenset[Role] = frozenset()
    """The roles that have more keys than there was time to find."""
    seconds_left: Mapping[str, float] = field(default_factory=dict)
    """For each of them, by its key: when its presence ends unless it is renewed."""
    untaken: tuple[Untaken, ...] = ()
    leases: "Mapping[str, HeldLease]" = field(default_factory=dict)
    """By component."""
    wrong_keys: "tuple[WrongKey, ...]" = ()
    """Keys that hold what is not ours; what should stand there is unknown."""
    unseen: frozenset[Role] = frozenset()
    """The roles whose presence was not looked at."""
    memory: "ServerMemory | None" = None
    """Its memory; ``None``: it cannot be read."""
    held: Mapping[str, int] = field(default_factory=dict)
    """Bytes that readers take there, by label; looked at where memory is short."""
    eviction: str | None = None
    """What the server does at its memory limit; ``None``: it cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that was found at one look."""

    definitions: Definitions
    collections: Mapping[str, CollectionSettings] = field(default_factory=dict)
    """As the settings declare them."""
    stored: "Mapping[str, Collection]" = field(default_factory=dict)
    """As the catalog has them, the undeclared ones among them."""
    sources: Mapping[str, SourceFact]
    """Collections that cannot be read at the moment are absent: nothing is due because of them."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Those collections, as far as something keeps them from being read: what."""
    attempts: "Mapping[str, Attempt]" = field(default_factory=dict)
    paused: "Mapping[str, Pause]" = field(default_factory=dict)
    failed_improvements: "Mapping[str, Attempt]" = field(default_factory=dict)
    """By component: builds that were to improve its version and failed."""
    dead_letters: int = 0
    dropped_letters: "DroppedLetters | None" = None
    """Events that could not be read either, and were not kept."""
    release: Release | None
    versions: Mapping[str, VersionManifest]
    """What the release names, as far as its files are whole."""
    corrupt: Mapping[str, str] = field(default_factory=dict)
    """Components whose released version does not pass a check of its files, with the reason."""
    outdated: Mapping[str, str] = field(default_factory=dict)
    """Components whose kind no longer makes what their released version is, with the reason."""
    improvable: Mapping[str, Improvable] = field(default_factory=dict)
    """Components whose released version may be improved, by their kind."""
    improved: Mapping[str, str] = field(default_factory=dict)
    """Components for which a better version is built and not released yet, with its id. Only a
    rebuilder looks for it."""
    other_catalogs: Mapping[str, str] = field(default_factory=dict)
    """Collections of which another catalog has one of the same name, and builds from it into these
    artifacts as well; each with a component of which that is so."""
    raising_kinds: Mapping[str, str] = field(default_factory=dict)
    """Components whose kind raises when it is asked that, with what it raises."""
    broken_releases: Mapping[int, str] = field(default_factory=dict)
    """Corrupt ones above the newest intact one, with the reason."""
    known_release: int | None = None
    """The highest number that a release ever had, by the catalog; ``None``: not looked at."""
    untrusted_releases: Mapping[int, str] = field(default_factory=dict)
    """Intact ones above the newest that is trusted, and why each is not."""
    highest_release: int = 0
    """The highest number that is taken in the store, intact or not."""
    redis: RedisFacts | None = None
    """``None``: not looked at, or unknown."""
    backups: BackupsFact | None = None
    """``None``: none are scheduled, or they were not looked at."""
    open_folders: tuple[str, ...] = ()
    """Folders of ours that every user of the host may enter."""
    unknown: Mapping[Area, Unknown] = field(default_factory=dict)
    requested: AbstractSet[str] = frozenset()
    scheduled: Mapping[str, float] = field(default_factory=dict)
    """Those of them that only schedules ask for: what is paused of these is left out, and what
    failed too often is left alone for so many seconds after its last failure."""
    asked_for_due: bool = False
    """Whether somebody asked for a rebuild of whatever is due: then nothing waits by the policy of
    its collection (`indexrelay.health.persistence`)."""
    not_deferred: AbstractSet[str] = frozenset()
    """Components that do not wait by the policy of their collection: open requests name them, or
    another one of their group cannot be built without them (`indexrelay.health.due.find_due`)."""
    schedules: Mapping[str, ScheduleSettings] = field(default_factory=dict)
    """As the settings declare them."""
    schedule_states: "Mapping[str, ScheduleState]" = field(default_factory=dict)
    """What operators decided of each."""
    max_live_entries: int = 10_000
    """Changed entries that readers lay over their release at most."""
    host: str = ""
    """The machine that looks: on another one the same path may lead elsewhere."""
    since: datetime
    """When these definitions were read: what was built later under others is left as it is."""
    now: datetime
    rebuilder: RebuilderSettings = field(default_factory=RebuilderSettings)
    """The settings of rebuilders: how failed builds are tried again, how soon events are taken."""
    reader: ReaderSettings = field(default_factory=ReaderSettings)
    """The settings of readers: how soon they follow."""
    releases: ReleaseSettings = field(default_factory=ReleaseSettings)
    """How a release reaches all readers."""

    @property
    def retry_policy(self) -> RetryPolicy:
        """How failed builds are tried again."""
        return RetryPolicy.of(self.rebuilder, self.definitions)

    @property
    def holds(self) -> Mapping[str, Hold]:
        """What the release holds."""
        return {} if self.release is None else self.release.holds

    @property
    def known_readers(self) -> dict[str, ReaderState]:
        """Those whose state is understood here."""
        found = {} if self.redis is None else self.redis.readers
        return {name: state for name, state in found.items() if state is not None}

    @property
    def known_rebuilders(self) -> dict[str, RebuilderState]:
        """Those whose state is understood here."""
        found = {} if self.redis is None else self.redis.rebuilders
        return {name: state for name, state in found.items() if state is not None}

    @property
    def has_rebuilder(self) -> bool | None:
        """Whether one runs; ``None``: unknown."""
        if self.redis is None or "rebuilder" in self.redis.unseen:
            return None
        return bool(self.redis.rebuilders)

    def unread_source(self, collection: str) -> str | None:
        """Why a table or folder has no generation yet; ``None``: the catalog keeps the entries."""
        settings = self.collections.get(collection)
        if settings is None or isinstance(settings.source, CatalogSource):
            return None
        kind = settings.source.kind
        if isinstance(settings.source, TableSource) and settings.source.updated_at_column is None:
            return f"no job has called batch_completed() for the {kind} of {collection} yet"
        return f"no rebuilder has read the {kind} of {collection} yet"

    def covering_lost(self, collection: str) -> dict[str, int]:
        """The released components that cover commits which the catalog lost, each with the
        generation that it covers; nothing is built from the collection until it is restored."""
        source = self.sources.get(collection)
        if source is None:
            return {}
        return {
            name: manifest.covers[collection]
            for name, manifest in self.versions.items()
            if collection in manifest.covers and source.lost(manifest, collection)
        }

    def served_version(self, name: str) -> str | None:
        """The id of a released version that is whole, as the release names it.

        Not computed from the manifest: another minor version writes more fields to disk, or fewer.
        """
        if self.release is None or name not in self.versions:
            return None
        return self.release.components.get(name)


def passed_over(broken: Mapping[int, ReleaseUnreadableError]) -> dict[str, Any]:
    """Why releases are not taken, as `Facts` has it: the corrupt ones, and those not trusted."""
    untrusted = {
        number: error.reason
        for number, error in broken.items()
        if isinstance(error, ReleaseUntrustedError)
    }
    corrupt = {number: str(each) for number, each in broken.items() if number not in untrusted}
    return {"broken_releases": corrupt, "untrusted_releases": untrusted}
