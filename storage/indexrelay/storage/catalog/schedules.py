"""What was decided of the slots of each schedule: which made a request, and which was missed.

Any number of operators may look at one schedule. The row of a schedule and the request that a slot
makes are written in one transaction, which is void where another has decided on that slot or on a
later one. So a slot makes one request, also where an operator dies at any moment.

An operator whose settings have another cron line takes the row over when it starts, and counts from
then on: slots of before were not its own. The one that started before decides nothing more of that
schedule: the last settings decide.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import RowMapping, Update, and_, select, update

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.messages import RebuildRequested
from indexrelay.storage.catalog.database import Database
from indexrelay.storage.catalog.inbox import Inbox
from indexrelay.storage.catalog.schema import schedules


@dataclass(frozen=True, kw_only=True)
class ScheduleState:
    """What was decided of one schedule."""

    schedule: str
    definition: str
    """The digest of what its slots follow from."""
    decided: datetime
    """The newest slot that was decided on; at first when it was looked at."""
    slot: datetime | None
    """The newest slot that made a request."""
    fired_at: datetime | None
    request: str | None
    """The id of that request."""
    missed: datetime | None
    """The newest slot that was missed, and not made up for."""
    next_at: datetime
    """When the next one starts."""


class ScheduleRows:
    """The rows of schedules."""

    def __init__(self, database: Database, clock: Clock, inbox: Inbox) -> None:
        self._database = database
        self._clock = clock
        self._inbox = inbox

    def all(self) -> dict[str, ScheduleState]:
        """Every schedule that an operator looked at, by name."""
        with self._database.read() as connection:
            rows = connection.execute(select(schedules).order_by(schedules.c.schedule))
            return {row["schedule"]: _state(row) for row in rows.mappings()}

    def begin(self, schedule: str, *, definition: str, next_at: datetime) -> ScheduleState:
        """Take the schedule over, and count its slots from now on unless they are the same.

        Args:
            next_at: when the next slot starts, where they are counted from now on.
        """
        now = self._clock.now()
        fresh = {"definition": definition, "decided": now, "next_at": next_at}
        statement = (
            self._database.insert(schedules)
            .values(schedule=schedule, **fresh)
            .on_conflict_do_update(
                index_elements=[schedules.c.schedule],
                set_={**fresh, "missed": None},
                where=schedules.c.definition != definition,
            )
        )
        mine = select(schedules).where(schedules.c.schedule == schedule)
        with self._database.write() as connection:
            connection.execute(statement)
            return _state(connection.execute(mine).mappings().one())

    def fire(
        self,
        schedule: str,
        *,
        definition: str,
        slot: datetime,
        request: RebuildRequested,
        next_at: datetime,
    ) -> bool:
        """Record the request that a slot makes; ``False``: another operator decided on the slot.

        Raises:
            TooManyRequestsError: too many are open; nothing was decided.
        """
        fired = {"slot": slot, "fired_at": self._clock.now(), "request": request.request_id}
        statement = self._undecided(schedule, definition, slot).values(
            decided=slot, next_at=next_at, **fired
        )
        with self._database.write() as connection:
            if not connection.execute(statement).rowcount:
                return False
            return self._inbox.insert(connection, request)

    def miss(self, schedule: str, *, definition: str, slot: datetime, next_at: datetime) -> bool:
        """Record that a slot was missed; ``False``: another operator decided on it."""
        statement = self._undecided(schedule, definition, slot).values(
            decided=slot, missed=slot, next_at=next_at
        )
        with self._database.write() as connection:
            return connection.execute(statement).rowcount > 0

    def expect(self, schedule: str, *, definition: str, next_at: datetime) -> None:
        """Record when the next slot starts."""
        mine = and_(schedules.c.schedule == schedule, schedules.c.definition == definition)
        with self._database.write() as connection:
            connection.execute(update(schedules).where(mine).values(next_at=next_at))

    def set_back(self, state: ScheduleState, *, next_at: datetime) -> bool:
        """Count slots from now on, of a schedule on which was decided under a clock that was wrong;
        ``False``: it is not in that state any more."""
        mine = and_(
            schedules.c.schedule == state.schedule,
            schedules.c.definition == state.definition,
            schedules.c.decided == state.decided,
        )
        statement = update(schedules).where(mine)
        with self._database.write() as connection:
            set_back = statement.values(decided=self._clock.now(), next_at=next_at)
            return connection.execute(set_back).rowcount > 0

    @staticmethod
    def _undecided(schedule: str, definition: str, slot: datetime) -> Update:
        return update(schedules).where(
            schedules.c.schedule == schedule,
            schedules.c.definition == definition,
            schedules.c.decided < slot,
        )


def _state(row: RowMapping) -> ScheduleState:
    return ScheduleState(**row)
