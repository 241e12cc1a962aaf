"""The rebuilder: one loop that takes events and starts passes.

The loop takes events into the inbox, waits until it is quiet, looks at the facts, and starts a pass
for what is due and free. It looks at the facts without any event as well: at start, when a failed
component may be retried, when a pass ended that blocked others, and every ``reconcile_seconds``.
That is all there is to recovery: what was missed is seen at the next look.

A pass starts when no signal came for ``quiet_seconds``, or ``max_delay_seconds`` after the first
one, or when ``max_batches`` came together, whichever is first.

What goes through all keys of the server, and what judges the whole installation, runs on threads
beside the loop (`Background`). Whoever may write one key may write millions. Each look for keys has
an end, but a comparison makes several of them, and events would wait for all.
"""

import threading
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from indexrelay.health.facts import RetryPolicy
from indexrelay.health.judge import judge
from indexrelay.health.survey import Survey
from indexrelay.rebuilder.builds import BuildCancelledError, BuildRunner
from indexrelay.rebuilder.builds.runner import ForkingRunner, modules_to_preload
from indexrelay.rebuilder.coalescer import Coalescer, Timer
from indexrelay.rebuilder.gc import GarbageCollector, StreamTrimmer
from indexrelay.rebuilder.improver import BackgroundImprovements, Improver
from indexrelay.rebuilder.inbox import Intake
from indexrelay.rebuilder.passes import ComponentBuilder, PassOrder, SerialExecutor, run_pass
from indexrelay.rebuilder.presence import RebuilderPresence, declared_by_rebuilders
from indexrelay.rebuilder.publisher import Announcer, Publisher
from indexrelay.rebuilder.reconciler import FindingsLog, Reconciler, Reconciliation
from indexrelay.rebuilder.results import Completer, answer_of
from indexrelay.rebuilder.rollout import Rollout, choose_canaries, labels_of
from indexrelay.rebuilder.scheduler import LeaseHeartbeat, Leases, Scheduler
from indexrelay.schemas.clock import Background, Clock, SupervisedThread, SystemClock
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.loggers import LogOnce, get_logger
from indexrelay.schemas.messages import (
    ComponentResult,
    LockWait,
    ReaderState,
    RebuildResult,
    RebuildStatus,
)
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import let_import
from indexrelay.schemas.tracing import tracing_of
from indexrelay.schemas.versions import Release
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore
from indexrelay.storage.audit import AuditLog
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection, ConsumerGroup, Identity, Keys
from indexrelay.streams.errors import WrongTypeError, is_unanswered
from indexrelay.streams.keys import REBUILDERS_GROUP
from indexrelay.streams.presence import PresenceWatch
from indexrelay.streams.retention import server_memory

if TYPE_CHECKING:  # only where the settings ask for traces
    from indexrelay.rebuilder.traces import PassTraces

