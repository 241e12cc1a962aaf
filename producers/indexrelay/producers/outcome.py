"""What became of a batch after its block: known to the batch, decided by whoever commits it."""

from dataclasses import dataclass

from indexrelay.storage.catalog import BatchChanges, Commit


@dataclass(kw_only=True)
class Outcome:
    """Filled in as it happens."""

    commit: Commit | None = None
    announced: bool = False
    no_commit: str = "its block has not ended"
    """Why there is no commit, for as long as there is none."""


@dataclass(frozen=True, kw_only=True)
class Handed:
    """A batch whose block ended: what is to be committed, and where to tell what became of it."""

    changes: BatchChanges
    outcome: Outcome
    traceparent: str | None = None
    """A W3C trace context that the event carries along."""
