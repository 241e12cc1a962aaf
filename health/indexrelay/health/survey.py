"""Gathers the facts: the catalog, the sources, the artifacts, and what Redis shows.

`Survey.of_builds` is what the rebuilder looks at before each pass: a catalog or a store that cannot
be read is an error there, and the loop tries again. `Survey.whole` is what people look at: what
cannot be read is one of its facts.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self, TypeVar

from redis.exceptions import NoPermissionError, RedisError, ResponseError
from sqlalchemy.exc import SQLAlchemyError

from indexrelay.components.errors import KindNotFoundError
from indexrelay.components.kind import Improvable
from indexrelay.components.registry import kind_class
from indexrelay.health.advice import advice_for
from indexrelay.health.facts import (
    Area,
    BackupsFact,
    Facts,
    RedisFacts,
    SourceFact,
    Unknown,
    Untaken,
    passed_over,
)
from indexrelay.schemas import commands
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.diagnostics import describe_error
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.files import open_to_everyone
from indexrelay.schemas.loggers import LogOnce, get_logger
from indexrelay.schemas.messages import ReaderState, RebuilderState, Role
from indexrelay.schemas.settings import CatalogSource, Settings
from indexrelay.schemas.versions import Definitions, Release, VersionManifest
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore
from indexrelay.storage.backups import BackupFolder
from indexrelay.storage.catalog import Catalog, ChangeCount
from indexrelay.storage.errors import StoreAccessError, UnknownCollectionError
from indexrelay.storage.sources import open_source
from indexrelay.streams import Connection, Keys
from indexrelay.streams.errors import refusal_code
from indexrelay.streams.keys import REBUILDERS_GROUP
from indexrelay.streams.leases import HeldLease, held_leases
from indexrelay.streams.presence import Members, StateT, host_name, members_of
from indexrelay.streams.publisher import current_release
from indexrelay.streams.repair import WrongKey, find_wrong_keys
from indexrelay.streams.retention import group_state, held_memory, server_memory, waiting_entries

_log = get_logger(__name__)
ResultT = TypeVar("ResultT")
_VERSIONS_LOOKED_AT = 3
_MOST_COUNTED = 1000
"""Events that wait are counted up to here: more of them are not worth the time to say so."""

_FALLBACK_ADVICE = {
    Area.CATALOG: "see that catalog.url is right and its database answers; "
    "readers keep what they serve",
    Area.ARTIFACTS: "see that artifacts.dir is right, and can be read and written",
    Area.REDIS: "commits stand meanwhile, and readers keep serving what they have; correct "
    f"redis.url, or start it; one for this machine comes with: {commands.UP}",
}


class Survey:
    """Looks at one installation; for use by one thread at a time."""

    def __init__(
        self,
        settings: Settings,
        *,
        catalog: Callable[[], Catalog],
        store: Callable[[], ArtifactStore],
        connection: Callable[[], Connection] | None = None,
        readers: Callable[[], Members[ReaderState]] | None = None,
        clock: Clock,
        since: datetime | None = None,
    ) -> None:
        """What is handed in is opened when it is looked at, and stays the caller's to close.

        Args:
            connection: ``None``: Redis is not looked at.
            readers: gives who is there; ``None``: presence is read at each look.
            since: when the settings were read; ``None``: now.
        """
        self._settings = settings
        self._catalog = catalog
        self._store = store
        self._connection = connection
        self._readers = readers
        self._keys = Keys(settings.namespace)
        self._clock = clock
        self._since = since or clock.now()
        self._corrupt = LogOnce()
        self._unreadable = LogOnce()

    @classmethod
    def opened(
        cls,
        settings: Settings,
        *,
        catalog: Catalog,
        store: ArtifactStore,
        connection: Connection,
        readers: Callable[[], Members[ReaderState]] | None = None,
        clock: Clock,
        since: datetime | None = None,
    ) -> Self:
        """A survey of what is open already."""
        return cls(
            settings,
            catalog=lambda: catalog,
            store=lambda: store,
            connection=lambda: connection,
            readers=readers,
            clock=clock,
            since=since,
        )

    def of_builds(
        self,
        requested: AbstractSet[str] = frozenset(),
        *,
        asked_for_due: bool = False,
        scheduled: Mapping[str, float] | None = None,
    ) -> Facts:
        """What decides what is due, as of now.

        Args:
            requested: the components that somebody asked for.
            asked_for_due: whether somebody asked for whatever is due.
            scheduled: those of them that only schedules ask for (`Facts.scheduled`).

        Raises:
            ArtifactError, CatalogVersionError, OSError: the artifacts or the catalog cannot be
                read.
            sqlalchemy.exc.SQLAlchemyError: the database does not answer.
        """
        nothing = replace(
            self._nothing(requested), asked_for_due=asked_for_due, scheduled=scheduled or {}
        )
        facts = self._with_catalog(self._with_artifacts(nothing))
        self._log_new(facts)
        return facts

    def whole(self) -> Facts:
        """Everything, as of now; what cannot be read is in ``unknown``."""
        facts = replace(
            self._nothing(), open_folders=tuple(self._open_folders()), backups=self._backups()
        )
        # In this order: a reader never serves what is not released yet, and a version never covers
        # what is not committed yet, unless something is wrong.
        facts = self._attempt(Area.REDIS, self._with_redis, facts)
        facts = self._attempt(Area.ARTIFACTS, self._with_artifacts, facts)
        return self._with_history(self._attempt(Area.CATALOG, self._with_whole_catalog, facts))

    def of_a_reader(self) -> Facts:
        """What a reader may look at: the artifacts and the catalog, as of now.

        Nothing is made or numbered; what cannot be read is in ``unknown``.
        """
        facts = self._attempt(Area.ARTIFACTS, self._with_artifacts, self._nothing())
        return self._with_history(self._attempt(Area.CATALOG, self._looked_at, facts))

    def of_places(self) -> Facts:
        """What the settings name, as of now; nothing is made or numbered.

        What cannot be read is in ``unknown``. That no embedded server runs is none of it: a role
        starts it.
        """
        facts = self._nothing()
        answering = self._attempt(Area.REDIS, self._answering, facts)
        if answering.redis is not None or self._settings.redis_url is not None:
            facts = answering
        if self._settings.artifacts_dir.is_dir():
            facts = self._attempt(Area.ARTIFACTS, self._with_artifacts, facts)
        return self._with_history(self._attempt(Area.CATALOG, self._looked_at, facts))

    def _nothing(self, requested: AbstractSet[str] = frozenset()) -> Facts:
        settings = self._settings
        return Facts(
            definitions=settings.components,
            collections=settings.collections,
            sources={},
            release=None,
            versions={},
            requested=requested,
            schedules=settings.schedules,
            max_live_entries=settings.live.max_entries,
            host=host_name(),
            since=self._since,
            now=self._clock.now(),
            rebuilder=settings.rebuilder,
            reader=settings.reader,
            releases=settings.releases,
        )

    def _attempt(self, area: Area, look: Callable[[Facts], Facts], facts: Facts) -> Facts:
        try:
            return look(facts)
        except (RedisError, SQLAlchemyError, IndexRelayError, OSError) as error:
            cause = getattr(error, "orig", None) or error
            advice = advice_for(error) or _FALLBACK_ADVICE[area]
            unknown = {**facts.unknown, area: Unknown(reason=_first_line(cause), advice=advice)}
            facts = replace(facts, unknown=unknown)
            # Tables and folders can be looked at without a catalog.
            return self._outside(facts) if area is Area.CATALOG else facts

    def _backups(self) -> BackupsFact | None:
        settings = self._settings
        if settings.backups.schedule is None:
            return None
        fact = BackupsFact(
            folder=str(settings.backups_dir), max_age_seconds=settings.backups.max_age_seconds
        )
        try:
            folder, now = BackupFolder.of(settings), self._clock.now()
            return replace(fact, newest_at=folder.newest_at(now), ahead=tuple(folder.ahead(now)))
        except StoreAccessError as error:
            return replace(fact, unreadable=str(error))

    def _open_folders(self) -> Iterator[str]:
        settings = self._settings
        for folder in dict.fromkeys((settings.data_dir, settings.artifacts_dir)):
            if open_to_everyone(folder):
                yield str(folder)

    # The artifacts

    def _with_artifacts(self, facts: Facts) -> Facts:
        store = self._store()
        release = store.newest_release()
        versions, corrupt = self._versions(store, release)
        asked = _asked_of_kinds(facts.definitions, versions)
        return replace(
            facts,
            release=release,
            versions=versions,
            corrupt=corrupt,
            outdated=asked.outdated,
            improvable=asked.improvable,
            raising_kinds=asked.raising,
            **passed_over(store.broken_releases),
            highest_release=store.next_number() - 1,
        )

    def _versions(
        self, store: ArtifactStore, release: Release | None
    ) -> tuple[dict[str, VersionManifest], dict[str, str]]:
        """The released versions that are whole, and what is wrong with the others."""
        versions: dict[str, VersionManifest] = {}
        corrupt: dict[str, str] = {}
        for name, version_id in (release.components if release is not None else {}).items():
            try:
                versions[name] = store.open_version(name, version_id).manifest
            except ArtifactError as error:
                corrupt[name] = str(error)
        return versions, corrupt

    def _with_history(self, facts: Facts) -> Facts:
        """Which collections another catalog builds from as well, into the same artifacts.

        Where the settings only moved from one catalog to another, all versions of the first are
        older than those of the second. Where both are in use, they replace each other's.
        """
        if {Area.CATALOG, Area.ARTIFACTS} & facts.unknown.keys():
            return facts
        other: dict[str, str] = {}
        for component in facts.versions:
            manifests = list(self._newest_manifests(component))
            for name, source in facts.sources.items():
                epochs = [each.epochs[name] for each in manifests if name in each.epochs]
                if source.epoch in epochs and any(
                    epoch != source.epoch for epoch in epochs[: _last(source.epoch, epochs)]
                ):
                    other.setdefault(name, component)
        return replace(facts, other_catalogs=other)

    def _newest_manifests(self, component: str) -> list[VersionManifest]:
        """As many as a change of the catalog and back takes, the newest first."""
        store = self._store()
        try:
            ids = store.newest_versions(component, most=_VERSIONS_LOOKED_AT)
            manifests = [store.version(component, each) for each in ids]
        except (ArtifactError, OSError):
            return []  # what is released of it is looked at by itself
        return sorted(manifests, key=lambda each: each.created_at, reverse=True)

    def _log_new(self, facts: Facts) -> None:
        """Log what is corrupt or cannot be read once, and not at every look until it is repaired.

        A look for people logs nothing: they get the judge's sentence.
        """
        for name, error in self._corrupt.new(facts.corrupt).items():
            _log.error("component.corrupt", component=name, error=error)
        for name, error in self._unreadable.new(facts.unreadable).items():
            _log.warning("source.unreadable", collection=name, error=error)

    # The catalog and the sources

    def _with_catalog(self, facts: Facts, *, number: bool = True) -> Facts:
        catalog = self._catalog()
        covered: dict[str, set[int]] = {}
        for manifest in facts.versions.values():
            for name, generation in manifest.covers.items():
                covered.setdefault(name, set()).add(generation)
        sources, unreadable = self._sources(catalog, covered, number=number)
        return replace(
            facts,
            sources=sources,
            unreadable=unreadable,
            stored={each.name: each for each in catalog.collections.all()},
            attempts=catalog.attempts.all(),
            paused=catalog.attempts.paused(),
            failed_improvements=catalog.improvements.all(),
            known_release=catalog.release_record.highest(),
        )

    def _with_whole_catalog(self, facts: Facts, *, number: bool = True) -> Facts:
        """With the events that wait for a person, and the requests that wait for a rebuilder."""
        catalog = self._catalog()
        requests = catalog.inbox.open_requests()
        return replace(
            self._with_catalog(facts, number=number),
            dead_letters=catalog.dead_letters.count(),
            dropped_letters=catalog.dead_letters.dropped(),
            schedule_states=catalog.schedules.all() if self._settings.schedules else {},
            not_deferred=frozenset(name for each in requests for name in each.components),
            asked_for_due=any(not each.components for each in requests),
        )

    def _looked_at(self, facts: Facts) -> Facts:
        if Catalog.is_there(self._settings.catalog_url):
            return self._with_whole_catalog(facts, number=False)
        return self._outside(facts)

    def _outside(self, facts: Facts) -> Facts:
        """The tables and folders, where there is no catalog to number them in."""
        unreadable = {}
        for name, settings in sorted(self._settings.collections.items()):
            if not isinstance(settings.source, CatalogSource):
                try:
                    open_source(name, settings, None).look()
                except (IndexRelayError, OSError) as error:
                    unreadable[name] = str(error)
        return replace(facts, unreadable=unreadable)

    def _sources(
        self, catalog: Catalog, covered: Mapping[str, AbstractSet[int]], *, number: bool
    ) -> tuple[dict[str, SourceFact], dict[str, str]]:
        """Every collection that is declared; and why others cannot be read."""
        facts: dict[str, SourceFact] = {}
        unreadable: dict[str, str] = {}
        for name, settings in sorted(self._settings.collections.items()):
            source = open_source(name, settings, catalog)
            try:
                entries = source.look()
                # Tables and folders are numbered by observing; nothing else is made by a look.
                if number and not isinstance(settings.source, CatalogSource):
                    source.observe()
                found = catalog.collections.expect(
                    name, dimension=settings.dimension, metric=settings.metric
                )
                log = catalog.collections.log(name, covered.get(name, ()))
            except UnknownCollectionError:
                continue  # no job has declared it yet, so it holds nothing
            except (IndexRelayError, OSError) as error:
                unreadable[name] = str(error)
                continue
            facts[name] = SourceFact(
                epoch=found.epoch,
                generation=log.generation,
                entries=entries,
                log=log,
                changed=self._changed(catalog, name, log.generation, covered.get(name, ())),
            )
        return facts, unreadable

    def _changed(
        self, catalog: Catalog, name: str, generation: int, covered: Iterable[int]
    ) -> dict[int, ChangeCount]:
        """What changed since the generations that are covered, where that decides a build."""
        settings = self._settings.collections[name]
        if not settings.live or settings.persistence == "immediate":
            return {}
        most = self._settings.live.max_entries
        return {
            each: catalog.entries.count_changes(name, after=each, most=most)
            for each in covered
            if each < generation
        }

    # Redis

    def _with_redis(self, facts: Facts) -> Facts:
        if self._connection is None:
            return facts
        connection, keys = self._connection(), self._keys
        none: tuple[WrongKey, ...] = ()
        wrong = _if_allowed(
            lambda: find_wrong_keys(
                connection, keys, self._settings.rebuilder, components=self._settings.components
            ),
            none,
        )
        blocked = {each.key for each in wrong if each.hides}
        readers = self._readers() if self._readers else members_of(connection, keys, ReaderState)
        rebuilders = members_of(connection, keys, RebuilderState)
        looked: dict[Role, Members[Any]] = {"reader": readers, "rebuilder": rebuilders}
        memory = server_memory(connection)
        return replace(
            facts,
            redis=RedisFacts(
                announced=0 if keys.release in blocked else current_release(connection, keys),
                readers=readers.states,
                rebuilders=rebuilders.states,
                dropped={
                    **{f"reader:{member}": why for member, why in readers.dropped.items()},
                    **{f"rebuilder:{member}": why for member, why in rebuilders.dropped.items()},
                },
                crowded=frozenset(
                    {f"reader:{label}" for label in readers.crowded}
                    | {f"rebuilder:{label}" for label in rebuilders.crowded}
                ),
                cut=frozenset(role for role, found in looked.items() if found.cut),
                unseen=frozenset(
                    role for role, found in looked.items() if found.cut and not found.states
                ),
                seconds_left=_if_allowed(
                    lambda: self._seconds_left(connection, readers.states, rebuilders.states), {}
                ),
                untaken=() if keys.events in blocked else tuple(self._untaken(connection)),
                leases=self._leases(connection, blocked),
                wrong_keys=wrong,
                memory=memory,
                held=_if_allowed(lambda: held_memory(connection, keys), {})
                if memory is not None and memory.short
                else {},
                eviction=connection.eviction_policy(),
            ),
        )

    def _answering(self, facts: Facts) -> Facts:
        """Whether the server answers those who have the settings, whichever role they are."""
        if self._connection is None:
            return facts
        connection, keys = self._connection(), self._keys
        try:
            try:
                connection.commands.get(keys.release)
            except NoPermissionError:
                connection.commands.strlen(keys.reader("any"))  # a job may read presence alone
        except ResponseError as error:
            if refusal_code(error) != "WRONGTYPE":  # it answers, and `whole` names the key
                raise
        readers = _if_shown(connection, keys, ReaderState)
        rebuilders = _if_shown(connection, keys, RebuilderState)
        looked: dict[Role, object] = {"reader": readers, "rebuilder": rebuilders}
        return replace(
            facts,
            redis=RedisFacts(
                readers={} if readers is None else readers.states,
                rebuilders={} if rebuilders is None else rebuilders.states,
                unseen=frozenset(role for role, found in looked.items() if found is None),
                eviction=connection.eviction_policy(),
            ),
        )

    def _seconds_left(
        self,
        connection: Connection,
        readers: Mapping[str, object],
        rebuilders: Mapping[str, object],
    ) -> dict[str, float]:
        """When the presence of each process ends, by the server's clock."""
        keys = {
            **{self._keys.reader(member): f"reader:{member}" for member in readers},
            **{self._keys.rebuilder(member): f"rebuilder:{member}" for member in rebuilders},
        }
        with connection.commands.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.pttl(key)
            replies: list[Any] = pipeline.execute()
        return {
            name: milliseconds / 1000
            for name, milliseconds in zip(keys.values(), replies, strict=True)
            if milliseconds >= 0  # one that is gone by now, or never ends, has none
        }

    def _untaken(self, connection: Connection) -> Iterator[Untaken]:
        events = self._keys.events
        group = group_state(connection, events, REBUILDERS_GROUP)
        waiting = _if_allowed(
            lambda: waiting_entries(connection, events, group, most=_MOST_COUNTED), None
        )
        if waiting is not None:
            yield Untaken(count=waiting.count, seconds=waiting.seconds)
        for consumer in group.consumers if group is not None else ():
            if consumer.pending:
                yield Untaken(
                    count=consumer.pending, seconds=consumer.idle_seconds, consumer=consumer.name
                )

    def _leases(self, connection: Connection, blocked: AbstractSet[str]) -> dict[str, HeldLease]:
        leases = {self._keys.lease(name): name for name in self._settings.components}
        names = {key: name for key, name in leases.items() if key not in blocked}
        return {names[key]: lease for key, lease in held_leases(connection, list(names)).items()}


