"""Which released versions a rebuilder improves when nothing else is to be built, and which not yet.

A kind may release first what is ready soonest, and say what a better version would have
(`Kind.improvable`). The better one is built behind the one that serves, beside the builds that
follow new batches, and holds up none of them. So an improvement is no reason to be due: nothing is
behind, nobody waits for it, and the judge calls what serves well.

When it is built it lies in the store like any version that was not released yet
(`Facts.improved`). Then the component is due, after everything else: the next build of it continues
the better version by what was committed since it was begun, and that is released. However fast
batches come, an improvement is thus finished as soon as it is built.

Pure functions of facts, as in `indexrelay.health.due`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from indexrelay.health.due import Due
from indexrelay.health.facts import Facts, RetryPolicy
from indexrelay.health.status import ImprovementHealth
from indexrelay.schemas import commands
from indexrelay.schemas.versions import in_order


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    """Why an improvement is not begun."""

    why: str
    """What follows "it is not improved" after "since", or after a colon."""
    retry_at: datetime | None = None
    """When one that failed is tried again by itself."""


@dataclass(frozen=True, kw_only=True)
class Improvements:
    """What may be improved."""

    reasons: Mapping[str, str]
    """The components of which a better version may be built now, and what it would have; parents
    first."""
    obstacles: Mapping[str, Obstacle]
    """Those of which none may be."""


def find_improvements(facts: Facts, due: Due, retry_policy: RetryPolicy) -> Improvements:
    """Which versions may be improved now.

    A component that is behind is improved all the same: while batches come without a pause it
    always is. One that waits for its group is not, since the better version would have to wait,
    too; nor is one whose next build does not follow from batches alone.

    An improvement that failed is tried again after a cool-down that new batches do not end, and
    after `RetryPolicy.max_consecutive_failures` not before the definition changes.

    Args:
        due: what `indexrelay.health.due.find_due` says of the same facts.
    """
    reasons: dict[str, str] = {}
    obstacles: dict[str, Obstacle] = {}
    for name in in_order(facts.definitions):
        if name not in facts.improvable or name in facts.improved:
            continue
        obstacle = _obstacle(name, facts, due) or find_failure(name, facts, retry_policy)
        if obstacle is None:
            reasons[name] = facts.improvable[name].reason
        else:
            obstacles[name] = obstacle
    return Improvements(reasons=reasons, obstacles=obstacles)


def _obstacle(name: str, facts: Facts, due: Due) -> Obstacle | None:
    """What keeps it from being improved that is no failure of an improvement."""
    version = facts.versions.get(name)
    if version is None or name in facts.corrupt:
        return Obstacle(why="it has no version that is whole")
    if version.definition != facts.definitions[name].digest:
        return Obstacle(why="it is declared differently than it was built")
    if name in facts.holds:
        return Obstacle(why=f"it is held ({facts.holds[name].reason})")
    if name in facts.paused:
        return Obstacle(why=f"it is paused ({facts.paused[name].reason})")
    if name in due.waiting:
        return Obstacle(why=due.waiting[name].sentence)
    if name in facts.attempts:
        return Obstacle(why="its last build failed")
    if name in facts.outdated or name in facts.requested:
        return Obstacle(why="it is built again first")
    if any(
        source not in facts.definitions and source not in facts.sources
        for source in facts.definitions[name].inputs
    ):
        return Obstacle(why="what it is made from cannot be read")
    return None


def find_failure(name: str, facts: Facts, retry_policy: RetryPolicy) -> Obstacle | None:
    """Whether an improvement failed that would be the same again, and is not tried yet; whether it
    failed when it was built, or when a pass took it up."""
    attempt = facts.failed_improvements.get(name)
    if attempt is None or attempt.inputs != facts.definitions[name].digest:
        return None
    retry_at = retry_policy.retry_at(attempt)
    if retry_at is not None and retry_at <= facts.now:
        return None
    return Obstacle(
        why=f"that failed {attempt.failures} time(s) in a row: {attempt.error}", retry_at=retry_at
    )


def improvement_health(facts: Facts, due: Due) -> dict[str, ImprovementHealth]:
    """Each component that may be improved, and how that stands."""
    found = find_improvements(facts, due, facts.retry_policy)
    builders: dict[str, list[str]] = {}
    for rebuilder, state in sorted(facts.known_rebuilders.items()):
        for name in state.improving:
            builders.setdefault(name, []).append(rebuilder)
    health = {}
    for name, better in facts.improvable.items():
        attempt = facts.failed_improvements.get(name)
        obstacle = found.obstacles.get(name)
        health[name] = ImprovementHealth(
            reason=better.reason,
            building=tuple(builders.get(name, ())),
            obstacle=None if obstacle is None else obstacle.why,
            failures=0 if attempt is None else attempt.failures,
            error=None if attempt is None else attempt.error,
            retry_at=None if obstacle is None else obstacle.retry_at,
        )
    return health


def improvement_note(name: str, health: ImprovementHealth, facts: Facts) -> str:
    """How the improvement of one component stands, in a sentence."""
    provisional = f"{name} serves, and is to be improved: {health.reason}"
    if health.building:
        return f"{provisional}; rebuilder {', '.join(health.building)} builds a better version"
    if health.retry_at is not None:
        return (
            f"{provisional}; {health.obstacle}; it is tried again at "
            f"{health.retry_at:%Y-%m-%d %H:%M} UTC"
        )
    if health.obstacle is not None and health.failures:
        return f"{provisional}; {health.obstacle}; to try again: {_at_once(name, facts)}"
    if health.obstacle is not None:
        return f"{provisional}; not yet, since {health.obstacle}"
    if facts.has_rebuilder is False:
        return f"{provisional}; a rebuilder does it when one runs; at once: {_at_once(name, facts)}"
    return f"{provisional}; a rebuilder does it when it builds nothing else"


def _at_once(name: str, facts: Facts) -> str:
    """Who asks for a full build gets the best version."""
    return commands.rebuild(name, full=True, here=not facts.has_rebuilder)
