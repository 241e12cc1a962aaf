"""Consistency levels: what a query may ask of a reader's freshness, and how it waits for it.

``eventual``: whatever is served. ``session``: everything that a session token names. ``strong``:
everything that was committed before the query came. ``bounded``: everything that was committed so
many seconds before it came. Whoever asks for nothing waits for nothing and takes no lock.

How far a collection is only the catalog knows (`indexrelay.reloaders.catalog`): ``strong`` and
``bounded`` are a `Look` that is new enough, and whose generation the snapshot contains. So the lag
of an answer is an upper bound by this process's own clock. A reader that cannot look refuses both.

Whoever waits is woken by what it waits for, and by nothing else: a message that was laid over the
release, a release that was swapped in, a look. One thread looks, for all who came before the look
begins; what it finds missing it fills in at once, whatever became of the messages. Every wait is
bounded, and a session token is no authority: what no catalog has committed is refused.
"""

import contextlib
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, cast

from indexrelay.reloaders.catalog import CatalogAccess, Look, Moment
from indexrelay.reloaders.errors import (
    CollectionBehind,
    ComponentNotServedError,
    NotFreshError,
    ReloaderStoppedError,
)
from indexrelay.reloaders.snapshot import Snapshot
from indexrelay.schemas.clock import SupervisedThread
from indexrelay.schemas.messages import LiveStatus
from indexrelay.schemas.session import Life, SessionToken

if TYPE_CHECKING:
    from indexrelay.reloaders.live import LiveLayer

NO_CATALOG: Final = (
    "this reader cannot look into the catalog, which alone knows what was committed last"
)
_NOT_ASKED: Final = "the catalog did not answer in time"
_UNKNOWN_EPOCH: Final = (
    "the session is of another epoch of it, and only the catalog knows which one is over"
)


class Level(StrEnum):
    """How fresh an answer has to be."""

    EVENTUAL = "eventual"
    BOUNDED = "bounded"
    SESSION = "session"
    STRONG = "strong"


@dataclass(frozen=True, slots=True)
class Consistency:
    """What a query asks of freshness; made by one of its class methods."""

    level: Level = Level.EVENTUAL
    max_lag_seconds: float = 0.0
    token: SessionToken | None = None

    @classmethod
    def eventual(cls) -> Self:
        """Whatever is served; nothing is waited for."""
        return cls()

    @classmethod
    def bounded(cls, max_lag_seconds: float) -> Self:
        """All that was committed so many seconds before the query came.

        Raises:
            ValueError: it is negative, or no number.
        """
        if not 0 <= max_lag_seconds < float("inf"):
            raise ValueError(f"max_lag_seconds is {max_lag_seconds}: 0 or more is possible")
        return cls(Level.BOUNDED, max_lag_seconds=max_lag_seconds)

    @classmethod
    def session(cls, token: SessionToken) -> Self:
        """All that a token names."""
        return cls(Level.SESSION, token=token)

    @classmethod
    def strong(cls) -> Self:
        """All that was committed before the query came."""
        return cls(Level.STRONG)


