"""How log lines look: for people on a terminal, JSON for machines; and how many are shown.

Every event is a dotted name with fields. On a console a mark comes first, so that an operator finds
what went wrong with ``grep ✗``: ✓ for what was done, ⚠ for what deserves a look, ✗ for what
failed, · for detail. Elsewhere each event is one JSON object on a line of its own. Lines of other
libraries, which use `logging`, go the same way. All go to stderr: stdout belongs to a command's
answer.

`RepeatLimit` keeps a log readable, and its disk free, while something goes wrong again and again:

- **Equal lines.** The first of equal warnings is shown at once. While they go on, the next one is
  shown after a wait that doubles each time, up to some minutes. Equal are warnings and errors of
  one logger that differ only in numbers: counts, waits, times and digests.
- **Lines of one kind**, whatever their text: events of one name, or the lines that one statement of
  another library logs. A burst is shown, and then one every two seconds.

The next line that is shown says how many were left out before it (``repeated``, ``left_out``); if
none comes, a line of its own says so. Debug lines are never left out.
"""

import itertools
import json
import logging
import os
import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO, TypeAlias

from indexrelay.schemas.clock import Clock, SystemClock
from indexrelay.schemas.loggers import FIELDS, get_logger
from indexrelay.schemas.settings import LogSettings

if TYPE_CHECKING:  # it takes 5 MB, and a reader that shows no logs never needs it
    from structlog.typing import EventDict, Processor, WrappedLogger

_log = get_logger(__name__)
Format: TypeAlias = Literal["auto", "console", "json"]
Level: TypeAlias = Literal["debug", "info", "warning", "error"]


def configure_logs(settings: LogSettings, *, stream: TextIO | None = None) -> None:
    """Set up structlog and `logging` for this process; the last call counts.

    Args:
        settings: the format and the lowest level.
        stream: where lines go; ``None``: stderr.
    """
    import structlog

    shared = _shared()
    handler = _handler(settings, stream or sys.stderr, shared)
    logging.basicConfig(handlers=[handler], level=settings.level.upper(), force=True)
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it logs which of its builds it loads
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        # Module-level loggers must follow a later call, as tests and commands make one.
        cache_logger_on_first_use=False,
    )


def show_logs(
    level: Level = "info", *, layout: Format = "auto", stream: TextIO | None = None
) -> None:
    """Show what indexrelay logs, such as the summary of each release, in your own application.

    The application's own logging stays as it is: only the logger ``indexrelay`` gets a handler, and
    hands nothing on to the others. The last call counts.

    Args:
        level: the lowest that is shown.
        layout: ``auto``: lines for people on a terminal, JSON elsewhere.
        stream: where lines go; ``None``: stderr.
    """
    logger = logging.getLogger("indexrelay")
    for before in [each for each in logger.handlers if getattr(each, _OURS, False)]:
        logger.removeHandler(before)
    settings = LogSettings(format=layout, level=level)
    handler = _handler(settings, stream or sys.stderr, _shared())
    setattr(handler, _OURS, True)
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False


_OURS: Final = "of_indexrelay"


def _handler(settings: LogSettings, stream: TextIO, shared: "list[Processor]") -> logging.Handler:
    import structlog

    terminal = stream.isatty()
    for_people = settings.format == "console" or (settings.format == "auto" and terminal)
    renderer: Processor = (
        ConsoleLines(colours=terminal and _may_colour(os.environ), marks=_marks(stream))
        if for_people
        else _json_line
    )
    handler = logging.StreamHandler(stream)
    handler.addFilter(RepeatLimit())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    return handler


def _shared() -> "list[Processor]":
    import structlog

    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        _unpacked,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _bounded,
    ]


def _unpacked(_logger: "WrappedLogger", _method: str, event: "EventDict") -> "EventDict":
    """One of our own events, with its fields instead of its line of text."""
    event.update(event.pop(FIELDS, {}))
    return event


