"""Versions opened read-only for people: the map and the search lab look into them.

A reader serves one release. The lab compares two, one of which may be months old, and the map goes
on answering for what a page still shows while the next release is on its way. Both open versions
straight from the artifact store, as a reader does: every file is checked, and a manifest chooses
only among the kinds that this process may run. Only what a kept release names is opened.

A few stay open, and the one that was not used for the longest is let go of; so is, after some
minutes, what nobody asked for, and what no kept release names any more, whose space on the disk is
free only then. It is closed by whoever uses it last, so a search that still runs in it is not
disturbed.
"""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from pydantic import BaseModel
from starlette.responses import Response

from indexrelay.reloaders.loader import Opener
from indexrelay.reloaders.snapshot import ServedComponent
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.settings import ComponentDefinition
from indexrelay.schemas.versions import Release, VersionManifest
from indexrelay.service.answers import plain_json
from indexrelay.service.limits import FewThreads
from indexrelay.service.problems import FieldMistake, OverloadedError, RefusedError
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.errors import ReleaseUnreadableError, VersionUnreadableError

_log = get_logger(__name__)

MOST_OPEN: Final = 12
"""Versions: two releases of a map, of what it is searched by and of what is compared, and room for
another person. They are mapped files, so one that nobody searches takes hardly any memory."""
IDLE_SECONDS: Final = 600.0
"""A version that nobody asked for in this time is let go of."""
TIDY_SECONDS: Final = 60.0
"""How often is looked for what can go."""
_MANIFESTS: Final = 1024
"""Kept parsed: a few releases of many components."""


_THREADS: Final = 2
_WAIT_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 20.0

ResultT = TypeVar("ResultT")


class FieldError(RefusedError):
    """Raised when one field of a request is wrong; the problem document names it."""

    def __init__(self, field: str, detail: str, *, status: int = 422) -> None:
        super().__init__(status, detail, errors=(FieldMistake(field=field, detail=detail),))
        self.field = field


@dataclass(frozen=True, kw_only=True)
class Named:
    """One version of one component, and the release that names it."""

    component: str
    version: str
    release: Release


