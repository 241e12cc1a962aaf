"""How long a component that failed is left alone."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from indexrelay.schemas.backoff import backoff_seconds
from indexrelay.schemas.settings import RebuilderSettings
from indexrelay.storage.catalog import Attempt


@dataclass(frozen=True, kw_only=True)
class Patience:
    """The cool-down after each failure in a row, and when to stop trying."""

    cooldown_seconds: float
    max_cooldown_seconds: float
    max_consecutive_failures: int

    @classmethod
    def of(cls, limits: RebuilderSettings) -> Self:
        """What the settings say."""
        return cls(
            cooldown_seconds=limits.failure_cooldown_seconds,
            max_cooldown_seconds=limits.max_failure_cooldown_seconds,
            max_consecutive_failures=limits.max_consecutive_failures,
        )

    def retry_at(self, attempt: Attempt) -> datetime | None:
        """When the same build may be tried again; ``None``: not by itself any more.

        What failed for a cause outside, such as a full disk, is tried for as long as that lasts.
        Every rebuilder says the same: the wait follows from the component and the count.
        """
        if not attempt.passing and attempt.failures >= self.max_consecutive_failures:
            return None
        wait = backoff_seconds(
            attempt.failures,
            first=self.cooldown_seconds,
            longest=self.max_cooldown_seconds,
            key=attempt.component,
        )
        return attempt.failed_at + timedelta(seconds=wait)
