"""Bursts collapse: when does a pass start?

When it has been quiet for a while since the last signal, or too long since the first one, or when
enough came together, whichever is first. Pure arithmetic on the times that it is given, so that a
test needs no clock.
"""

from dataclasses import dataclass


@dataclass(kw_only=True)
class Coalescer:
    """Collects signals until they are worth a pass. Used by one thread."""

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
        """A pass starts now: whatever comes from here on belongs to the next one."""
        self._first = None
        self._count = 0
