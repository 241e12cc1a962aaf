from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from pydantic import TypeAdapter, ValidationError

from indexrelay.schemas.cron import (
    CronLine,
    QuietHours,
    TimeZone,
    end_of_quiet,
    last_slot,
    next_slot,
    slots,
)

BERLIN = "Europe/Berlin"


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type,misc]


def test_a_fixed_hour_that_a_night_has_twice_is_its_first() -> None:
    before = utc(2026, 10, 24, 12)
    found = list(slots("30 2 * * *", BERLIN, after=before, until=before + timedelta(days=2)))
    assert found == [utc(2026, 10, 25, 0, 30), utc(2026, 10, 26, 1, 30)]


def test_a_fixed_hour_that_a_night_has_not_is_when_the_clock_is_put_forward() -> None:
    before = utc(2026, 3, 28, 12)
    found = list(slots("30 2 * * *", BERLIN, after=before, until=before + timedelta(days=2)))
    assert found == [utc(2026, 3, 29, 1), utc(2026, 3, 30, 0, 30)]


def test_a_line_of_every_hour_names_each_that_passes() -> None:
    since = utc(2026, 10, 24, 22)
    found = list(slots("0 * * * *", BERLIN, after=since, until=since + timedelta(hours=6)))
    assert found == [since + timedelta(hours=hour) for hour in range(1, 7)]


@pytest.mark.parametrize("minutes", range(0, 180, 7))
def test_the_same_slots_follow_whenever_they_are_asked_for(minutes: int) -> None:
    """Also from within the hour that comes twice."""
    asked = utc(2026, 10, 24, 23, 45) + timedelta(minutes=minutes)
    expected = [utc(2026, 10, 25, 0, 30), *(utc(2026, 10, 25 + day, 1, 30) for day in (1, 2))]
    found = list(islice(slots("30 2 * * *", BERLIN, after=asked, until=utc(2026, 10, 28)), 3))
    assert found == [slot for slot in expected if slot > asked]


@pytest.mark.parametrize("line", ["*/10 * * * *", "0 2 * * 0", "0 0 29 2 *", "15 3 1 * *"])
def test_the_last_slot_is_the_one_that_listing_all_ends_with(line: str) -> None:
    after, until = utc(2027, 12, 30), utc(2028, 3, 27, 1, 2, 3)
    listed = list(slots(line, BERLIN, after=after, until=until))
    assert listed
    assert last_slot(line, BERLIN, after=after, until=until) == listed[-1]
    assert last_slot(line, BERLIN, after=listed[-1], until=until) is None
    assert last_slot(line, BERLIN, after=until, until=after) is None


def test_a_leap_day_comes_every_four_years() -> None:
    first = next_slot("0 0 29 2 *", "UTC", after=utc(2026, 1, 1))
    assert (first, next_slot("0 0 29 2 *", "UTC", after=first)) == (
        utc(2028, 2, 29),
        utc(2032, 2, 29),
    )


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("0 2 * *", "five fields"),
        ("0 0 2 * * *", "five fields"),
        ("61 2 * * *", "bad minute"),
        ("0 0 31 2 *", "day"),
        ("0 2 * * mo", "bad day-of-week"),
        ("@daily", "five fields"),
    ],
)
def test_a_line_that_names_nothing_is_refused(line: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        TypeAdapter(CronLine).validate_python(line)


@pytest.mark.parametrize("name", ["Europe/Atlantis", "../etc/passwd", "", "Europe"])
def test_a_time_zone_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="no time zone"):
        TypeAdapter(TimeZone).validate_python(name)


@pytest.mark.parametrize(
    ("windows", "why"),
    [
        (("8-18",), "two times"),
        (("08:00-24:00",), "two times"),
        (("08:00-08:00",), "when it ends"),
        (("06:00-18:00", "18:00-06:00"), "leave some of the day"),
    ],
)
def test_quiet_hours_that_mean_nothing_or_always_are_refused(
    windows: tuple[str, ...], why: str
) -> None:
    with pytest.raises(ValidationError, match=why):
        TypeAdapter(QuietHours).validate_python(windows)


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (utc(2026, 7, 1, 19, 59), utc(2026, 7, 1, 19, 59)),
        (utc(2026, 7, 1, 20, 0), utc(2026, 7, 2, 5, 30)),  # 22:00 in summer; 06:00 begins another
        (utc(2026, 7, 2, 3, 59), utc(2026, 7, 2, 5, 30)),
        (utc(2026, 7, 2, 5, 30), utc(2026, 7, 2, 5, 30)),
        (utc(2026, 12, 1, 21, 0), utc(2026, 12, 2, 6, 30)),  # in winter
    ],
)
def test_a_moment_in_quiet_hours_becomes_their_end(moment: datetime, expected: datetime) -> None:
    assert end_of_quiet(moment, ("22:00-06:00", "06:00-07:30"), BERLIN) == expected


def test_quiet_hours_that_end_in_a_night_with_two_of_that_hour_end_once() -> None:
    zone = ZoneInfo(BERLIN)
    within = datetime(2026, 10, 25, 2, 10, tzinfo=zone)
    again = datetime(2026, 10, 25, 2, 10, tzinfo=zone, fold=1)
    ended = datetime(2026, 10, 25, 2, 30, tzinfo=zone).astimezone(UTC)
    assert end_of_quiet(within, ("01:00-02:30",), BERLIN) == ended
    assert end_of_quiet(again, ("01:00-02:30",), BERLIN) == again.astimezone(UTC)
