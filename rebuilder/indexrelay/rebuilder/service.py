"""The rebuilder: one loop that takes events and starts passes.

The loop takes events into the inbox, waits until it is quiet, looks at the facts, and starts a pass
for what is due and free. It looks at the facts without any event too: at start, when a failed
component may be tried again, when a pass ended that held others back, and every
``reconcile_seconds``. That is all there is to recovery: what was missed is seen at the next look.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from indexrelay.rebuilder.children import ForkingRunner
from indexrelay.rebuilder.coalescing import Coalescer
from indexrelay.rebuilder.intake import Intake
from indexrelay.rebuilder.lease_keeping import LeaseKeeper
from indexrelay.rebuilder.passes import PassOrder
from indexrelay.rebuilder.preloading import modules_to_preload
from indexrelay.rebuilder.runners import BuildRunner
from indexrelay.rebuilder.timers import Timer
from indexrelay.rebuilder.workshop import Workshop
from indexrelay.schemas.clock import Clock, SystemClock
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.results import RebuildResult, RebuildStatus
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.supervised_thread import SupervisedThread
from indexrelay.schemas.user_modules import let_import
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection, ConsumerGroup, Identity, Keys
from indexrelay.streams.errors import WrongTypeError
from indexrelay.streams.keys import REBUILDERS_GROUP

_log = get_logger(__name__)
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

    def _new_keeper(self) -> LeaseKeeper:
        return LeaseKeeper(self._workshop.keep_leases, ttl_seconds=self._lease_ttl_seconds)

    def _loop(self) -> None:
        self._woken()  # at start everything is looked at once, without any event
        pause = _FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            try:
                self._turn()
                pause = _FIRST_PAUSE_SECONDS
                self._silent = False
            except Exception as error:  # noqa: BLE001 - the loop outlives whatever one turn meets
                self._silent = isinstance(error, RedisConnectionError | RedisTimeoutError)
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
