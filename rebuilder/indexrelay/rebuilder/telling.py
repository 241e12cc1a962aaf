"""What comparisons find, in the log: what was repaired, and once what is left.

A comparison runs every half minute, and most of what it cannot repair stays for a while. It is said
when it is seen first, and again only after it was gone. What readers report is in other words each
time if they like, so one comparison says no more than a few new things.
"""

from typing import Final

from indexrelay.health.verdict import BUILDS, Actor, Verdict
from indexrelay.rebuilder.findings import Reconciliation, Standing
from indexrelay.schemas.loggers import get_logger

_log = get_logger(__name__)
_MOST_LINES: Final = 20
"""At one comparison; `indexrelay status` has all of it."""


class FindingsLog:
    """Remembers what was left at the last comparison; used by one thread."""

    def __init__(self) -> None:
        self._left: frozenset[str] = frozenset()

    def repaired(self, found: Reconciliation) -> None:
        """Log what was repaired, and what could not be."""
        for finding in found.findings:
            if finding.standing is Standing.MENDED:
                _log.info("reconcile.repaired", what=finding.what)
            elif finding.standing is Standing.LEFT:
                _log.warning("reconcile.failed", what=finding.what, advice=finding.advice)

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
