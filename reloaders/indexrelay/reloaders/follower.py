"""Follows the releases: waits for one, finds the one to serve, has it loaded, and swaps.

Nothing that comes from Redis is believed. A message is not even read: that there is one means "look
now". Only the artifact store says what the newest release is, and only an intact one counts. A
lower number than the one that was worked through is never followed: what is served may stem from a
release that was damaged since, and a rollback has a higher number anyway.
"""

import queue
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Self

from redis.exceptions import RedisError

from indexrelay.reloaders.loader import Loader, Round
from indexrelay.reloaders.opener import Opener
from indexrelay.reloaders.plan import served_names
from indexrelay.reloaders.presence import Link
from indexrelay.reloaders.retry import Failures
from indexrelay.reloaders.scrubber import Doubt
from indexrelay.reloaders.snapshot import Current
from indexrelay.reloaders.switch_interval import giving_way
from indexrelay.schemas.clock import Clock, backoff_seconds
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import ComponentState, LoadOutcome
from indexrelay.schemas.settings import ComponentDefinition, Settings
from indexrelay.schemas.settings_file import let_import
from indexrelay.schemas.versions import Release
from indexrelay.storage.artifacts import ArtifactStore, ReleaseUnreadableError, StoreAccessError
from indexrelay.streams import Keys, Tail, current_release, is_transient
from indexrelay.streams.errors import is_unanswered


def required_names(
    released: Collection[str],
    *,
    chosen: Collection[str] | None,
    definitions: Mapping[str, ComponentDefinition],
) -> set[str]:
    """The components without which a reader is not ready.

    Args:
        released: what the release names.
        chosen: what this reader serves; ``None``: everything.
        definitions: what the reader's settings declare.
    """
    names = set(definitions) | set(released)
    if chosen is not None:
        names &= set(chosen)
    return {name for name in names if name not in definitions or definitions[name].required}


class Readiness:
    """Whether the reader is ready, for those who ask and for those who wait."""

    def __init__(self) -> None:
        self._ready = threading.Event()

    def __bool__(self) -> bool:
        return self._ready.is_set()

    def put(self, *, ready: bool) -> None:
        """Say how it is."""
        if ready:
            self._ready.set()
        else:
            self._ready.clear()

    def wait(self, timeout_seconds: float) -> bool:
        """Wait until it is ready; whether it is."""
        return self._ready.wait(timeout_seconds)

    def copied(self) -> "Readiness":
        """The same in a forked child, whose locks must be its own."""
        copy = Readiness()
        copy.put(ready=bool(self))
        return copy


def states_after(
    result: Round,
    release: Release,
    *,
    chosen: Collection[str] | None,
    before: Mapping[str, ComponentState],
) -> dict[str, ComponentState]:
    """The state of every component that is served or should be.

    Args:
        before: the states after an earlier round of the same release: what was applied then is
            not called unchanged because something else was tried again. Empty for a new release.
    """
    names = served_names(release, chosen) | result.contents.components.keys()
    return {name: _state(name, result, release, before.get(name)) for name in sorted(names)}


def _state(
    name: str, result: Round, release: Release, before: ComponentState | None
) -> ComponentState:
    outcome = _outcome(name, result, before)
    wanted = release.components.get(name)
    error = result.failed.get(name)
    served = result.contents.components.get(name)
    if served is None:
        return ComponentState(outcome=outcome, wanted=wanted, error=error)
    return ComponentState(
        outcome=outcome,
        version=served.version,
        wanted=wanted,
        covers=dict(served.covers),
        epochs=served.manifest.epochs,
        stamps=served.manifest.stamps,
        entries=served.manifest.entries,
        seconds=served.seconds,
        error=error,
        applied_at=served.applied_at,
    )


def _outcome(name: str, result: Round, before: ComponentState | None) -> LoadOutcome:
    if name in result.applied:
        return LoadOutcome.APPLIED
    if name in result.failed:
        return LoadOutcome.FAILED
    if name in result.superseded:
        return LoadOutcome.SUPERSEDED
    if before is not None and before.outcome is LoadOutcome.APPLIED:
        return LoadOutcome.APPLIED
    return LoadOutcome.UNCHANGED


log = get_logger(__name__)

_TOLD_SECONDS = 1.0
"""However often somebody says that what failed is to be tried again, it is no oftener than this."""

