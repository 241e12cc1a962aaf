"""Follows the releases: waits for one, finds the one to serve, has it loaded, and swaps.

A release may be for canaries first; it says itself what every other reader serves meanwhile, so
that no reader has to know of the others (`Release.for_reader`).

Nothing that comes from Redis is believed. A message is not even read: that there is one means "look
now". Only the artifact store says what the newest release is, and only an intact one counts. A
lower number than the one that was worked through is never followed: what is served may stem from a
release that was corrupt since, and a rollback has a higher number anyway.

One look of the reloader is `take_requests`, and then, as long as a release is `due`, `load` and
`serve`.
"""

import queue
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from indexrelay.reloaders.loader import Loader, Round, newest_for, served_names
from indexrelay.reloaders.presence import Link
from indexrelay.reloaders.scrubber import Corruption
from indexrelay.reloaders.snapshot import Current
from indexrelay.schemas.clock import Clock, backoff_seconds
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.loggers import LogOnce, get_logger
from indexrelay.schemas.messages import ComponentState, LoadOutcome
from indexrelay.schemas.names import split_member_id
from indexrelay.schemas.settings import ComponentDefinition, Settings
from indexrelay.schemas.settings_file import let_import
from indexrelay.schemas.tracing import tracing_of
from indexrelay.schemas.versions import Release
from indexrelay.storage.artifacts import ArtifactStore, ReleaseUnreadableError, StoreAccessError
from indexrelay.streams import Keys, Tail, current_release, is_transient
from indexrelay.streams.errors import is_unanswered

if TYPE_CHECKING:  # only where the settings ask for traces
    from indexrelay.reloaders.traces import LoadTraces

log = get_logger(__name__)

_RETRY_PAUSE_SECONDS = 1.0
"""Failed loads are retried on request at most this often, however often they are asked for."""
_BURST = 1000
"""Messages taken at once; they are worth one look together."""
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class StoreView:
    """What is known of the store, for those who must not wait for a disk."""

    looked: bool = False
    newest: Release | None = None
    broken: Mapping[int, ReleaseUnreadableError] = field(default_factory=dict)
    """Releases above it that are corrupt or not trusted."""
    error: str | None = None
    """Why it could not be read; ``None``: it could."""
    asking_since: float | None = None
    """By the monotonic clock, while it is being asked; ``None``: no answer is outstanding."""


class Follower:
    """Brings what is served to the newest release; used by one thread at a time."""

    def __init__(
        self,
        settings: Settings,
        *,
        member: str,
        store: ArtifactStore,
        current: Current,
        clock: Clock,
    ) -> None:
        """Nothing is known of any release yet; ``member`` spreads the retries of readers."""
        let_import(settings)
        self._label, _ = split_member_id(member)
        self._member = member
        self._traces = _traces_of(settings, member)
        self._chosen = settings.reader.components
        self._definitions = settings.components
        self._store = store
        self._loader = Loader(settings, member=member, store=store, clock=clock)
        self._current = current
        self._clock = clock
        self._release: Release | None = None
        self._complaints = LogOnce()
        self._retry_requested = threading.Event()
        self._retried_at: float | None = None
        self._corruption: queue.SimpleQueue[Corruption] = queue.SimpleQueue()
        self.ready = False
        """Whether every required component is served."""
        self.store_view = StoreView()
        """What the store answered last; replaced, never changed."""
        self.states: dict[str, ComponentState] = {}
        """The state of each component after the last round; replaced, never changed."""

    @property
    def retry_at(self) -> float | None:
        """When a failed load may be retried, by the monotonic clock.

        ``None`` also while the store cannot be read: the next look comes at the usual pace, and a
        retry that is due until then would cause one look after the other without a pause.
        """
        return None if self.store_view.error is not None else self._loader.retry_at

    @property
    def damaged(self) -> dict[str, str]:
        """By component: the wanted version whose files are corrupt or missing; from any thread."""
        return self._loader.damaged

    def watch(self, link: Link, keys: Keys) -> "ReleaseWatch":
        """What waits for a reason to look."""
        return ReleaseWatch(link, keys, member=self._member, traces=self._traces)

    def report_corruption(self, corruption: Corruption) -> None:
        """Take up at the next look that something served is corrupt; from any thread."""
        self._corruption.put(corruption)

    def retry_failed(self) -> None:
        """Let every load that failed be retried at the next look; from any thread."""
        self._retry_requested.set()

    @property
    def asked(self) -> bool:
        """Whether a look is wanted now."""
        return self._may_retry or not self._corruption.empty()

    @property
    def _may_retry(self) -> bool:
        """Whether a retry is requested, and the last one is some time ago: loads may take long."""
        if not self._retry_requested.is_set():
            return False
        at = self._retried_at
        return at is None or self._clock.monotonic() >= at + _RETRY_PAUSE_SECONDS

    def forget(self) -> None:
        """Start from nothing at the next look."""
        self._release = None
        self.store_view = StoreView()
        self._loader.forget()
        self.states = {}
        self.ready = False

    def take_requests(self) -> None:
        """Take up what `retry_failed` and `report_corruption` asked for."""
        if self._may_retry:
            self._retry_requested.clear()  # first: a request that comes meanwhile is another one
            self._retried_at = self._clock.monotonic()
            self._loader.retry_all()
        while not self._corruption.empty():
            self._loader.take_corruption(self._corruption.get(), self._current.contents)

    def due(self, *, announced: int) -> Release | None:
        """The release to work through now; ``None``: there is nothing to do.

        Args:
            announced: the number in Redis; it only serves to log that the store lags behind.
        """
        known = self._release
        self.store_view = replace(self.store_view, asking_since=self._clock.monotonic())
        try:
            newest = newest_for(self._store, self._label)
        except StoreAccessError as error:
            self.store_view = StoreView(
                looked=True, newest=self.store_view.newest, error=str(error)
            )
            self._warn_once("store.unreadable", error=str(error))
            return None
        self.store_view = StoreView(looked=True, newest=newest, broken=self._store.broken_releases)
        number = newest.number if newest is not None else 0
        serving = self._current.contents.release
        if number < serving:
            self._warn_once("release.went_back", newest=number, serving=serving)
            newest = known
        elif announced > number:
            self._warn_once("release.not_visible", announced=announced, newest=number)
        else:
            self._complaints.new({})
        if newest is None:
            return None
        if known is None or (known.number, known.digest) != (newest.number, newest.digest):
            return newest
        self._loader.retry_repaired()
        retry_at = self._loader.retry_at
        return newest if retry_at is not None and self._clock.monotonic() >= retry_at else None

    def load(self, release: Release) -> Round:
        """Load what ``release`` names; nothing is served differently yet."""
        failpoint("reader.after_seeing")
        return self._loader.load(release, self._current.contents)

    def serve(self, done: Round) -> bool:
        """Serve what was loaded; whether anything changed, if only the number of the release."""
        release = done.release
        is_new = self._release is None or self._release.digest != release.digest
        changed = is_new or done.changed
        if changed:
            failpoint("reader.before_swap")
            self._current.swap(done.contents)
            failpoint("reader.after_swap")
        self.states = _states_after(done, chosen=self._chosen, before={} if is_new else self.states)
        self._release = release
        required = _required_names(
            release.components, chosen=self._chosen, definitions=self._definitions
        )
        self.ready = required <= done.components.keys()
        if changed:
            done.seconds = self._clock.monotonic() - done.started_at
            _log_summary(done, ready=self.ready)
            if self._traces is not None:
                self._traces.loaded(done, ended=self._clock.now())
        return changed

    def _warn_once(self, event: str, **fields: object) -> None:
        """Log what is wrong once, not at every look."""
        if self._complaints.new({event: fields}):
            log.warning(event, **fields)


