"""What readers could not load is looked at again here, without trusting what was checked before.

A released version counts as whole for as long as its files look as they did when they were hashed.
A reader that hashed them again may know better, and may not be able to say so in the store, which
it often has read-only. What it reports is no truth, but a reason to look: the version's blobs are
hashed once more before anything is opened, and if one is damaged, its component is due.

Hashing takes as long as the files are large, and a reader may report what it likes, with other
words each time. So only what is released is looked at, a complaint once however many readers repeat
it, and another one about the same version after a wait that doubles each time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.results import LoadOutcome, ReaderState
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore

_log = get_logger(__name__)


_FIRST_WAIT_SECONDS: Final = 60.0
_LONGEST_WAIT_SECONDS: Final = 3600.0


@dataclass(frozen=True, kw_only=True)
class _Doubted:
    """A version that was looked at again."""

    next_at: float
    wait_seconds: float


class ReaderDoubts:
    """Takes up complaints; for use by one thread."""

    def __init__(self, store: ArtifactStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._known: set[tuple[str, str, str | None]] = set()
        self._doubted: dict[tuple[str, str], _Doubted] = {}

    def take(self, states: Mapping[str, ReaderState | None]) -> bool:
        """Doubt what live readers say that they cannot load; whether there is something new.

        Raises:
            ArtifactError: the artifacts cannot be read.
        """
        release = self._store.newest_release()
        released = set() if release is None else set(release.components.items())
        found = {
            (name, component.wanted, component.error)
            for state in states.values()
            if state is not None
            for name, component in state.components.items()
            if component.outcome is LoadOutcome.FAILED and component.wanted is not None
            if (name, component.wanted) in released
        }
        self._doubted = {key: each for key, each in self._doubted.items() if key in released}
        new = False
        for name, version, error in sorted(found - self._known, key=repr):
            if not self._is_time(name, version):
                found.remove((name, version, error))  # so that its time comes
                continue
            new = True
            try:
                self._store.doubt_version(name, version)
            except ArtifactError:
                continue  # then it is damaged anyway, and every look at the facts says so
            _log.info("version.doubted", component=name, version=version, error=error)
        self._known = found
        return new

    def _is_time(self, name: str, version: str) -> bool:
        """Whether a version may be looked at again now; if so, the next time is later."""
        now, last = self._clock.monotonic(), self._doubted.get((name, version))
        if last is not None and now < last.next_at:
            return False
        wait = (
            _FIRST_WAIT_SECONDS
            if last is None
            else min(2 * last.wait_seconds, _LONGEST_WAIT_SECONDS)
        )
        self._doubted[name, version] = _Doubted(next_at=now + wait, wait_seconds=wait)
        return True
