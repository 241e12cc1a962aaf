"""What readers could not load is looked at again here, without trusting what was checked before.

A released version counts as whole for as long as its files look as they did when they were hashed.
A reader that hashed them again may know better, and may not be able to say so in the store, which
it often has read-only. What it reports is no truth, but a reason to look: the version's blobs are
hashed once more before anything is opened, and if one is damaged, its component is due.
"""

from collections.abc import Mapping

from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.results import LoadOutcome, ReaderState
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore

_log = get_logger(__name__)


class ReaderDoubts:
    """Takes up each complaint once, however many readers repeat it; for use by one thread."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self._known: set[tuple[str, str, str | None]] = set()

    def take(self, states: Mapping[str, ReaderState | None]) -> bool:
        """Doubt what live readers say that they cannot load; whether there is something new."""
        found = {
            (name, component.wanted, component.error)
            for state in states.values()
            if state is not None
            for name, component in state.components.items()
            if component.outcome is LoadOutcome.FAILED and component.wanted is not None
        }
        new = sorted(found - self._known, key=repr)
        for name, version, error in new:
            try:
                self._store.doubt_version(name, version)
            except ArtifactError:
                continue  # then it is damaged anyway, and every look at the facts says so
            _log.info("version.doubted", component=name, version=version, error=error)
        self._known = found
        return bool(new)
