"""After the artifact store has lost releases: goes on above the numbers that they had.

A store that was wiped, or restored from a backup, counts on from what it has left, and what it
releases then has lower numbers than what was announced and than what readers serve. They follow no
lower number, since nothing may go backwards. Making them forget it would break that promise; so the
newest release gets a number above the lost ones, and Redis and readers move on as ever.

Three things look the same and must not be mistaken for it. A store that cannot be read says so, and
nothing is concluded. A file system that shows new files late on some hosts catches up: so the store
must have lagged for a while. And a store that was restored is behind its sources: as long as a
reader serves later generations than its newest release, the rebuild is waited for.

What Redis and readers say is not trusted: the catalog knows the highest number that there ever was,
and what is above it was made up, or the catalog came from a backup as well. The first is much more
likely, and would let whoever may write one key use up numbers and push out the releases that are
kept to roll back to. So it is left to a person, who may say that the number is right
(`indexrelay reconcile --above`). Where no reader serves it, only the key says it: that is replaced.
"""

from collections.abc import Iterator, Mapping

from indexrelay.rebuilder.findings import Finding, Standing
from indexrelay.schemas import commands
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.results import ComponentState, ReaderState
from indexrelay.schemas.versions import Release
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection, Keys, current_release, present
from indexrelay.streams.refusing import refusals_of


class Renumberer:
    """Compares the store's numbers with Redis's and the readers'; for use by one thread."""

    def __init__(
        self,
        store: ArtifactStore,
        *,
        catalog: Catalog,
        connection: Connection,
        keys: Keys,
        patience_seconds: float,
        clock: Clock,
    ) -> None:
        """``patience_seconds``: how long the store has to lag before it counts as a loss."""
        self._store = store
        self._catalog = catalog
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
        readers = {
            state.process: state
            for state in present(self._connection, self._keys, "reader", ReaderState).values()
            if state is not None
        }
        announced = current_release(self._connection, self._keys)
        # Looked at after these: what was announced a moment ago was committed before that.
        highest = self._store.next_number() - 1
        newest = self._store.newest_release()
        known = self._catalog.release_record.note(highest)
        made_up = {  # one of each label: there may be a thousand
            state.label: (who, state.release)
            for who, state in readers.items()
            if state.release > known
        }
        for who, number in sorted(made_up.values()):
            yield _left(
                f"reader {who} says that it serves release {number}, and none above {known} was "
                "ever committed here",
                "see who has its password for Redis; only where catalog and artifacts both came "
                f"from a backup is it right: {commands.reconcile_above(number)}",
            )
        served = max((s.release for s in readers.values() if s.release <= known), default=0)
        if announced > known and not made_up:
            announced = 0
            yield from self._replaced(known)
        ahead = max(served, announced if announced <= known else 0)
        if ahead <= highest:
            self._behind_since = None
            return
        now = self._clock.monotonic()
        since = self._behind_since = now if self._behind_since is None else self._behind_since
        what = f"release {ahead} was announced or is served, and the store's newest is {highest}"
        if newest is None:
            yield _waiting(what, "once something is built", rebuilders)
        elif (reader := self._who_would_go_back(newest, readers)) is not None:
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

    def _replaced(self, known: int) -> Iterator[Finding]:
        """Let go of a number that only the key says, so that releases are announced again."""
        with refusals_of(self._keys.release):
            self._connection.commands.unlink(self._keys.release)
        yield Finding(
            about="release",
            what=f"the key {self._keys.release} named a release above {known}, the highest that "
            "was ever committed here, and nobody serves it: it was removed",
            standing=Standing.MENDED,
        )

    def _who_would_go_back(self, newest: Release, readers: Mapping[str, ReaderState]) -> str | None:
        """A reader that serves a later generation of something than ``newest``.

        One that nobody has committed is not waited for.
        """
        committed = {each.name: each.generation for each in self._catalog.collections.all()}
        for state in readers.values():
            for name, version in newest.components.items():
                served = state.components.get(name)
                if served is not None and _is_later(served, name, version, self._store, committed):
                    return state.reader
        return None


def _is_later(
    served: ComponentState,
    name: str,
    version: str,
    store: ArtifactStore,
    committed: Mapping[str, int],
) -> bool:
    manifest = store.version(name, version)
    return any(
        served.epochs.get(collection) == manifest.epochs.get(collection)
        and manifest.covers.get(collection, 0) < generation <= committed.get(collection, 0)
        for collection, generation in served.covers.items()
    )


def _waiting(what: str, when: str, rebuilders: bool) -> Finding:
    advice = f"a running rebuilder goes on with a number above that {when}"
    if rebuilders:
        return Finding(about="release", what=what, standing=Standing.WAITING, advice=advice)
    return _left(what, f"{advice}; none is running: {commands.REBUILDER}")


def _left(what: str, advice: str) -> Finding:
    return Finding(about="release", what=what, standing=Standing.LEFT, advice=advice)