def _bounded(_logger: "WrappedLogger", _method: str, event: "EventDict") -> "EventDict":
    """The event with long fields cut short, so that texts of others do not fill the disk."""
    for name, value in event.items():
        if isinstance(value, str) and len(value) > _MOST_CHARACTERS:
            left = len(value) - _MOST_CHARACTERS
            # Of a traceback the end is kept, of everything else the beginning.
            event[name] = (
                f"({left} characters) …{value[left:]}"
                if name in ("exception", "stack")
                else f"{value[:-left]}… ({left} more characters)"
            )
        elif isinstance(value, list | tuple | set | frozenset) and len(value) > _MOST_ITEMS:
            some = list(itertools.islice(value, _MOST_ITEMS))
            event[name] = [*some, f"… {len(value) - _MOST_ITEMS} more"]
    return event


_MOST_CHARACTERS: Final = 10_000
"""Of one field: a traceback through deep libraries has some thousand."""
_MOST_ITEMS: Final = 200
"""Of one list of names."""


def _json_line(_logger: "WrappedLogger", _method: str, event: "EventDict") -> str:
    """One event as one JSON object; what every line has comes first."""
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    document = {**first, **event}
    text = json.dumps(document, default=str, ensure_ascii=False)
    # Half a surrogate pair, as in a file's name, has no UTF-8: then all characters are escaped.
    return text if _is_text(text) else json.dumps(document, default=str)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class ConsoleLines:
    """Renders ``✓ 12:03:04 component.reloaded  component=voyager seconds=0.012``."""

    def __init__(self, *, colours: bool, marks: dict[str, str]) -> None:
        self._colours = colours
        self._marks = marks

    def __call__(self, _logger: "WrappedLogger", _method: str, event: "EventDict") -> str:
        """One event as one line, and its traceback below it."""
        mark = _MARKS.get(str(event.pop("level", "info")), "·")
        time = str(event.pop("timestamp", ""))[11:19]
        name = event.pop("event", "")
        event.pop("logger", None)
        trace = event.pop("exception", None) or event.pop("stack", None)
        shown = self._marks[mark]
        if self._colours:
            shown = f"{_COLOURS[mark]}{shown}{_PLAIN}"
        fields = " ".join(f"{key}={_value(value)}" for key, value in event.items())
        line = f"{shown} {time} {_one_line(str(name))}" + (f"  {fields}" if fields else "")
        return f"{line}\n{trace}" if trace else line


_MARKS: Final = {"debug": "·", "info": "✓", "warning": "⚠", "error": "✗", "critical": "✗"}
_PLAIN_MARKS: Final = {"·": "-", "✓": "ok", "⚠": "!!", "✗": "XX"}
"""For streams whose encoding knows none of the others."""
_COLOURS: Final = {"✓": "\x1b[32m", "⚠": "\x1b[33m", "✗": "\x1b[31m", "·": "\x1b[2m"}
_PLAIN: Final = "\x1b[0m"