class FreshWait:
    """One query that waits; used by one thread or task, within its ``with``."""

    def __init__(
        self,
        freshness: "Freshness",
        asked: Consistency,
        components: Collection[str] | None,
        since: Moment,
    ) -> None:
        self._freshness = freshness
        self.asked = asked
        self.components = components
        self.since = since
        """When it came."""
        self._snapshot: Snapshot | None = None
        self._error: Exception | None = None
        self._wake: Callable[[], object] | None = None
        self._waking = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._freshness.forget(self)

    @property
    def settled(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self._snapshot is not None or self._error is not None

    def when_settled(self, wake: Callable[[], object]) -> None:
        """Call ``wake`` once that is so, on whichever thread sees it."""
        with self._waking:
            self._wake = wake
        if self.settled:
            wake()

    def suffices(self, snapshot: Snapshot, component: str) -> bool:
        """Whether a component of a snapshot has all that is asked for, also one not waited for."""
        return self._freshness.suffices(self, snapshot, component)

    def settle(self, result: Snapshot | Exception) -> None:
        """End the wait; what came first counts."""
        with self._waking:
            if self.settled:
                return
            if isinstance(result, Snapshot):
                self._snapshot = result
            else:
                self._error = result
            wake = self._wake
        if wake is not None:
            wake()

    def result(self) -> Snapshot:
        """What is fresh enough.

        Raises:
            NotFreshError: the time is over, or to wait is no use.
            ReloaderStoppedError: the reader was stopped meanwhile.
        """
        self._freshness.end(self)
        if self._error is not None:
            raise self._error
        return cast("Snapshot", self._snapshot)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lack:
    """Why a component is not fresh enough."""

    wanted: int | None = None
    reason: str = ""
    """Empty: it may get there by itself."""
    is_final: bool = False
    """Whether to wait is no use."""


class Freshness:
    """How fresh a reader is, and who waits for it; safe to use from any thread."""

    def __init__(
        self,
        *,
        acquire: Callable[[], Snapshot],
        catalog: CatalogAccess,
        live: "LiveLayer | None",
        has_thread: Callable[[], bool],
    ) -> None:
        """Nothing runs before it is first needed.

        Args:
            acquire: borrows what is served now.
            catalog: who knows how far collections are.
            live: what is laid over the release; ``None``: nothing is.
            has_thread: whether the reader runs; else whoever asks looks, as `Reloader.step` does.
        """
        self._acquire = acquire
        self._catalog = catalog
        self._live = live
        self._has_thread = has_thread
        self._waits: dict[FreshWait, None] = {}
        self._failed_at: dict[str, Moment] = {}
        """By collection, when the catalog was last asked in vain."""
        self._asking = threading.Condition()
        self._asked_for: set[str] = set()
        self._closed = False
        self._looker: SupervisedThread | None = None

    def acquire(
        self,
        asked: Consistency,
        *,
        components: Collection[str] | None,
        timeout_seconds: float,
    ) -> Snapshot:
        """Borrow what is fresh enough; waits on this thread. `Reloader.acquire` says more."""
        with self.begin(asked, components=components) as wait:
            if not wait.settled:
                settled = threading.Event()
                wait.when_settled(settled.set)
                settled.wait(timeout_seconds)
            return wait.result()

    def begin(self, asked: Consistency, *, components: Collection[str] | None) -> FreshWait:
        """Begin to wait; it may be settled at once.

        Raises:
            ComponentNotServedError: one of the components is not served.
            ReloaderStoppedError: the reader was stopped.
        """
        wait = FreshWait(self, asked, components, self._catalog.moment())
        self._waits[wait] = None  # before the first look at what there is: no change is missed
        if self._closed:
            wait.settle(ReloaderStoppedError())
        try:
            missing = self._settle(wait)
            if not wait.settled:
                self._ask(missing)
        except BaseException:
            self.forget(wait)
            raise
        return wait

    def forget(self, wait: FreshWait) -> None:
        """It does not wait any more; safe twice."""
        self._waits.pop(wait, None)

    def changed(self) -> None:
        """Something is served that was not: see who has waited for it."""
        for wait in tuple(self._waits):
            with contextlib.suppress(ComponentNotServedError, ReloaderStoppedError):
                self._settle(wait)

    def close(self) -> None:
        """End every wait, and the thread that looks; safe twice."""
        with self._asking:
            self._closed = True
            self._asking.notify_all()
        for wait in tuple(self._waits):
            wait.settle(ReloaderStoppedError())
        if self._looker is not None:
            self._looker.join()

    def suffices(self, wait: FreshWait, snapshot: Snapshot, component: str) -> bool:
        """Whether a component of a snapshot has all that a wait asks for."""
        return not any(self._lacking_of(wait, snapshot, [component]))

    def end(self, wait: FreshWait) -> None:
        """Settle a wait, one way or the other: its time is over."""
        self._settle(wait)
        if not wait.settled:
            snapshot = self._acquire()  # it may be fresh enough by now
            lacking = [self._told(*found) for found in self._lacking(wait, snapshot)]
            wait.settle(NotFreshError(lacking) if lacking else snapshot)

    def _settle(self, wait: FreshWait) -> set[str]:
        """End a wait if it can be; else the collections that the catalog is to be asked about."""
        if wait.settled:
            return set()
        snapshot = self._acquire()
        lacking = list(self._lacking(wait, snapshot))
        if not lacking:
            wait.settle(snapshot)
        elif any(lack.is_final for _, _, lack in lacking):
            wait.settle(NotFreshError(self._told(*found) for found in lacking))
        unknown = {life.collection for _, life, _ in lacking}
        return {each for each in unknown if self._newest(each, wait.since) is None}

    def _lacking(self, wait: FreshWait, snapshot: Snapshot) -> Iterator[tuple[str, Life, _Lack]]:
        """What a snapshot lacks for a wait: of which component, and what that has."""
        components = snapshot if wait.components is None else wait.components
        return self._lacking_of(wait, snapshot, sorted(components))

    def _lacking_of(
        self, wait: FreshWait, snapshot: Snapshot, components: Iterable[str]
    ) -> Iterator[tuple[str, Life, _Lack]]:
        if wait.asked.level is Level.EVENTUAL:
            return
        for component in components:
            for life in snapshot.reached(component):
                if wait.asked.token is None:
                    lack = self._behind_catalog(wait, life)
                else:
                    lack = self._behind_token(wait, life, wait.asked.token)
                if lack is not None:
                    yield component, life, lack

    def _told(self, component: str, life: Life, lack: _Lack) -> CollectionBehind:
        return CollectionBehind(
            component=component,
            collection=life.collection,
            generation=life.generation,
            wanted=lack.wanted,
            reason=lack.reason or self._reason(life.collection),
        )

    def _behind_catalog(self, wait: FreshWait, life: Life) -> _Lack | None:
        since, lag = wait.since, wait.asked.max_lag_seconds
        looks = [
            each
            for each in self._catalog.looks(life.collection)
            if each.begun > since or (lag and each.begun.at >= since.at - lag)
        ]
        if any(_contains(life, each) for each in looks):
            return None
        if looks:
            newest = looks[-1]
            if newest.epoch == life.epoch:
                return _Lack(wanted=newest.generation)
            return _Lack(reason=_other_life(newest))
        failed_at = self._failed_at.get(life.collection)
        in_vain = failed_at is not None and failed_at > wait.since
        return _Lack(reason=NO_CATALOG if in_vain else _NOT_ASKED, is_final=in_vain)

    def _behind_token(self, wait: FreshWait, life: Life, token: SessionToken) -> _Lack | None:
        newest = self._newest(life.collection, wait.since)
        for asked in token:
            if asked.collection != life.collection:
                continue
            if asked.epoch == life.epoch:
                if asked.generation <= life.generation:
                    continue
                if newest and newest.epoch == asked.epoch and newest.generation < asked.generation:
                    reason = _not_committed(newest)
                    return _Lack(wanted=asked.generation, reason=reason, is_final=True)
                return _Lack(wanted=asked.generation)
            if newest is None:
                return _Lack(reason=_UNKNOWN_EPOCH)
            if newest.epoch != life.epoch:
                return _Lack(reason=_other_life(newest))
        return None

    def _newest(self, collection: str, since: Moment) -> Look | None:
        """The newest look that began after a query came."""
        looks = self._catalog.looks(collection)
        return looks[-1] if looks and looks[-1].begun > since else None

    def _reason(self, collection: str) -> str:
        status = None if self._live is None else self._live.status(collection)
        match status:
            case LiveStatus.FULL:
                return "it holds as many changes as live.max_entries, until the next release"
            case LiveStatus.WAITING:
                return "changes are missing, until it finds them or the next release has them"
            case LiveStatus.FOLLOWING:
                return "changes are on their way, or the component waits for the next release"
            case _:
                return "the next release has to contain it"

    def _ask(self, collections: Iterable[str]) -> None:
        """Have the catalog asked."""
        names = set(collections)
        if not names:
            return
        if not self._has_thread():
            self._look(names)
            return
        with self._asking:
            if self._looker is None and not self._closed:
                self._looker = SupervisedThread(
                    self._run, name="indexrelay-freshness", wait=self._is_closed_within
                )
                self._looker.start()
            self._asked_for |= names
            self._asking.notify_all()

    def _run(self) -> None:
        while True:
            with self._asking:
                self._asking.wait_for(lambda: self._asked_for or self._closed)
                if self._closed:
                    return
                names, self._asked_for = self._asked_for, set()
            self._look(names)

    def _is_closed_within(self, seconds: float) -> bool:
        with self._asking:
            return self._asking.wait_for(lambda: self._closed, seconds)

    def _look(self, names: Iterable[str]) -> None:
        """Ask the catalog; fill in what somebody still waits for then."""
        for name in sorted(names):
            began = self._catalog.moment()
            has_answered = self._catalog.look(name)
            if not has_answered:
                self._failed_at[name] = began
            self.changed()
            # Without the catalog there is nothing that messages do not bring.
            if has_answered and self._live is not None and self._is_waited_for(name):
                self._live.fill(name)

    def _is_waited_for(self, collection: str) -> bool:
        with contextlib.suppress(ComponentNotServedError, ReloaderStoppedError):
            snapshot = self._acquire()
            return any(
                life.collection == collection
                for wait in tuple(self._waits)
                if not wait.settled
                for _, life, _ in self._lacking(wait, snapshot)
            )
        return False


def _contains(life: Life, look: Look) -> bool:
    return look.epoch == life.epoch and look.generation <= life.generation


def _other_life(newest: Look) -> str:
    if not newest.epoch:
        return "the catalog has no such collection: it was dropped"
    return "the collection was dropped and made anew, and no version of it is served yet"


def _not_committed(newest: Look) -> str:
    return (
        f"the catalog is at generation {newest.generation}: it was brought back from a backup, or "
        "the session is of another installation; begin a new session"
    )
