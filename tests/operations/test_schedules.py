"""Operators that look at schedules, on one real catalog, with injected time."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import fakeredis
import pytest

from indexrelay.operations.schedules import ScheduleDuty
from indexrelay.operations.service import DutyResources
from indexrelay.producers.events import JobConnection
from indexrelay.schemas.messages import Event, RebuildRequested
from indexrelay.schemas.schedules import request_id_of, schedule_of
from indexrelay.schemas.settings import Settings
from indexrelay.storage.artifacts import ArtifactStore
from indexrelay.storage.audit import FILE_NAME
from indexrelay.storage.catalog import Catalog, inbox
from indexrelay.streams import Connection, Keys
from indexrelay.testing import FakeClock
from tests.fixtures.logs import capture_logs

START = datetime(2026, 11, 2, 12, 0, 0, 123_456, tzinfo=UTC)  # a Monday
HOUR, DAY = 3600.0, 86400.0
WEEKLY = {"cron": "0 2 * * 0", "components": ["maps"]}


class Operators:
    """Operators on one catalog and one clock, each with connections of its own."""

    def __init__(self, folder: Path, start: datetime = START, *, url: str | None = None) -> None:
        self.folder, self.clock = folder, FakeClock(start)
        self.url = url or f"sqlite:///{folder / 'catalog.db'}"
        self.catalogs: list[Catalog] = []
        self.redis = fakeredis.FakeRedis()
        self.catalog = self.open()

    def open(self) -> Catalog:
        self.catalogs.append(Catalog.open(self.url, clock=self.clock))
        return self.catalogs[-1]

    def settings(self, **schedules: dict[str, Any]) -> Settings:
        return Settings.model_validate(
            {
                "data_dir": self.folder,
                "collections": {"tracks": {"dimension": 4}},
                "components": {
                    "maps": {"kind": "vector_index", "from": "tracks"},
                    "left": {"kind": "vector_index", "from": "tracks", "group": "both"},
                    "right": {"kind": "vector_index", "from": "tracks", "group": "both"},
                },
                "schedules": schedules,
            }
        )

    def duty(self, **schedules: dict[str, Any]) -> ScheduleDuty:
        settings = self.settings(**schedules)
        connection = Connection(commands=self.redis, blocking=self.redis)
        return ScheduleDuty(
            DutyResources(
                settings=settings,
                catalog=self.open(),
                store=ArtifactStore.of(settings, clock=self.clock),
                connection=JobConnection(settings, connection),
                clock=self.clock,
            )
        )

    def asked(self) -> list[RebuildRequested]:
        """What waits for a rebuilder; and it is answered."""
        found = self.catalog.inbox.open_requests()
        self.catalog.inbox.finish([each.request_id for each in found])
        return found

    def ids(self) -> list[str]:
        return [each.request_id for each in self.asked()]


@pytest.fixture
def operators(tmp_path: Path) -> Iterator[Operators]:
    operators = Operators(tmp_path)
    yield operators
    for catalog in operators.catalogs:
        catalog.close()


def test_a_schedule_asks_when_its_time_has_come_and_once(operators: Operators) -> None:
    duty = operators.duty(weekly={**WEEKLY, "full": True})
    assert duty.turn() == 30.0
    assert operators.ids() == []
    operators.clock.advance(5 * DAY + 13.995 * HOUR)
    assert duty.turn() == pytest.approx(18, abs=0.2)
    assert operators.ids() == []

    operators.clock.advance(40)
    duty.turn()
    duty.turn()

    (asked,) = operators.asked()
    assert asked.request_id == "schedule/weekly/2026-11-08T02:00:00Z"
    assert schedule_of(asked.request_id) == "weekly"
    assert asked.components == ("maps",)
    assert asked.full
    assert not asked.force
    assert asked.failure_cooldown_seconds == 86400
    duty.turn()
    assert operators.ids() == []


def test_the_event_wakes_a_rebuilder_and_the_audit_log_says_who_asked(operators: Operators) -> None:
    duty = operators.duty(weekly=WEEKLY)
    duty.turn()
    operators.clock.advance(6 * DAY)
    duty.turn()

    ((_, fields),) = cast("list[Any]", operators.redis.xrange(Keys("indexrelay").events))
    event = Event.from_bytes(next(iter(fields.values())))
    assert event.id == "schedule/weekly/2026-11-08T02:00:00Z"
    assert isinstance(event.data, RebuildRequested)
    assert event.data.components == ()  # it counts in the row only
    (line,) = (operators.folder / FILE_NAME).read_text().splitlines()
    assert '"who":"schedule/weekly"' in line
    assert '"subject":"maps"' in line


def test_a_schedule_names_components_by_pattern_and_by_group(operators: Operators) -> None:
    duty = operators.duty(
        groups={"cron": "0 * * * *", "groups": ["both"]},
        due={"cron": "0 * * * *"},
        pattern={"cron": "0 * * * *", "components": ["m*", "right"]},
    )
    duty.turn()
    operators.clock.advance(HOUR)
    duty.turn()
    asked = {schedule_of(each.request_id): each.components for each in operators.asked()}
    assert asked == {"groups": ("left", "right"), "due": (), "pattern": ("maps", "right")}


def test_what_was_missed_is_made_up_for_once_and_the_newest_counts(operators: Operators) -> None:
    operators.duty(weekly=WEEKLY).turn()
    operators.clock.advance(30 * DAY)
    again = operators.duty(weekly=WEEKLY)
    again.turn()
    assert operators.ids() == ["schedule/weekly/2026-11-29T02:00:00Z"]
    again.turn()
    assert operators.ids() == []


def test_without_catch_up_what_was_missed_is_recorded_and_not_made_up_for(
    operators: Operators,
) -> None:
    schedule = {**WEEKLY, "catch_up": False}
    operators.duty(weekly=schedule).turn()
    operators.clock.advance(5 * DAY + 14 * HOUR + 299)
    soon = operators.duty(weekly=schedule)
    soon.turn()
    assert operators.ids() == ["schedule/weekly/2026-11-08T02:00:00Z"]  # a restart takes seconds

    operators.clock.advance(7 * DAY + 2)
    soon.turn()

    assert operators.ids() == []
    state = operators.catalog.schedules.all()["weekly"]
    assert state.missed == datetime(2026, 11, 15, 2, tzinfo=UTC)
    assert state.slot == datetime(2026, 11, 8, 2, tzinfo=UTC)
    operators.clock.advance(6.9 * DAY)
    soon.turn()
    assert operators.ids() == []


def test_what_was_decided_under_a_clock_years_ahead_silences_no_schedule(
    operators: Operators,
) -> None:
    duty = operators.duty(weekly=WEEKLY)
    duty.turn()
    operators.clock.advance(1000 * DAY)
    duty.turn()
    assert len(operators.ids()) == 1
    operators.clock._start -= timedelta(days=1000)
    with capture_logs() as events:
        duty.turn()
        duty.turn()
    assert [each["event"] for each in events if each["event"].startswith("schedule.")] == [
        "schedule.set_back"
    ]
    assert operators.ids() == []
    operators.clock.advance(6 * DAY)
    duty.turn()
    assert operators.ids() == ["schedule/weekly/2026-11-08T02:00:00Z"]
    # A clock that is set back by seconds repeats nothing.
    operators.clock._start -= operators.clock.now() - datetime(2026, 11, 8, 1, 59, 30, tzinfo=UTC)
    duty.turn()
    operators.clock.advance(60)
    duty.turn()
    assert operators.ids() == []


def test_a_new_schedule_and_one_with_another_line_count_from_now_on(operators: Operators) -> None:
    operators.duty(weekly=WEEKLY).turn()
    operators.clock.advance(5 * DAY)
    operators.duty(weekly={**WEEKLY, "cron": "0 2 * * *"}).turn()
    assert operators.ids() == []
    operators.clock.advance(1 * DAY)
    operators.duty(weekly={**WEEKLY, "cron": "0 2 * * *"}).turn()
    assert operators.ids() == ["schedule/weekly/2026-11-08T02:00:00Z"]


def test_the_operator_that_started_last_decides_and_the_other_says_so(operators: Operators) -> None:
    old = operators.duty(weekly=WEEKLY)
    old.turn()
    new = operators.duty(weekly={**WEEKLY, "cron": "0 4 * * 0"})
    new.turn()
    operators.clock.advance(5 * DAY + 15 * HOUR)  # Sunday, 03:00
    with capture_logs() as events:
        old.turn()
        old.turn()
    assert [each["event"] for each in events if each["event"].startswith("schedule.")] == [
        "schedule.replaced"
    ]
    assert operators.ids() == []
    operators.clock.advance(HOUR)
    old.turn()
    new.turn()
    assert operators.ids() == ["schedule/weekly/2026-11-08T04:00:00Z"]


def test_nothing_starts_in_quiet_hours_and_the_newest_starts_at_their_end(
    operators: Operators,
) -> None:
    duty = operators.duty(
        hourly={"cron": "30 * * * *", "quiet_hours": ["14:00-18:15"], "timezone": "UTC"}
    )
    started = []
    for _ in range(60 * 8):
        duty.turn()
        started += [(operators.clock.now().hour, each) for each in operators.ids()]
        operators.clock.advance(60)
    assert [(hour, each[-9:-4]) for hour, each in started] == [
        (12, "12:30"),
        (13, "13:30"),
        (18, "17:30"),
        (18, "18:30"),
        (19, "19:30"),
    ]


def test_the_jitter_follows_from_name_and_slot(operators: Operators) -> None:
    schedules = {
        f"part_{number}": {"cron": "0 13 * * *", "jitter_seconds": 600} for number in range(20)
    }
    duty = operators.duty(**schedules)
    settings = operators.settings(**schedules)
    duty.turn()
    slot = START.replace(hour=13, microsecond=0, second=0)
    starts = {name: each.starts_at(name, slot) for name, each in settings.schedules.items()}
    assert len(set(starts.values())) == 20
    assert max(starts.values()) - min(starts.values()) > timedelta(seconds=300)
    while operators.clock.now() < slot + timedelta(seconds=601):
        now = operators.clock.now()
        duty.turn()
        due = {name for name, start in starts.items() if start <= now}
        asked = {schedule_of(each) for each in operators.ids()}
        assert asked == due
        starts = {name: start for name, start in starts.items() if name not in due}
        operators.clock.advance(duty.turn() + 0.001)
    assert not starts


def test_too_many_requests_keep_one_schedule_waiting_until_there_is_room(
    operators: Operators, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "MAX_OPEN_REQUESTS", 3)
    duty = operators.duty(weekly=WEEKLY)
    duty.turn()
    for number in range(3):
        operators.catalog.inbox.request(f"r{number}", components=[], reason="flood")
    operators.clock.advance(6 * DAY)
    with capture_logs() as events:
        duty.turn()
        duty.turn()
    assert [each["schedule"] for each in events if each["event"] == "schedule.refused"] == [
        "weekly"
    ]
    operators.asked()
    duty.turn()
    assert operators.ids() == ["schedule/weekly/2026-11-08T02:00:00Z"]


ZONES = {
    "berlin": "Europe/Berlin",
    "new_york": "America/New_York",
    "lord_howe": "Australia/Lord_Howe",
}


RUNNING = [
    (datetime(2027, 10, 30, tzinfo=UTC), datetime(2027, 11, 9, tzinfo=UTC)),
    (datetime(2028, 2, 28, tzinfo=UTC), datetime(2028, 3, 2, tzinfo=UTC)),
    (datetime(2028, 3, 11, tzinfo=UTC), datetime(2028, 3, 14, tzinfo=UTC)),
    (datetime(2028, 3, 25, tzinfo=UTC), datetime(2028, 3, 28, tzinfo=UTC)),
    (datetime(2028, 4, 1, tzinfo=UTC), datetime(2028, 4, 4, tzinfo=UTC)),
]
"""When any operator ran: around the changes of the clock, and the leap day."""


def when_any_runs(now: datetime, following: datetime) -> datetime:
    """``following``, or the next moment at which an operator is started."""
    for (_, away), (back, _) in pairwise(RUNNING):
        if now < away <= following:
            return back
    return following


class KilledError(Exception):
    """In the place of a signal: what the process had not committed is gone."""


def killed(*_: object) -> bool:
    raise KilledError


def test_three_operators_of_which_two_die_start_each_slot_once_through_a_year(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two changes of the clock and a leap day; Lord Howe changes by half an hour."""
    operators = Operators(tmp_path, RUNNING[0][0])
    schedules = {
        name: {"cron": "10 2 * * *", "timezone": zone, "components": ["maps"]}
        for name, zone in ZONES.items()
    }
    schedules["leap"] = {"cron": "0 12 29 2 *"}
    living = [operators.duty(**schedules) for _ in range(3)]

    def die(number: int) -> None:
        if number == 10:  # within the transaction
            monkeypatch.setattr(living[number % 3]._rows._inbox, "insert", killed)
        if number == 40:  # after it, before the event
            monkeypatch.setattr(living[number % 2]._events, "send", killed)

    asked = run_through(operators, living, die)

    expected = {request_id_of("leap", datetime(2028, 2, 29, 12, tzinfo=UTC))}
    for name, zone in ZONES.items():
        nights = [night(date(2027, 10, 29) + timedelta(days=count), zone) for count in range(170)]
        for begin, end in RUNNING:
            expected |= {request_id_of(name, each) for each in nights if begin < each < end}
        for begin, _ in RUNNING[1:]:  # what was missed is made up for
            expected.add(request_id_of(name, max(each for each in nights if each <= begin)))
    assert len(living) == 1
    assert set(asked) == expected
    assert set(asked.values()) == {1}
    for catalog in operators.catalogs:
        catalog.close()


def run_through(
    operators: Operators, living: list[ScheduleDuty], die: Callable[[int], None]
) -> Counter[str]:
    """All turns while any runs; how often each slot asked."""
    asked: Counter[str] = Counter()
    for number in range(1000):
        die(number)
        turn = number % len(living)  # another one is the first each time
        for duty in [*living[turn:], *living[:turn]]:
            try:
                duty.turn()
            except KilledError:
                living.remove(duty)
        asked.update(operators.ids())
        following = min(each.next_at for each in operators.catalog.schedules.all().values())
        if following >= RUNNING[-1][1]:
            break
        following = when_any_runs(operators.clock.now(), following)
        operators.clock.advance((following - operators.clock.now()).total_seconds())
    return asked


def night(day: date, zone: str) -> datetime:
    """Ten past two of a night; where there is none, when the clock was put forward."""
    wall = datetime(day.year, day.month, day.day, 2, 10)  # noqa: DTZ001 - what a clock shows
    while True:
        moment = wall.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
        if moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None) == wall:
            return moment
        wall += timedelta(minutes=1)
