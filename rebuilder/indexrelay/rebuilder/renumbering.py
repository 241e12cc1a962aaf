"""After the artifact store has lost releases: goes on above the numbers that they had.

A store that was wiped, or restored from a backup, counts on from what it has left, and what it
releases then has lower numbers than what was announced and than what readers serve. They follow no
lower number, since nothing may go backwards. Making them forget it would break that promise; so the
newest release gets a number above the lost ones, and Redis and readers move on as ever.

Three things look the same and must not be mistaken for it. A store that cannot be read says so, and
nothing is concluded. A file system that shows new files late on some hosts catches up: so the store
must have lagged for a while. And a store that was restored is behind its sources: as long as a
reader serves later generations than its newest release, the rebuild is waited for.
"""

from collections.abc import Iterator

from indexrelay.rebuilder.findings import Finding, Standing
from indexrelay.schemas import commands
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.results import ComponentState, ReaderState
from indexrelay.schemas.versions import Release
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.streams import Connection, Keys, current_release, present

MOST_LOST = 1_000_000_000
"""A number that is further ahead was never announced: not at a release a second for 30 years."""


class Renumberer:
    """Compares the store's numbers with Redis's and the readers'; for use by one thread."""

    def __init__(
        self,
        store: ArtifactStore,
        *,
        connection: Connection,
        keys: Keys,
        patience_seconds: float,
        clock: Clock,
    ) -> None:
        """``patience_seconds``: how long the store has to lag before it counts as a loss."""
        self._store = store
        self._connection = connection
        self._keys = keys
        self._patience = patience_seconds
        self._clock = clock
        self._behind_since: float | None = None

    def mend(self, *, rebuilders: bool) -> Iterator[Finding]:
        """Renumber the newest release where others are ahead of the store for good.

        Args:
            rebuilders: whether one is running, that would do so later.

        Raises:
            ArtifactError: the store cannot be read or written; nothing was concluded.
            redis.exceptions.RedisError, BackendRefusedError: the server is away, or says no.
        """
        readers = [
            state
            for state in present(self._connection, self._keys, "reader", ReaderState).values()
            if state is not None
        ]
        announced = current_release(self._connection, self._keys)
        ahead = max([announced, *(state.release for state in readers)])
        # Looked at last: what was announced a moment ago was committed before that.
        highest = self._store.next_number() - 1
        newest = self._store.newest_release()
        if ahead <= highest:
            self._behind_since = None
            return
        now = self._clock.monotonic()
        since = self._behind_since = now if self._behind_since is None else self._behind_since
        what = f"release {ahead} was announced or is served, and the store's newest is {highest}"
        if ahead - highest > MOST_LOST:
            yield _left(what, f"nobody counts that far: delete the key {self._keys.release}")
        elif newest is None:
            yield _waiting(what, "once something is built", rebuilders)
        elif (reader := _who_would_go_back(newest, readers, self._store)) is not None:
            yield _waiting(what, f"once a rebuild reaches what {reader} serves", rebuilders)
        elif now - since < self._patience:
            yield _waiting(what, f"if that lasts for {self._patience:g} s", rebuilders)
        else:
            reason = f"the store lost releases up to {ahead}"
            release = self._store.renumber(lost=ahead, reason=reason)
            self._behind_since = None
            yield Finding(
                about="release",
                what=f"{what}: what that serves is release {release.number} now",
                standing=Standing.MENDED,
            )


def _who_would_go_back(
    newest: Release, readers: list[ReaderState], store: ArtifactStore
) -> str | None:
    """A reader that serves a later generation of something than ``newest``."""
    for state in readers:
        for name, version in newest.components.items():
            served = state.components.get(name)
            if served is not None and _is_later(served, name, version, store):
                return state.reader
    return None


def _is_later(served: ComponentState, name: str, version: str, store: ArtifactStore) -> bool:
    manifest = store.version(name, version)
    return any(
        served.epochs.get(collection) == manifest.epochs.get(collection)
        and generation > manifest.covers.get(collection, 0)
        for collection, generation in served.covers.items()
    )


def _waiting(what: str, when: str, rebuilders: bool) -> Finding:
    advice = f"a running rebuilder goes on with a number above that {when}"
    if rebuilders:
        return Finding(about="release", what=what, standing=Standing.WAITING, advice=advice)
    return _left(what, f"{advice}; none is running: {commands.REBUILDER}")


def _left(what: str, advice: str) -> Finding:
    return Finding(about="release", what=what, standing=Standing.LEFT, advice=advice)
