"""What comparisons find, in the log: what was repaired, and once what is left.

A comparison runs every half minute, and most of what it cannot repair stays for a while. What only
a person can put right is said when it is seen first, and again only after it was gone. A repair
that fails, and would be made if it could, is said again after waits that grow. What readers report
is in other words each time if they like, so one comparison says no more than a few new things.
"""

from dataclasses import dataclass
from typing import Final

from indexrelay.health.verdict import BUILDS, Actor, Verdict
from indexrelay.rebuilder.findings import Finding, Reconciliation, Standing
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.loggers import get_logger

_log = get_logger(__name__)
_MOST_LINES: Final = 20
"""At one comparison; `indexrelay status` has all of it."""
_FIRST_WAIT_SECONDS: Final = 300.0
_LONGEST_WAIT_SECONDS: Final = 3600.0


@dataclass(slots=True)
class _Said:
    """A repair that failed, and when to say so again."""

    again_at: float
    wait_seconds: float


class FindingsLog:
    """Remembers what was left at the last comparison; used by one thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left: frozenset[str] = frozenset()
        self._failed: dict[str, _Said] = {}

    def repaired(self, found: Reconciliation) -> None:
        """Log what was repaired, and what could not be."""
        now = self._clock.monotonic()
        for finding in found.findings:
            if finding.standing is Standing.MENDED:
                _log.info("reconcile.repaired", what=finding.what)
            elif finding.standing is Standing.LEFT and self._is_due(finding, now):
                _log.warning("reconcile.failed", what=finding.what, advice=finding.advice)
        still = {each.what for each in found.findings}
        self._failed = {what: said for what, said in self._failed.items() if what in still}

    def _is_due(self, finding: Finding, now: float) -> bool:
        """Whether to say it now; it counts as said then."""
        said = self._failed.get(finding.what)
        if said is None:
            said = self._failed[finding.what] = _Said(now, _FIRST_WAIT_SECONDS)
        if now < said.again_at:
            return False
        said.again_at = now + said.wait_seconds
        said.wait_seconds = min(said.wait_seconds * 2, _LONGEST_WAIT_SECONDS)
        return True

    def left(self, verdict: Verdict) -> None:
        """Log what waits for a person, if it did not at the last comparison."""
        waiting = [
            problem for problem in verdict.within(BUILDS).problems if problem.acts is Actor.PERSON
        ]
        new = [problem for problem in waiting if problem.what not in self._left]
        for problem in new[:_MOST_LINES]:
            _log.warning(
                "reconcile.left", what=problem.what, advice=problem.advice, code=problem.code
            )
        if len(new) > _MOST_LINES:
            _log.warning("reconcile.left_more", problems=len(new) - _MOST_LINES)
        self._left = frozenset(problem.what for problem in waiting)
