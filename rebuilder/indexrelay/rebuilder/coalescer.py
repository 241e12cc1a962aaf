"""When the loop does what: signals that come together, and what is done again and again.

Both are arithmetic on the times that they are given, so that a test needs no clock.
"""

from dataclasses import dataclass


@dataclass(kw_only=True)
class Coalescer:
    """Collects signals until they are worth a pass; used by one thread."""

    quiet_seconds: float
    max_delay_seconds: float
    max_signals: int
    _first: float | None = None
    _last: float = 0.0
    _count: int = 0

    def note(self, now: float, count: int = 1) -> None:
        """``count`` signals arrived at ``now`` (seconds on a monotonic clock)."""
        if count < 1:
            return
        if self._first is None:
            self._first = now
        self._last = now
        self._count += count

    def remaining(self, now: float) -> float | None:
        """Seconds until a pass starts: 0 when it should start, ``None`` when nothing waits."""
        if self._first is None:
            return None
        if self._count >= self.max_signals:
            return 0.0
        ready_at = min(self._last + self.quiet_seconds, self._first + self.max_delay_seconds)
        return max(0.0, ready_at - now)

    def take(self) -> None:
        """A pass starts now: signals from here on belong to the next one."""
        self._first = None
        self._count = 0


class Timer:
    """Due at the first look, and then again each time its period has passed."""

    def __init__(self, period_seconds: float) -> None:
        self._period_seconds = period_seconds
        self._next: float | None = None

    def due(self, now: float) -> bool:
        """Whether it is time; if so, the next time is a period from ``now``."""
        if self._next is not None and now < self._next:
            return False
        self._next = now + self._period_seconds
        return True

    def expire(self) -> None:
        """Be due at the next look."""
        self._next = None
