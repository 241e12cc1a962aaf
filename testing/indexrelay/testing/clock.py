"""A clock that stands still until a test moves it."""

from datetime import UTC, datetime, timedelta

_FIRST_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


class FakeClock:
    """Both kinds of time move together, and only by `advance`."""

    def __init__(self, start: datetime = _FIRST_MOMENT) -> None:
        self._start = start
        self._seconds = 0.0

    def now(self) -> datetime:
        """Wall-clock time, in UTC."""
        return self._start + timedelta(seconds=self._seconds)

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._seconds

    def advance(self, seconds: float) -> None:
        """Let time pass; it never goes back."""
        if seconds < 0:
            raise ValueError(f"seconds={seconds}: time does not go back")
        self._seconds += seconds
