"""When what is rebuilt by the clock: ``[schedules.NAME]``, and the time at which a slot starts.

A slot is a moment that the cron line names; it starts then, moved by its jitter and out of quiet
hours. Both follow from the name and the slot, so that every operator computes the same.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Annotated, Final

from pydantic import Field

from indexrelay.schemas.cron import (
    CronLine,
    QuietHours,
    TimeZone,
    end_of_quiet,
    last_slot,
    next_slot,
    slots,
)
from indexrelay.schemas.definitions import ComponentDefinition
from indexrelay.schemas.names import Name, canonical_json, sha256_hex
from indexrelay.schemas.tables import PositiveSeconds, Table

NamePattern = Annotated[str, Field(pattern=r"^[a-z*][a-z0-9_*]{0,63}$")]
"""A name, or several: ``forecast_*``."""


class ScheduleSettings(Table):
    """One table ``[schedules.NAME]``: a rebuild by the clock. ``indexrelay operator`` asks for it
    when its time has come, once, however many operators run."""

    cron: CronLine
    """Minute, hour, day of the month, month, day of the week: ``0 2 * * 0`` is Sunday at two. A
    change of the clock neither repeats nor loses a time with a fixed hour."""
    timezone: TimeZone = "UTC"
    """In which the line and the quiet hours are read, as ``Europe/Berlin``."""
    components: tuple[NamePattern, ...] = ()
    """What to build, due or not: names, or patterns as ``forecast_*``. With no ``groups`` either:
    whatever is due, also what waits by the ``persistence`` of its collection."""
    groups: tuple[Name, ...] = ()
    """… and all components of these groups."""
    full: bool = False
    """Whether it is built from scratch, and every file is checked again."""
    jitter_seconds: Annotated[float, Field(ge=0, le=86400)] = 0.0
    """A start is moved by up to this much, each by its own part of it: so that several schedules of
    one time do not begin at once."""
    quiet_hours: QuietHours = ()
    """Hours of a day in which nothing of it starts, as ``["08:00-18:00"]``: a start among them is
    delayed to their end. Of several that come together only the newest starts."""
    catch_up: bool = True
    """Whether the newest start that was missed, because no operator ran, is made up for, once."""
    late_seconds: PositiveSeconds = 300.0
    """How late a start may be and is none that was missed: a restart takes seconds."""
    failure_cooldown_seconds: PositiveSeconds = 86400.0
    """How long it leaves alone a component that failed ``max_consecutive_failures`` times in a row.
    A day: what fails so often waits for a person. Events and people are not bound by it."""

    @property
    def definition(self) -> str:
        """The digest of what its slots follow from."""
        return sha256_hex(canonical_json([self.cron, self.timezone]))

    def targets(self, definitions: Mapping[str, ComponentDefinition]) -> tuple[str, ...]:
        """What it asks for by name, in the order of the names; none: whatever is due."""
        return tuple(
            name
            for name in sorted(definitions)
            if definitions[name].group in self.groups
            or any(fnmatchcase(name, pattern) for pattern in self.components)
        )

    def starts_at(self, name: str, slot: datetime) -> datetime:
        """When the slot of the schedule ``name`` starts, in UTC."""
        moved = slot + timedelta(seconds=self.jitter_seconds * _share(name, slot))
        return end_of_quiet(moved, self.quiet_hours, self.timezone)

    def plan(self, name: str, *, after: datetime, now: datetime) -> "Plan":
        """What is to be started now, and what comes next.

        Args:
            after: the newest slot that was decided on.

        Raises:
            MissingExtraError: cronsim is not installed.
        """
        # What is older has started: quiet hours leave some of a day, which has 25 hours at most.
        delay = timedelta(seconds=self.jitter_seconds + (90_000 if self.quiet_hours else 0))
        surely = max(after, now - delay)
        due = last_slot(self.cron, self.timezone, after=after, until=surely)
        next_at = None
        for slot in slots(self.cron, self.timezone, after=surely, until=now):
            start = self.starts_at(name, slot)
            if start <= now:
                due = slot
            else:
                next_at = min(next_at or start, start)
        upcoming = self.starts_at(name, next_slot(self.cron, self.timezone, after=now))
        return Plan(due=due, next_at=min(next_at or upcoming, upcoming))

    def upcoming(self, name: str, *, after: datetime) -> Iterator[tuple[datetime, datetime]]:
        """The slots after ``after``, each with its start; without an end."""
        while True:
            after = next_slot(self.cron, self.timezone, after=after)
            yield after, self.starts_at(name, after)


@dataclass(frozen=True)
class Plan:
    """What a schedule is to do."""

    due: datetime | None
    """The newest slot whose time to start has come; ``None``: none has."""
    next_at: datetime
    """When the next one starts, in UTC."""


_PREFIX: Final = "schedule/"


def request_id_of(name: str, slot: datetime) -> str:
    """The id of the request that a slot makes; equal slots make equal ones."""
    return f"{_PREFIX}{name}/{slot.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def schedule_of(request_id: str) -> str | None:
    """The schedule that made a request; ``None``: a person or a program did."""
    if not request_id.startswith(_PREFIX):
        return None
    return request_id.removeprefix(_PREFIX).partition("/")[0]


def _share(name: str, slot: datetime) -> float:
    """The jitter's part of a slot, in [0, 1)."""
    digest = hashlib.sha256(request_id_of(name, slot).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