Renewing = Callable[[], AbstractContextManager[None]]
"""Keeps presence alive while the body runs."""
Applied = Callable[[int, float], None]
"""Told the number of a release that was worked through, and how many seconds that took."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is known of the store, for those who must not wait for a disk."""

    looked: bool = False
    newest: Release | None = None
    broken: Mapping[int, ReleaseUnreadableError] = field(default_factory=dict)
    """Releases above it that are damaged or not trusted."""
    error: str | None = None
    """Why it could not be read; ``None``: it could."""
    asking_since: float | None = None
    """By the monotonic clock, while it is being asked; ``None``: nobody waits for it."""


class Follower:
    """Brings what is served to the newest release; used by one thread at a time."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: ArtifactStore,
        loader: Loader,
        current: Current,
        readiness: Readiness,
        clock: Clock,
    ) -> None:
        self._chosen = settings.reader.components
        self._definitions = settings.components
        self._store = store
        self._loader = loader
        self._current = current
        self._readiness = readiness
        self._clock = clock
        self._release: Release | None = None
        self._complaint = ""
        self._blind = False
        self._told = threading.Event()
        self._told_at: float | None = None
        self.seen = Seen()
        """What the store said when it was asked last; replaced, never changed."""
        self._doubts: queue.SimpleQueue[Doubt] = queue.SimpleQueue()
        self.states: dict[str, ComponentState] = {}
        """The state of each component after the last round; replaced, never changed."""

    @classmethod
    def made(
        cls,
        settings: Settings,
        *,
        member: str,
        store: ArtifactStore,
        current: Current,
        readiness: Readiness,
        clock: Clock,
    ) -> Self:
        """A follower with a loader of its own, which knows of no failure yet."""
        let_import(settings)
        failures = Failures(
            store,
            first_wait_seconds=settings.reader.retry_seconds,
            spread_key=member,
            clock=clock,
        )
        loader = Loader(
            Opener(store, definitions=settings.components, clock=clock),
            store,
            failures=failures,
            chosen=settings.reader.components,
            clock=clock,
        )
        return cls(
            settings,
            store=store,
            loader=loader,
            current=current,
            readiness=readiness,
            clock=clock,
        )

    @property
    def retry_at(self) -> float | None:
        """When a failed load may be tried again, by the monotonic clock.

        ``None`` also while the store cannot be read: its next look comes at the usual pace, and a
        retry that is due until then would be looked for again and again without a pause.
        """
        return None if self._blind else self._loader.retry_at

    def look(
        self,
        *,
        announced: int,
        renewing: Renewing,
        applied: Applied,
        stopping: Callable[[], bool],
    ) -> bool:
        """Work through the newest release if there is anything to do; whether a swap was made.

        Args:
            announced: the number that Redis gives; only used to say that the store lags behind.
            renewing: entered around the loads.
            applied: called after each round that changed something, or met a new release.
            stopping: whether to leave what superseded the last round for another time.
        """
        if self._may_try_again:
            self._told.clear()  # before: told once more meanwhile is one more time
            self._told_at = self._clock.monotonic()
            self._loader.try_again()
        while not self._doubts.empty():
            self._loader.doubt(self._doubts.get(), self._current.contents)
        swapped = False
        while (release := self._due(announced)) is not None:
            with giving_way():
                result, changed = self._round(release, renewing, applied)
            swapped = swapped or changed
            if not result.superseded or stopping():
                break
        return swapped

    def doubt(self, doubt: Doubt) -> None:
        """Take up at the next look that something served is damaged; from any thread."""
        self._doubts.put(doubt)

    def retry_failed(self) -> None:
        """Let every load that failed be tried at the next look; from any thread."""
        self._told.set()

    @property
    def asked(self) -> bool:
        """Whether somebody wants a look now."""
        return self._may_try_again or not self._doubts.empty()

    @property
    def _may_try_again(self) -> bool:
        """Whether somebody said so, and not just before: a load that fails may take long."""
        if not self._told.is_set():
            return False
        return self._told_at is None or self._clock.monotonic() >= self._told_at + _TOLD_SECONDS

    def forget(self) -> None:
        """Start from nothing at the next look."""
        self._release = None
        self.seen = Seen()
        self._loader.forget()
        self.states = {}
        self._readiness.put(ready=False)

    def _due(self, announced: int) -> Release | None:
        """The release to work through now; ``None``: there is nothing to do."""
        known = self._release
        self.seen = replace(self.seen, asking_since=self._clock.monotonic())
        try:
            newest = self._store.newest_release()
        except StoreAccessError as error:
            self.seen = Seen(looked=True, newest=self.seen.newest, error=str(error))
            self._complain("store.unreadable", error=str(error))
            self._blind = True
            return None
        self.seen = Seen(looked=True, newest=newest, broken=self._store.broken_releases)
        self._blind = False
        number = newest.number if newest is not None else 0
        serving = self._current.contents.release
        if number < serving:
            self._complain("release.went_back", newest=number, serving=serving)
            newest = known
        elif announced > number:
            self._complain("release.not_visible", announced=announced, newest=number)
        else:
            self._complaint = ""
        if newest is None:
            return None
        if known is None or (known.number, known.digest) != (newest.number, newest.digest):
            return newest
        self._loader.notice_repairs()
        retry_at = self._loader.retry_at
        return newest if retry_at is not None and self._clock.monotonic() >= retry_at else None

    def _round(self, release: Release, renewing: Renewing, applied: Applied) -> tuple[Round, bool]:
        """Load, swap, and say so; returns what came of it, and whether anything is different."""
        failpoint("reader.after_seeing")
        started = self._clock.monotonic()
        before = self._current.contents
        parts = self._loader.parts(release, before)
        with renewing():
            result = self._loader.work_through(release, before, parts)
        is_new = self._release is None or self._release.digest != release.digest
        changed = is_new or result.changed
        if changed:
            failpoint("reader.before_swap")
            self._current.swap(result.contents)
            failpoint("reader.after_swap")
        self.states = states_after(
            result, release, chosen=self._chosen, before={} if is_new else self.states
        )
        self._release = release
        required = required_names(
            release.components, chosen=self._chosen, definitions=self._definitions
        )
        self._readiness.put(ready=required <= result.contents.components.keys())
        if changed:
            seconds = self._clock.monotonic() - started
            _log_summary(release, result, ready=bool(self._readiness), seconds=seconds)
            applied(release.number, seconds)
        return result, changed

    def _complain(self, event: str, **fields: object) -> None:
        """Log what is wrong once, not at every look."""
        complaint = f"{event} {fields}"
        if complaint != self._complaint:
            log.warning(event, **fields)
        self._complaint = complaint


def _log_summary(release: Release, result: Round, *, ready: bool, seconds: float) -> None:
    """One line per release: which components are there now, and which are not."""
    say = log.info
    if result.failed:
        say = log.warning if result.applied else log.error
    say(
        "release.applied",
        release=release.number,
        succeeded=sorted(result.applied),
        failed=sorted(result.failed),
        fell_back=sorted(result.fell_back),
        dropped=sorted(result.dropped),
        superseded=sorted(result.superseded),
        ready=ready,
        seconds=round(seconds, 6),
    )


_BURST = 1000
"""Messages taken at once; they are worth one look together."""
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0


class ReleaseWatch:
    """Waits for releases; `wait` belongs to the reloading thread."""

    def __init__(self, link: Link, keys: Keys, *, member: str) -> None:
        self._member = member
        self._link = link
        self._keys = keys
        self._tail: Tail | None = None
        self._failures = 0
        self._away = False
        self.silent = False
        """Whether the server did not answer when it was asked last; a refusal is an answer."""

    def wait(self, seconds: float, stopping: threading.Event) -> bool:
        """Wait up to ``seconds``, or until ``stopping``; whether there is a reason to look.

        A blocking read is never cancelled, so it is cut into pieces that are short enough for
        `stop` to wait for.
        """
        connection = self._link.connection
        if connection is None:
            stopping.wait(seconds)
            return False
        try:
            if self._tail is None:
                self._tail = Tail(connection, self._keys.reloads)
            read = self._tail.read(
                count=_BURST, block_seconds=min(seconds, connection.block_seconds)
            )
        except RedisError as error:
            self.silent = is_unanswered(error)
            # The tail has logged it; its next read has a gap, and that is a reason to look.
            self._failures += 1
            pause = backoff_seconds(
                self._failures,
                first=_FIRST_PAUSE_SECONDS,
                longest=_LONGEST_PAUSE_SECONDS,
                key=self._member,  # a server that comes back is not met by all at once
            )
            stopping.wait(min(seconds, pause))
            return False
        self._failures = 0
        self.silent = False
        return read.gap or bool(read.deliveries)

    @property
    def cursor(self) -> str | None:
        """How far the reload messages were read; ``None``: not at all."""
        cursor = self._tail.cursor if self._tail is not None else None
        return None if cursor is None else cursor.decode()

    def announced(self) -> int:
        """The newest announced release; 0 when none is, or nobody can say."""
        connection = self._link.connection
        if connection is None:
            return 0
        try:
            number = current_release(connection, self._keys)
        except RedisError as error:
            self.silent = is_unanswered(error)
            if not self._away:
                advice = "it may come back" if is_transient(error) else "see the server's ACL"
                log.warning("release.number_unknown", error=str(error), advice=advice)
            self._away = True
            return 0
        self._away = self.silent = False
        return number
