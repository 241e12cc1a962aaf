"""A clock that stands still until it is moved."""

from datetime import UTC, datetime, timedelta


class HandClock:
    def __init__(self) -> None:
        self._start = self._now = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return (self._now - self._start).total_seconds()

    def move(self, by: timedelta) -> None:
        self._now += by
