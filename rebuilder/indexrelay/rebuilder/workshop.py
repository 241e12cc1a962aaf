"""Everything that a rebuilder does, without the waiting: look, carry out, reconcile, keep up.

Put together here, so that the loop (`indexrelay.rebuilder.service`) and a single pass by hand use
the very same parts.
"""

from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from datetime import datetime

from redis.exceptions import RedisError

from indexrelay.health.backoff import Patience
from indexrelay.health.judge import judge
from indexrelay.health.survey import Survey
from indexrelay.rebuilder.adopting import Adopter
from indexrelay.rebuilder.announcing import Announcer
from indexrelay.rebuilder.completing import Completer
from indexrelay.rebuilder.component_building import ComponentBuilder
from indexrelay.rebuilder.dispatching import Dispatcher
from indexrelay.rebuilder.errors import BuildCancelledError
from indexrelay.rebuilder.findings import Reconciliation
from indexrelay.rebuilder.janitor import Janitor
from indexrelay.rebuilder.leasing import Leases
from indexrelay.rebuilder.passes import PassOrder, run_pass
from indexrelay.rebuilder.presence import RebuilderPresence, declared_by_rebuilders
from indexrelay.rebuilder.reconciling import Reconciler
from indexrelay.rebuilder.releasing import Publisher
from indexrelay.rebuilder.retiring import Retirer
from indexrelay.rebuilder.runners import BuildRunner, SerialExecutor
from indexrelay.rebuilder.telling import FindingsLog
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.declarations import declared_to_build
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.results import LockWait, RebuildResult
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.versions import Release
from indexrelay.storage.artifacts import ArtifactError, ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import BackendRefusedError, Connection, ConsumerGroup, Identity, Keys
from indexrelay.streams.memory import server_memory

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
        patience = Patience.of(limits)
        self._leases = Leases(
            connection,
            keys,
            # A process that comes back under the same label must not take its old lease for its
            # own; nor must one that was forked.
            owner=lambda: f"{identity.label}:{identity.pid}:{identity.instance}",
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
        self.dispatcher = Dispatcher(
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
        self._janitor = Janitor(settings, connection, keys)
        self._retirer = Retirer(
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
        except (RedisError, BackendRefusedError) as error:
            _log.warning("streams.not_trimmed", error=str(error))
            return False

    def heed_readers(self) -> bool:
        """Mend what somebody wrote in their places; whether one of them cannot load something that
        is to be looked at again.
        """
        try:
            self._findings.repaired(self._reconciler.mend_keys())
            return self._reconciler.heed_readers()
        except (RedisError, BackendRefusedError) as error:
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
        return (*self._store.lock_waits, *self._catalog.lock_waits, *self._leases.waits)

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
