"""Garbage collection: old files, deletes that are remembered, and stream entries that were read.

Every small batch makes a version, so without this an artifact store only grows. Kept are the newest
releases with all that they name, and whatever a live reader serves. A collection remembers its
deletes, since a build that continues an older version needs them. The oldest generation that a kept
version covers is the oldest that is still needed; a build from before that is a full one.

Stream entries below the slowest group were read, and for the reload messages those below the
slowest live reader. A reader's cursor is in its presence, so a dead one delays nothing after its
TTL. The entry *at* the place that was reached stays: by it a group, or a reader, proves that it is
in the same stream as before. Results and reports are read by people, and kept for a while. Above
all that is a hard cap: memory that runs out would stop every producer. What it removes costs a look
and no truth: events are found in the catalog, and a reader with a gap looks at the newest release.

Every rebuilder does all this; doing it twice changes nothing.
"""

from collections.abc import Callable, Iterator
from typing import Final

from redis.exceptions import NoPermissionError, RedisError

from indexrelay.components.registry import kind_class
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import ReaderState
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import VersionManifest
from indexrelay.storage.artifacts import ArtifactStore, Collected, VersionUnreadableError
from indexrelay.storage.catalog import Catalog, Collection
from indexrelay.streams import Connection, Keys, members_of, trim
from indexrelay.streams.consumer import Position, stream_info
from indexrelay.streams.keys import REBUILDERS_GROUP, scan
from indexrelay.streams.presence import Members
from indexrelay.streams.retention import (
    cap,
    cap_bytes,
    group_state,
    group_states,
    most_stream_bytes,
)

_log = get_logger(__name__)
_BEYOND_BUILDS_SECONDS: Final = 3600.0
"""A file that nothing names is kept for so much longer than the longest build may take."""
MAX_VERSIONS_SERVED: Final = 20
"""Versions of one component that the processes under one label serve at a time. A reader that
claims more would keep every file without end."""
MAX_HISTORY_BYTES: Final = 16_777_216
"""Of the results, and of the reports under one label: some hundred of a fleet's largest."""
_FORGET_SECONDS: Final = 86_400.0
"""A consumer that asked for nothing for a day is removed: a rebuilder without an id of its own is
another one after each restart."""


class GarbageCollector:
    """Removes old artifacts, and the memory of old deletes, of one installation."""

    def __init__(
        self,
        settings: Settings,
        *,
        catalog: Catalog,
        store: ArtifactStore,
        connection: Connection | None,
        keys: Keys,
        clock: Clock,
        readers: Callable[[], Members[ReaderState]] | None = None,
    ) -> None:
        """Take what is collected from.

        Args:
            connection: ``None``: Redis is away, so that it is not known what readers serve.
            readers: gives who is there; ``None``: presence is read at each collection.
        """
        self._keep_releases = settings.rebuilder.keep_releases
        # Until a build ends, no version names what it wrote.
        self._grace_seconds = _BEYOND_BUILDS_SECONDS + max(
            [
                settings.rebuilder.build_timeout_seconds,
                *(each.build_timeout_seconds or 0.0 for each in settings.components.values()),
            ]
        )
        self._catalog = catalog
        self._store = store
        self._clock = clock
        self._readers = readers
        if readers is None and connection is not None:
            self._readers = lambda: members_of(connection, keys, ReaderState)

    def collect(self, *, dry_run: bool = False) -> Collected:
        """Collect once; returns what was removed from the artifacts.

        Args:
            dry_run: remove nothing; returns what would be.

        Raises:
            StoreAccessError: the artifacts cannot be read or written.
            sqlalchemy.exc.SQLAlchemyError: the catalog cannot be written.
        """
        served, all_known = self._served()
        collected = self._store.collect_garbage(
            keep_releases=self._keep_releases,
            used_versions=served,
            all_known=all_known,
            grace_seconds=self._grace_seconds,
            clock=self._clock,
            dry_run=dry_run,
        )
        if dry_run:
            return collected
        if collected.releases or collected.versions or collected.blobs:
            _log.info(
                "artifacts.collected",
                releases=len(collected.releases),
                versions=len(collected.versions),
                blobs=len(collected.blobs),
                bytes=collected.bytes,
            )
        for collection in self._catalog.collections.all():
            self._forget(collection)
        return collected

    def _served(self) -> tuple[set[str], bool]:
        """The versions that readers serve, as far as they report it; and whether all of them do.

        A state that is not understood takes nothing away from what the others serve.
        """
        if self._readers is None:
            return set(), False
        try:
            members = self._readers()
        except RedisError as error:
            _log.debug("readers.unknown", error=str(error))
            return set(), False
        by_label: dict[tuple[str, str], set[str]] = {}
        states = members.states.values()
        for state in filter(None, states):
            for name, component in state.components.items():
                if component.version is not None:
                    by_label.setdefault((state.label, name), set()).add(component.version)
        served: set[str] = set()
        for (label, name), versions in by_label.items():
            if len(versions) <= MAX_VERSIONS_SERVED:
                served |= versions
                continue
            _log.warning(
                "reader.claims_too_much",
                reader=label,
                component=name,
                versions=len(versions),
                consequence="none of these versions is kept because of this reader",
            )
        missing = members.dropped or members.crowded or members.cut
        all_known = None not in states and not missing
        # An emptied Redis shows no reader until each has published its presence again.
        return served, bool(states) and all_known

    def _forget(self, collection: Collection) -> None:
        """Forget the deletes that every kept version covers."""
        needed = self._oldest_covered(collection)
        if needed is None:
            return
        purged = self._catalog.entries.forget_deletes(collection.name, below=needed)
        if purged:
            _log.info("deletes.forgotten", collection=collection.name, entries=purged)

    def _oldest_covered(self, collection: Collection) -> int | None:
        """The oldest generation that a version of a kept release covers; ``None``: none does.

        Of a version that is to be improved, the generation at which it was last built in full: the
        better one may have been begun there, and is continued from there.
        """
        covered: list[int] = []
        kept = {named for release in self._store.releases() for named in release.versions}
        for component, version in kept:
            try:
                manifest = self._store.version(component, version)
            except VersionUnreadableError:
                continue  # nothing continues a version that cannot be read
            if manifest.epochs.get(collection.name) == collection.epoch:
                covered.append(manifest.covers[collection.name])
                covered += _needed_by_improvements(manifest, collection.name)
        return min(covered, default=None)