def _may_colour(environ: Mapping[str, str]) -> bool:
    """Whether a terminal may be coloured (https://no-color.org)."""
    return not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def _marks(stream: TextIO) -> dict[str, str]:
    """The marks as the stream can write them."""
    marks = {mark: mark for mark in _PLAIN_MARKS}
    try:
        "".join(marks).encode(stream.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return dict(_PLAIN_MARKS)
    return marks


def _value(value: Any) -> str:
    """A field for people: lists without quotes, long digests cut."""
    match value:
        case float():
            return f"{value:.6g}"
        case list() | tuple() | set() | frozenset():
            return "[" + ",".join(_value(item) for item in value) + "]"
        case str() if len(value) == 64 and value.isalnum():
            return value[:12]
        case str() if value and value.isprintable() and " " not in value:
            return value
        case str():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return _one_line(str(value))


def _one_line(text: str) -> str:
    """The text without line breaks, so that it cannot look like another line."""
    return text if text.isprintable() else json.dumps(text, ensure_ascii=False)


def catch_strays() -> None:
    """Log what Python would write to stderr by itself, for a process that is ours.

    Warnings, and what a thread or the whole process ends with: one event each, and no plain text
    among the lines of the log.
    """
    logging.captureWarnings(capture=True)
    threading.excepthook = _of_thread
    sys.excepthook = _of_process
    sys.unraisablehook = _of_finalizer


def _of_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and args.exc_type is not SystemExit:
        name = args.thread.name if args.thread is not None else None
        _log.error("thread.ended", thread=name, exc_info=args.exc_value)


def _of_process(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        _log.critical("process.ended", error=f"{kind.__name__}: {error}", exc_info=error)


def _of_finalizer(args: "sys.UnraisableHookArgs") -> None:
    _log.error("finalizer.failed", object=repr(args.object), exc_info=args.exc_value)


_SUMMARY: Final = "log.lines_left_out"
REPEATED: Final = "repeated"
"""The field that says how many equal lines were left out before this one."""
LEFT_OUT: Final = "left_out"
"""The field that says how many other lines of its kind were."""
BURST: Final = 100
"""Lines of one kind that are shown at once: a release of that many components, line by line."""
_SECONDS_PER_LINE: Final = 2.0
_FIRST_WAIT_SECONDS: Final = 10.0
_LONGEST_WAIT_SECONDS: Final = 320.0
_COUNTED_AFTER_SECONDS: Final = 60.0
"""A line of its own counts what was left out when no other of the kind came for so long."""
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
    uncounted: int = 0
    """Lines that were left out, for whatever reason, and that no line has counted yet."""
    counted_at: float = -1.0
    """When a line of its own counted them."""

    def may_show(self, now: float) -> bool:
        """Whether one more may be shown; it counts as shown then."""
        self.lines = min(BURST, self.lines + (now - self.at) / _SECONDS_PER_LINE)
        self.at = now
        if self.lines < 1:
            return False
        self.lines -= 1
        return True


class RepeatLimit(logging.Filter):
    """Leaves out repeated lines of the handler that it is added to; safe to use from any thread."""

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__()
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._series: OrderedDict[int, _Series] = OrderedDict()
        self._kinds: OrderedDict[tuple[str, ...], _Kind] = OrderedDict()
        self._look_at = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to show the line; it then says how many were left out before it."""
        if record.levelno < logging.INFO or _kind_of(record) == (__name__, _SUMMARY):
            return True
        now = self._clock.monotonic()
        with self._lock:
            shown = self._is_shown(record, now)
            uncounted = list(self._uncounted(now)) if now >= self._look_at else []
        for name, count in uncounted:  # without the lock: these lines are filtered, too
            _log.warning(_SUMMARY, of=name, lines=count)
        return shown

    def _is_shown(self, record: logging.LogRecord, now: float) -> bool:
        kind = self._kind(record, now)
        series = None
        if record.levelno >= logging.WARNING:
            series = self._following(record, now)
            if series is None:
                kind.uncounted += 1
                return False
        if not kind.may_show(now):
            kind.left_out += 1
            kind.uncounted += 1
            return False
        if series is not None and series.left_out:
            if series.at > kind.counted_at:
                _say(record, REPEATED, series.left_out)
                kind.uncounted -= min(series.left_out, kind.uncounted)
            series.left_out = 0
        if kind.left_out:
            _say(record, LEFT_OUT, kind.left_out)
            kind.uncounted -= min(kind.left_out, kind.uncounted)
            kind.left_out = 0
        return True

    def _following(self, record: logging.LogRecord, now: float) -> _Series | None:
        """The series of equal lines that this line belongs to; ``None``: it is left out."""
        # The hash of it, since a line may be megabytes long.
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

    def _uncounted(self, now: float) -> Iterator[tuple[str, int]]:
        """The kinds of which lines were left out, and of which none has come for a while."""
        self._look_at = now + _LOOK_SECONDS
        for kind in self._kinds.values():
            if kind.uncounted and now - kind.seen_at >= _COUNTED_AFTER_SECONDS:
                yield kind.name, kind.uncounted
                kind.left_out = kind.uncounted = 0
                kind.counted_at = now


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
        texts = [f"{name}={value}" for name, value in sorted(fields.items()) if _is_compared(name)]
    return (record.name, *(_NUMBERS.sub("#", text) for text in texts))


def _is_compared(field: str) -> bool:
    """Whether equal lines have this field in common: a traceback may differ, its error may not."""
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
