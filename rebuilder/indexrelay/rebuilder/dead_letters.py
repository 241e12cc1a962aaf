"""Retries dead letters when a person asks: a later version may read what an earlier one could not.

A dead letter that is retried takes the same way as the first time. What can be read moves from the
dead letters into the inbox in one transaction; what cannot stays, with the present reason.
"""

from dataclasses import dataclass
from enum import StrEnum

from indexrelay.rebuilder.inbox import read_event
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.errors import UnreadableEventError
from indexrelay.schemas.loggers import get_logger
from indexrelay.storage.catalog import Catalog

_log = get_logger(__name__)


class RetryOutcome(StrEnum):
    """What became of a dead letter that was retried."""

    RECEIVED = "received"
    """It is an event in the inbox now, and no letter any more."""
    UNREADABLE = "unreadable"
    """It stays a letter."""
    GONE = "gone"
    """There is no such letter: it was retried or dropped before, or never existed."""


@dataclass(frozen=True, kw_only=True)
class RetriedLetter:
    """One dead letter after a retry."""

    letter: int
    outcome: RetryOutcome
    reason: str | None = None
    """Why it cannot be read."""
    raw: bytes | None = None
    """The event's bytes, if it was received."""


def retry_dead_letter(letter_id: int, *, catalog: Catalog, clock: Clock) -> RetriedLetter:
    """Read one dead letter again; doing so twice does what doing so once does."""
    letter = catalog.dead_letters.get(letter_id)
    if letter is None:
        return RetriedLetter(letter=letter_id, outcome=RetryOutcome.GONE)
    if not letter.whole:
        kept = f"only its first {len(letter.raw):,} of {letter.size:,} bytes are kept; drop it"
        return _still_unreadable(letter_id, kept, catalog)
    try:
        event = read_event(letter.raw, received_at=clock.now())
    except UnreadableEventError as error:
        return _still_unreadable(letter_id, error.reason, catalog)
    if not catalog.dead_letters.requeue(letter_id, event):
        return RetriedLetter(letter=letter_id, outcome=RetryOutcome.GONE)
    _log.info("dead_letter.received", dead_letter=letter_id, event_id=event.event_id)
    return RetriedLetter(letter=letter_id, outcome=RetryOutcome.RECEIVED, raw=letter.raw)


def _still_unreadable(letter_id: int, reason: str, catalog: Catalog) -> RetriedLetter:
    if not catalog.dead_letters.amend(letter_id, reason=reason):
        return RetriedLetter(letter=letter_id, outcome=RetryOutcome.GONE)
    return RetriedLetter(letter=letter_id, outcome=RetryOutcome.UNREADABLE, reason=reason)