def _needed_by_improvements(manifest: VersionManifest, collection: str) -> Iterator[int]:
    """From which generation an improvement of it needs the changes."""
    try:
        kind = kind_class(manifest.kind)
        better = kind.improvable(manifest) if kind.has_quick_versions else None
    except Exception as error:  # noqa: BLE001 - a kind may be anybody's
        _log.debug("improvement.unknown", component=manifest.component, error=str(error))
        return
    if better is not None and collection in better.since:
        yield better.since[collection]


class StreamTrimmer:
    """Trims the streams of one installation."""

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        keys: Keys,
        *,
        readers: Callable[[], Members[ReaderState]] | None = None,
    ) -> None:
        """``readers`` gives who is there; ``None``: presence is read each time."""
        self._limits = settings.rebuilder
        self._connection = connection
        self._keys = keys
        self._readers = readers or (lambda: members_of(connection, keys, ReaderState))

    def trim(self) -> bool:
        """Trim every stream once; whether the hard cap removed events, so that a look is due.

        Raises:
            redis.exceptions.RedisError: the server is away, or says no.
        """
        keys, most = self._keys, self._limits.stream_max_entries
        most_bytes = most_stream_bytes(self._connection, self._limits.stream_max_bytes)
        self._trim(keys.events)
        self._trim(
            keys.reloads,
            *self._reached_by_readers(),
            stream_info(self._connection, keys.reloads).last_generated,  # where no reader is alive
        )
        kept_since = self._connection.server_milliseconds() - self._limits.history_seconds * 1000
        history = min(most, self._limits.history_entries)
        reports = {*scan(self._connection, keys.reports("*"))}
        for key in {keys.results, *reports}:
            self._trim(key, Position(max(0, round(kept_since)), 0))
            cap(self._connection, key, entries=history)
            cap_bytes(self._connection, key, most=min(MAX_HISTORY_BYTES, most_bytes))
        for key in reports:
            self._limit_ttl(key)
        for key in {*scan(self._connection, keys.changes("*"))}:
            self._cap(key, most, most_bytes)
            self._limit_ttl(key)
        self._remove_consumers()
        self._cap(keys.reloads, most, most_bytes)
        return self._cap(keys.events, most, most_bytes)

    def _trim(self, key: str, *reached: Position) -> None:
        """Remove what lies below all of ``reached``, and below what any group has reached."""
        groups = group_states(self._connection, key).values()
        by_groups = (group.lowest_pending or group.last_delivered for group in groups)
        floor = min([*reached, *by_groups], default=None)
        if floor is None:
            return
        removed = trim(self._connection, key, below=floor.to_bytes())
        if removed:
            _log.debug("stream.trimmed", key=key, entries=removed)

    def _cap(self, key: str, entries: int, most_bytes: int) -> bool:
        removed = cap(self._connection, key, entries=entries)
        removed += cap_bytes(self._connection, key, most=most_bytes)
        if removed:
            _log.warning(
                "stream.capped",
                key=key,
                entries=removed,
                consequence="not all of these were read; the catalog and the artifacts are looked "
                "at instead",
            )
        return removed > 0

    def _limit_ttl(self, key: str) -> None:
        """Give a stream an end that would stay without one, though no reader has its label."""
        commands = self._connection.commands
        if commands.pttl(key) == -1:
            commands.pexpire(key, round(self._limits.history_seconds * 1000))

    def _remove_consumers(self) -> None:
        """Remove rebuilders that ended long ago; one that comes back is a consumer again.

        One with pending entries stays until another rebuilder has claimed them.
        """
        state = group_state(self._connection, self._keys.events, REBUILDERS_GROUP)
        for consumer in state.consumers if state is not None else ():
            if not consumer.pending and consumer.idle_seconds > _FORGET_SECONDS:
                try:
                    self._connection.commands.xgroup_delconsumer(
                        self._keys.events, REBUILDERS_GROUP, consumer.name
                    )
                except NoPermissionError as error:
                    _log.debug("consumer.not_removed", error=str(error))  # by the server's ACL

    def _reached_by_readers(self) -> Iterator[Position]:
        for state in self._readers().known.values():
            if state.cursor is not None:
                yield Position.of(state.cursor.encode())
