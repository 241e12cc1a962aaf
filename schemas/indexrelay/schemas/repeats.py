"""Keeps a log readable, and its disk free, while something goes wrong again and again.

A disk that stays full makes many places complain, each at every look; a client that does something
wrong does it a thousand times a second. Two things are limited:

- **Equal lines.** The first of equal warnings is shown at once. While they go on, the next one is
  shown after a wait that doubles each time, up to some minutes. Once it was quiet for that long it
  starts again. Equal are warnings and errors of one logger that differ only in numbers: counts,
  waits, times and digests.
- **Lines of one kind**, whatever they say: events of one name, or what one line of code of another
  library logs. A burst is shown, and then one every two seconds. Words that somebody else chooses
  are no way around it.

The next line that is shown says how many were left out before it (``repeated``, ``left_out``); if
none comes, a line of its own says so. What is told below an information, for who asked for details,
is never left out.
"""

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from indexrelay.schemas.clock import Clock, SystemClock
from indexrelay.schemas.loggers import FIELDS, get_logger

log = get_logger(__name__)

REPEATED: Final = "repeated"
"""The field that says how many equal lines were left out before this one."""
LEFT_OUT: Final = "left_out"
"""The field that says how many other lines of its kind were."""
BURST: Final = 100
"""Lines of one kind that are shown at once: a release of that many components, line by line."""
_SECONDS_PER_LINE: Final = 2.0
_FIRST_WAIT_SECONDS: Final = 10.0
_LONGEST_WAIT_SECONDS: Final = 320.0
_TOLD_AFTER_SECONDS: Final = 60.0
"""What was left out is told in a line of its own when nothing of the kind came for so long."""
_LOOK_SECONDS: Final = 10.0
_MOST_KEYS: Final = 1000
"""Different lines that are remembered; the ones that were quiet the longest are forgotten."""
_NUMBERS = re.compile(r"\b[0-9a-f]{12,}\b|\d+")


@dataclass(slots=True)
class _Series:
    """Equal lines."""

    next_at: float
    wait_seconds: float
    left_out: int = 0
    at: float = 0.0
    """When one was left out last."""


@dataclass(slots=True)
class _Kind:
    """Lines of one kind."""

    name: str
    lines: float
    """How many may be shown now."""
    at: float
    """When that was so."""
    seen_at: float
    """When one came last, shown or not."""
    left_out: int = 0
    unsaid: int = 0
    """Lines that were left out, for whatever reason, and that no line has told of yet."""
    told_at: float = -1.0
    """When a line of its own told of them."""

    def may_show(self, now: float) -> bool:
        """Whether one more may be shown; it counts as shown then."""
        self.lines = min(BURST, self.lines + (now - self.at) / _SECONDS_PER_LINE)
        self.at = now
        if self.lines < 1:
            return False
        self.lines -= 1
        return True


