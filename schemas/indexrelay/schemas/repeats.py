"""Keeps a log readable while something goes wrong again and again.

A disk that stays full makes many places complain, each at every look. The first of equal warnings
is shown at once. While they go on, the next one is shown after a wait that doubles each time, up to
some minutes, and says how many were left out. Once it was quiet for that long it starts again.

Equal are warnings and errors of one logger that differ only in numbers: counts, waits, times and
digests. What is told below a warning is never left out.
"""

import logging
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from indexrelay.schemas.clock import Clock, SystemClock
from indexrelay.schemas.loggers import FIELDS

REPEATED: Final = "repeated"
"""The field that says how many equal lines were left out before this one."""
_FIRST_WAIT_SECONDS: Final = 10.0
_LONGEST_WAIT_SECONDS: Final = 320.0
_MOST_KEYS: Final = 1000
"""Different lines that are remembered; the ones that were quiet the longest are forgotten."""
_NUMBERS = re.compile(r"\b[0-9a-f]{12,}\b|\d+")


@dataclass(slots=True)
class _Series:
    """Equal lines."""

    next_at: float
    wait_seconds: float
    left_out: int = 0


class RepeatLimit(logging.Filter):
    """Add it to a handler; safe to use from several threads, as a handler holds its own lock.

    Filters run before that lock is taken: two equal lines at the very same moment may both pass.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__()
        self._clock = clock or SystemClock()
        self._series: OrderedDict[tuple[str, ...], _Series] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to show the line; it is told in it how many were not."""
        if record.levelno < logging.WARNING:
            return True
        now, key = self._clock.monotonic(), _key(record)
        series = self._series.pop(key, None)
        if series is not None and now < series.next_at:
            series.left_out += 1
            self._series[key] = series
            return False
        if series is None or now >= series.next_at + series.wait_seconds:
            wait = _FIRST_WAIT_SECONDS
        else:
            wait = min(series.wait_seconds * 2, _LONGEST_WAIT_SECONDS)
        if series is not None and series.left_out:
            _say(record, series.left_out)
        self._series[key] = _Series(next_at=now + wait, wait_seconds=wait)
        if len(self._series) > _MOST_KEYS:
            self._series.popitem(last=False)
        return True


def _key(record: logging.LogRecord) -> tuple[str, ...]:
    fields: dict[str, Any] | None = getattr(record, FIELDS, None)
    if fields is None and isinstance(record.msg, dict):  # of structlog itself
        fields = record.msg
    if fields is None:
        texts = [record.getMessage()]
    else:
        texts = [f"{name}={value}" for name, value in sorted(fields.items()) if _tells(name)]
    return (record.name, *(_NUMBERS.sub("#", text) for text in texts))


def _tells(field: str) -> bool:
    """A traceback differs in what it went through; its error is a field of its own."""
    return field not in ("exception", "timestamp", "level", "logger", "_record", "_from_structlog")


def _say(record: logging.LogRecord, left_out: int) -> None:
    fields: dict[str, Any] | None = getattr(record, FIELDS, None)
    if fields is not None:
        setattr(record, FIELDS, {**fields, REPEATED: left_out})
    elif isinstance(record.msg, dict):
        record.msg = {**record.msg, REPEATED: left_out}
    else:
        record.msg, record.args = f"{record.getMessage()} ({REPEATED} {left_out} times)", None
