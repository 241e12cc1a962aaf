"""The reloader: keeps what a process serves at the newest release.

One daemon thread waits for messages and, whatever is in them, looks into the artifact store for the
newest intact release: at start, on every message, after any gap or outage, every ``poll_seconds``,
and when a failed load may be retried. So Redis only makes it quick. Queries borrow what is served
and never wait for any of this.

Readers in forked children: a web server may load the application once and fork its workers. Threads
and held locks do not survive a fork, so each reader makes its locks again in the child, and one
that ran starts its thread again. It is a process of its own under the same id, and serves on what
was served already, since the mapped pages are shared.
"""

import contextlib
import hashlib
import os
import sys
import threading
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from indexrelay.health.judge import judge_reader
from indexrelay.health.status import Actor, Code, Problem
from indexrelay.reloaders.catalog import CatalogAccess
from indexrelay.reloaders.consistency import Consistency, Freshness
from indexrelay.reloaders.errors import NotFreshError
from indexrelay.reloaders.follower import Follower
from indexrelay.reloaders.heartbeat import Heartbeat
from indexrelay.reloaders.loader import Round, switch_interval
from indexrelay.reloaders.presence import Link, Reporter
from indexrelay.reloaders.recovery import Recovery
from indexrelay.reloaders.scrubber import Scrubber
from indexrelay.reloaders.snapshot import Current, Snapshot, SwapCallback
from indexrelay.schemas.clock import Clock, SupervisedThread, SystemClock
from indexrelay.schemas.declarations import declared_to_serve
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import LiveStatus, ReaderState, ReleaseApplied
from indexrelay.schemas.session import SessionToken
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import settings_of
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.streams import Connection, Identity, Keys
from indexrelay.streams.connection import import_driver
from indexrelay.streams.presence import follow_forks

if TYPE_CHECKING:
    from indexrelay.components.embedder import Embedders
    from indexrelay.reloaders.live import LiveLayer

log = get_logger(__name__)

_SILENT_SECONDS = 30.0
"""A store that does not answer for so long, neither with a release nor with an error, is away."""


