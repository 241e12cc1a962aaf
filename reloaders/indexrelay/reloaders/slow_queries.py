"""The log of slow queries (``reader.slow_query_ms``): which component, what for, and how long.

In a process that asks by itself, what a kind serves is timed method by method: it is given methods
of its own that call those of its class. Where the setting is off it stays as it is, and nothing is
paid. The HTTP service times whole requests, encoding included, and logs those in place of what they
call (`counted_elsewhere`).

Nothing that was asked for is logged. Where our own logging is set up (`indexrelay.schemas.logs`),
this kind of line is rate-limited as every other.
"""

import functools
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from indexrelay.schemas.loggers import get_logger

log = get_logger(__name__)

OPERATIONS: Final = {
    "search": "search",
    "search_by_id": "search",
    "search_like": "search",
    "search_many": "batch",
    "search_arrays": "batch",
    "neighbours": "neighbours",
    "get": "entries",
    "count": "count",
    "scroll": "scroll",
}
"""What queries are called in the log, by their methods."""


class _Here(threading.local):
    """Whether this thread is inside a query that is timed."""

    inside = False


_here: Final = _Here()


@contextmanager
def counted_elsewhere() -> Iterator[None]:
    """Within the body, nothing that is called is timed by itself."""
    before, _here.inside = _here.inside, True
    try:
        yield
    finally:
        _here.inside = before


def log_slow_query(
    *, component: str, version: str, operation: str, plan: str | None, k: int | None, seconds: float
) -> None:
    """Log one; ``plan`` is there where the query was explained."""
    log.warning(
        "query.slow",
        component=component,
        version=version,
        operation=operation,
        plan=plan,
        k=k,
        seconds=round(seconds, 6),
    )


def time_queries(value: object, *, component: str, version: str, threshold_ms: float) -> None:
    """Have the queries of what a kind serves log themselves where they take longer.

    Args:
        value: gets the methods; one that takes no attributes stays as it is.
        component: what it is called.
        version: which of its versions it is.
        threshold_ms: above it a query is slow.
    """
    try:
        own = weakref.ref(value)
    except TypeError:  # it has slots, and takes no attributes either
        return
    for name, operation in OPERATIONS.items():
        function = getattr(type(value), name, None)
        if not callable(function):
            continue
        timed = _timed(
            function,
            own,
            threshold_seconds=threshold_ms / 1000,
            slow=functools.partial(
                log_slow_query, component=component, version=version, operation=operation
            ),
        )
        try:
            setattr(value, name, timed)
        except AttributeError:
            return


def _timed(
    function: Callable[..., Any],
    own: "weakref.ref[Any]",
    *,
    threshold_seconds: float,
    slow: Callable[..., None],
) -> Callable[..., Any]:
    """The method of one object, which does not keep that in memory."""

    @functools.wraps(function)
    def ask(*given: Any, **named: Any) -> Any:
        if _here.inside:
            return function(own(), *given, **named)
        _here.inside, began = True, time.perf_counter()
        try:
            found = function(own(), *given, **named)
        finally:
            _here.inside = False
        seconds = time.perf_counter() - began
        if seconds > threshold_seconds:
            k = named.get("k", named.get("limit"))
            explanation = getattr(found, "explanation", None)
            slow(k=k, plan=getattr(explanation, "plan", None), seconds=seconds)
        return found

    return ask