class _Turn:
    """To open one version."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


@dataclass(slots=True)
class _Open:
    """A version that stays open."""

    served: ServedComponent
    asked_at: float
    """Of the clock: when somebody asked for it last."""


class VersionCache:
    """Opens versions that releases name, and keeps a few open; safe to use from many threads."""

    def __init__(
        self,
        store: ArtifactStore,
        *,
        definitions: Mapping[str, ComponentDefinition],
        clock: Clock,
        most: int = MOST_OPEN,
    ) -> None:
        """Nothing is opened yet.

        Args:
            store: where the releases are.
            definitions: of the components, which say whose classes may be run.
            clock: for how long an opening took.
            most: so many versions stay open.
        """
        self._store = store
        self._opener = Opener(store, definitions=definitions, clock=clock)
        self._most = most
        self._lock = threading.Lock()
        self._opening: WeakValueDictionary[tuple[str, str], _Turn] = WeakValueDictionary()
        """One for each version that is being opened, so that no other waits for a slow one."""
        self._open: OrderedDict[tuple[str, str], _Open] = OrderedDict()
        self._clock = clock
        self._tidied_at = clock.monotonic()
        self._manifests: OrderedDict[tuple[str, str], VersionManifest] = OrderedDict()
        self._is_closed = False

    def __len__(self) -> int:
        """How many are open, those in use beyond the limit not counted."""
        return len(self._open)

    def release(self, number: int | None = None, *, field: str = "release") -> Release:
        """A kept release; ``None``: the newest.

        Args:
            number: which.
            field: of the request, for the error.

        Raises:
            FieldError: it is not kept or not readable, or there is none yet.
            StoreAccessError: the operating system refuses.
        """
        if number is None:
            newest = self._store.newest_release()
            if newest is None:
                raise FieldError(field, "nothing is released yet: start a rebuild", status=404)
            return newest
        try:
            return self._store.release(number)
        except ReleaseUnreadableError as error:
            raise FieldError(field, str(error)) from error

    def releases(self, most: int) -> list[Release]:
        """The newest kept releases that can be read, the newest first."""
        found: list[Release] = []
        for number in self._store.release_numbers():
            if len(found) == most:
                break
            with contextlib.suppress(ReleaseUnreadableError):
                found.append(self._store.release(number))
        return found

    def named(self, component: str, release: Release, *, field: str = "component") -> Named:
        """The version of a component in a release.

        Raises:
            FieldError: the release does not have the component.
        """
        version = release.components.get(component)
        if version is None:
            there = ", ".join(sorted(release.components)[:20]) or "nothing"
            raise FieldError(
                field,
                f"release {release.number} has no component {component!r:.100}; it has {there}",
                status=404,
            )
        return Named(component=component, version=version, release=release)

    def found(self, component: str, version: str | None) -> Named:
        """A version by its id, with the newest kept release that names it; ``None``: the newest.

        Raises:
            FieldError: no kept release names it.
        """
        newest = self.release()
        if version is None or newest.components.get(component) == version:
            return self.named(component, newest)
        for release in self._store.releases():
            if (component, version) in release.versions:
                return Named(component=component, version=version, release=release)
        raise FieldError(
            "version", f"no kept release has this version of {component!r:.100}", status=404
        )

    def manifests(self, release: Release) -> dict[str, VersionManifest]:
        """By component: the manifests of a release, those that cannot be read left out."""
        found: dict[str, VersionManifest] = {}
        for component, version in sorted(release.components.items()):
            key = component, version
            if (manifest := self._manifests.get(key)) is None:
                with contextlib.suppress(VersionUnreadableError):
                    manifest = self._store.version(component, version)
            if manifest is None:
                continue
            found[component] = manifest
            with self._lock:
                self._manifests[key] = manifest
                while len(self._manifests) > _MANIFESTS:
                    self._manifests.popitem(last=False)
        return found

    def open(self, named: Named) -> ServedComponent:
        """The version, opened; keep the reference while its value is used, and no longer.

        Raises:
            IndexRelayError: it is not intact, or its kind may not run or does not load here.
            Exception: whatever a user's kind raises.
        """
        key = named.component, named.version
        opened = self._known(key)
        if opened is not None:
            return opened
        with self._lock:
            turn = self._opening.get(key)
            if turn is None:
                turn = self._opening[key] = _Turn()
        with turn.lock:  # two who want the same one open it once
            opened = self._known(key)
            if opened is not None:
                return opened
            opened = self._opener.open(named.component, named.version, serving=None)
            dropped: list[Any] = []  # closed outside of the lock
            with self._lock:
                if not self._is_closed:
                    self._open[key] = _Open(opened, self._clock.monotonic())
                while len(self._open) > self._most:
                    dropped.append(self._open.popitem(last=False))
            del dropped
            return opened

    def tidy(self) -> None:
        """Let go of what nobody asked for of late, and of what no kept release names.

        It is called again and again, by any thread, and looks into the store once a minute while
        anything is open. It never raises: where the store cannot be read, only age counts.
        """
        now = self._clock.monotonic()
        with self._lock:
            if now - self._tidied_at < TIDY_SECONDS or not self._open:
                return
            self._tidied_at = now
        named: set[tuple[str, str]] | None = None
        with contextlib.suppress(IndexRelayError, OSError):
            named = {version for release in self._store.releases() for version in release.versions}
        dropped: list[Any] = []  # closed outside of the lock
        with self._lock:
            for key, each in list(self._open.items()):
                if each.asked_at > now:
                    continue  # asked for since
                if now - each.asked_at >= IDLE_SECONDS or (named is not None and key not in named):
                    dropped.append(self._open.pop(key))
        del dropped

    def close(self) -> None:
        """Let go of everything; what is still in use is closed by its last user. Safe twice."""
        with self._lock:
            self._is_closed = True
            dropped = list(self._open.values())
            self._open.clear()
        del dropped

    def _known(self, key: tuple[str, str]) -> ServedComponent | None:
        with self._lock:
            found = self._open.get(key)
            if found is None:
                return None
            self._open.move_to_end(key)
            found.asked_at = self._clock.monotonic()
            return found.served


class LookThreads:
    """Runs looks into versions on two threads of their own, each with a time limit; for one event
    loop.

    What takes longer than its limit runs to its end all the same, so that a version whose files
    are checked for the first time is open for the next who asks. It is logged with the component,
    and whoever gets no thread meanwhile reads which components hold them: a user's kind may never
    come back.
    """

    def __init__(
        self,
        what: str,
        *,
        wait_seconds: float = _WAIT_SECONDS,
        answer_seconds: float = _ANSWER_SECONDS,
    ) -> None:
        """Threads start when they are needed.

        Args:
            what: there is too much of, where nobody gets a thread.
            wait_seconds: for which a thread is waited for.
            answer_seconds: for which an answer is.
        """
        self._threads = FewThreads(_THREADS, what)
        self._wait_seconds = wait_seconds
        self._answer_seconds = answer_seconds
        self._lock = threading.Lock()
        self._late: dict[object, str] = {}
        """By look that is not awaited any more and has not ended: what it looks into."""

    async def run(self, look: Callable[[], ResultT], *, of: str = "everything") -> ResultT:
        """What ``look`` returns.

        Args:
            look: may take its time.
            of: the component that it looks into, for people.

        Raises:
            OverloadedError: no thread was free in time.
            RefusedError: it did not end in time, or a version cannot be opened; or what it raises.
            Exception: another error of ``look``.
        """
        ended = threading.Event()

        def whole() -> ResultT:
            try:
                return look()
            finally:
                with self._lock:
                    ended.set()
                    late = self._late.pop(ended, None)
                if late is not None:
                    _log.info("look.ended", component=late)

        try:
            return await self._threads.run(
                whole, seconds=self._wait_seconds, answer_seconds=self._answer_seconds
            )
        except OverloadedError:
            with self._lock:
                late = sorted(set(self._late.values()))
            if not late:
                raise
            raise RefusedError(
                503,
                f"a look into {', '.join(late)} does not end: ask again in a moment, or start the "
                "admin service again if it never does",
            ) from None
        except TimeoutError:
            with self._lock:
                if not ended.is_set():
                    self._late[ended] = of
            _log.warning("look.overran", component=of, seconds=self._answer_seconds)
            detail = f"there is no answer after {self._answer_seconds:g} s; ask again in a moment"
            raise RefusedError(503, detail) from None
        except RefusedError:
            raise
        except IndexRelayError as error:
            raise RefusedError(409, str(error)) from error

    async def answer(self, look: Callable[[], BaseModel], *, of: str = "everything") -> Response:
        """The document that ``look`` returns, as JSON; raises as `run`."""

        def encoded() -> bytes:
            return plain_json(look().model_dump())  # an id may hold half a surrogate pair

        return Response(await self.run(encoded, of=of), media_type="application/json")
