"""What the judge says: whether all is well, each problem with what to do, and each component.

One JSON document. `indexrelay status` shows all of it as a page; other commands show the part of it
that they are about.
"""

from collections.abc import Collection as Some
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final, Self

from pydantic import BaseModel, ConfigDict

from indexrelay.schemas.messages import ReaderState, RebuilderState
from indexrelay.schemas.names import Digest, Name
from indexrelay.schemas.settings import Metric
from indexrelay.schemas.versions import Generation


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True)


class Code(StrEnum):
    """What is wrong, for programs; the sentence beside it is for people and may change."""

    CATALOG_UNREADABLE = "catalog_unreadable"
    ARTIFACTS_UNREADABLE = "artifacts_unreadable"
    REDIS_UNREADABLE = "redis_unreadable"

    COLLECTION_CONFLICT = "collection_conflict"
    """The settings contradict what the catalog holds."""
    COLLECTION_GONE = "collection_gone"
    """Nothing is committed to it, and what was made of it is still released."""
    COLLECTION_OUTRUN = "collection_outrun"
    """A version covers more than is committed: the catalog went back in time."""
    CATALOGS_MIXED = "catalogs_mixed"
    """Another catalog is used with the same artifacts."""
    SOURCE_UNREADABLE = "source_unreadable"
    SOURCE_EMPTIED = "source_emptied"

    RELEASE_CORRUPT = "release_corrupt"
    RELEASE_UNTRUSTED = "release_untrusted"
    """Not signed by a key that the settings trust."""
    RELEASE_UNANNOUNCED = "release_unannounced"
    RELEASE_MADE_UP = "release_made_up"
    """Redis or a reader names a release that, by the catalog, was never committed here."""
    RELEASES_LOST = "releases_lost"
    """Redis or a reader knows of a later release than the artifacts have."""

    COMPONENT_FAILED = "component_failed"
    COMPONENT_CORRUPT = "component_corrupt"
    COMPONENT_MISSING = "component_missing"
    COMPONENT_CHANGED = "component_changed"
    COMPONENT_BEHIND = "component_behind"
    COMPONENT_UNDECLARED = "component_undeclared"
    COMPONENT_HELD = "component_held"
    CANARY_WAITS = "canary_waits"
    """A release is tried by canaries for longer than that may take, and nothing is built."""
    RELEASE_ROLLED_BACK = "release_rolled_back"
    """Readers refused a version, so that the one before it serves and is held."""
    COMPONENT_PAUSED = "component_paused"
    COMPONENT_NOT_SERVED = "component_not_served"
    KIND_RAISES = "kind_raises"
    """A kind cannot say whether what it made is outdated."""
    GROUP_WAITS = "group_waits"
    """Members of a group wait for another one that does not move."""
    GROUP_SPLIT = "group_split"
    """What is released of a group is not at one state."""

    NO_REBUILDER = "no_rebuilder"
    REBUILDER_UNREADABLE = "rebuilder_unreadable"
    REBUILDER_SILENT = "rebuilder_silent"
    REBUILDER_NOT_ALONE = "rebuilder_not_alone"
    LOCK_WAITS = "lock_waits"
    """A rebuilder waits for a lock for longer than it should."""
    REBUILDER_OTHER_SETTINGS = "rebuilder_other_settings"
    """It was started with other settings than those that are asked about."""

    NO_READER = "no_reader"
    READER_UNREADABLE = "reader_unreadable"
    READER_SILENT = "reader_silent"
    READER_BEHIND = "reader_behind"
    READER_LIVE_BEHIND = "reader_live_behind"
    """It lacks changes of a live collection, and waits for a release that has them."""
    READER_LOAD_FAILED = "reader_load_failed"
    READER_NOT_READY = "reader_not_ready"
    READER_SERVICE_SILENT = "reader_service_silent"
    """The event loop of its service stands still: it loads, and answers nobody."""
    READER_OTHER_SETTINGS = "reader_other_settings"
    SETTINGS_REFUSED = "settings_refused"
    """A process read its settings again, could not go on with them, and keeps those it had."""

    MEMBER_DROPPED = "member_dropped"
    """In the place of a process's state is what is not its own, or far too large."""
    FOREIGN_WRITES = "foreign_writes"
    """Within the last hour a reader's keys held what no reader writes."""
    MEMBERS_CROWDED = "members_crowded"
    """More processes are registered than are looked at."""

    SCHEDULE_OVERDUE = "schedule_overdue"
    """A schedule should have started a rebuild: no operator looks at it."""

    BACKUP_OVERDUE = "backup_overdue"
    """Backups are scheduled, and none is young enough."""
    BACKUP_AHEAD = "backup_ahead"
    """Backups bear a time that is still to come."""

    EVENTS_UNTAKEN = "events_untaken"
    LEASE_ORPHANED = "lease_orphaned"
    LEASE_ENDLESS = "lease_endless"
    """A lease without an end, or with a far later one than any rebuilder asks for."""
    DEAD_LETTERS = "dead_letters"
    REDIS_EVICTS = "redis_evicts"
    REDIS_FULL = "redis_full"
    """It is at its memory limit, or near it: what is new is refused there."""
    REDIS_KEY = "redis_key"
    """A key of the namespace holds what is not ours."""


