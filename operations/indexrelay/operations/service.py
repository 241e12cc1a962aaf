"""The operator: what is done at its time while nobody watches.

Beside rebuilders, which follow events, and readers, which follow releases, the operator follows the
clock. It has *duties*: to ask for scheduled rebuilds, to take backups, to look at alerts. Each runs
on a thread of its own, so that one that takes long holds up no other.

An operator keeps nothing that is not in the catalog or in files, and builds and releases nothing
itself. Any number may run: what one has done is seen by the others, and is not done again. Of all
that have targets one tells people, and another one when it is gone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from indexrelay.producers.events import JobConnection
from indexrelay.schemas.clock import Background, Clock, SystemClock
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.settings import Settings
from indexrelay.schemas.settings_file import let_import
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.catalog import Catalog
from indexrelay.streams import Connection

_log = get_logger(__name__)


class Duty(Protocol):
    """Something that is done again and again; called by one thread.

    What it raises is logged, and it is called again after a wait that doubles, up to a minute.
    Other operators may have the same duty: done twice, it is to change nothing.
    """

    @property
    def name(self) -> str:
        """For threads and logs: ``schedules``."""
        ...

    @property
    def longest_turn_seconds(self) -> float | None:
        """After which a turn counts as hanging; ``None``: it may rightly take hours."""
        ...

    def turn(self) -> float:
        """Do what is due now; the seconds until the next turn."""
        ...

    def stop(self) -> None:
        """Let a turn that runs end soon; from another thread, safe twice and without a turn."""
        ...


@dataclass(frozen=True, kw_only=True)
class DutyResources:
    """What duties work with; whoever opened it closes it."""

    settings: Settings
    catalog: Catalog
    store: ArtifactStore
    connection: JobConnection
    """To Redis, opened when it is first asked for: the server may be away."""
    clock: Clock
    settings_refused: Callable[[], str | None] = lambda: None
    """Why settings that were read again are refused; ``None``: they are not."""


def duties_of(resources: DutyResources) -> list[Duty]:
    """The duties that the settings give; one that they do not give is not imported."""
    settings, duties = resources.settings, list[Duty]()
    if settings.schedules:
        from indexrelay.operations.schedules import ScheduleDuty

        duties.append(ScheduleDuty(resources))
    if settings.backups.schedule is not None:
        from indexrelay.operations.backups.schedule import BackupDuty

        duties.append(BackupDuty(resources))
    if settings.monitoring.operator is not None or settings.notifications.targets:
        from indexrelay.operations.monitor import Monitor

        duties.append(
            Monitor(
                settings,
                catalog=resources.catalog,
                store=resources.store,
                connection=resources.connection.get,
                clock=resources.clock,
                role="operator",
                settings_refused=resources.settings_refused,
            )
        )
    return duties


class OperatorService:
    """Runs duties, each on a thread of its own. Once stopped it stays stopped."""

    def __init__(
        self,
        settings: Settings,
        *,
        catalog: Catalog,
        store: ArtifactStore,
        connection: Connection | None = None,
        clock: Clock | None = None,
        duties: Sequence[Duty] | None = None,
        settings_refused: Callable[[], str | None] = lambda: None,
    ) -> None:
        """What is passed in stays the caller's to close.

        Args:
            connection: to Redis; ``None``: opened by the settings when it is first needed.
            duties: ``None``: those that the settings give.
            settings_refused: why settings that were read again are refused; ``None``: they are not.

        Raises:
            MissingExtraError: a duty needs what is not installed.
        """
        let_import(settings)
        self._connection = JobConnection(settings, connection)
        resources = DutyResources(
            settings=settings,
            catalog=catalog,
            store=store,
            connection=self._connection,
            clock=clock or SystemClock(),
            settings_refused=settings_refused,
        )
        self._duties = duties_of(resources) if duties is None else list(duties)
        self._turns = [_Turns(duty, resources.clock) for duty in self._duties]
        self._threads = [Background(each.turn, name=each.duty.name) for each in self._turns]

    @property
    def duties(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(duty.name for duty in self._duties)

    @property
    def hanging(self) -> tuple[str, ...]:
        """The duties whose turn takes longer than any should."""
        return tuple(each.duty.name for each in self._turns if each.hangs)

    def step(self) -> None:
        """One turn of each duty, in the caller's thread and in place of `start`: for a program that
        moves a clock of its own."""
        for duty in self._duties:
            duty.turn()

    def start(self) -> None:
        """Start the threads; safe twice, and nothing once it was stopped."""
        if not self._duties:
            _log.warning("operator.idle", advice=_IDLE)
        for thread in self._threads:
            thread.start()
        _log.info("operator.started", duties=list(self.duties))

    def retire(self) -> bool:
        """Begin no more turns, and stop each duty whose last one has ended; whether all have.

        For whoever goes on with another service: turns that take long are not cut short. Call it
        again until all have ended.
        """
        for duty, thread in zip(self._duties, self._threads, strict=True):
            thread.end()
            if not thread.running:
                duty.stop()
        has_ended = not any(thread.running for thread in self._threads)
        if has_ended:
            self._connection.close()
        return has_ended

    def stop(self) -> None:
        """Return when no duty runs any more; safe twice and before `start`."""
        for duty, thread in zip(self._duties, self._threads, strict=True):
            thread.end()
            duty.stop()
        for thread in self._threads:
            thread.stop()
        self._connection.close()


class _Turns:
    """The turns of one duty, and whether one of them hangs."""

    def __init__(self, duty: Duty, clock: Clock) -> None:
        self.duty = duty
        self._clock = clock
        self._began: float | None = None

    def turn(self) -> float:
        self._began = self._clock.monotonic()
        try:
            return self.duty.turn()
        finally:
            self._began = None

    @property
    def hangs(self) -> bool:
        began, longest = self._began, self.duty.longest_turn_seconds
        if began is None or longest is None:
            return False
        return self._clock.monotonic() - began > longest


LONGEST_TURN_SECONDS: Final = 300.0
"""Of a duty that looks: longer than a database, or Redis, that does not answer is waited for."""

_IDLE: Final = (
    "the settings give it nothing to do: declare a schedule, [schedules.NAME], when to take "
    "backups, backups.schedule, a port to look at, monitoring.operator, or whom to tell, "
    "[notifications.targets.NAME]"
)
