"""Asks for the rebuilds of ``[schedules.NAME]`` when their time has come.

A slot (`indexrelay.schemas.schedules`) makes one row of the inbox, in the transaction that records
the slot as decided: it makes one request, however many operators look at the schedule, and whenever
one of them dies. The event that follows only wakes a rebuilder.

Of several slots whose time has come, only the newest makes a request: nobody needs the night's
rebuild twice. One that comes later than ``late_seconds`` was missed, because no operator ran; it is
made up for with ``catch_up``, and is recorded as missed without.

Where an operator decided on slots that are still to come, its clock was wrong. The next one whose
clock is right counts from now on: else nothing would start until then.
"""

import contextlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from indexrelay.health.due import left_alone
from indexrelay.health.facts import Facts
from indexrelay.operations.rebuilds import RebuildRequest
from indexrelay.operations.service import LONGEST_TURN_SECONDS, DutyResources
from indexrelay.producers.events import EventDraft, EventSender
from indexrelay.schemas.clock import SystemClock, is_ahead
from indexrelay.schemas.errors import IndexRelayError, UnknownNameError, see_installed
from indexrelay.schemas.loggers import LogOnce, get_logger
from indexrelay.schemas.messages import RebuildRequested
from indexrelay.schemas.schedules import ScheduleSettings, request_id_of
from indexrelay.schemas.settings import Settings
from indexrelay.storage.audit import AuditAction, AuditLog
from indexrelay.storage.catalog import Catalog, ScheduleState
from indexrelay.streams.errors import BackendRefusedError

_log = get_logger(__name__)
_LOOK_SECONDS: Final = 30.0
"""The longest wait for the next look: the wall clock may be set, and a thread's wait is not."""


class ScheduleDuty:
    """Looks at every schedule; a `Duty`."""

    name: Final = "schedules"
    longest_turn_seconds: Final = LONGEST_TURN_SECONDS

    def __init__(self, resources: DutyResources) -> None:
        """Raises MissingExtraError: cronsim is not installed."""
        see_installed("cronsim")
        self._schedules = resources.settings.schedules
        self._components = resources.settings.components
        self._rows = resources.catalog.schedules
        self._clock = resources.clock
        self._events = EventSender(
            resources.settings, connection=resources.connection, clock=resources.clock
        )
        self._audit = AuditLog.of(resources.settings, clock=resources.clock)
        self._begun: set[str] = set()
        self._replaced = LogOnce()
        self._refused = LogOnce()

    def turn(self) -> float:
        """Make the requests that are due; the seconds until the next start, or the next look.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the catalog does not answer.
        """
        now = self._clock.now()
        states = self._states(now)
        replaced, refused = {}, {}
        soonest = now + timedelta(seconds=_LOOK_SECONDS)
        for name, schedule in self._schedules.items():
            state = states[name]
            if state.definition != schedule.definition:
                replaced[name] = state.definition
                continue
            try:
                soonest = min(soonest, self._look(name, schedule, state, now))
            except IndexRelayError as error:  # too many requests: others are looked at
                refused[name] = str(error)
        for name in self._replaced.new(replaced):
            _log.warning(
                "schedule.replaced",
                schedule=name,
                advice="an operator that started later has another cron line or time zone for it; "
                "start this one again with the same settings",
            )
        for name, sentence in self._refused.new(refused).items():
            _log.warning("schedule.refused", schedule=name, error=sentence)
        return max(0.0, (soonest - now).total_seconds())

    def stop(self) -> None:
        """A turn takes milliseconds."""

    def _states(self, now: datetime) -> dict[str, ScheduleState]:
        """What was decided of each schedule; this operator takes each over once."""
        for name, schedule in self._schedules.items():
            if name not in self._begun:
                plan = schedule.plan(name, after=now, now=now)
                self._rows.begin(name, definition=schedule.definition, next_at=plan.next_at)
                self._begun.add(name)
        return self._rows.all()

    def _look(
        self, name: str, schedule: ScheduleSettings, state: ScheduleState, now: datetime
    ) -> datetime:
        """Make the request of a schedule if one is due; when the next one starts."""
        if is_ahead(state.decided, now):
            plan = schedule.plan(name, after=now, now=now)
            if self._rows.set_back(state, next_at=plan.next_at):
                _log.warning(
                    "schedule.set_back",
                    schedule=name,
                    decided=state.decided.isoformat(),
                    advice="it was decided on slots that are still to come: see that the clocks of "
                    "all operators are right; it counts from now on",
                )
            return plan.next_at
        plan = schedule.plan(name, after=state.decided, now=now)
        if plan.due is not None:
            late = (now - schedule.starts_at(name, plan.due)).total_seconds()
            if late <= schedule.late_seconds or schedule.catch_up:
                self._fire(name, schedule, plan.due, next_at=plan.next_at, late_seconds=late)
            elif self._rows.miss(
                name, definition=schedule.definition, slot=plan.due, next_at=plan.next_at
            ):
                _log.warning("schedule.missed", schedule=name, slot=plan.due.isoformat())
        elif plan.next_at != state.next_at:
            self._rows.expect(name, definition=schedule.definition, next_at=plan.next_at)
        return plan.next_at

    def _fire(
        self,
        name: str,
        schedule: ScheduleSettings,
        slot: datetime,
        *,
        next_at: datetime,
        late_seconds: float,
    ) -> None:
        request_id = request_id_of(name, slot)
        reason = f"schedule {name}"
        request = RebuildRequested(
            request_id=request_id,
            components=schedule.targets(self._components),
            full=schedule.full,
            failure_cooldown_seconds=schedule.failure_cooldown_seconds,
            reason=reason,
        )
        if not self._rows.fire(
            name, definition=schedule.definition, slot=slot, request=request, next_at=next_at
        ):
            return  # another operator was faster
        _log.info(
            "schedule.fired",
            schedule=name,
            slot=slot.isoformat(),
            request_id=request_id,
            late_seconds=round(late_seconds, 1),
        )
        self._audit.record(
            AuditAction.REBUILD_REQUESTED,
            who=f"schedule/{name}",
            subject=", ".join(request.components) or None,
            request_id=request_id,
        )
        # What is asked for counts in the row only, so the event does not repeat it.
        event = RebuildRequested(request_id=request_id, reason=reason)
        with contextlib.suppress(BackendRefusedError):  # the row stands, and is found without it
            self._events.send([EventDraft(event, subject=request_id, event_id=request_id)])


