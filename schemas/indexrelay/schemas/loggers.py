"""The loggers of our own modules: structlog in front, the standard library's `logging` behind.

A library must not write anywhere by itself, and structlog without a configuration prints to stdout.
So each event goes to `logging` under its module's name, whatever structlog is set to: an
application sees it with its own handlers and levels, a script that set up nothing sees warnings and
errors on stderr, and the command line renders the fields (`indexrelay.schemas.logs`).
"""

import logging
from collections.abc import Hashable, Mapping
from typing import Any, Final, TypeVar, cast

import structlog
from structlog.stdlib import BoundLogger
from structlog.typing import EventDict, WrappedLogger

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")

FIELDS: Final = "indexrelay"
"""The attribute of a `logging.LogRecord` that holds the event and its fields."""


def get_logger(name: str) -> BoundLogger:
    """The logger of a module: ``log.info("component.reloaded", component=…, seconds=…)``."""
    logger: Any = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            _as_record,
        ],
        wrapper_class=BoundLogger,
    )
    return cast("BoundLogger", logger)


def _as_record(
    _logger: WrappedLogger, method: str, event: EventDict
) -> tuple[tuple[str], dict[str, Any]]:
    """One line of text for any handler, and the fields themselves for ours."""
    shown = {key: value for key, value in event.items() if key not in ("event", "exception")}
    fields = "".join(f" {key}={value!r}" for key, value in shown.items())
    line = f"{event['event']}{fields}"
    if "exception" in event and method != "exception":  # there `logging` adds it by itself
        line += f"\n{event['exception']}"
    return (line,), {"extra": {FIELDS: dict(event)}}


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
