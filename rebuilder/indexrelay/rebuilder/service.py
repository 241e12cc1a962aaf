"""The rebuilder: one loop that takes events and starts passes.

The loop takes events into the inbox, waits until it is quiet, looks at the facts, and starts a pass
for what is due and free. It looks at the facts without any event as well: at start, when a failed
component may be retried, when a pass ended that held others back, and every ``reconcile_seconds``.
That is all there is to recovery: what was missed is seen at the next look.

A pass starts when no signal came for ``quiet_seconds``, or ``max_delay_seconds`` after the first
one, or when ``max_batches`` came together, whichever is first.
"""

import threading
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

from redis.exceptions import RedisError

from indexrelay.health.facts import RetryPolicy
from indexrelay.health.judge import judge
from indexrelay.health.survey import Survey
from indexrelay.rebuilder.builds import BuildCancelledError
from indexrelay.rebuilder.builds.runner import (
    BuildRunner,
    ForkingRunner,
    SerialExecutor,
    modules_to_preload,
)
from indexrelay.rebuilder.gc import ArtifactSweeper, StreamTrimmer
from indexrelay.rebuilder.inbox import Intake
from indexrelay.rebuilder.passes import Adopter, ComponentBuilder, PassOrder, run_pass
from indexrelay.rebuilder.presence import RebuilderPresence, declared_by_rebuilders
from indexrelay.rebuilder.publisher import Announcer, Publisher
from indexrelay.rebuilder.reconciler import FindingsLog, Reconciler, Reconciliation
from indexrelay.rebuilder.results import Completer
from indexrelay.rebuilder.scheduler import LeaseHeartbeat, Leases, Scheduler
from indexrelay.schemas.clock import Clock, SupervisedThread, SystemClock
from indexrelay.schemas.declarations import declared_to_build
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import LockWait, RebuildResult, RebuildStatus
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import let_import
from indexrelay.schemas.versions import Release
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection, ConsumerGroup, Identity, Keys
from indexrelay.streams.errors import WrongTypeError, is_unanswered
from indexrelay.streams.keys import REBUILDERS_GROUP
from indexrelay.streams.leases import LeaseOwner
from indexrelay.streams.retention import server_memory


class Timer:
    """Due at the first look, and then again each time its period has passed."""

    def __init__(self, period_seconds: float) -> None:
        self._period_seconds = period_seconds
        self._next: float | None = None

    def due(self, now: float) -> bool:
        """Whether it is time; if so, the next time is a period from ``now``."""
        if self._next is not None and now < self._next:
            return False
        self._next = now + self._period_seconds
        return True

    def hasten(self) -> None:
        """Be due at the next look."""
        self._next = None


@dataclass(kw_only=True)
class Coalescer:
    """Collects signals until they are worth a pass. Used by one thread."""

    quiet_seconds: float
    max_delay_seconds: float
    max_signals: int
    _first: float | None = None
    _last: float = 0.0
    _count: int = 0

    def note(self, now: float, count: int = 1) -> None:
        """``count`` signals arrived at ``now`` (seconds on a monotonic clock)."""
        if count < 1:
            return
        if self._first is None:
            self._first = now
        self._last = now
        self._count += count

    def remaining(self, now: float) -> float | None:
        """Seconds until a pass starts: 0 when it should start, ``None`` when nothing waits."""
        if self._first is None:
            return None
        if self._count >= self.max_signals:
            return 0.0
        ready_at = min(self._last + self.quiet_seconds, self._first + self.max_delay_seconds)
        return max(0.0, ready_at - now)

    def take(self) -> None:
        """A pass starts now: whatever comes from here on belongs to the next one."""
        self._first = None
        self._count = 0


_log = get_logger(__name__)


