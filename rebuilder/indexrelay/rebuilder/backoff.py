"""How long a component that failed is left alone."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from indexrelay.schemas.settings import RebuilderSettings
from indexrelay.storage.catalog import Attempt


@dataclass(frozen=True, kw_only=True)
class Patience:
    """The cool-down after each failure in a row, and when to stop trying."""

    cooldown_seconds: float
    max_consecutive_failures: int

    @classmethod
    def of(cls, limits: RebuilderSettings) -> Self:
        """What the settings say."""
        return cls(
            cooldown_seconds=limits.failure_cooldown_seconds,
            max_consecutive_failures=limits.max_consecutive_failures,
        )

    def retry_at(self, attempt: Attempt) -> datetime | None:
        """When the same build may be tried again; ``None``: not by itself any more.

        The wait doubles with every failure in a row.
        """
        if attempt.failures >= self.max_consecutive_failures:
            return None
        wait = self.cooldown_seconds * 2 ** (attempt.failures - 1)
        return attempt.failed_at + timedelta(seconds=wait)