PLACES: Final = frozenset(
    {
        Code.CATALOG_UNREADABLE,
        Code.ARTIFACTS_UNREADABLE,
        Code.REDIS_UNREADABLE,
        Code.REDIS_EVICTS,
        Code.COLLECTION_CONFLICT,
        Code.COLLECTION_GONE,
        Code.COLLECTION_OUTRUN,
        Code.CATALOGS_MIXED,
        Code.SOURCE_UNREADABLE,
        Code.SOURCE_EMPTIED,
        Code.RELEASE_CORRUPT,
        Code.RELEASE_UNTRUSTED,
        Code.REBUILDER_OTHER_SETTINGS,
        Code.READER_OTHER_SETTINGS,
    }
)
"""What `indexrelay check` is about: whether what the settings name can be used, where entries come
from, where versions are kept, and the server of the events; and whether what runs was started with
these settings."""

BUILDS: Final = frozenset(Code) - {
    # A pass by hand is for where no role runs, and what it released is on its way to the readers.
    Code.NO_REBUILDER,
    Code.NO_READER,
    Code.READER_BEHIND,
    Code.READER_LIVE_BEHIND,
    Code.READER_NOT_READY,
    Code.READER_SERVICE_SILENT,
    Code.SETTINGS_REFUSED,
    Code.COMPONENT_NOT_SERVED,
    Code.BACKUP_OVERDUE,
    Code.BACKUP_AHEAD,
    Code.SCHEDULE_OVERDUE,
}
"""What `indexrelay rebuild` is about: everything but whether roles run, and have followed."""


class Actor(StrEnum):
    """Who puts it right."""

    NOBODY = "nobody"
    """It ends by itself."""
    PROCESS = "process"
    """One that is running does."""
    PERSON = "person"


class Severity(StrEnum):
    """How soon somebody should look."""

    INFO = "info"
    """It ends by itself, or is as somebody asked."""
    WARNING = "warning"
    CRITICAL = "critical"
    """Something is not served, not built or not safe while it lasts."""


CRITICAL: Final = frozenset(
    {
        Code.CATALOG_UNREADABLE,
        Code.ARTIFACTS_UNREADABLE,
        Code.REDIS_UNREADABLE,
        Code.COLLECTION_OUTRUN,
        Code.CATALOGS_MIXED,
        Code.RELEASE_CORRUPT,
        Code.RELEASE_UNTRUSTED,
        Code.RELEASE_MADE_UP,
        Code.RELEASES_LOST,
        Code.COMPONENT_CORRUPT,
        Code.COMPONENT_NOT_SERVED,
        Code.NO_REBUILDER,
        Code.NO_READER,
        Code.READER_NOT_READY,
        Code.READER_SERVICE_SILENT,
        Code.FOREIGN_WRITES,
        Code.REDIS_EVICTS,
        Code.REDIS_FULL,
    }
)
"""Codes of what is critical where it needs a person."""


class Problem(_Fact):
    """One thing that is not well, and what to do about it."""

    code: Code
    subject: str | None = None
    """The collection, component, reader or rebuilder that it is about, if it is about one."""
    what: str
    advice: str
    acts: Actor
    asked: bool = False
    """Whether a person asked for it (held, paused), or it follows from that alone. It is reported
    all the same: a decision is easily forgotten, and what it keeps back is not well."""

    @property
    def severity(self) -> Severity:
        """How soon somebody should look: whether it needs a person at all decides first."""
        if self.acts is not Actor.PERSON or self.asked:
            return Severity.INFO
        return Severity.CRITICAL if self.code in CRITICAL else Severity.WARNING


class Condition(StrEnum):
    """The condition of a component: the first that is true, in this order.

    Being built, held or paused is reported beside it, and changes nothing about it.
    """

    UNDECLARED = "undeclared"
    """A release names it, the settings do not."""
    FAILED = "failed"
    CORRUPT = "corrupt"
    MISSING = "missing"
    """Declared, never built."""
    CHANGED = "changed"
    """Declared differently than it was built."""
    OUTRUN = "outrun"
    """It covers more than is committed: the catalog went back in time, or a collection is gone."""
    DEFERRED = "deferred"
    """Behind on purpose, by the policy of its collection (``persistence``); a note says until
    when. What it contains is served as it should be, so this is no problem."""
    BEHIND = "behind"
    CURRENT = "current"


class Decision(_Fact):
    """What a person asked for."""

    reason: str
    since: datetime
    automatic: bool = False
    """Whether a rebuilder made it, because readers refused what came after."""


