"""One pass: what is due, parents first, as many at a time as there are workers.

A pass never waits for a component that is being built elsewhere, in another pass or on another
host: it leaves it, and all that is made from it, to a later pass. Nor do finished components wait
for a slow one for ever: after a while they are released, and the rest of the pass follows with a
release of its own. The members of a group wait for each other, however long that takes, since no
release has one without the other; and a member whose last build failed is built before those that
could not be released without it, so that nothing is built in vain time and again.
"""

import time
from collections.abc import Generator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field
from datetime import datetime
from graphlib import TopologicalSorter
from typing import Protocol

from indexrelay.health.dependencies import Definitions, moving_with, parents_of
from indexrelay.health.facts import Facts
from indexrelay.health.groups import GroupWait, keeps_back
from indexrelay.schemas.groups import mates_of
from indexrelay.schemas.results import BuildOutcome, ComponentResult
from indexrelay.storage.catalog import InboxRow


@dataclass(frozen=True, kw_only=True)
class PassOrder:
    """What one pass is to do."""

    facts: Facts
    reasons: Mapping[str, str]
    """The components to build, and why; their leases are held."""
    waiting: Mapping[str, GroupWait] = field(default_factory=dict)
    """What has something new to contain, and waits for another member of its group."""
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

    def skip(self, name: str, facts: Facts, because: str) -> ComponentResult:
        """Leave ``name`` as it is; ``because``: a sentence."""
        ...


def run_pass(
    order: PassOrder, builder: Builder, *, executor: Executor, release_after_seconds: float
) -> Generator[dict[str, ComponentResult], None, None]:
    """Build everything in ``order``; the results, as they are to be released together.

    Yields once when all is done; and before that whenever results that may be released without the
    rest have waited for it for ``release_after_seconds``.

    However it ends, no build of it runs on: others may take its components then.

    Raises:
        BuildCancelledError: the rebuilder stops; what was not yielded is not to be released.
    """
    definitions = order.facts.definitions
    due = set(order.reasons)
    before = _before(order)
    sorter = TopologicalSorter(before)
    sorter.prepare()
    results: dict[str, ComponentResult] = {}
    fresh: dict[str, ComponentResult] = {}
    release_at: float | None = None
    running: dict[Future[ComponentResult], str] = {}
    try:
        while sorter.is_active():
            for name in sorted(sorter.get_ready(), key=lambda name: _turn(name, definitions)):
                running[_begin(name, order, results, builder, executor)] = name
            patience = None if release_at is None else max(0.0, release_at - time.monotonic())
            done = wait(running, timeout=patience, return_when=FIRST_COMPLETED).done
            if release_at is not None and time.monotonic() >= release_at:
                ready = _ready(fresh, due - results.keys(), definitions)
                yield ready
                fresh = {name: fresh[name] for name in fresh.keys() - ready.keys()}
                release_at = None
            for future in done:
                name = running.pop(future)
                results[name] = fresh[name] = future.result()
                sorter.done(name)
            if release_at is None and _ready(fresh, due - results.keys(), definitions):
                release_at = time.monotonic() + release_after_seconds
        yield fresh
    finally:
        wait(running)


def _turn(name: str, definitions: Definitions) -> tuple[bool, str, str]:
    """Members of a group begin side by side, so that hardly ever a commit comes between them."""
    group = definitions[name].group
    return group is None, group or "", name


def _before(order: PassOrder) -> dict[str, set[str]]:
    """For each component of the pass: those that are to be built before it."""
    facts = order.facts
    due = set(order.reasons)
    graph = {
        name: due.intersection(parents_of(facts.definitions[name], facts.definitions))
        for name in sorted(due)
    }
    for name, earlier in graph.items():
        for mate in due.intersection(mates_of(name, facts.definitions), facts.attempts):
            # Two that failed would wait for each other, and so would a parent for its child.
            if _would_keep_back(mate, name, order) and name not in _reached(mate, graph):
                earlier.add(mate)
    return graph


def _reached(name: str, graph: Mapping[str, AbstractSet[str]]) -> set[str]:
    """All that is to be built before ``name``, and itself."""
    found: set[str] = set()
    more = {name}
    while more:
        found |= more
        more = set().union(*(graph[each] for each in more)) - found
    return found


def _ready(
    fresh: Mapping[str, ComponentResult], unfinished: AbstractSet[str], definitions: Definitions
) -> dict[str, ComponentResult]:
    """Those results that need not wait for what is not finished."""
    bound = moving_with(unfinished, definitions)
    return {name: result for name, result in fresh.items() if name not in bound}


def _would_keep_back(mate: str, name: str, order: PassOrder) -> bool:
    """Whether a build of ``name`` would be in vain if ``mate`` stayed where it is."""
    reasons = {each: why for each, why in order.reasons.items() if each != mate}
    return keeps_back(mate, name, order.facts, reasons)


def _begin(
    name: str,
    order: PassOrder,
    results: Mapping[str, ComponentResult],
    builder: Builder,
    executor: Executor,
) -> Future[ComponentResult]:
    """Build ``name`` in the background, unless that would be in vain."""
    because = _why_not(name, order, results)
    if because is None:
        return executor.submit(builder.build, name, order, dict(results))
    skipped: Future[ComponentResult] = Future()
    skipped.set_result(builder.skip(name, order.facts, because))
    return skipped


def _why_not(name: str, order: PassOrder, results: Mapping[str, ComponentResult]) -> str | None:
    """Why a build would be in vain, by what came of others in this pass; ``None``: it would not."""
    definitions = order.facts.definitions
    stayed = {
        each for each, result in results.items() if result.outcome is not BuildOutcome.REBUILT
    }
    for parent in parents_of(definitions[name], definitions):
        if parent in stayed:
            return f"{parent}, which it is made from, was not rebuilt"
    for mate in mates_of(name, definitions):
        if mate in stayed and _would_keep_back(mate, name, order):
            group = definitions[name].group
            return f"{mate}, for which group {group} waits, was not rebuilt"
    return None
