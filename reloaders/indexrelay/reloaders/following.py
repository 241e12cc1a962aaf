"""Follows the releases: finds the one to serve, has it loaded, swaps, and says what came of it.

Only the artifact store says what the newest release is, and only an intact one counts. A lower
number than the one that was worked through is never followed: what is served may stem from a
release that was damaged since, and a rollback has a higher number anyway.
"""

import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Self

from indexrelay.reloaders.failures import Failures
from indexrelay.reloaders.giving_way import giving_way
from indexrelay.reloaders.loading import Loader, Round
from indexrelay.reloaders.opening import Opener
from indexrelay.reloaders.outcomes import states_after
from indexrelay.reloaders.readiness import Readiness, required_names
from indexrelay.reloaders.scrubbing import Doubt
from indexrelay.reloaders.swapping import Current
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.results import ComponentState
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.user_modules import let_import
from indexrelay.schemas.versions import Release
from indexrelay.storage.artifacts import ArtifactStore, ReleaseUnreadableError, StoreAccessError

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
