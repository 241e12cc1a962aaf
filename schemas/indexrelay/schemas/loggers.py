"""The loggers of our own modules: events with fields, handed to the standard library's `logging`.

A library must not write anywhere by itself. So each event goes to `logging` under its module's
name: an application sees it with its own handlers and levels, a script that set up nothing sees
warnings and errors on stderr, and the command line renders the fields (`indexrelay.schemas.logs`).
structlog renders them there; here it is not imported, since it takes 5 MB of each reader's memory.
What a program has bound to structlog's context variables is among the fields all the same.
"""

import logging
import sys
import traceback
from collections.abc import Hashable, Mapping
from typing import Any, Final, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")

FIELDS: Final = "indexrelay"
"""The attribute of a `logging.LogRecord` that holds the event and its fields."""


class EventLogger:
    """``log.info("component.reloaded", component=…, seconds=…)``; safe to use from any thread.

    ``exc_info`` among the fields is an exception, or true for the one that is being handled: its
    traceback is logged with the event.
    """

    def __init__(self, name: str) -> None:
        """``name`` is the one that `logging` knows it by."""
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: Any) -> None:
        """Detail for whoever looks for a mistake."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """What was done."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """What deserves a look."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """What failed."""
        self._log(logging.ERROR, event, fields)

    def critical(self, event: str, **fields: Any) -> None:
        """What ends the process."""
        self._log(logging.CRITICAL, event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """What failed, with the exception that is being handled."""
        self._log(logging.ERROR, event, {"exc_info": True, **fields})

    def log(self, level: int, event: str, **fields: Any) -> None:
        """An event of a level of `logging`."""
        self._log(level, event, fields)

    def _log(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if not self._logger.isEnabledFor(level):
            return
        shown = {**_bound_fields(), **fields}
        error = _exception(shown.pop("exc_info", None))
        line = event + "".join(f" {key}={value!r}" for key, value in shown.items())
        kept = {**shown, "event": event}
        if error is not None:
            kept["exception"] = "".join(traceback.format_exception(error)).rstrip("\n")
        self._logger.log(level, "%s", line, exc_info=error, extra={FIELDS: kept}, stacklevel=3)


def get_logger(name: str) -> EventLogger:
    """The logger of a module."""
    return EventLogger(name)


def _bound_fields() -> dict[str, Any]:
    """What the program has bound to structlog's context, where it uses that, by name.

    A context has no order of its own.
    """
    context = sys.modules.get("structlog.contextvars")
    return {} if context is None else dict(sorted(context.get_contextvars().items()))


def _exception(given: object) -> BaseException | None:
    """The exception that ``exc_info`` means."""
    if isinstance(given, BaseException):
        return given
    if isinstance(given, tuple):
        return given[1] if isinstance(given[1], BaseException) else None
    return sys.exception() if given else None


class LogOnce:
    """Remembers what was logged, for what is looked at again and again; used by one thread.

    ``for name, error in self._corrupt.new(found).items(): log.error(…)``
    """

    def __init__(self) -> None:
        self._known: Mapping[Any, Any] = {}

    def new(self, found: Mapping[KeyT, ValueT]) -> dict[KeyT, ValueT]:
        """What to log of ``found``: what the last look did not find, or found otherwise."""
        known, self._known = self._known, dict(found)
        return {
            key: value for key, value in found.items() if key not in known or known[key] != value
        }