def _traces_of(settings: Settings, member: str) -> "LoadTraces | None":
    """What makes spans of loads; ``None``: the settings ask for none."""
    tracing = tracing_of(settings)
    if tracing is None:
        return None
    from indexrelay.reloaders.traces import LoadTraces

    return LoadTraces(tracing, member=member)


def _required_names(
    released: Collection[str],
    *,
    chosen: Collection[str] | None,
    definitions: Mapping[str, ComponentDefinition],
) -> set[str]:
    """The components without which a reader is not ready.

    The settings decide where they declare the component; one that only the release names is
    required, too. A component of an older version counts: an answer from the last good version is
    an answer.

    Args:
        released: what the release names.
        chosen: what this reader serves; ``None``: everything.
        definitions: what the reader's settings declare.
    """
    names = set(definitions) | set(released)
    if chosen is not None:
        names &= set(chosen)
    return {name for name in names if name not in definitions or definitions[name].required}


def _states_after(
    done: Round, *, chosen: Collection[str] | None, before: Mapping[str, ComponentState]
) -> dict[str, ComponentState]:
    """The state of every component that is served or should be.

    Args:
        before: the states after an earlier round of the same release: what was applied then is
            not called unchanged because something else was retried. Empty for a new release.
    """
    names = served_names(done.release, chosen) | done.components.keys()
    return {name: _state(name, done, before.get(name)) for name in sorted(names)}


def _state(name: str, done: Round, before: ComponentState | None) -> ComponentState:
    outcome = _outcome(name, done, before)
    wanted = done.release.components.get(name)
    error, refusal = done.failed.get(name), done.refused.get(name)
    served = done.components.get(name)
    if served is None:
        return ComponentState(outcome=outcome, wanted=wanted, error=error, refusal=refusal)
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
        refusal=refusal,
        overlap=served.overlap,
        applied_at=served.applied_at,
    )


def _outcome(name: str, done: Round, before: ComponentState | None) -> LoadOutcome:
    if name in done.applied:
        return LoadOutcome.APPLIED
    if name in done.failed:
        return LoadOutcome.FAILED
    if name in done.superseded:
        return LoadOutcome.SUPERSEDED
    if before is not None and before.outcome is LoadOutcome.APPLIED:
        return LoadOutcome.APPLIED
    return LoadOutcome.UNCHANGED


def _log_summary(done: Round, *, ready: bool) -> None:
    """One line per release: which components are there now, and which are not."""
    write = log.info
    if done.failed:
        write = log.warning if done.applied else log.error
    write(
        "release.applied",
        release=done.release.number,
        succeeded=sorted(done.applied),
        failed=sorted(done.failed),
        fell_back=sorted(done.fell_back),
        dropped=sorted(done.dropped),
        superseded=sorted(done.superseded),
        ready=ready,
        seconds=round(done.seconds, 6),
    )


class ReleaseWatch:
    """Waits for a reason to look; `wait` belongs to the reloading thread."""

    def __init__(
        self, link: Link, keys: Keys, *, member: str, traces: "LoadTraces | None" = None
    ) -> None:
        self._member = member
        self._traces = traces
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
                key=self._member,  # readers do not all come back at once
            )
            stopping.wait(min(seconds, pause))
            return False
        self._failures = 0
        self.silent = False
        if self._traces is not None:
            self._traces.note(read.deliveries)
        return read.gap or bool(read.deliveries)

    @property
    def cursor(self) -> str | None:
        """How far the reload messages were read; ``None``: not at all."""
        cursor = self._tail.cursor if self._tail is not None else None
        return None if cursor is None else cursor.decode()

    def announced(self) -> int:
        """The newest announced release; 0 when none is, or Redis does not answer."""
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