class Workshop:
    """The parts of one rebuilder; each method does one thing and returns."""

    def __init__(
        self,
        settings: Settings,
        *,
        identity: Identity,
        catalog: Catalog,
        store: ArtifactStore,
        connection: Connection,
        group: ConsumerGroup,
        runner: BuildRunner,
        clock: Clock,
    ) -> None:
        limits = settings.rebuilder
        keys = Keys(settings.namespace)
        self._catalog = catalog
        self._store = store
        self._connection = connection
        self._runner = runner
        self._builds: Executor = (
            ThreadPoolExecutor(limits.workers, thread_name_prefix="indexrelay-build")
            if runner.parallel
            else SerialExecutor()
        )
        patience = RetryPolicy.of(limits)
        self._leases = Leases(
            connection,
            keys,
            owner=lambda: str(LeaseOwner.of(identity)),
            ttl_seconds=limits.lease_ttl_seconds,
            longest_build_seconds=lambda name: (
                settings.components[name].build_timeout_seconds or limits.build_timeout_seconds
            ),
            clock=clock,
        )
        survey = self._survey = Survey(
            settings,
            catalog=lambda: catalog,
            store=lambda: store,
            connection=lambda: connection,
            clock=clock,
        )
        self.dispatcher = Scheduler(
            settings.components,
            catalog=catalog,
            observe=survey.of_builds,
            leases=self._leases,
            patience=patience,
            workers=limits.workers if runner.parallel else 1,
        )
        self._builder = ComponentBuilder(settings, catalog=catalog, runner=runner)
        self._adopter = Adopter(self._builder, store=store, catalog=catalog, clock=clock)
        self._release_after_seconds = limits.release_after_seconds
        source = f"rebuilder/{identity.label}"
        publisher = Publisher(
            store=store,
            clock=clock,
            by=source,
            elsewhere=lambda: declared_by_rebuilders(connection, keys),
        )
        announcer = Announcer(connection, keys, source=source, clock=clock)
        self._completer = Completer(
            catalog=catalog, store=store, publisher=publisher, announcer=announcer, clock=clock
        )
        self._reconciler = Reconciler(
            settings,
            catalog=catalog,
            store=store,
            connection=connection,
            group=group,
            source=source,
            clock=clock,
        )
        self._findings = FindingsLog(clock)
        self._janitor = StreamTrimmer(settings, connection, keys)
        self._retirer = ArtifactSweeper(
            settings, catalog=catalog, store=store, connection=connection, keys=keys, clock=clock
        )
        self._presence = RebuilderPresence(
            connection,
            keys,
            identity=identity,
            ttl_seconds=limits.presence_ttl_seconds,
            catalog=catalog,
            patience=patience,
            clock=clock,
            declares=declared_to_build(settings.components, settings.collections),
        )
        self.last_result: RebuildResult | None = None
        self._release: Release | None = None

    def open(self) -> None:
        """Get ready for builds; remove what a killed predecessor left."""
        try:
            self._builder.workdirs.sweep()
        except OSError as error:  # the store may be away, and is waited for
            _log.warning("workdirs.not_swept", error=str(error))
        self._runner.start()

    def next_order(self, *, woken_at: datetime | None) -> PassOrder | None:
        """Look at the facts; the next pass, or ``None`` when there is nothing to do."""
        return self.dispatcher.next_order(woken_at=woken_at)

    def carry_out(self, order: PassOrder) -> RebuildResult | None:
        """Run one pass to its end; its last result.

        ``None`` when the pass was cancelled because the rebuilder stops.
        """
        answered = False
        result: RebuildResult | None = None
        left = set(order.reasons)
        parts = run_pass(
            order,
            self._adopter,
            executor=self._builds,
            release_after_seconds=self._release_after_seconds,
        )
        try:
            with closing(parts):
                for results in parts:
                    last = left == set(results)
                    result = self.last_result = self._completer.complete(order, results, last=last)
                    self.dispatcher.heed(result)
                    if not last:
                        self.dispatcher.free(results)
                        left -= set(results)
            answered = True
        except BuildCancelledError:
            _log.info("pass.cancelled", components=sorted(left))
            return None
        finally:
            self.dispatcher.close(order, left=left, answered=answered, result=result)
        return result

    def reconcile(self) -> Reconciliation:
        """Compare and repair; to be called by the thread that reads the group."""
        found = self._reconciler.reconcile()
        self._findings.repaired(found)
        return found

    def judge(self) -> None:
        """Log what is not well and waits for a person; never raises for what it looks at."""
        try:
            self._findings.left(judge(self._survey.whole()))
        except Exception as error:  # noqa: BLE001 - whatever somebody wrote, builds go on
            _log.exception("judge.failed", error=f"{type(error).__name__}: {error}")

    def trim(self) -> bool:
        """Trim the streams; whether events went that nobody had read, so that one has to look."""
        try:
            return self._janitor.trim()
        except RedisError as error:
            _log.warning("streams.not_trimmed", error=str(error))
            return False

    def heed_readers(self) -> bool:
        """Mend what somebody wrote in their places; whether one of them cannot load something that
        is to be looked at again.
        """
        try:
            self._findings.repaired(self._reconciler.mend_keys())
            return self._reconciler.heed_readers()
        except RedisError as error:
            _log.debug("readers.not_heard", error=str(error))
            return False

    def is_short_of_memory(self) -> bool:
        """Whether the server is near its memory limit, so that streams are to be trimmed now."""
        try:
            memory = server_memory(self._connection)
        except RedisError as error:
            _log.debug("redis.memory_unknown", error=str(error))
            return False
        return memory is not None and memory.short

    def retire(self) -> None:
        """Let go of files and of deletes that no kept release needs."""
        try:
            self._retirer.retire()
        except Exception as error:  # noqa: BLE001 - whatever disk and database say, builds go on
            _log.warning("artifacts.not_swept", error=f"{type(error).__name__}: {error}")

    def keep_leases(self) -> None:
        """Renew what is held; to be called at a third of the leases' TTL.

        While something waits for a lock for long, the loop may be what waits: then it is said from
        here that this rebuilder is there, and what it waits for.
        """
        self._leases.renew()
        if self.lock_waits:
            self.show()

    @property
    def lock_waits(self) -> tuple[LockWait, ...]:
        """What takes longer than it should to be locked."""
        return (*self._store.lock_waits.long, *self._catalog.lock_waits.long, *self._leases.waits)

    def show(self) -> None:
        """Publish this rebuilder's state; to be called at a third of the presence's TTL.

        Also where the artifacts cannot be read: then with the release that it saw last.
        """
        try:
            self._release = self._store.newest_release()
        except ArtifactError as error:
            _log.warning("store.unreadable", error=str(error))
        self._presence.publish(
            release=self._release,
            building=self.dispatcher.building,
            last_result=self.last_result,
            waiting=self.dispatcher.waiting,
            lock_waits=self.lock_waits,
            foreign_writes=self._reconciler.foreign_writes.recent,
        )

    def cancel(self) -> None:
        """Stop every build; passes that run, or begin from now on, end as cancelled."""
        self._runner.stop()

    def close(self, *, say_so: bool = True) -> None:
        """Be gone; to be called when no pass runs any more.

        Args:
            say_so: leave presence at once; otherwise it ends with its TTL.
        """
        self._builds.shutdown()
        # Whoever did not take a lease back would keep us waiting once more for nothing.
        if say_so and not self._leases.silent:
            self._presence.withdraw()