_log = get_logger(__name__)
_PASSES: Final = 8
"""Passes at a time: enough that slow ones do not delay the next, few enough to read a log."""
_WHILE_BUILDING_SECONDS: Final = 0.05
"""While passes run, the loop looks up this often, so that what they blocked is built at once."""
_PROGRESS_SECONDS: Final = 1.0
"""How often it is published how far builds are, while that changes."""
_ELSEWHERE_SECONDS: Final = 1.0
"""How soon to look again for a component that another host is building."""
_JUDGE_SECONDS: Final = 30.0
"""How often what waits for a person is looked for, so that it is logged once."""
_FLOODED_SECONDS: Final = 0.1
"""The wait before keys are repaired again, where there were so many that others follow."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0
"""The wait before the next attempt when Redis or the catalog is away: doubled, up to this."""


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
        """What is passed in stays the caller's to close.

        Args:
            runner: where builds run; ``None``: in child processes.
            rebuilder_id: its name as a consumer, stable across restarts and of no other process;
                ``None``: the host's name and a random part.

        Raises:
            ValueError: ``rebuilder_id`` may not name a rebuilder.
        """
        let_import(settings)
        limits = settings.rebuilder
        identity = self._identity = Identity(rebuilder_id, distinct_label=True)
        clock = self._clock = clock or SystemClock()
        keys = Keys(settings.namespace)
        source = f"rebuilder/{identity.label}"
        self._catalog = catalog
        self._store = store
        self._connection = connection
        self._limits = limits
        self._runner = runner or ForkingRunner(
            preload=modules_to_preload(settings),
            threads=limits.build_threads,
            niceness=limits.build_niceness,
        )
        self._builds: Executor = (
            ThreadPoolExecutor(limits.workers, thread_name_prefix="indexrelay-build")
            if self._runner.parallel
            else SerialExecutor()
        )
        self._group = ConsumerGroup(
            connection,
            keys.events,
            group=REBUILDERS_GROUP,
            consumer=self.id,
            claim_idle_seconds=limits.claim_idle_seconds,
        )
        self._intake = Intake(
            self._group,
            stream=keys.events,
            catalog=catalog,
            limits=limits,
            clock=clock,
        )
        self._leases = Leases(settings, connection, identity=identity, clock=clock)
        self._heartbeat = LeaseHeartbeat(self._renew_leases, ttl_seconds=limits.lease_ttl_seconds)
        # Beside that of the loop, which a look for keys, or a lock, may make late.
        self._presence_heartbeat = LeaseHeartbeat(
            self._publish_presence, ttl_seconds=limits.presence_ttl_seconds, name="presence"
        )
        started_at = clock.now()  # what was released later may follow other settings
        self._readers = PresenceWatch(
            connection, keys, ReaderState, period_seconds=limits.presence_ttl_seconds / 15
        )
        survey = partial(
            Survey.opened,
            settings,
            catalog=catalog,
            store=store,
            connection=connection,
            readers=self._readers.members,
            clock=clock,
            since=started_at,
        )
        self._survey, self._whole_survey = survey(), survey()  # each is for one thread
        self._builder = ComponentBuilder(
            settings, catalog=catalog, store=store, runner=self._runner, clock=clock
        )
        self._improvement_leases = Leases(
            settings, connection, identity=identity, clock=clock, key=Keys.improvement_lease
        )
        self._improver = Improver(
            catalog=catalog,
            store=store,
            survey=self._survey,
            builder=self._builder,
            leases=self._improvement_leases,
            retry_policy=RetryPolicy.of(limits, settings.components),
            clock=clock,
        )
        self._scheduler = Scheduler(
            settings.components,
            catalog=catalog,
            survey=self._survey,
            leases=self._leases,
            retry_policy=RetryPolicy.of(limits, settings.components),
            workers=limits.workers if self._runner.parallel else 1,
            improved=self._improver.ready,
        )
        announcer = Announcer(connection, keys, source=source, clock=clock)
        audit = AuditLog.of(settings, clock=clock)
        self._completer = Completer(
            catalog=catalog,
            store=store,
            publisher=Publisher(
                store=store,
                clock=clock,
                since=started_at,
                by=source,
                elsewhere=lambda: declared_by_rebuilders(connection, keys),
                canaries=self._canaries,
            ),
            announcer=announcer,
            audit=audit,
            by=source,
            clock=clock,
        )
        self._canary_readers = settings.releases.canary_readers
        self._undecided = LogOnce()
        self._rollout = Rollout(
            settings, store=store, announcer=announcer, audit=audit, by=source, clock=clock
        )
        self._traces = _traces_of(settings, catalog)
        self._reconciler = Reconciler(
            settings,
            catalog=catalog,
            store=store,
            connection=connection,
            group=self._group,
            source=source,
            clock=clock,
            since=started_at,
            readers=self._readers.members,
        )
        self._findings = FindingsLog(clock)
        self._trimmer = StreamTrimmer(settings, connection, keys, readers=self._readers.members)
        self._garbage = GarbageCollector(
            settings,
            catalog=catalog,
            store=store,
            connection=connection,
            keys=keys,
            clock=clock,
            readers=self._readers.members,
        )
        self._presence = RebuilderPresence(
            settings,
            connection,
            identity=identity,
            catalog=catalog,
            clock=clock,
            started_at=started_at,
        )
        self._coalescer = Coalescer(
            quiet_seconds=limits.quiet_seconds,
            max_delay_seconds=limits.max_delay_seconds,
            max_signals=limits.max_batches,
        )
        self._woken_at: datetime | None = None
        self._publish_timer = Timer(limits.presence_ttl_seconds / 3)
        self._progress_timer = Timer(_PROGRESS_SECONDS)
        self._reconcile_timer = Timer(limits.reconcile_seconds)
        self._namesakes_timer = Timer(limits.presence_ttl_seconds / 3)
        self._readers_timer = Timer(limits.presence_ttl_seconds / 3)
        self._rollout_timer = Timer(limits.presence_ttl_seconds / 15)
        self._trim_timer = Timer(limits.trim_seconds)
        self._gc_timer = Timer(limits.gc_seconds)
        self._elsewhere_timer = Timer(_ELSEWHERE_SECONDS)
        self._groups_made = 0
        self._silent = False
        self._last_result: RebuildResult | None = None
        self._release: Release | None = None
        self._pass_ended = threading.Event()
        self._stopping = threading.Event()
        self._draining, self._drained = threading.Event(), threading.Event()
        self._passes = ThreadPoolExecutor(_PASSES, thread_name_prefix="indexrelay-pass")
        self._keys_seconds = min(limits.presence_ttl_seconds / 3, limits.trim_seconds)
        self._keys_watch = Background(self._look_at_keys, name="keys")
        self._judging = Background(self._judge, name="judge")
        self._look_due = threading.Event()
        """Set from other threads; the loop looks at the facts then."""
        self._has_looked = threading.Event()
        self._turns, self._has_turned = 0, False
        self._improvements = BackgroundImprovements(
            self._improver, changed=self._publish_unless_stopping, built=self._scheduler.expect_more
        )
        self._thread: threading.Thread | None = None

    @property
    def id(self) -> str:
        """Its name as a consumer."""
        return self._identity.label

    @property
    def turns(self) -> int:
        """Rounds of its loop so far, also those that failed; it grows while the loop turns."""
        return self._turns

    @property
    def ready(self) -> bool:
        """Whether one round succeeded: Redis and the catalog were there."""
        return self._has_turned

    def start(self) -> None:
        """Start the thread; safe twice."""
        if self._thread is not None or self._stopping.is_set():
            return
        try:
            self._builder.workdirs.remove_stale()
        except OSError as error:  # the store may be away, and is waited for
            _log.warning("workdirs.not_removed", error=str(error))
        self._runner.start()
        self._heartbeat.start()
        self._presence_heartbeat.start()
        self._readers.start()
        self._thread = SupervisedThread(
            self._loop, name="indexrelay-rebuilder", wait=self._stopping.wait
        )
        self._thread.start()
        self._keys_watch.start()
        self._judging.start()
        _log.info("rebuilder.started", rebuilder=self.id, pid=self._identity.pid)

    def drain(self) -> bool:
        """Begin no more builds, and let those that run end; whether none runs any more."""
        self._draining.set()
        return self._drained.is_set()

    def note_settings(self, *, refused: str | None) -> None:
        """Publish why settings that were read again are refused; ``None``: they are not."""
        self._presence.settings_refused = refused

    def stop(self) -> None:
        """Stop running builds, release nothing unfinished, and return when all has ended.

        Safe twice and before `start`. Takes about as long as one blocking read; where Redis keeps
        its sockets and does not answer, one of the connection's time-outs more. What was not
        finished is found by the next rebuilder.
        """
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._has_looked.set()
        self._keys_watch.end()
        self._judging.end()
        self._builder.memory.close()
        self._runner.stop()  # passes that run, or begin from now on, end as cancelled
        self._readers.stop()  # where the server does not answer, it and the loop wait at once
        if self._thread is not None:
            self._thread.join()
        self._keys_watch.stop()
        self._judging.stop()
        # Only now are no more passes started, and only after the last one presence may end.
        self._passes.shutdown()
        self._improvements.stop()
        self._heartbeat.stop()
        self._presence_heartbeat.stop()
        self._builds.shutdown()
        # A server that did not answer the last call would take another time-out.
        if not self._silent and not self._leases.silent:
            self._presence.withdraw()
        if self._thread is not None:
            _log.info("rebuilder.stopped", rebuilder=self.id)

    def step(self, *, quick: bool = False) -> RebuildResult | None:
        """Take what is there and run one pass if one is due, in the calling thread.

        For tests and single passes: neither blocks on Redis nor waits for quiet. Not to be mixed
        with `start`.

        Args:
            quick: release what is ready soonest, as a rebuilder that was started does; `improve`
                builds the better version then.
        """
        now = self._clock.now()
        self._repair()  # first: events cannot be taken where their key is not ours
        self._intake.take(block_seconds=0)
        order = self._scheduler.next_order(woken_at=now, quick=quick)
        with LeaseHeartbeat(self._renew_leases, ttl_seconds=self._limits.lease_ttl_seconds):
            result = self._run_pass(order) if order is not None else None
        self._publish_presence()
        self._presence.find_namesakes()
        return result

    def improve(self) -> bool:
        """Build one better version behind what serves, in the calling thread; whether one was.

        A rebuilder that was started does this by itself. The next `step` releases it.
        """
        improvement = self._improver.begin()
        if improvement is None:
            return False
        with LeaseHeartbeat(self._renew_leases, ttl_seconds=self._limits.lease_ttl_seconds):
            return self._improver.run(improvement)

    def _loop(self) -> None:
        self._signal()  # at start everything is looked at once, without any event
        pause = _FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            try:
                self._turn()
                self._has_turned, self._silent = True, False
                pause = _FIRST_PAUSE_SECONDS
            except Exception as error:  # noqa: BLE001 - the loop survives every error of a turn
                self._silent = is_unanswered(error)
                if self._stopping.is_set():
                    break
                said = f"{type(error).__name__}: {error}"
                _log.warning("rebuilder.interrupted", error=said, wait=pause)
                # A server that comes back may be empty, or older than it was.
                self._reconcile_timer.expire()
                if isinstance(error, WrongTypeError):
                    self._keys_watch.wake()  # sets it aside; no turn gets past it otherwise
                self._stopping.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            self._turns += 1
            self._has_looked.set()

    def _turn(self) -> None:
        """One round: take events, start a pass if it is time, and do what is due by the clock."""
        count = self._intake.take(block_seconds=self._read_seconds())
        if count:
            self._signal(count)
        if self._group.recreated != self._groups_made:  # events may have been lost with it
            self._groups_made = self._group.recreated
            self._reconcile_timer.expire()
        now = self._clock.monotonic()
        if self._builder.progress.has_news and self._progress_timer.due(now):
            self._publish_timer.expire()
        regular = (
            (self._publish_timer, self._publish_presence),
            (self._reconcile_timer, self._reconcile),
            (self._readers_timer, self._look_at_readers),
            (self._rollout_timer, self._decide_on_release),
            (self._gc_timer, self._collect_garbage),
        )
        for timer, act in regular:
            if self._stopping.is_set():
                return  # each of them may wait for a server that does not answer
            if timer.due(now):
                act()
        if self._look_due.is_set():
            self._look_due.clear()
            self._signal()
        self._begin_builds(now)

    def _begin_builds(self, now: float) -> None:
        """Begin what it is time for; or note that nothing is built any more, once it drains."""
        busy = bool(self._scheduler.building)
        if self._draining.is_set():  # events are taken all the same, and are kept in the catalog
            if not (busy or self._improver.improving):
                self._drained.set()
        elif self._coalescer.remaining(now) == 0 or self._blocked_may_be_free(now):
            self._start_pass()
        elif self._scheduler.may_improve and self._improvements.free(now, busy=busy):
            self._scheduler.may_improve = self._improvements.begin()

    def _signal(self, count: int = 1) -> None:
        self._woken_at = self._woken_at or self._clock.now()
        self._coalescer.note(self._clock.monotonic(), count)

    def _read_seconds(self) -> float:
        """How long the next read may wait for an event."""
        quiet = self._coalescer.remaining(self._clock.monotonic())
        longest = self._limits.block_seconds
        wait = longest if quiet is None else min(longest, quiet)
        return min(wait, _WHILE_BUILDING_SECONDS) if self._scheduler.building else wait

    def _blocked_may_be_free(self, now: float) -> bool:
        """Whether something that could not be built before may be built now."""
        if self._coalescer.remaining(now) is not None:
            return False  # a pass is coming anyway, once it is quiet
        scheduler = self._scheduler
        if scheduler.retry_at is not None and scheduler.retry_at <= self._clock.now():
            return True
        if scheduler.look_soon and self._elsewhere_timer.due(now):
            return True
        if not scheduler.blocked:
            return False
        return self._pass_ended.is_set() or self._elsewhere_timer.due(now)

    def _start_pass(self) -> None:
        """Look at the facts, and start a pass for what is due."""
        self._pass_ended.clear()
        if self._rollout.look():  # once it is decided on, everything is looked at
            self._coalescer.take()
            return
        order = self._scheduler.next_order(woken_at=self._woken_at, quick=True)
        # Not before: the signal is not lost when the catalog or the store cannot be read.
        self._coalescer.take()
        self._woken_at = None
        if order is not None:
            self._passes.submit(self._run_in_background, order)

    def _run_in_background(self, order: PassOrder) -> None:
        try:
            result = self._run_pass(order)
            if result is None or result.status is not RebuildStatus.FAILURE:
                # After a failure the timers bring the next look: at once would repeat it.
                self._pass_ended.set()
            if result is not None and self._improver.concerns(result):
                self._scheduler.expect_more()
            self._publish_unless_stopping()
        except Exception as error:  # noqa: BLE001 - the next look finds what this pass did not do
            _log.exception("pass.failed", error=f"{type(error).__name__}: {error}")

    def _run_pass(self, order: PassOrder) -> RebuildResult | None:
        """Run one pass to its end, traced where the settings ask for that; its result."""
        if self._traces is None:
            return self._run_untraced(order)
        with self._traces.around(order) as traced:
            return self._run_untraced(traced)

    def _run_untraced(self, order: PassOrder) -> RebuildResult | None:
        """Run one pass to its end; its result, whatever number of releases it made.

        ``None`` when the pass was cancelled because the rebuilder stops.
        """
        answered = False
        ended: list[RebuildResult] = []
        left = set(order.reasons)
        parts = run_pass(
            order,
            self._builder,
            executor=self._builds,
            release_after_seconds=self._limits.release_after_seconds,
        )
        try:
            with closing(parts):
                for results in parts:
                    last = left == set(results)
                    part = self._last_result = self._complete(order, results, last=last)
                    ended.append(part)
                    if not last:
                        self._builder.progress.forget(results)
                        self._scheduler.free(results, part)
                        left -= set(results)
            answered = True
        except BuildCancelledError:
            _log.info("pass.cancelled", components=sorted(left))
            return None
        finally:
            self._builder.progress.forget(left)
            result = answer_of(ended) if ended else None
            self._scheduler.end(order, left=left, answered=answered, result=result)
        return result

    def _complete(
        self, order: PassOrder, results: Mapping[str, ComponentResult], *, last: bool
    ) -> RebuildResult:
        began = self._clock.now()
        result = self._completer.complete(order, results, last=last)
        if self._traces is not None:
            self._traces.built(order, results)
            self._traces.released(order, result, began=began)
        return result

    def _repair(self) -> Reconciliation:
        """Compare and repair; to be called by the thread that reads the group."""
        found = self._reconciler.reconcile()
        self._findings.repaired(found)
        return found

    def _reconcile(self) -> None:
        """The loop's own comparison; keys are looked for beside it."""
        self._findings.repaired(self._reconciler.reconcile(look_for_keys=False))
        self._signal()

    def _judge(self) -> float:
        """Log what is not well and waits for a person; never raises for what it looks at."""
        self._has_looked.wait()  # first it says that it is there, and repairs what it can
        try:
            if not self._stopping.is_set():
                self._findings.left(judge(self._whole_survey.whole()))
        except Exception as error:  # noqa: BLE001 - whatever is in presence, builds go on
            _log.exception("judge.failed", error=f"{type(error).__name__}: {error}")
        return _JUDGE_SECONDS

    def _check_readers(self) -> None:
        """Repair what somebody wrote under the readers' keys, and look at what they cannot load."""
        self._repair_keys()
        self._look_at_readers()

    def _look_at_keys(self) -> float:
        """Everything that goes through the keys of the server: there may be any number of them."""
        self._repair_keys()
        for timer, act in (
            (self._trim_timer, self._trim),
            (self._namesakes_timer, self._presence.find_namesakes),
        ):
            # Each of them may wait for a server that does not answer.
            if not self._stopping.is_set() and timer.due(self._clock.monotonic()):
                act()
        return _FLOODED_SECONDS if self._reconciler.flooded else self._keys_seconds

    def _repair_keys(self) -> None:
        try:
            self._findings.repaired(self._reconciler.repair_keys())
        except RedisError as error:
            _log.debug("keys.not_repaired", error=str(error))
        else:
            if self._reconciler.unblocked:
                self._reconcile_timer.expire()

    def _look_at_readers(self) -> None:
        """Look at what readers cannot load, and at the server's memory."""
        try:
            # What readers cannot load is not served until it is built again.
            if self._reconciler.check_corruption_reports():
                self._signal()
        except RedisError as error:
            _log.debug("readers.unknown", error=str(error))
        try:
            memory = server_memory(self._connection)
        except RedisError as error:
            _log.debug("redis.memory_unknown", error=str(error))
        else:
            if memory is not None and memory.short:
                self._trim_timer.expire()  # what was read goes at once
                self._keys_watch.wake()

    def decide_on_release(self) -> bool:
        """Promote the newest release, ask other canaries, or take it back, if it is time.

        A rebuilder that was started does this by itself. Whether a release came of it.

        Raises:
            redis.exceptions.RedisError: presence cannot be read.
            ArtifactError: the store cannot be read or written.
        """
        return self._rollout.step(self._readers.members()) is not None

    def _decide_on_release(self) -> None:
        waited = self._rollout.waits
        try:
            decided = self.decide_on_release()
        except RedisError as error:
            _log.debug("readers.unknown", error=str(error))
            return
        except (IndexRelayError, OSError) as error:
            for text in self._undecided.new({"release": str(error)}).values():
                _log.warning("release.undecided", error=text)
            return
        self._undecided.new({})
        if decided or (waited and not self._rollout.waits):
            self._signal()

    def _canaries(self, number: int, changed: AbstractSet[str]) -> tuple[str, ...]:
        """The readers that take a release first; none where it is for everyone at once."""
        count = self._canary_readers
        if not count:
            return ()
        try:
            labels = labels_of(self._readers.members().known)
        except RedisError as error:
            _log.warning("canaries.unknown", error=str(error), consequence="all readers take it")
            return ()
        if len(labels) <= count:
            return ()
        return choose_canaries(labels, number=number, components=changed, count=count)

    def _trim(self) -> None:
        """Trim the streams; where events went that were not read, a look is due."""
        try:
            if self._trimmer.trim():
                self._look_due.set()
        except RedisError as error:
            _log.warning("streams.not_trimmed", error=str(error))

    def _collect_garbage(self) -> None:
        """Remove files and deletes that no kept release needs."""
        try:
            self._garbage.collect()
        except Exception as error:  # noqa: BLE001 - whatever disk and database raise, builds go on
            _log.warning("artifacts.not_collected", error=f"{type(error).__name__}: {error}")

    def _renew_leases(self) -> None:
        """Renew what is held.

        While something waits long for a lock, the loop may be what waits: then this thread
        publishes that the rebuilder is alive, and what it waits for.
        """
        self._leases.renew()
        self._improvement_leases.renew()
        if self._lock_waits:
            self._publish_presence()

    @property
    def _lock_waits(self) -> tuple[LockWait, ...]:
        """What takes longer than it should to be locked."""
        return (*self._store.lock_waits.long, *self._catalog.lock_waits.long, *self._leases.waits)

    def _publish_unless_stopping(self) -> None:
        if not self._stopping.is_set():
            self._publish_presence()

    def _publish_presence(self) -> None:
        """Publish this rebuilder's state.

        Also where the artifacts cannot be read: then with the release that it saw last.
        """
        try:
            self._release = self._store.newest_release()
        except ArtifactError as error:
            _log.warning("store.unreadable", error=str(error))
        builds = self._builder.progress
        builds.has_news = False
        building, improving = self._scheduler.building, self._improver.improving
        self._presence.publish(
            release=self._release,
            building=building,
            improving=improving,
            progress=builds.of([*building, *improving]),
            last_result=self._last_result,
            waiting=self._scheduler.waiting,
            lock_waits=self._lock_waits,
            foreign_writes=self._reconciler.foreign_writes.recent,
        )


def _traces_of(settings: Settings, catalog: Catalog) -> "PassTraces | None":
    """What makes spans of passes; ``None``: the settings ask for none."""
    tracing = tracing_of(settings)
    if tracing is None:
        return None
    from indexrelay.rebuilder.traces import PassTraces

    return PassTraces(tracing, catalog)
