"""Lets go of what no kept release needs: old files, and the memory of deleted entries.

Every small batch makes a version, so without this an artifact store only grows. Kept are the newest
releases with all that they name, and whatever a live reader says it serves.

A collection remembers its deletes, since whoever continues an older version has to learn of them.
The oldest generation that a kept version covers is the oldest that anyone can ask from; a build
from before that is a full one. Every rebuilder does all this; doing it twice changes nothing.
"""

from typing import Final

from redis.exceptions import RedisError

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.results import ReaderState
from indexrelay.schemas.settings import Settings
from indexrelay.storage.artifacts import ArtifactStore, VersionUnreadableError
from indexrelay.storage.catalog import Catalog, Collection
from indexrelay.streams import Connection, Keys
from indexrelay.streams.presence import members_of

_log = get_logger(__name__)
_BEYOND_BUILDS_SECONDS: Final = 3600.0
"""How much longer than the longest build may take a file is kept that nothing names."""

MAX_VERSIONS_SERVED: Final = 20
"""Versions of one component that the processes under one label serve at a time. Whoever claims more
would keep every file for ever."""


class Retirer:
    """Sweeps the artifacts and the catalog of one installation."""

    def __init__(
        self,
        settings: Settings,
        *,
        catalog: Catalog,
        store: ArtifactStore,
        connection: Connection,
        keys: Keys,
        clock: Clock,
    ) -> None:
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
        self._connection = connection
        self._keys = keys
        self._clock = clock

    def retire(self) -> None:
        """Sweep once.

        Raises:
            StoreAccessError: the artifacts cannot be read or written.
            sqlalchemy.exc.SQLAlchemyError: the catalog cannot be written.
        """
        served, all_known = self._served()
        swept = self._store.sweep(
            keep_releases=self._keep_releases,
            used_versions=served,
            all_known=all_known,
            grace_seconds=self._grace_seconds,
            clock=self._clock,
        )
        if swept.releases or swept.versions or swept.blobs:
            _log.info(
                "artifacts.swept",
                releases=len(swept.releases),
                versions=len(swept.versions),
                blobs=len(swept.blobs),
                bytes=swept.bytes,
            )
        for collection in self._catalog.collections.all():
            self._forget(collection)

    def _served(self) -> tuple[set[str], bool]:
        """The versions that readers serve, as far as they say so; and whether all of them do.

        One that says nothing that is understood takes nothing away from what the others serve.
        """
        try:
            members = members_of(self._connection, self._keys, "reader", ReaderState)
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
                "reader.not_believed",
                reader=label,
                component=name,
                versions=len(versions),
                consequence="no file is kept because it says that it serves it",
            )
        all_known = None not in states and not members.dropped and not members.crowded
        # An emptied Redis shows nobody until they say again that they are there.
        return served, bool(states) and all_known

    def _forget(self, collection: Collection) -> None:
        """Forget the deletes that every kept version knows of."""
        needed = self._covered(collection)
        if needed is None:
            return
        purged = self._catalog.entries.forget_deletes(collection.name, below=needed)
        if purged:
            _log.info("deletes.forgotten", collection=collection.name, entries=purged)

    def _covered(self, collection: Collection) -> int | None:
        """The oldest generation that a version of a kept release covers; ``None``: none does."""
        covered: list[int] = []
        for component, version in self._kept():
            try:
                manifest = self._store.version(component, version)
            except VersionUnreadableError:
                continue  # nothing continues a version that cannot be read
            if manifest.epochs.get(collection.name) == collection.epoch:
                covered.append(manifest.covers[collection.name])
        return min(covered, default=None)

    def _kept(self) -> set[tuple[str, str]]:
        """Every component and version that a release in the store names."""
        return {named for release in self._store.releases() for named in release.components.items()}