_PASSES = 8
"""Passes at a time: enough that slow ones do not hold up the next, few enough to read a log."""
_ATTENTIVE_SECONDS = 0.05
"""While passes run, the loop looks up this often, so that what they held back goes on at once."""
_ELSEWHERE_SECONDS = 1.0
"""How soon to look again for a component that another host is building."""
_JUDGE_SECONDS = 30.0
"""How often what waits for a person is looked for, so that the log says it once."""
_FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 0.1, 5.0
"""Wait before trying again when Redis or the catalog is away: doubled each time, up to this."""


class Rebuilder:
    """Keeps components up to date with their sources.

    Starts its threads, and one process that builds are forked from. Once stopped it stays stopped.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        catalog: Catalog,
        store: ArtifactStore,
        connection: Connection,
        runner: BuildRunner | None = None,
        clock: Clock | None = None,
        rebuilder_id: str | None = None,
    ) -> None:
        """What is handed in stays the caller's to close.

        Args:
            runner: where builds run; ``None``: in child processes.
            rebuilder_id: its name as a consumer, stable across restarts and of no other process;
                ``None``: the host's name and a random part.

        Raises:
            ValueError: ``rebuilder_id`` may not name a rebuilder.
        """
        let_import(settings)
        limits = settings.rebuilder
        self._identity = Identity(rebuilder_id, distinct_label=True)
        self._clock = clock or SystemClock()
        self._block_seconds = limits.block_seconds
        events = Keys(settings.namespace).events
        self._group = ConsumerGroup(
            connection,
            events,
            group=REBUILDERS_GROUP,
            consumer=self.id,
            claim_idle_seconds=limits.claim_idle_seconds,
        )
        self._workshop = Workshop(
            settings,
            identity=self._identity,
            catalog=catalog,
            store=store,
            connection=connection,
            group=self._group,
            runner=runner
            or ForkingRunner(
                preload=modules_to_preload(settings),
                threads=limits.build_threads,
                niceness=limits.build_niceness,
            ),
            clock=self._clock,
        )
        self._lease_ttl_seconds = limits.lease_ttl_seconds
        self._keeper = self._new_keeper()
        self._intake = Intake(
            self._group,
            stream=events,
            catalog=catalog,
            max_deliveries=limits.max_deliveries,
            max_dead_letters=limits.max_dead_letters,
            max_inbox_rows=limits.max_inbox_rows,
            clock=self._clock,
        )
        self._coalescer = Coalescer(
            quiet_seconds=limits.quiet_seconds,
            max_delay_seconds=limits.max_delay_seconds,
            max_signals=limits.max_batches,
        )
        self._woken_at: datetime | None = None
        self._reconcile = Timer(limits.reconcile_seconds)
        self._judge = Timer(_JUDGE_SECONDS)
        self._show = Timer(limits.presence_ttl_seconds / 3)
        self._heed = Timer(limits.presence_ttl_seconds / 3)
        self._trim = Timer(limits.trim_seconds)
        self._sweep = Timer(limits.sweep_seconds)
        self._look_again = Timer(_ELSEWHERE_SECONDS)
        self._groups_made = 0
        self._silent = False
        self._pass_ended = threading.Event()
        self._stopping = threading.Event()
        self._passes = ThreadPoolExecutor(_PASSES, thread_name_prefix="indexrelay-pass")
        self._thread: threading.Thread | None = None

    @property
    def id(self) -> str:
        """Its name as a consumer."""
        return self._identity.label

    def start(self) -> None:
        """Start the thread; safe twice."""
        if self._thread is not None or self._stopping.is_set():
            return
        self._workshop.open()
        self._keeper.start()
        self._thread = SupervisedThread(
            self._loop, name="indexrelay-rebuilder", wait=self._stopping.wait
        )
        self._thread.start()
        _log.info("rebuilder.started", rebuilder=self.id, pid=self._identity.pid)

    def stop(self) -> None:
        """Stop running builds, release nothing half-done, and return when all has ended.

        Safe twice and before `start`. Takes about as long as one blocking read; where Redis keeps
        its sockets and does not answer, one of the connection's time-outs more. What was not
        finished is found by the next rebuilder.
        """
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._workshop.cancel()
        if self._thread is not None:
            self._thread.join()
        # Only now does nobody hand out passes, and only after the last pass is nobody present.
        self._passes.shutdown()
        self._keeper.stop()
        # Whoever did not answer the last read would keep us waiting once more for nothing.
        self._workshop.close(say_so=not self._silent)
        if self._thread is not None:
            _log.info("rebuilder.stopped", rebuilder=self.id)

    def step(self) -> RebuildResult | None:
        """Take what is there and run one pass if one is due, in the calling thread.

        For tests and one-off passes: neither blocks on Redis nor waits for quiet. Not to be mixed
        with `start`.
        """
        now = self._clock.now()
        self._workshop.reconcile()  # first: events cannot be taken where their key is not ours
        self._intake.take(block_seconds=0)
        order = self._workshop.next_order(woken_at=now)
        with self._new_keeper():
            result = self._workshop.carry_out(order) if order is not None else None
        self._workshop.show()
        return result

    def _new_keeper(self) -> LeaseHeartbeat:
        return LeaseHeartbeat(self._workshop.keep_leases, ttl_seconds=self._lease_ttl_seconds)

    def _loop(self) -> None:
        self._woken()  # at start everything is looked at once, without any event
        pause = _FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            try:
                self._turn()
                pause = _FIRST_PAUSE_SECONDS
                self._silent = False
            except Exception as error:  # noqa: BLE001 - the loop outlives whatever one turn meets
                self._silent = is_unanswered(error)
                if self._stopping.is_set():
                    break
                _log.warning(
                    "rebuilder.interrupted", error=f"{type(error).__name__}: {error}", wait=pause
                )
                # A server that comes back may have come back empty, or older than it was.
                self._reconcile.hasten()
                if isinstance(error, WrongTypeError):
                    self._workshop.reconcile()  # sets it aside; no turn gets past it otherwise
                self._stopping.wait(pause)
                pause = min(pause * 2, _MAX_PAUSE_SECONDS)

    def _turn(self) -> None:
        """One round: take events, start a pass if it is time, and do what is due by the clock."""
        count = self._intake.take(block_seconds=self._patience())
        if count:
            self._woken(count)
        if self._group.recreated != self._groups_made:  # events may have gone with it
            self._groups_made = self._group.recreated
            self._reconcile.hasten()
        now = self._clock.monotonic()
        regular = (
            (self._show, self._workshop.show),
            (self._reconcile, self._compare),
            (self._judge, self._workshop.judge),
            (self._heed, self._heed_readers),
            (self._trim, self._tidy),
            (self._sweep, self._workshop.retire),
        )
        for timer, act in regular:
            if self._stopping.is_set():
                return  # each of them may wait for a server that does not answer
            if timer.due(now):
                act()
        if self._coalescer.remaining(now) == 0 or self._held_back_may_go(now):
            self._start_pass()

    def _compare(self) -> None:
        self._workshop.reconcile()
        self._woken()

    def _heed_readers(self) -> None:
        # What readers had to leave is not served by anyone until it is built anew.
        if self._workshop.heed_readers():
            self._woken()
        if self._workshop.is_short_of_memory():
            self._trim.hasten()  # it follows in this turn: what was read goes at once

    def _tidy(self) -> None:
        if self._workshop.trim():
            self._woken()

    def _woken(self, count: int = 1) -> None:
        self._woken_at = self._woken_at or self._clock.now()
        self._coalescer.note(self._clock.monotonic(), count)

    def _patience(self) -> float:
        """How long the next read may wait for an event."""
        quiet = self._coalescer.remaining(self._clock.monotonic())
        wait = self._block_seconds if quiet is None else min(self._block_seconds, quiet)
        return min(wait, _ATTENTIVE_SECONDS) if self._workshop.dispatcher.building else wait

    def _held_back_may_go(self, now: float) -> bool:
        """Whether something that could not be built before may be built now."""
        if self._coalescer.remaining(now) is not None:
            return False  # a pass is coming anyway, once it is quiet
        dispatcher = self._workshop.dispatcher
        if dispatcher.retry_at is not None and dispatcher.retry_at <= self._clock.now():
            return True
        if dispatcher.look_soon and self._look_again.due(now):
            return True
        if not dispatcher.held_back:
            return False
        return self._pass_ended.is_set() or self._look_again.due(now)

    def _start_pass(self) -> None:
        """Look at the facts, and hand out what is due."""
        self._pass_ended.clear()
        order = self._workshop.next_order(woken_at=self._woken_at)
        # Not before: what woke us is not forgotten when the catalog or the store cannot be read.
        self._coalescer.take()
        self._woken_at = None
        if order is not None:
            self._passes.submit(self._carry_out, order)

    def _carry_out(self, order: PassOrder) -> None:
        try:
            result = self._workshop.carry_out(order)
            if result is None or result.status is not RebuildStatus.FAILURE:
                # After a failure the timers bring the next look: at once would be in a circle.
                self._pass_ended.set()
            if not self._stopping.is_set():
                self._workshop.show()
        except Exception as error:  # noqa: BLE001 - the next look finds what this pass did not do
            _log.exception("pass.failed", error=f"{type(error).__name__}: {error}")
