"""How log lines look: for people on a terminal, JSON for machines.

Every event is a dotted name with fields. On a console a mark comes first, so that an operator finds
what went wrong with ``grep ✗``: ✓ for what was done, ⚠ for what deserves a look, ✗ for what
failed, · for detail. Elsewhere each event is one JSON object on a line of its own. Lines of other
libraries, which use `logging`, go the same way. All go to stderr: stdout belongs to a command's
answer.
"""

import itertools
import json
import logging
import os
import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Literal, TextIO, TypeAlias

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from indexrelay.schemas.loggers import FIELDS, get_logger
from indexrelay.schemas.repeats import RepeatLimit
from indexrelay.schemas.settings import LogSettings

_log = get_logger(__name__)
_MARKS: Final = {"debug": "·", "info": "✓", "warning": "⚠", "error": "✗", "critical": "✗"}
_PLAIN_MARKS: Final = {"·": "-", "✓": "ok", "⚠": "!!", "✗": "XX"}
"""For streams whose encoding knows none of the others."""
_COLOURS: Final = {"✓": "\x1b[32m", "⚠": "\x1b[33m", "✗": "\x1b[31m", "·": "\x1b[2m"}
_PLAIN: Final = "\x1b[0m"
_OURS: Final = "of_indexrelay"
_MOST_CHARACTERS: Final = 10_000
"""Of one field: a traceback through deep libraries has some thousand."""
_MOST_ITEMS: Final = 200
"""Of one list of names."""
Format: TypeAlias = Literal["auto", "console", "json"]
Level: TypeAlias = Literal["debug", "info", "warning", "error"]


def configure_logs(settings: LogSettings, *, stream: TextIO | None = None) -> None:
    """Set up structlog and `logging` for this process; the last call counts.

    Args:
        settings: the format and the lowest level.
        stream: where lines go; ``None``: stderr.
    """
    shared = _shared()
    handler = _handler(settings, stream or sys.stderr, shared)
    logging.basicConfig(handlers=[handler], level=settings.level.upper(), force=True)
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it tells which of its builds it loads
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
    """Show what indexrelay logs, such as the summary of each release, in an application of yours.

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


def _handler(settings: LogSettings, stream: TextIO, shared: list[Processor]) -> logging.Handler:
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


def _shared() -> list[Processor]:
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


def catch_strays() -> None:
    """Have the log tell what Python would write to stderr by itself, for a process that is ours.

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


def _unpacked(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """One of our own events, with its fields instead of its line of text."""
    event.update(event.pop(FIELDS, {}))
    return event


def _bounded(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """The event with what is very long cut short: others' words must not fill the disk."""
    for name, value in event.items():
        if isinstance(value, str) and len(value) > _MOST_CHARACTERS:
            left = len(value) - _MOST_CHARACTERS
            # Of a traceback the end says what happened, of everything else the beginning.
            event[name] = (
                f"({left} characters) …{value[left:]}"
                if name in ("exception", "stack")
                else f"{value[:-left]}… ({left} more characters)"
            )
        elif isinstance(value, list | tuple | set | frozenset) and len(value) > _MOST_ITEMS:
            some = list(itertools.islice(value, _MOST_ITEMS))
            event[name] = [*some, f"… {len(value) - _MOST_ITEMS} more"]
    return event


class ConsoleLines:
    """Renders ``✓ 12:03:04 component.reloaded  component=voyager seconds=0.012``."""

    def __init__(self, *, colours: bool, marks: dict[str, str]) -> None:
        self._colours = colours
        self._marks = marks

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> str:
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


def _may_colour(environ: Mapping[str, str]) -> bool:
    """Whether nobody forbids colours (https://no-color.org), on a terminal that has some."""
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
    """A field as a person would write it: lists without quotes, long digests cut."""
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
    """Text that cannot forge a line of its own."""
    return text if text.isprintable() else json.dumps(text, ensure_ascii=False)


def _json_line(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """One event as one JSON object; what every line has comes first."""
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    document = {**first, **event}
    text = json.dumps(document, default=str, ensure_ascii=False)
    # Half a character in a name, as of a file, has no UTF-8: then every one is written as its code.
    return text if _is_text(text) else json.dumps(document, default=str)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
