"""What reconciliations find, in the log: what was repaired, and once what is left.

A comparison runs every half minute, and most of what it cannot repair stays for a while. It is said
when it is seen first, and again only after it was gone.
"""

from indexrelay.rebuilder.findings import Reconciliation, Standing
from indexrelay.schemas.loggers import get_logger

_log = get_logger(__name__)


class FindingsLog:
    """Remembers what was left at the last comparison; used by one thread."""

    def __init__(self) -> None:
        self._left: frozenset[tuple[str, str]] = frozenset()

    def tell(self, found: Reconciliation) -> None:
        """Log what is new."""
        left: set[tuple[str, str]] = set()
        for finding in found.findings:
            if finding.standing is Standing.MENDED:
                _log.info("reconcile.repaired", what=finding.what)
            elif finding.standing is Standing.LEFT:
                left.add((finding.about, finding.what))
                if (finding.about, finding.what) not in self._left:
                    _log.warning("reconcile.left", what=finding.what, advice=finding.advice)
        self._left = frozenset(left)
