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
from datetime import datetime, timedelta
from typing import Final

from indexrelay.operations.service import DutyResources
from indexrelay.producers.events import EventDraft, EventSender
from indexrelay.schemas.clock import is_ahead
from indexrelay.schemas.errors import IndexRelayError, see_installed
from indexrelay.schemas.loggers import LogOnce, get_logger
from indexrelay.schemas.messages import RebuildRequested
from indexrelay.schemas.schedules import ScheduleSettings, request_id_of
from indexrelay.storage.audit import AuditAction, AuditLog
from indexrelay.storage.catalog import ScheduleState
from indexrelay.streams.errors import BackendRefusedError

_log = get_logger(__name__)
_LOOK_SECONDS: Final = 30.0
"""The longest wait for the next look: the wall clock may be set, and a thread's wait is not."""


class ScheduleDuty:
    """Looks at every schedule; a `Duty`."""

    name: Final = "schedules"

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