class CollectionHealth(_Fact):
    """One collection, as the catalog has it."""

    dimension: int
    metric: Metric
    source: str | None
    """Where its entries come from; ``None``: the settings do not declare it any more."""
    epoch: str | None = None
    """What its generations count in; ``None``: it is not in the catalog, or not any more."""
    generation: Generation
    entries: int | None
    """``None``: they were not counted, or cannot be."""
    conflict: str | None = None
    """How the settings contradict what the catalog holds; nothing is committed or built then."""
    unreadable: str | None = None
    """What keeps it from being read."""
    left_out: dict[str, int] = {}
    """What its source held beside the entries when it was read last, by its kind: rows
    ``without_vector``, ``subfolders``, ``other_files``, ``other_arrays``."""


class ImprovementHealth(_Fact):
    """That a better version of a component is to be built behind the one that serves.

    What serves passed its gates and contains all that it should: this is no problem.
    """

    reason: str
    """What is to be improved."""
    building: tuple[str, ...] = ()
    """The rebuilders that build it now."""
    obstacle: str | None = None
    """Why none is begun; ``None``: one is built, or comes when nothing else is to be built."""
    failures: int = 0
    """How many of its builds failed in a row."""
    error: str | None = None
    """Why the last of them did."""
    retry_at: datetime | None = None
    """When a failed one is tried again by itself; ``None``: not at all, or nothing failed."""


class TombstoneHealth(_Fact):
    """Rows of a version's base that are deleted or replaced."""

    rows: int
    """In the version, and by the changes since where those are counted: in live collections whose
    changes are not built at once."""
    share: float
    """Of the base."""
    limit: float
    """Above this share it is built in full by itself (``max_tombstones``)."""


class ComponentHealth(_Fact):
    """One component: what is released of it, against what is declared and committed."""

    kind: str
    condition: Condition
    building: tuple[str, ...] = ()
    """The rebuilders that build it now."""
    held: Decision | None = None
    paused: Decision | None = None
    version: Digest | None = None
    covers: dict[Name, Generation] = {}
    behind: dict[Name, int] = {}
    """For each collection that has moved on: by how many generations."""
    entries: int = 0
    bytes: int = 0
    built_at: datetime | None = None
    failures: int = 0
    """How many builds in a row."""
    failing_since: datetime | None = None
    """When the first of them failed since it was built."""
    failed_at: datetime | None = None
    """When the last one did."""
    error: str | None = None
    """Why its last build failed, or what is wrong with its files."""
    retry_at: datetime | None = None
    """When a failed build is tried again by itself; ``None``: not at all, or nothing failed."""
    deferred_until: datetime | None = None
    """When it is built, if it is `Condition.DEFERRED`; ``None``: when somebody asks."""
    tombstones: TombstoneHealth | None = None
    """``None``: its kind has none."""
    improvement: ImprovementHealth | None = None
    """``None``: there is nothing to improve."""


class Verdict(_Fact):
    """Whether all is well, and everything that it was concluded from."""

    well: bool
    problems: tuple[Problem, ...]
    """The ones that explain others first."""
    notes: tuple[str, ...] = ()
    """What is no fault, and good to know."""
    release: int
    """The newest intact release in the artifact store; 0: none yet."""
    announced: int | None
    """The newest one that was announced in Redis; ``None``: unknown."""
    collections: dict[Name, CollectionHealth]
    components: dict[Name, ComponentHealth]
    readers: dict[str, ReaderState]
    rebuilders: dict[str, RebuilderState]
    dead_letters: int
    """Events that could not be read and were neither retried nor dropped."""

    @property
    def sentence(self) -> str:
        """All of it in one sentence, for people."""
        if not self.well:
            return summary(self.problems)
        if self.release:
            return f"all is well: release {self.release} is served everywhere"
        return "all is well: there is nothing to serve yet"

    @property
    def needs_a_person(self) -> bool:
        """Whether something stays until a person does something."""
        return any(problem.acts is Actor.PERSON for problem in self.problems)

    def within(self, codes: Some[Code], *, subjects: Some[str] | None = None) -> Self:
        """The same verdict on less: only these problems.

        Args:
            codes: what it is to be about.
            subjects: components and collections that it is to be about; problems that concern no
                single one of them stay. ``None``: all.
        """
        others = set() if subjects is None else {*self.components, *self.collections} - {*subjects}
        kept = tuple(
            problem
            for problem in self.problems
            if problem.code in codes and problem.subject not in others
        )
        return self.model_copy(update={"problems": kept, "well": not kept})


def summary(problems: Sequence[Problem], *, besides: int = 0) -> str:
    """Who has to do something: ``not all is well: 2 need a person, 1 is as somebody asked``.

    Args:
        problems: what is not well.
        besides: how many more need a person.
    """
    decided = sum(problem.asked for problem in problems)
    people = sum(problem.acts is Actor.PERSON and not problem.asked for problem in problems)
    others = len(problems) - decided - people
    people += besides
    parts = [
        f"{people} need{'s' * (people == 1)} a person" if people else "",
        f"{decided} {'is' if decided == 1 else 'are'} as somebody asked" if decided else "",
        f"{others} will end without you" if others else "",
    ]
    return f"not all is well: {', '.join(part for part in parts if part)}"
