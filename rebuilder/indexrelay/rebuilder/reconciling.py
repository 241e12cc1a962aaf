"""Compares what is released with what was said about it, and repairs the difference.

Sources and versions need no repair of their own: every look at the facts sees them. What is left is
the release itself (components that are defined no longer, groups that changed) and a Redis that
knows less than the store, because an announcement failed, because a stream or its group was
removed, or because it came back empty; or more, because the store has lost releases. What is not
well and cannot be repaired from here says the judge (`indexrelay.health.judge`).
"""

from collections.abc import Iterator, Mapping

from redis.exceptions import NoPermissionError
from sqlalchemy.exc import SQLAlchemyError

from indexrelay.health.declarations import declaring
from indexrelay.health.redis_health import LONGEST_LEASES
from indexrelay.rebuilder.announcing import AnnounceError, Announcer
from indexrelay.rebuilder.doubting import ReaderDoubts
from indexrelay.rebuilder.findings import Finding, Reconciliation, Standing
from indexrelay.rebuilder.foreign_writes import ForeignWriteLog
from indexrelay.rebuilder.presence import declared_by_rebuilders
from indexrelay.rebuilder.releasing import Publisher
from indexrelay.rebuilder.renumbering import Renumberer
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.names import split_member_id
from indexrelay.schemas.results import ReaderState, RebuilderState
from indexrelay.schemas.settings import Settings
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection, ConsumerGroup, Keys, present
from indexrelay.streams.leases import held_leases, limit_lease
from indexrelay.streams.presence import members_of
from indexrelay.streams.wrong_keys import find_wrong_keys, mend

_log = get_logger(__name__)
_LAGGING_LOOKS = 2
"""A store that lags behind for so many times the usual pause has lost what it lacks."""


