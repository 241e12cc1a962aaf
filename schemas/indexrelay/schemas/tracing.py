"""Traces: one batch's way from the job to the readers, as spans of OpenTelemetry.

Where ``monitoring.traces`` is set, and only there, each process makes spans: a job of its batches,
a rebuilder of passes, builds, gates and releases, a reader of loads. Messages carry the context as
``traceparent`` (W3C Trace Context, https://www.w3.org/TR/trace-context/), so that all of them are
one trace. Where spans go is set up outside: by ``opentelemetry-instrument``, or by the application
that sets a tracer provider. Where nobody set one up nothing is recorded, and contexts are handed
on.

A context comes from Redis, which is not trusted. It decides nothing but which trace a span is in.
A span holds names, numbers and the class of an error, and never its text.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

from indexrelay.schemas.errors import require
from indexrelay.schemas.settings import Settings

Attribute: TypeAlias = str | int | float | bool | list[str]
_CONTEXT: Final = re.compile(r"^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-|$)")
_TRACER: Final = "indexrelay"


def tracing_of(settings: Settings) -> "Tracing | None":
    """What makes spans; ``None``: the settings ask for none, and nothing is imported.

    Raises:
        MissingExtraError: they ask for some, and OpenTelemetry is not installed.
    """
    return Tracing() if settings.monitoring.traces else None


class Tracing:
    """Makes spans by the tracer provider of this process; safe to use from any thread."""

    def __init__(self) -> None:
        """Find the library.

        Raises:
            MissingExtraError: it is not installed.
        """
        self._api: Any = require("opentelemetry.trace")

    @contextmanager
    def span(
        self,
        name: str,
        *,
        parent: str | None,
        others: Iterable[str] = (),
        **attributes: Attribute,
    ) -> Iterator[str | None]:
        """A span around what is done inside; yields its context, for messages.

        It is not the current one of the thread: batches that are committed together are beside each
        other in their traces.

        Args:
            parent: the context that it belongs to; ``None``: that of this thread, or a new trace.
            others: contexts that led to it as well.
            attributes: ``collection="tracks"`` becomes ``indexrelay.collection``.
        """
        span = self._tracer.start_span(
            name,
            context=self._context(parent),
            links=[self._api.Link(each) for each in filter(None, map(self._parsed, others))],
            attributes=_named(attributes),
        )
        try:
            yield self._written(span) or parent
        except BaseException as error:
            self._fail(span, type(error).__name__)
            raise
        finally:
            span.end()

    def record(
        self,
        name: str,
        *,
        parent: str | None,
        began: datetime,
        seconds: float,
        failed: bool = False,
        **attributes: Attribute,
    ) -> str | None:
        """A span of what is over; returns its context.

        Args:
            parent: as in `span`.
            began: when it began.
            seconds: how long it took.
            failed: whether it failed.
            attributes: as in `span`.
        """
        span = self._tracer.start_span(
            name,
            context=self._context(parent),
            attributes=_named(attributes),
            start_time=_nanoseconds(began),
        )
        if failed:
            self._fail(span, "failed")
        span.end(end_time=_nanoseconds(began + timedelta(seconds=seconds)))
        return self._written(span) or parent

    @property
    def _tracer(self) -> Any:
        # Not kept: an application may set its provider after this was made.
        return self._api.get_tracer(_TRACER)

    def _fail(self, span: Any, why: str) -> None:
        span.set_status(self._api.Status(self._api.StatusCode.ERROR, why))

    def _context(self, traceparent: str | None) -> Any:
        parsed = None if traceparent is None else self._parsed(traceparent)
        if parsed is None:
            return None
        return self._api.set_span_in_context(self._api.NonRecordingSpan(parsed))

    def _parsed(self, traceparent: str) -> Any:
        """What it says; ``None``: it is no context."""
        found = _CONTEXT.match(traceparent)
        if found is None:
            return None
        context = self._api.SpanContext(
            trace_id=int(found[1], 16),
            span_id=int(found[2], 16),
            is_remote=True,
            trace_flags=self._api.TraceFlags(int(found[3], 16)),
        )
        return context if context.is_valid else None

    def _written(self, span: Any) -> str | None:
        context = span.get_span_context()
        if not context.is_valid:  # nobody set up a provider, and there is no parent
            return None
        flags = int(context.trace_flags)
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"


def _named(attributes: dict[str, Attribute]) -> dict[str, Attribute]:
    return {f"{_TRACER}.{name}": value for name, value in attributes.items()}


def _nanoseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1e9)
