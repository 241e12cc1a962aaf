"""One pass: what is due, parents first, as many at a time as there are workers.

A pass never waits for a component that is being built elsewhere, in another pass or on another
host: it leaves it, and all that is made from it, to a later pass. Nor do finished components wait
for a slow one for ever: after a while they are released, and the rest of the pass follows with a
release of its own. The members of a group wait for each other, however long that takes, since no
release has one without the other; and a member whose last build failed is built before those that
could not be released without it, so that nothing is built in vain time and again. What has to
contain the same generation and would not, built side by side, is built together
(`indexrelay.rebuilder.build_units`).
"""

import time
from collections.abc import Generator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from graphlib import TopologicalSorter
from typing import Protocol

from indexrelay.health.dependencies import Definitions, moving_with, parents_of
from indexrelay.health.facts import Facts
from indexrelay.health.groups import GroupWait, keeps_back
from indexrelay.rebuilder.build_units import Unit, in_turn, parents_first, reached, units_first
from indexrelay.rebuilder.runners import BuildSession
from indexrelay.schemas.groups import mates_of
from indexrelay.schemas.results import BuildOutcome, ComponentResult
from indexrelay.storage.catalog import InboxRow

Turn = tuple[str, ...]
"""The components of a unit, in the order in which they are built."""


@dataclass(frozen=True, kw_only=True)
class PassOrder:
    """What one pass is to do."""

    facts: Facts
    reasons: Mapping[str, str]
    """The components to build, and why; their leases are held."""
    together: Sequence[Unit] = ()
    """Those that are built one after another from the same snapshots; others by themselves."""
    afresh: AbstractSet[str] = frozenset()
    """Those of which no version that was built earlier is taken up."""
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
    """Builds, or leaves, the components of a pass."""

    def session(self, components: Sequence[str]) -> AbstractContextManager[BuildSession]:
        """Where these are built, in this order, from the same snapshots; any may be left out."""
        ...

    def build(
        self,
        name: str,
        order: PassOrder,
        results: Mapping[str, ComponentResult],
        session: BuildSession,
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
    turns = _turns(order)
    sorter = TopologicalSorter({turn: turns[turn] for turn in turns})
    sorter.prepare()
    results: dict[str, ComponentResult] = {}
    fresh: dict[str, ComponentResult] = {}
    release_at: float | None = None
    running: dict[Future[dict[str, ComponentResult]], Turn] = {}
    try:
        while sorter.is_active():
            for turn in sorted(sorter.get_ready(), key=lambda turn: _rank(turn, definitions)):
                running[_begin(turn, order, results, builder, executor)] = turn
            patience = None if release_at is None else max(0.0, release_at - time.monotonic())
            done = wait(running, timeout=patience, return_when=FIRST_COMPLETED).done
            if release_at is not None and time.monotonic() >= release_at:
                ready = _ready(fresh, due - results.keys(), definitions)
                yield ready
                fresh = {name: fresh[name] for name in fresh.keys() - ready.keys()}
                release_at = None
            for future in done:
                turn = running.pop(future)
                built = future.result()
                results |= built
                fresh |= built
                sorter.done(turn)
            if release_at is None and _ready(fresh, due - results.keys(), definitions):
                release_at = time.monotonic() + release_after_seconds
        yield fresh
    finally:
        wait(running)


def _rank(turn: Turn, definitions: Definitions) -> tuple[bool, str, Turn]:
    """Members of a group begin side by side, so that hardly ever a commit comes between them."""
    group = next((definitions[name].group for name in turn if definitions[name].group), None)
    return group is None, group or "", turn


def _turns(order: PassOrder) -> dict[Turn, set[Turn]]:
    """What the pass builds, unit by unit; for each: those that are to be built before it."""
    facts = order.facts
    due = set(order.reasons)
    inside = parents_first(due, facts)
    unit_of = {name: frozenset({name}) for name in inside}
    unit_of |= {name: unit for unit in order.together for name in unit}
    between = units_first(unit_of.values(), inside)
    waited_for: set[str] = set()
    for name in inside:
        for mate in due.intersection(mates_of(name, facts.definitions), facts.attempts):
            if not _would_keep_back(mate, name, order):
                continue
            mine, theirs = unit_of[name], unit_of[mate]
            # Two that failed would wait for each other, and so would a parent for its child.
            if mine != theirs and mine not in reached(theirs, between):
                between[mine].add(theirs)
            elif mine == theirs and name not in reached(mate, inside):
                inside[name].add(mate)
            waited_for.add(mate)
    last = facts.attempts.keys() - waited_for
    turns = {unit: in_turn(unit, inside, last=last) for unit in between}
    return {turns[unit]: {turns[earlier] for earlier in before} for unit, before in between.items()}


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
    turn: Turn,
    order: PassOrder,
    results: Mapping[str, ComponentResult],
    builder: Builder,
    executor: Executor,
) -> Future[dict[str, ComponentResult]]:
    """Build them in the background, unless that would be in vain."""
    if any(_why_not(name, order, results) is None for name in turn):
        return executor.submit(_build, turn, order, dict(results), builder)
    skipped: Future[dict[str, ComponentResult]] = Future()
    skipped.set_result(_build(turn, order, results, builder))
    return skipped


def _build(
    turn: Turn, order: PassOrder, results: Mapping[str, ComponentResult], builder: Builder
) -> dict[str, ComponentResult]:
    """Build them one after another; what would be in vain by now is left."""
    built: dict[str, ComponentResult] = {}
    with builder.session(turn) as session:
        for name in turn:
            known = {**results, **built}
            because = _why_not(name, order, known)
            built[name] = (
                builder.build(name, order, known, session)
                if because is None
                else builder.skip(name, order.facts, because)
            )
    return built


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
