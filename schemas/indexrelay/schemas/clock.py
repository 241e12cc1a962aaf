"""Time as an argument: everything that waits or stamps is handed a clock.

Production hands in `SystemClock`; tests hand in one that they move by hand, so that no test sleeps.
"""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Two kinds of time, and the rule for each."""

    def now(self) -> datetime:
        """Wall-clock time, in UTC: for stamps that people read. It may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow: for every duration, time-out and back-off."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """The current time in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some fixed point of this process's machine."""
        return time.monotonic()
