"""Gathers the facts: sources, the newest release, what was tried."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from indexrelay.health.dependencies import root_collections
from indexrelay.health.due import Facts, SourceFact
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import Release, VersionManifest
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.storage.errors import (
    CollectionMismatchError,
    SourceError,
    UnknownCollectionError,
)
from indexrelay.storage.sources import open_source

_log = get_logger(__name__)


class Observer:
    """Looks at the catalog, the sources and the artifact store."""

    def __init__(
        self, settings: Settings, *, catalog: Catalog, store: ArtifactStore, clock: Clock
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._store = store
        self._clock = clock
        self._since = clock.now()
        self._told: dict[str, str] = {}

    def facts(self, requested: AbstractSet[str] = frozenset()) -> Facts:
        """How things stand now."""
        release = self._store.newest_release()
        versions, damaged = self._versions(release)
        sources, unreadable = self._sources()
        return Facts(
            definitions=self._settings.components,
            sources=sources,
            unreadable=unreadable,
            release=release,
            versions=versions,
            damaged=damaged,
            attempts=self._catalog.attempts.all(),
            paused=set(self._catalog.attempts.paused()),
            requested=requested,
            since=self._since,
            now=self._clock.now(),
        )

    def _sources(self) -> tuple[dict[str, SourceFact], dict[str, str]]:
        """Every collection that some component is made from; and why others cannot be read."""
        definitions = self._settings.components
        wanted = set().union(*(root_collections(name, definitions) for name in definitions))
        facts: dict[str, SourceFact] = {}
        unreadable: dict[str, str] = {}
        for name in sorted(wanted & set(self._settings.collections)):
            source = open_source(name, self._settings.collections[name], self._catalog)
            try:
                generation = source.observe()
                epoch = self._catalog.collections.get(name).epoch
            except UnknownCollectionError:
                continue  # nobody has declared it yet, so it holds nothing
            except (SourceError, CollectionMismatchError) as error:
                _log.warning("source.unreadable", collection=name, error=str(error))
                unreadable[name] = str(error)
                continue
            facts[name] = SourceFact(epoch=epoch, generation=generation)
        return facts, unreadable

    def _versions(
        self, release: Release | None
    ) -> tuple[dict[str, VersionManifest], dict[str, str]]:
        """The released versions that are whole, and what is wrong with the others."""
        versions: dict[str, VersionManifest] = {}
        damaged: dict[str, str] = {}
        for name, version_id in (release.components if release is not None else {}).items():
            try:
                versions[name] = self._store.open_version(name, version_id).manifest
            except ArtifactError as error:
                damaged[name] = str(error)
        self._tell(damaged)
        return versions, damaged

    def _tell(self, damaged: Mapping[str, str]) -> None:
        """Log what is damaged once, and not at every look until it is built anew."""
        for name, error in damaged.items():
            if self._told.get(name) != error:
                _log.error("component.damaged", component=name, error=error)
        self._told = dict(damaged)