class UnknownScheduleError(UnknownNameError):
    """Raised when a schedule is named that the settings do not declare."""

    def __init__(self, name: str, declared: Mapping[str, Any]) -> None:
        there = f"there is {', '.join(sorted(declared))}" if declared else "none is declared"
        super().__init__(f"no schedule {name!r}; {there}")
        self.name = name


class Start(BaseModel):
    """One slot that comes."""

    model_config = ConfigDict(frozen=True)

    slot: datetime
    """The moment that the cron line names."""
    start: datetime
    """When it starts: moved by its jitter and out of quiet hours."""


class ScheduleReport(BaseModel):
    """One schedule, and what came of it."""

    model_config = ConfigDict(frozen=True)

    cron: str
    timezone: str
    components: tuple[str, ...]
    """What it asks for; empty: whatever is due."""
    next: tuple[Start, ...]
    watched: bool
    """Whether an operator has looked at it, with this cron line and time zone."""
    overdue_since: datetime | None = None
    """When it should have started; ``None``: it is on time."""
    slot: datetime | None = None
    """The newest one that asked for a rebuild."""
    fired_at: datetime | None = None
    request_id: str | None = None
    outcome: str | None = None
    """``SUCCESS``, ``PARTIAL_SUCCESS``, ``FAILURE``; ``waiting``; ``nothing was due``; ``None``: it
    is not known any more, or there is none."""
    message: str | None = None
    missed: datetime | None = None
    """The newest slot that was missed, and not made up for."""
    left_alone: dict[str, str] = {}
    """Components that it would not build now, and why and until when."""


def run_request(
    name: str, settings: Settings, *, force: bool = False, reason: str = ""
) -> RebuildRequest:
    """What a schedule asks for, to be asked for now.

    Args:
        force: also what is paused or failed too often, and even if more entries went than
            ``max_shrink`` allows.
        reason: empty: that somebody ran it by hand.

    Raises:
        UnknownScheduleError: the settings declare no such schedule.
    """
    if name not in settings.schedules:
        raise UnknownScheduleError(name, settings.schedules)
    given = settings.schedules[name]
    return RebuildRequest(
        components=given.targets(settings.components),
        full=given.full,
        force=force,
        failure_cooldown_seconds=None if force else given.failure_cooldown_seconds,
        reason=reason or f"schedule {name}, by hand",
    )


def schedule_reports(
    settings: Settings, catalog: Catalog, *, now: datetime, count: int = 3
) -> dict[str, ScheduleReport]:
    """Each declared schedule.

    Raises:
        MissingExtraError: cronsim is not installed.
    """
    states = catalog.schedules.all()
    return {
        name: _report(
            name, each, settings, states.get(name), catalog, now=now, count=count
        ).model_copy(update={"left_alone": left_alone_by(each, settings, catalog, now=now)})
        for name, each in settings.schedules.items()
    }


def left_alone_by(
    given: ScheduleSettings, settings: Settings, catalog: Catalog, *, now: datetime | None = None
) -> dict[str, str]:
    """What a schedule names and would not have built now, and why and until when."""
    now = now or SystemClock().now()
    facts = Facts(
        definitions=settings.components,
        sources={},
        release=None,
        versions={},
        attempts=catalog.attempts.all(),
        paused=catalog.attempts.paused(),
        scheduled=dict.fromkeys(given.targets(settings.components), given.failure_cooldown_seconds),
        since=now,
        now=now,
        rebuilder=settings.rebuilder,
    )
    return left_alone(facts, facts.retry_policy)


def _report(
    name: str,
    given: ScheduleSettings,
    settings: Settings,
    state: ScheduleState | None,
    catalog: Catalog,
    *,
    now: datetime,
    count: int,
) -> ScheduleReport:
    watched = state is not None and state.definition == given.definition
    after = state.decided if state is not None and watched else now
    starts = (
        Start(slot=slot, start=start)
        for slot, start in given.upcoming(name, after=after)
        if start > now
    )
    report = ScheduleReport(
        cron=given.cron,
        timezone=given.timezone,
        components=given.targets(settings.components),
        next=tuple(islice(starts, count)),
        watched=watched,
    )
    if state is None:
        return report
    answer = None if state.request is None else catalog.inbox.answer(state.request)
    result = None if answer is None else answer.result
    outcome = None
    if answer is not None and result is None:
        outcome = "nothing was due" if answer.finished else "waiting"
    overdue = (now - state.next_at).total_seconds() > given.late_seconds
    return report.model_copy(
        update={
            "slot": state.slot,
            "fired_at": state.fired_at,
            "request_id": state.request,
            "outcome": outcome if result is None else str(result.status),
            "message": None if result is None else result.message,
            "missed": state.missed,
            "overdue_since": state.next_at if watched and overdue else None,
        }
    )
