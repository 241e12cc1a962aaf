"""What can go wrong in a rebuild."""

from collections.abc import Sequence

from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.versions import Check


class BuildError(IndexRelayError):
    """Raised when one component's build fails; the other components go on."""


class GateFailedError(BuildError):
    """Raised when a built version does not pass its gates; it is not released."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self.checks = tuple(checks)
        failed = [check for check in self.checks if not check.passed]
        super().__init__("; ".join(f"gate {check.name}: {_reason(check)}" for check in failed))


class BuildTimedOutError(BuildError):
    """Raised when a build was killed because it took longer than its limit."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"took longer than {seconds:g} s and was stopped; "
            "raise build_timeout_seconds if it needs more"
        )
        self.seconds = seconds


class BuildDiedError(BuildError):
    """Raised when the child process of a build ended without a result.

    ``passing``: whether what kept it from one lies outside (no room to write it down, no database),
    so that the same may work later.
    """

    def __init__(self, reason: str, *, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing


class BuildCancelledError(BuildError):
    """Raised when a build was stopped because the rebuilder stops."""


def _reason(check: Check) -> str:
    if check.detail:
        return check.detail
    if check.measured is None and check.limit is None:
        return "it did not pass, and its check says no more (Check.detail)"
    return f"measured {check.measured}, limit {check.limit}"
