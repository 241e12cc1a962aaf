"""Compares what is released with what was said about it, and repairs the difference.

Sources, versions and leases need no repair of their own: every look at the facts sees them. What is
left is the release itself: components that are defined no longer, groups that changed, and a Redis
that knows less than the store, because an announcement failed or because it came back empty.
"""

import structlog

from indexrelay.rebuilder.announcing import AnnounceError, Announcer
from indexrelay.rebuilder.releasing import Publisher
from indexrelay.schemas.settings import Settings
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore

_log = structlog.get_logger(__name__)


class Reconciler:
    """Repairs, and says what it repaired."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: ArtifactStore,
        publisher: Publisher,
        announcer: Announcer,
    ) -> None:
        self._definitions = settings.components
        self._store = store
        self._publisher = publisher
        self._announcer = announcer

    def reconcile(self) -> list[str]:
        """One comparison; what was repaired, a sentence each."""
        repaired: list[str] = []
        try:
            tidied = self._publisher.publish(
                {}, definitions=self._definitions, reason="the definitions changed"
            )
            if tidied is not None:
                repaired.append(f"release {tidied.number} follows the changed definitions")
            newest = self._store.newest_release()
            if newest is not None and self._announcer.is_behind(newest):
                self._announcer.announce(newest, None)
                repaired.append(f"release {newest.number} was announced")
        except (*AnnounceError, ArtifactError, OSError) as error:
            _log.warning("reconcile.interrupted", error=str(error))
        for repair in repaired:
            _log.info("reconcile.repaired", what=repair)
        return repaired
