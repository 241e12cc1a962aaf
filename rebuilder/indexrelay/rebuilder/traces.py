"""The spans of one pass: the rebuild, each build with its gates, and the release.

A pass belongs to the trace of the first batch that it answers, and is linked to those of the
others. Builds run in processes of their own; their spans are made here, from what they report.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from indexrelay.rebuilder.passes import PassOrder
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import BuildOutcome, ComponentResult, RebuildResult, RebuildStatus
from indexrelay.schemas.tracing import Tracing
from indexrelay.storage.catalog import Catalog

_log = get_logger(__name__)
MOST_CONTEXTS: Final = 16
"""Batches of one pass whose traces it belongs to, or is linked to."""


class PassTraces:
    """Makes the spans of passes; safe to use from any thread."""

    def __init__(self, tracing: Tracing, catalog: Catalog) -> None:
        self._tracing = tracing
        self._catalog = catalog

    @contextmanager
    def around(self, order: PassOrder) -> Iterator[PassOrder]:
        """A span around a pass; yields the order with its context, which messages carry."""
        contexts = self._contexts(order)
        with self._tracing.span(
            "indexrelay.rebuild",
            parent=contexts[0] if contexts else None,
            others=contexts[1:],
            components=sorted(order.reasons),
        ) as traceparent:
            yield replace(order, traceparent=traceparent)

    def built(self, order: PassOrder, results: Mapping[str, ComponentResult]) -> None:
        """Spans of builds that have ended, each with one of its gates."""
        for name, result in results.items():
            if result.outcome is BuildOutcome.SKIPPED:
                continue
            began = result.started_at or order.facts.now  # one that did not begin has no time
            build = self._tracing.record(
                "indexrelay.build",
                parent=order.traceparent,
                began=began,
                seconds=result.seconds,
                failed=result.outcome is BuildOutcome.FAILED,
                component=name,
                entries=result.entries,
                mode=str(result.mode or ""),
            )
            if result.checks:
                self._tracing.record(
                    "indexrelay.gates",
                    parent=build,
                    began=began + timedelta(seconds=result.build_seconds),
                    seconds=result.verify_seconds,
                    failed=not all(check.passed for check in result.checks),
                    component=name,
                    checks=len(result.checks),
                )

    def released(self, order: PassOrder, result: RebuildResult, *, began: datetime) -> None:
        """The span of a release, from its commit until it was announced."""
        if result.release is not None:
            self._tracing.record(
                "indexrelay.release",
                parent=order.traceparent,
                began=began,
                seconds=max((result.finished_at - began).total_seconds(), 0.0),
                failed=result.status is RebuildStatus.FAILURE,
                release=result.release,
                components=list(result.indexes_rebuilt),
            )

    def _contexts(self, order: PassOrder) -> list[str]:
        """Those of the batches that the pass answers, the oldest first."""
        ids = [row.event_id for row in order.rows if not row.requested]
        try:
            return self._catalog.inbox.traceparents(ids[:MOST_CONTEXTS]) if ids else []
        except SQLAlchemyError as error:  # a trace keeps nothing from being built
            _log.warning("trace.not_continued", error=type(error).__name__)
            return []
