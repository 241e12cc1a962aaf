"""A rebuilder's own loop over injected time, with what others do beside it, and what is logged."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from indexrelay.rebuilder import Rebuilder
from indexrelay.rebuilder.passes import SerialExecutor
from indexrelay.schemas.loggers import FIELDS
from indexrelay.schemas.logs import RepeatLimit
from indexrelay.testing.clock import FakeClock

TURN_SECONDS = 1.0


class Lines(logging.Handler):
    """What a role would write."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(logging.INFO)
        self.events: Counter[str] = Counter()
        """How many lines are written of each event."""
        self.said: list[str] = []
        self.logged = 0
        """How often something was logged, written or not."""
        self.addFilter(self._count)
        self.addFilter(RepeatLimit(clock))

    def _count(self, _record: logging.LogRecord) -> bool:
        self.logged += 1
        return True

    def emit(self, record: logging.LogRecord) -> None:
        fields = getattr(record, FIELDS, None)
        self.events[record.getMessage() if fields is None else str(fields["event"])] += 1
        self.said.append(record.getMessage() if fields is None else str(fields))


@contextmanager
def lines_of_a_role(clock: FakeClock) -> Iterator[Lines]:
    root, lines = logging.getLogger(), Lines(clock)
    level = root.level
    root.setLevel(logging.INFO)
    root.addHandler(lines)
    try:
        yield lines
    finally:
        root.removeHandler(lines)
        root.setLevel(level)


class _Until(threading.Event):
    """Set once so much injected time has passed; a wait lets it pass."""

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        super().__init__()
        self._clock = clock
        self._end = clock.monotonic() + seconds

    def is_set(self) -> bool:
        return super().is_set() or self._clock.monotonic() >= self._end

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.advance(timeout or 0.0)
        return self.is_set()


def run_loop(
    rebuilder: Rebuilder, clock: FakeClock, seconds: float, beside: Callable[[], object]
) -> None:
    """Run the rebuilder's loop for so long; while it waits for events, `TURN_SECONDS` at a time,
    others do what they do ``beside`` it. Its passes run in the same thread."""

    def read_seconds() -> float:
        clock.advance(TURN_SECONDS)
        beside()
        return 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rebuilder, "_passes", SerialExecutor())
        patch.setattr(rebuilder, "_read_seconds", read_seconds)
        patch.setattr(rebuilder, "_stopping", _Until(clock, seconds))
        rebuilder._loop()
