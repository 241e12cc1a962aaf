"""Cron lines with a time zone: the moments that they name (*slots*), and hours in which to wait.

Every slot is an instant in UTC, and the same one whoever asks and whenever: that is what a slot is
known by. A change of the clock neither repeats nor loses one. A line with a fixed hour (``30 2 * *
*``) names the first 02:30 of the night that has two, and in the night that has none the moment at
which the clock is put forward. One that names every hour or minute names each of them that passes.
That is what Debian's cron does, and cronsim, which reads the lines here.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Annotated, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field

from indexrelay.schemas.errors import MissingExtraError, require

_MINUTES_A_DAY: Final = 24 * 60
_FIRST_WINDOW: Final = timedelta(hours=1)
_BEGINNING: Final = datetime(2000, 1, 1, tzinfo=UTC)


def _checked_line(line: str) -> str:
    """Whether cronsim reads it and it names any moment; where cronsim is missing, its form alone.

    A job reads the settings, too, and needs no cronsim.
    """
    if len(line.split()) != 5:
        raise ValueError("must have five fields: minute, hour, day, month, day of the week")
    try:
        next_slot(line, "UTC", after=_BEGINNING)
    except MissingExtraError:
        return line
    return line


def _checked_zone(name: str) -> str:
    try:
        _zone(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            "no time zone that this machine knows; write it as Europe/Berlin, or UTC (a machine "
            "that knows none needs: pip install tzdata)"
        ) from error
    return name


CronLine = Annotated[str, Field(max_length=200), AfterValidator(_checked_line)]
"""Minute, hour, day of the month, month, day of the week: ``0 2 * * 0``."""
TimeZone = Annotated[str, Field(max_length=64), AfterValidator(_checked_zone)]
"""A name of the IANA database: ``Europe/Berlin``, ``UTC``."""

_HOURS: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


def _checked_hours(text: str) -> str:
    if _HOURS.fullmatch(text) is None:
        raise ValueError('must be two times of a day, as "22:00-06:00"')
    begin, end = _times(text)
    if begin == end:
        raise ValueError("begins when it ends")
    return text


def _leaves_some(windows: tuple[str, ...]) -> tuple[str, ...]:
    quiet = set[int]()
    for window in windows:
        begin, end = (each.hour * 60 + each.minute for each in _times(window))
        length = (end - begin) % _MINUTES_A_DAY
        quiet.update((begin + minute) % _MINUTES_A_DAY for minute in range(length))
    if len(quiet) == _MINUTES_A_DAY:
        raise ValueError("must leave some of the day: nothing would ever start")
    return windows


QuietHours = Annotated[
    tuple[Annotated[str, AfterValidator(_checked_hours)], ...],
    Field(max_length=20),
    AfterValidator(_leaves_some),
]
"""Windows of the day, ``22:00-06:00``; the last minute is not in it."""


def slots(line: str, timezone: str, *, after: datetime, until: datetime) -> Iterator[datetime]:
    """The slots later than ``after`` and not later than ``until``, in UTC, oldest first.

    Raises:
        MissingExtraError: cronsim is not installed.
        ValueError: no such line.
    """
    cronsim = require("cronsim")
    try:
        found: Iterator[datetime] = cronsim.CronSim(line, after.astimezone(_zone(timezone)))
    except cronsim.CronSimError as error:
        raise ValueError(f"is no cron line: {str(error).lower()}") from error
    for local in found:
        slot = local.astimezone(UTC)
        if slot > until:
            return
        # Begun in the second of two equal hours, the line names a moment of the first.
        if slot > after:
            yield slot


def next_slot(line: str, timezone: str, *, after: datetime) -> datetime:
    """The first slot later than ``after``, in UTC.

    Raises:
        MissingExtraError: cronsim is not installed.
        ValueError: no such line, or one that names no moment in fifty years.
    """
    slot = next(slots(line, timezone, after=after, until=datetime.max.replace(tzinfo=UTC)), None)
    if slot is None:
        raise ValueError("names no moment: there is no such day")
    return slot


def last_slot(line: str, timezone: str, *, after: datetime, until: datetime) -> datetime | None:
    """The newest slot later than ``after`` and not later than ``until``; ``None``: there is none.

    Looked for from the end, in windows that grow: of a line that names every minute, a year has
    half a million.

    Raises:
        MissingExtraError: cronsim is not installed.
        ValueError: no such line.
    """
    window = _FIRST_WINDOW
    while until > after:
        since = max(after, until - window)
        found = None
        for found in slots(line, timezone, after=since, until=until):  # noqa: B007 - the last
            pass
        if found is not None or since == after:
            return found
        window *= 8
    return None


def end_of_quiet(moment: datetime, windows: Sequence[str], timezone: str) -> datetime:
    """``moment``, or the end of the quiet hours that it lies in, in UTC."""
    zone = _zone(timezone)
    for _ in range(len(windows) + 1):  # the end of one window may lie in the next one
        ends = [
            end
            for window in windows
            if (end := _end(moment.astimezone(zone), window, zone)) is not None
        ]
        if not ends:
            break
        moment = max(ends)
    return moment.astimezone(UTC)


def _end(local: datetime, window: str, zone: ZoneInfo) -> datetime | None:
    """When the window ends that ``local`` lies in, in UTC; ``None``: it lies in none."""
    begin, end = _times(window)
    now = local.time()
    day: date = local.date()
    if begin < end:
        if not begin <= now < end:
            return None
    elif now >= begin:
        day += timedelta(days=1)
    elif now >= end:
        return None
    found = datetime.combine(day, end, tzinfo=zone).astimezone(UTC)
    # In the second of two equal hours the end has passed already.
    return found if found > local.astimezone(UTC) else None


def _times(window: str) -> tuple[time, time]:
    begin, _, end = window.partition("-")
    return time.fromisoformat(begin), time.fromisoformat(end)


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
