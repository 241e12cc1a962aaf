"""One pass: what is due, parents first, as many at a time as there are workers.

A pass never waits for a component that is being built elsewhere, in another pass or on another
host: it leaves it, and all that is made from it, to a later pass. Nor do finished components wait
for a slow one for ever: after a while they are released, and the rest of the pass follows with a
release of its own.
"""

import time
from collections.abc import Generator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field
from datetime import datetime
from graphlib import TopologicalSorter
from typing import Protocol

from indexrelay.health.dependencies import parents_of
from indexrelay.health.facts import Facts
from indexrelay.schemas.results import BuildOutcome, ComponentResult
from indexrelay.storage.catalog import InboxRow


@dataclass(frozen=True, kw_only=True)
class PassOrder:
    """What one pass is to do."""

    facts: Facts
    reasons: Mapping[str, str]
    """The components to build, and why; their leases are held."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """What was asked for by name and cannot be built, with the reason."""
    force: AbstractSet[str] = frozenset()
    """Those that may lose more entries than ``max_shrink`` allows."""
    full: AbstractSet[str] = frozenset()
    """Those to build from scratch."""
    rows: Sequence[InboxRow] = ()
    """The events and requests that this pass answers."""
    woken_at: datetime | None = None
    """When the first of the signals that led to it was seen."""


class Builder(Protocol):
    """Builds, or leaves, one component of a pass."""

    def build(
        self, name: str, order: PassOrder, results: Mapping[str, ComponentResult]
    ) -> ComponentResult:
        """Build ``name``; ``results`` are those of the pass so far."""
        ...

    def skip(self, name: str, facts: Facts, parent: str) -> ComponentResult:
        """Leave ``name`` as it is, because ``parent`` was not rebuilt."""
        ...


def run_pass(
    order: PassOrder, builder: Builder, *, executor: Executor, release_after_seconds: float
) -> Generator[dict[str, ComponentResult], None, None]:
    """Build everything in ``order``; the results, as they are to be released together.

    Yields once when all is done; and before that whenever a result has waited for the others for
    ``release_after_seconds``.

    However it ends, no build of it runs on: others may take its components then.

    Raises:
        BuildCancelledError: the rebuilder stops; what was not yielded is not to be released.
    """
    definitions = order.facts.definitions
    due = set(order.reasons)
    sorter = TopologicalSorter(
        {name: due.intersection(parents_of(definitions[name], definitions)) for name in due}
    )
    sorter.prepare()
    results: dict[str, ComponentResult] = {}
    fresh: dict[str, ComponentResult] = {}
    release_at = 0.0
    running: dict[Future[ComponentResult], str] = {}
    try:
        while sorter.is_active():
            for name in sorted(sorter.get_ready()):
                running[_begin(name, order, results, builder, executor)] = name
            patience = max(0.0, release_at - time.monotonic()) if fresh else None
            done = wait(running, timeout=patience, return_when=FIRST_COMPLETED).done
            if fresh and time.monotonic() >= release_at:
                yield fresh
                fresh = {}
            if done and not fresh:
                release_at = time.monotonic() + release_after_seconds
            for future in done:
                name = running.pop(future)
                results[name] = fresh[name] = future.result()
                sorter.done(name)
        yield fresh
    finally:
        wait(running)


def _begin(
    name: str,
    order: PassOrder,
    results: Mapping[str, ComponentResult],
    builder: Builder,
    executor: Executor,
) -> Future[ComponentResult]:
    """Build ``name`` in the background, unless one of its parents failed."""
    for parent in parents_of(order.facts.definitions[name], order.facts.definitions):
        if parent in results and results[parent].outcome is not BuildOutcome.REBUILT:
            skipped: Future[ComponentResult] = Future()
            skipped.set_result(builder.skip(name, order.facts, parent))
            return skipped
    return executor.submit(builder.build, name, order, dict(results))