class RepeatLimit(logging.Filter):
    """Add it to a handler; safe to use from several threads."""

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__()
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._series: OrderedDict[int, _Series] = OrderedDict()
        self._kinds: OrderedDict[tuple[str, ...], _Kind] = OrderedDict()
        self._look_at = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to show the line; it is told in it how many were not."""
        if record.levelno < logging.INFO or record.name == __name__:
            return True
        now = self._clock.monotonic()
        with self._lock:
            shown = self._is_shown(record, now)
            untold = list(self._untold(now)) if now >= self._look_at else []
        for name, count in untold:  # outside of the lock: these lines come this way, too
            log.warning("log.lines_left_out", of=name, lines=count)
        return shown

    def _is_shown(self, record: logging.LogRecord, now: float) -> bool:
        kind = self._kind(record, now)
        series = None
        if record.levelno >= logging.WARNING:
            series = self._following(record, now)
            if series is None:
                kind.unsaid += 1
                return False
        if not kind.may_show(now):
            kind.left_out += 1
            kind.unsaid += 1
            return False
        if series is not None and series.left_out:
            if series.at > kind.told_at:
                _say(record, REPEATED, series.left_out)
                kind.unsaid -= min(series.left_out, kind.unsaid)
            series.left_out = 0
        if kind.left_out:
            _say(record, LEFT_OUT, kind.left_out)
            kind.unsaid -= min(kind.left_out, kind.unsaid)
            kind.left_out = 0
        return True

    def _following(self, record: logging.LogRecord, now: float) -> _Series | None:
        """The series that this line goes on with; ``None``: it is not its turn."""
        # Its hash, since a line may quote megabytes.
        key = hash(_key(record))
        series = self._series.pop(key, None)
        if series is not None and now < series.next_at:
            series.left_out += 1
            series.at = now
            self._series[key] = series
            return None
        if series is None or now >= series.next_at + series.wait_seconds:
            wait = _FIRST_WAIT_SECONDS
        else:
            wait = min(series.wait_seconds * 2, _LONGEST_WAIT_SECONDS)
        left_out, at = (series.left_out, series.at) if series is not None else (0, 0.0)
        series = _Series(next_at=now + wait, wait_seconds=wait, left_out=left_out, at=at)
        self._series[key] = series
        if len(self._series) > _MOST_KEYS:
            self._series.popitem(last=False)
        return series

    def _kind(self, record: logging.LogRecord, now: float) -> _Kind:
        key = _kind_of(record)
        kind = self._kinds.pop(key, None)
        if kind is None:
            kind = _Kind(name=" ".join(key), lines=BURST, at=now, seen_at=now)
        kind.seen_at = now
        self._kinds[key] = kind
        if len(self._kinds) > _MOST_KEYS:
            self._kinds.popitem(last=False)
        return kind

    def _untold(self, now: float) -> Iterator[tuple[str, int]]:
        """The kinds of which lines were left out, and of which nothing has come for a while."""
        self._look_at = now + _LOOK_SECONDS
        for kind in self._kinds.values():
            if kind.unsaid and now - kind.seen_at >= _TOLD_AFTER_SECONDS:
                yield kind.name, kind.unsaid
                kind.left_out = kind.unsaid = 0
                kind.told_at = now


def _fields_of(record: logging.LogRecord) -> dict[str, Any] | None:
    """The event and its fields; ``None`` for a line of another library."""
    fields: dict[str, Any] | None = getattr(record, FIELDS, None)
    if fields is None and isinstance(record.msg, dict):  # of structlog itself
        return record.msg
    return fields


def _kind_of(record: logging.LogRecord) -> tuple[str, ...]:
    """The name of an event, or the place in the code that logs."""
    fields = _fields_of(record)
    if fields is not None:
        return (record.name, str(fields.get("event", ""))[:100])
    return (record.name, f"{record.filename}:{record.lineno}")


def _key(record: logging.LogRecord) -> tuple[str, ...]:
    fields = _fields_of(record)
    if fields is None:
        texts = [record.getMessage()]
        if record.exc_info and record.exc_info[0] is not None:
            texts.append(record.exc_info[0].__name__)
    else:
        texts = [f"{name}={value}" for name, value in sorted(fields.items()) if _tells(name)]
    return (record.name, *(_NUMBERS.sub("#", text) for text in texts))


def _tells(field: str) -> bool:
    """A traceback differs in what it went through; its error is a field of its own."""
    return field not in ("exception", "timestamp", "level", "logger", "_record", "_from_structlog")


def _say(record: logging.LogRecord, field: str, count: int) -> None:
    fields: dict[str, Any] | None = getattr(record, FIELDS, None)
    if fields is not None:
        setattr(record, FIELDS, {**fields, field: count})
    elif isinstance(record.msg, dict):
        record.msg = {**record.msg, field: count}
    else:
        words = f"({field} {count} times)" if field == REPEATED else f"({count} {field})"
        record.msg, record.args = f"{record.getMessage()} {words}", None
