"""What a reader remembers of a load that failed, and when it tries again.

What may pass (`indexrelay.storage.passing`) is tried again with a growing wait; what cannot is not,
until another version is named or its files are replaced.
"""

from dataclasses import dataclass

from indexrelay.schemas.backoff import backoff_seconds
from indexrelay.storage.passing import may_pass

MAX_WAIT_SECONDS = 60.0
MAX_WORDS = 1000


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The last failed load of a component."""

    version: str
    """The version that could not be loaded."""
    error: str
    count: int
    """How often in a row."""
    looks: str
    """What the version's files looked like then."""
    retry_at: float | None
    """By the monotonic clock; ``None``: not as long as they look like that."""

    def due(self, now: float) -> bool:
        """Whether it is time to try again."""
        return self.retry_at is not None and now >= self.retry_at


def failure_of(
    error: BaseException,
    *,
    version: str,
    looks: str,
    before: Failure | None,
    first_wait_seconds: float,
    key: str,
    now: float,
) -> Failure:
    """What to remember of a failed load; ``key``: whose load of what, see `backoff_seconds`."""
    count = before.count + 1 if before is not None and before.version == version else 1
    wait = backoff_seconds(count, first=first_wait_seconds, longest=MAX_WAIT_SECONDS, key=key)
    return Failure(
        version=version,
        looks=looks,
        error=in_words(error),
        count=count,
        retry_at=now + wait if may_pass(error) else None,
    )


def in_words(error: BaseException) -> str:
    """The error's type and its message in one line, of which the first `MAX_WORDS` characters.

    Presence and reports carry it, and what a kind raises may quote a whole file.
    """
    sentence = " ".join(str(error).split()) or "no message"
    words = f"{type(error).__name__}: {sentence}"
    return words if len(words) <= MAX_WORDS else f"{words[:MAX_WORDS]}…"