class Reconciler:
    """Repairs, and says what it repaired; for use by one thread, that of the group."""

    def __init__(
        self,
        settings: Settings,
        *,
        catalog: Catalog,
        store: ArtifactStore,
        connection: Connection,
        group: ConsumerGroup,
        source: str,
        clock: Clock,
    ) -> None:
        """Speak as ``source`` where something has to be announced."""
        keys = Keys(settings.namespace)
        self._definitions = settings.components
        self._store = store
        self._publisher = Publisher(
            store=store,
            clock=clock,
            by=source,
            elsewhere=lambda: declared_by_rebuilders(connection, keys),
        )
        self._renumberer = Renumberer(
            store,
            catalog=catalog,
            connection=connection,
            keys=keys,
            patience_seconds=_LAGGING_LOOKS * settings.rebuilder.reconcile_seconds,
            clock=clock,
        )
        self._announcer = Announcer(connection, keys, source=source, clock=clock)
        self._group = group
        self._doubts = ReaderDoubts(store, clock)
        self._connection = connection
        self._keys = keys
        self._limits = settings.rebuilder
        self.foreign_writes = ForeignWriteLog(clock)

    def reconcile(self) -> Reconciliation:
        """One comparison of the store with itself and with Redis; raises for neither of them."""
        return Reconciliation(findings=(*self._in_the_store(), *self._in_redis()))

    def mend_keys(self) -> Reconciliation:
        """Mend the keys that hold what is not ours, and nothing else.

        Raises:
            redis.exceptions.RedisError, BackendRefusedError: the server is away, or refuses.
        """
        return Reconciliation(findings=tuple(self._wrong_keys()))

    def heed_readers(self) -> bool:
        """Doubt what readers cannot load; whether one of them found something new.

        Raises:
            redis.exceptions.RedisError, BackendRefusedError: presence cannot be read.
        """
        return self._doubts.take(self._readers())

    def _in_the_store(self) -> Iterator[Finding]:
        try:
            for path in self._store.mend_release():
                yield _mended("store", f"{path} was damaged or gone and was written anew")
            tidied = self._publisher.publish(
                {}, definitions=self._definitions, reason="the definitions changed"
            ).release
        except (ArtifactError, OSError) as error:
            yield _unusable("store", "the artifact store cannot be used", error)
            return
        if tidied is not None:
            yield _mended("release", f"release {tidied.number} follows the changed definitions")

    def _in_redis(self) -> Iterator[Finding]:
        try:
            yield from self._wrong_keys()
            alive = present(self._connection, self._keys, "rebuilder", RebuilderState)
            yield from self._lost_releases(alive)
            yield from self._lent(alive)
            yield from self._announcement()
            yield from self._missing_group()
            yield from self._endless_leases()
            self._doubts.take(self._readers())
        except AnnounceError as error:
            if "WRONGTYPE" in str(error):  # since `_wrong_keys` looked
                yield _unusable("key", "a key came to hold what is not ours meanwhile", error)
            else:
                yield _unusable("redis", "Redis does not answer, or refuses", error)
        except (ArtifactError, OSError) as error:
            yield _unusable("store", "the artifact store cannot be used", error)

    def _lost_releases(self, alive: Mapping[str, RebuilderState | None]) -> Iterator[Finding]:
        try:
            yield from self._renumberer.mend(rebuilders=bool(alive))
        except SQLAlchemyError as error:
            yield _unusable("catalog", "the catalog cannot be read", error)

    def _lent(self, alive: Mapping[str, RebuilderState | None]) -> Iterator[Finding]:
        """What has left the settings and stays in the release, and because of whom."""
        newest = self._store.newest_release()
        for name in sorted(set() if newest is None else newest.components.keys()):
            if name not in self._definitions and (keeping := declaring(name, alive)):
                yield Finding(
                    about="release",
                    what=f"{name} is declared no longer and stays in the release: rebuilder "
                    f"{', '.join(keeping)} was started with it, and would build it anew",
                    standing=Standing.LEFT,
                    advice="start that one again, with these settings",
                )

    def _readers(self) -> Mapping[str, ReaderState | None]:
        members = members_of(self._connection, self._keys, "reader", ReaderState)
        for member, why in members.dropped.items():
            label, _ = split_member_id(member)
            self.foreign_writes.note(label, f"the presence of reader {member}: {why}")
        return members.states

    def _announcement(self) -> Iterator[Finding]:
        newest = self._store.newest_release()
        if newest is not None and self._announcer.is_behind(newest):
            self._announcer.announce(newest, None)
            yield _mended("release", f"release {newest.number} was announced")

    def _missing_group(self) -> Iterator[Finding]:
        if self._group.ensure():
            yield _mended("group", "the group of the rebuilders was missing and was made")

    def _wrong_keys(self) -> Iterator[Finding]:
        """First of all: whatever is asked of such a key is refused."""
        connection, keys = self._connection, self._keys
        try:
            wrong_keys = find_wrong_keys(
                connection, keys, self._limits, components=self._definitions
            )
        except NoPermissionError as error:
            _log.debug("redis.not_allowed", error=str(error))  # by the server's ACL
            return
        for wrong in wrong_keys:
            said = mend(connection, keys, wrong, ttl_seconds=self._limits.presence_ttl_seconds)
            if wrong.label is not None:
                self.foreign_writes.note(wrong.label, said)
            yield _mended("key", said)

    def _endless_leases(self) -> Iterator[Finding]:
        names = {self._keys.lease(name): name for name in self._definitions}
        longest = LONGEST_LEASES * self._limits.lease_ttl_seconds
        for key, lease in held_leases(self._connection, list(names)).items():
            if lease.seconds_left is None or lease.seconds_left > longest:
                limit_lease(self._connection, key, ttl_seconds=self._limits.lease_ttl_seconds)
                end = "had no end" if lease.seconds_left is None else "had an end far too late"
                yield _mended("lease", f"the lease of {names[key]} {end} and was given one")


def _mended(about: str, what: str) -> Finding:
    return Finding(about=about, what=what, standing=Standing.MENDED)


def _unusable(about: str, what: str, error: Exception) -> Finding:
    advice = {
        "catalog": "see that catalog.url is right and its database answers",
        "key": "the next comparison names it and sets it aside; nothing is lost by it",
        "redis": "start it, or correct redis.url; commits stand, and readers keep what they serve",
        "store": "see that artifacts.dir can be read and written",
    }[about]
    return Finding(about=about, what=f"{what}: {error}", standing=Standing.LEFT, advice=advice)