class Reloader:
    """Serves the newest release in this process; safe to use from any thread, and across forks."""

    def __init__(
        self,
        settings: Settings,
        *,
        reader_id: str | None = None,
        store: ArtifactStore | None = None,
        connection: Connection | None = None,
        clock: Clock | None = None,
        address: str | None = None,
        before_swap: Iterable[SwapCallback] = (),
        after_swap: Iterable[SwapCallback] = (),
    ) -> None:
        """Take what it works with; nothing is loaded or connected before `start` or `step`.

        Args:
            settings: the installation.
            reader_id: a label, stable across restarts; the workers of one server may share it,
                since each process is present by itself. ``None``: host and process number.
            store: ``None``: the one that the settings name.
            connection: stays open at `stop`; ``None``: one of its own, to the server that the
                settings name or to the embedded one of the data folder. While there is none it
                looks into the store every ``poll_seconds``.
            clock: ``None``: the system's.
            address: where this process answers queries, for others to see.
            before_swap: called with the old and the new snapshot, before queries get the new one.
            after_swap: called with both, once queries get the new one. None of them can veto.

        Raises:
            ValueError: ``reader_id`` may not name a reader.
        """
        self._settings = settings
        self._declares = declared_to_serve(settings.components)
        self._identity = Identity(reader_id)
        self._clock = clock or SystemClock()
        self._store = store or ArtifactStore.of(settings, clock=self._clock, may_be_away=True)
        self._address = address
        self._keys = Keys(settings.namespace)
        self._link = Link(settings, connection)
        self._current = Current(before_swap=before_swap, after_swap=after_swap)
        self._reserve = DescriptorReserve()
        self._inherited: LiveLayer | None = None
        self.settings_refused: str | None = None  # set by whoever reads the settings again
        self.embedders = _embedders_of(settings)
        """What makes vectors of texts; ``None``: no collection has an embedder."""
        self._prepare()
        follow_forks(self)

    @classmethod
    def open(
        cls,
        settings: Settings | str | Path | None = None,
        *,
        reader_id: str | None = None,
        address: str | None = None,
        before_swap: Iterable[SwapCallback] = (),
        after_swap: Iterable[SwapCallback] = (),
    ) -> Self:
        """A reloader for the installation of the settings; to be started.

        Args:
            settings: they themselves, or the path of their file; ``None``: the file that
                ``INDEXRELAY_CONFIG`` names, else ``indexrelay.toml`` in the current folder, else
                the variables ``INDEXRELAY_…`` alone.
            reader_id: as in the constructor; so are the others.

        Raises:
            SettingsError: with every mistake in them.
            ValueError: ``reader_id`` may not name a reader.
        """
        return cls(
            settings_of(settings),
            reader_id=reader_id,
            address=address,
            before_swap=before_swap,
            after_swap=after_swap,
        )

    def _prepare(self) -> None:
        """Make everything that holds a lock or belongs to one process."""
        reader = self._settings.reader
        self._started_at = self._clock.now()
        self._starting = threading.Lock()
        self._looking = threading.RLock()  # a callback may call `stop`
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None
        self._scrubbing: threading.Thread | None = None
        self._announced = 0
        self._heartbeats: tuple[Heartbeat, ...] = ()
        self._catalog = CatalogAccess(self._settings, self._clock)
        self._live = self._live_layer()
        self._freshness: Freshness | None = None
        self._silent_logged = False
        self._reporter = Reporter(
            self._link,
            self._keys,
            ttl_seconds=reader.presence_ttl_seconds,
            keep_reports_seconds=self._settings.rebuilder.history_seconds,
            clock=self._clock,
        )
        self._follower = Follower(
            self._settings,
            member=self._identity.member,
            store=self._store,
            current=self._current,
            clock=self._clock,
        )
        self._watch = self._follower.watch(self._link, self._keys)

    def _live_layer(self) -> "LiveLayer | None":
        """What follows the live collections; ``None``: there are none, and nothing is imported."""
        if not any(each.live for each in self._settings.collections.values()):
            return None
        from indexrelay.reloaders.live import LiveLayer

        return LiveLayer(
            self._settings,
            link=self._link,
            contents=lambda: self._current.contents,
            catalog=self._catalog,
            changed=self._note_change,
            report=self._publish_presence,
            member=self._identity.member,
            clock=self._clock,
        )

    @property
    def settings(self) -> Settings:
        """The installation."""
        return self._settings

    @property
    def reader_id(self) -> str:
        """Its label: the id that was given, or host and process number."""
        return self._identity.label

    @property
    def ready(self) -> bool:
        """Whether every required component is served."""
        return self._ready.is_set()

    @property
    def state(self) -> ReaderState:
        """The whole current state, as its presence shows it."""
        silent_since = self._silent_since
        return ReaderState(
            reader=self._identity.label,
            host=self._identity.host,
            pid=self._identity.pid,
            instance=self._identity.instance,
            address=self._address,
            started_at=self._started_at,
            updated_at=self._clock.now(),
            declares=self._declares,
            settings_refused=self.settings_refused,
            ready=self.ready and silent_since is None,
            service_silent_since=silent_since,
            release=self._current.contents.release,
            cursor=self._watch.cursor,
            components=self._follower.states,
            live={} if self._live is None else self._live.states,
        )

    @property
    def newest_release(self) -> int:
        """The number of the newest release in the artifacts, as of the last look; 0: none."""
        newest = self._follower.store_view.newest
        return 0 if newest is None else newest.number

    @property
    def damaged(self) -> dict[str, str]:
        """By component: the wanted version whose files are damaged, which this reader recovers."""
        return self._follower.damaged

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What keeps this reader from serving the newest release, whole; empty: nothing.

        The same that `indexrelay status` says of it, from its last look into the store: it does
        not wait for a disk.
        """
        seen, now = self._follower.store_view, self._clock.monotonic()
        waiting = 0.0 if seen.asking_since is None else now - seen.asking_since
        error = f"no answer for {waiting:.0f} s" if waiting > _SILENT_SECONDS else seen.error
        if error is not None:
            return (
                Problem(
                    code=Code.ARTIFACTS_UNREADABLE,
                    what=f"the artifacts cannot be read: {error}",
                    advice="this reader keeps what it serves, and goes on once they can be read",
                    acts=Actor.PERSON,
                ),
            )
        if not seen.looked:
            return (
                Problem(
                    code=Code.READER_NOT_READY,
                    subject=self.reader_id,
                    what=f"reader {self.reader_id} is not ready: it has not looked for a release",
                    advice="it looks as soon as it has started",
                    acts=Actor.PROCESS,
                ),
            )
        return judge_reader(
            self.state,
            seen.newest,
            settings=self._settings,
            now=self._clock.now(),
            broken=seen.broken,
        )

    def acquire(
        self,
        consistency: Consistency | None = None,
        *,
        components: Collection[str] | None = None,
        timeout_seconds: float = 2.0,
    ) -> Snapshot:
        """Borrow what is served now: ``with reloader.acquire() as snapshot:``.

        Never waits, unless it is asked for freshness. Before the first release the snapshot is
        empty.

        Args:
            consistency: how fresh it has to be; ``None``: as it is.
            components: those that have to be that fresh; ``None``: all that are served.
            timeout_seconds: how long that may be waited for; 0: not at all.

        Raises:
            NotFreshError: it was not that fresh in time.
            ComponentNotServedError: one of the components is not served.
            ReloaderStoppedError: the reloader was stopped.
        """
        if consistency is not None:
            return self.freshness.acquire(
                consistency, components=components, timeout_seconds=timeout_seconds
            )
        if self._live is None:
            return self._current.acquire()
        return self._current.acquire(self._live.views)

    @property
    def freshness(self) -> Freshness:
        """How fresh it is, for those who wait for that in a loop of their own."""
        with self._starting:
            if self._freshness is None:
                self._freshness = Freshness(
                    acquire=self.acquire,
                    catalog=self._catalog,
                    live=self._live,
                    has_thread=lambda: self._thread is not None and self._thread.is_alive(),
                )
            return self._freshness

    def wait_covers(
        self,
        token: SessionToken,
        *,
        timeout_seconds: float,
        components: Collection[str] | None = None,
    ) -> bool:
        """Wait until what is served contains all that a session token names; whether it does.

        Raises what `acquire` raises, but for `NotFreshError`.
        """
        try:
            self.acquire(
                Consistency.session(token), components=components, timeout_seconds=timeout_seconds
            ).close()
        except NotFreshError:
            return False
        return True

    def lag_seconds(self, snapshot: Snapshot, component: str) -> float | None:
        """How old an answer of a component is at most; ``None``: the catalog did not say.

        Everything is in it that was committed so many seconds ago, by this process's own clock.
        """
        now, lags = self._clock.monotonic(), [0.0]
        for life in snapshot.reached(component):
            known = [
                look.begun.at
                for look in self._catalog.looks(life.collection)
                if look.epoch == life.epoch and look.generation <= life.generation
            ]
            if not known:
                return None
            lags.append(now - max(known))
        return max(lags)

    def is_missing_changes(self, snapshot: Snapshot, component: str) -> bool:
        """Whether changes are known to be missing in the answers of a component."""
        live = self._live
        return live is not None and any(
            live.status(life.collection) in (LiveStatus.WAITING, LiveStatus.FULL)
            for life in snapshot.reached(component)
        )

    def wait_ready(self, timeout_seconds: float) -> bool:
        """Wait until every required component is served; whether that is so."""
        return self._ready.wait(timeout_seconds)

    def start(self) -> None:
        """Start the thread; nothing when it runs. After `stop` it starts again from nothing."""
        with self._starting:
            if self._thread is not None:
                if not self._stopping.is_set():
                    return
                self._thread.join()
            self._stopping = stopping = threading.Event()
            self._watch = self._follower.watch(self._link, self._keys)
            self._current.open()
            import_driver()
            self._thread = SupervisedThread(
                lambda: self._run(stopping), name="indexrelay-reloader", wait=stopping.wait
            )
            self._thread.start()

    def stop(self) -> None:
        """Stop the thread, leave presence and serve nothing more.

        Waits for a load that runs and for one blocking read (``block_seconds``; where Redis does
        not answer, one of its time-outs more). Safe twice and before `start`; in a callback it does
        not wait. Queries keep what they have borrowed.
        """
        self._stopping.set()
        thread = self._thread
        if thread is None or not thread.is_alive():
            self._leave()
        elif thread is not threading.current_thread():
            thread.join()
            self._leave()  # the thread may have ended while it recovered from an error

    def retry_failed(self) -> None:
        """Retry what could not be loaded, however it failed.

        At the next look, within ``block_seconds``. A transient failure is retried anyway, and so is
        a version whose files were replaced: this is for what only a person knows to be repaired.
        """
        self._follower.retry_failed()

    @contextlib.asynccontextmanager
    async def watching_loop(self) -> AsyncIterator[None]:
        """While the body runs, count as ready only while the running event loop turns.

        For services that answer from it; `reloader_lifespan` does this for an application.
        """
        heartbeat = Heartbeat(self._clock)
        self._heartbeats = (*self._heartbeats, heartbeat)
        try:
            async with heartbeat.beating():
                yield
        finally:
            self._heartbeats = tuple(each for each in self._heartbeats if each is not heartbeat)

    def step(self) -> bool:
        """Look once, without blocking on Redis; ``True`` when a snapshot was swapped.

        Raises nothing that the store or a load raises: that is in `state` and in the log.
        """
        with self._looking:
            self._current.open()
            swapped = self._look()
            self._current.release_old()
            if self._live is not None:
                self._live.step()
            return swapped

    def after_fork_in_child(self) -> None:
        """Become a reader of this child."""
        _use_one_openmp_thread()
        was_running = self._thread is not None and not self._stopping.is_set()
        self._link.forget()
        self._inherited = self._live  # kept: its connections are the parent's, and not to be closed
        # What is served stays; the first look finds that it is as the release wants it.
        states, ready = self._follower.states, self.ready
        self._prepare()
        self._follower.states = states
        if ready:
            self._ready.set()
        if was_running:
            self.start()

    def _run(self, stopping: threading.Event) -> None:
        """The thread: look, report, wait for the next reason to do either."""
        who = self._identity
        spread = Spread(who.member, start_seconds=self._settings.reader.start_spread_seconds)
        first = spread.first_look_seconds
        log.info("reader.started", reader=who.label, first_look_in_seconds=round(first, 3))
        if self._current.contents.release:
            # Inherited in a fork: it answers already, and must be counted from the start.
            self._reporter.publish(lambda: self.state)
        stopping.wait(first)
        self._start_scrubber(stopping)
        if self._live is not None:
            self._live.start(stopping)
        look_at = publish_at = self._clock.monotonic()
        while not stopping.is_set():
            now = self._clock.monotonic()
            retry_at = self._follower.retry_at
            retry_due = retry_at is not None and now >= retry_at
            if now >= look_at or retry_due or self._follower.asked:
                with self._looking:
                    self._look(renew_presence=True)
                now = self._clock.monotonic()
                look_at = now + spread.cut(self._settings.reader.poll_seconds)
                publish_at = now + spread.cut(self._reporter.renew_seconds)
            elif self._note_silence() or now >= publish_at:
                self._reporter.publish(lambda: self.state)
                publish_at = now + spread.cut(self._reporter.renew_seconds)
            due_at = min(look_at, publish_at, self._follower.retry_at or look_at)
            wait_seconds = min(due_at - now, self._settings.reader.block_seconds)
            if not stopping.is_set() and self._watch.wait(max(wait_seconds, 0.0), stopping):
                look_at = now
            self._current.release_old()  # by now the queries that used it are over
        if self._scrubbing is not None:
            self._scrubbing.join()
        self._leave()
        log.info("reader.stopped", reader=who.label)

    def _start_scrubber(self, stopping: threading.Event) -> None:
        if self._scrubbing is None or not self._scrubbing.is_alive():
            self._scrubbing = Scrubber(
                self._store,
                self._settings.reader,
                contents=lambda: self._current.contents,
                report=self._follower.report_corruption,
                wait=stopping.wait,
                clock=self._clock,
                recover=Recovery(
                    self._catalog,
                    damaged=lambda: self.damaged,
                    held=lambda: self._current.contents.held,
                    clock=self._clock,
                ).look,
            ).start()

    def _look(self, *, renew_presence: bool = False) -> bool:
        """Work through the newest release if there is anything to do; whether a swap was made.

        Args:
            renew_presence: whether presence is to be kept alive while a load takes long.
        """
        swapped = False
        with self._reserve.lent(), switch_interval.shortened():
            self._follower.take_requests()
            while (release := self._follower.due(announced=self._announced)) is not None:
                renewing = self._reporter.renewing(lambda: self.state) if renew_presence else None
                with renewing or contextlib.nullcontext():
                    done = self._follower.load(release)
                changed = self._follower.serve(done)
                self._note_ready()
                if changed:
                    swapped = True
                    self._note_change()
                    self._report(done)
                if not done.superseded or self._stopping.is_set():
                    break
            # The server comes last: one that does not answer must not hold up what can be served.
            self._publish_presence()
            if self._may_report:
                self._announced = self._watch.announced()
        return swapped

    @property
    def _silent_since(self) -> datetime | None:
        """Since when a service that stands on this reader answers nobody."""
        return min(filter(None, (each.silent_since for each in self._heartbeats)), default=None)

    def _note_silence(self) -> bool:
        """Log where a service hangs, and when it goes on; whether either is new."""
        since = self._silent_since
        if (since is not None) is self._silent_logged:
            return False
        self._silent_logged = since is not None
        if since is None:
            log.info("service.answers_again", reader=self.reader_id)
            return True
        where = [each.where for each in self._heartbeats if each.silent_since is not None]
        log.error(
            "service.silent",
            reader=self.reader_id,
            since=since.isoformat(),
            consequence="it answers nobody, and does not count as ready",
            where=where,
            advice="see what that call waits for; what takes long belongs on a thread",
        )
        return True

    def _note_change(self) -> None:
        """Something is served that was not: wake those who wait for it."""
        if self._freshness is not None:
            self._freshness.changed()

    def _publish_presence(self) -> None:
        if self._may_report:
            self._reporter.publish(lambda: self.state)

    def _note_ready(self) -> None:
        if self._follower.ready:
            self._ready.set()
        else:
            self._ready.clear()

    @property
    def _may_report(self) -> bool:
        """Whether to write to the server: not while leaving one that does not answer."""
        return not (self._stopping.is_set() and self._reporter.silent)

    def _report(self, done: Round) -> None:
        """Report a release that was worked through."""
        failpoint("reader.before_report")
        # Presence first: a client that reads the report may look there at once.
        self._reporter.publish(lambda: self.state)
        self._reporter.report(
            ReleaseApplied(
                reader=self._identity.label,
                instance=self._identity.instance,
                release=done.release.number,
                ready=self.state.ready,
                seconds=max(done.seconds, 0.0),
                components=self._follower.states,
            )
        )
        failpoint("reader.after_report")

    def _leave(self) -> None:
        """Give back everything; safe twice."""
        freshness, self._freshness = self._freshness, None
        if freshness is not None:
            freshness.close()
        if self._live is not None:
            self._live.close()
        self._catalog.close()
        with self._looking:
            self._reporter.withdraw(self._identity.member, answered=not self._watch.silent)
            self._link.close()
            self._current.close()
            self._follower.forget()
            self._ready.clear()
            self._reserve.close()


SPREAD_SHARE: Final = 0.2
"""By how much a period is cut at most."""


class Spread:
    """Keeps readers that started together from polling together ever after; for one thread.

    A fleet is started at once, by a deployment or after an outage. Without this each of its readers
    would look, poll and renew its presence in the same moment as all others. So the first look
    waits for a small part of a second, and each period is cut by up to a fifth, another cut each
    time. What follows a release is not spread: that everyone takes it up at once is the point.

    Nothing is drawn: the parts follow from the member id, so that two processes differ and a test
    needs no chance.
    """

    def __init__(self, member: str, *, start_seconds: float) -> None:
        """``start_seconds``: over how long the first looks of a fleet are spread."""
        self._member = member
        self._periods = 0
        self.first_look_seconds = start_seconds * self._part("start")
        """How long this reader's first look waits."""

    def cut(self, period_seconds: float) -> float:
        """The period's length this time, from four fifths of it to all of it."""
        self._periods += 1
        return period_seconds * (1.0 - SPREAD_SHARE * self._part(str(self._periods)))

    def _part(self, of: str) -> float:
        """In [0, 1), as even among readers as a hash is."""
        digest = hashlib.sha256(f"{self._member}\n{of}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64


RESERVED_DESCRIPTORS: Final = 32
"""What one component needs for the moment of its load, its directory and its files, several times
over, and a connection to Redis."""


class DescriptorReserve:
    """Holds file descriptors and lends them to a reload; for one thread at a time.

    A process may have every descriptor in use: for connections of its clients, for files that a
    library forgot. Then no index can be opened and Redis not be reached, and it would go on
    answering with what it served before.

    Whoever takes a descriptor in the moment in which they are lent has it. The reader service
    therefore has fewer connections than descriptors; another server needs such a limit, too.
    """

    def __init__(self, count: int = RESERVED_DESCRIPTORS) -> None:
        self._count = count
        self._held: list[int] = []

    def __len__(self) -> int:
        return len(self._held)

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Let the body have them where no others are left; they are taken back afterwards."""
        self.fill()
        if self._is_needed():
            self.close()
        try:
            yield
        finally:
            self.fill()

    def fill(self) -> None:
        """Hold as many as can be had, up to the count."""
        with contextlib.suppress(OSError):
            while len(self._held) < self._count:
                self._held.append(_descriptor())

    def close(self) -> None:
        """Hold none; safe twice."""
        while self._held:
            os.close(self._held.pop())

    def _is_needed(self) -> bool:
        """Whether fewer can be opened than are held back."""
        tried: list[int] = []
        try:
            while len(tried) < self._count:
                tried.append(_descriptor())
        except OSError:
            return True
        finally:
            for each in tried:
                os.close(each)
        return False


def _descriptor() -> int:
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def _use_one_openmp_thread() -> None:
    """Keep batch searches on this thread from waiting for OpenMP threads that a fork has ended.

    A thread that searched a batch on several OpenMP threads keeps a team of them. In a forked child
    the team is gone, and the next batch search on that thread waits for it for ever. With one
    OpenMP thread no team is asked for. The setting belongs to a thread, and the one that forked is
    the only one in the child; threads that are started there begin without a team.
    """
    faiss = sys.modules.get("faiss")
    if faiss is not None:
        faiss.omp_set_num_threads(1)


def _embedders_of(settings: Settings) -> "Embedders | None":
    if not any(each.embedder is not None for each in settings.collections.values()):
        return None
    from indexrelay.components.embedder import Embedders

    return Embedders(settings)