def _last(epoch: str, epochs: Sequence[str]) -> int:
    """The last index of it."""
    return len(epochs) - 1 - epochs[::-1].index(epoch)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What kinds say of the released versions, by component."""

    outdated: Mapping[str, str]
    """Those that their kind, as it is installed here, asks to build again, and why."""
    improvable: Mapping[str, Improvable]
    raising: Mapping[str, str]
    """Those whose kind, which may be anybody's, raises when it is asked."""


def _asked_of_kinds(definitions: Definitions, versions: Mapping[str, VersionManifest]) -> _Asked:
    outdated: dict[str, str] = {}
    improvable: dict[str, Improvable] = {}
    raising: dict[str, str] = {}
    for name, manifest in versions.items():
        if name not in definitions or definitions[name].kind != manifest.kind:
            continue
        try:
            kind = kind_class(manifest.kind)
            reason = kind.outdated(manifest)
            better = kind.improvable(manifest) if kind.has_quick_versions else None
        except KindNotFoundError:
            continue  # a host that builds it has it; here it cannot be asked
        except Exception as error:  # noqa: BLE001 - one component's trouble, and not the look's
            raising[name] = describe_error(error)
            continue
        if reason is not None:
            outdated[name] = str(reason)
        if better is not None:
            improvable[name] = better
    return _Asked(outdated=outdated, improvable=improvable, raising=raising)


def _if_allowed(look: Callable[[], ResultT], otherwise: ResultT) -> ResultT:
    """What a server's ACL may forbid to look at; that is no fault."""
    try:
        return look()
    except NoPermissionError as error:
        _log.debug("redis.not_allowed", error=str(error))
        return otherwise


def _if_shown(connection: Connection, keys: Keys, model: type[StateT]) -> Members[StateT] | None:
    """Who is there; ``None``: this user may not read it, or another key is in its place."""
    try:
        return members_of(connection, keys, model)
    except ResponseError as error:
        _log.debug("presence.not_shown", role=model.ROLE, error=str(error))
        return None


def _first_line(error: object) -> str:
    """What an error says; a database's goes on for lines about where it was."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
