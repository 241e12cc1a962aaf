"""That the builds of a component fail: since when, how often, why, and what comes next."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from indexrelay.console import figures
from indexrelay.console.escaping import visible
from indexrelay.console.installation import Installation
from indexrelay.health.backoff import Patience
from indexrelay.schemas import commands
from indexrelay.schemas.loggers import get_logger

_log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Failing:
    """The builds of one component that failed since the last good one."""

    component: str
    failures: int
    """How many in a row."""
    failing_since: datetime
    """When the first of them failed."""
    failed_at: datetime
    """When the last one did."""
    error: str
    """Its own words, and where in the user's own code it came from."""
    transient: bool
    """Whether the cause lies outside of the build: then it is tried for as long as that lasts."""
    retry_at: datetime | None
    """When a running rebuilder tries again; ``None``: not before something changes."""

    @property
    def sentence(self) -> str:
        """All of it, for a person."""
        count = "its last build" if self.failures == 1 else f"its last {self.failures} builds"
        last = f"{count} failed, {figures.ago(self.failed_at)}"
        if self.failing_since < self.failed_at:
            last = f"it fails since {figures.moment(self.failing_since)}, {last}"
        return f"{last}: {self.error}"

    @property
    def next(self) -> str:
        """What comes next, and what a person can do."""
        if self.retry_at is None:
            return (
                "it is not tried again until its input, its files or its definition change; "
                f"when the cause is mended: {commands.rebuild(self.component)}"
            )
        seconds = (self.retry_at - datetime.now(UTC)).total_seconds()
        soon = f"in {figures.seconds(seconds)}" if seconds > 0 else "at its next look"
        return (
            f"a running rebuilder tries again {soon}; at once: {commands.rebuild(self.component)}"
        )

    def as_json(self) -> dict[str, Any]:
        """For a program."""
        return {
            "failures": self.failures,
            "failing_since": self.failing_since.isoformat(),
            "failed_at": self.failed_at.isoformat(),
            "error": self.error,
            "transient": self.transient,
            "retry_at": self.retry_at.isoformat() if self.retry_at else None,
        }

    def page(self) -> Text:
        """For the top of a component's page."""
        return Text.assemble(
            ("✗ FAILING  ", "bold red"), visible(self.sentence), "\n  → ", self.next, "\n"
        )


def failing(installation: Installation, component: str) -> Failing | None:
    """Whether the last builds of a component failed; a catalog that is away only warns."""
    try:
        attempt = installation.catalog.attempts.all().get(component)
    except SQLAlchemyError as error:
        _log.warning("attempts.unknown", error=str(getattr(error, "orig", None) or error))
        return None
    if attempt is None:
        return None
    return Failing(
        component=component,
        failures=attempt.failures,
        failing_since=attempt.first_failed_at,
        failed_at=attempt.failed_at,
        error=attempt.error,
        transient=attempt.passing,
        retry_at=Patience.of(installation.settings.rebuilder).retry_at(attempt),
    )
