"""Retries dead letters when a person asks: a later version may read what an earlier one could not.

A dead letter that is retried takes the same way as the first time. What can be read moves from the
dead letters into the inbox in one transaction; what cannot stays, with the present reason.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict
from redis.exceptions import RedisError

from indexrelay.rebuilder.inbox import read_event
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.errors import IndexRelayError, UnreadableEventError
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.names import visible
from indexrelay.storage.catalog import Catalog
from indexrelay.streams.connection import Connection
from indexrelay.streams.keys import Keys
from indexrelay.streams.publisher import publish_many

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


class LetterOutcome(BaseModel):
    """What became of one letter."""

    model_config = ConfigDict(frozen=True)

    id: int
    outcome: str
    """``received``, ``unreadable`` or ``gone`` after a retry; ``dropped`` or ``gone``."""
    reason: str | None = None
    """Why it still cannot be read."""


class Retried(BaseModel):
    """What became of all that were to be read again."""

    model_config = ConfigDict(frozen=True)

    letters: tuple[LetterOutcome, ...]
    woken: bool
    """Whether a rebuilder hears of it at once; otherwise at its next reconcile."""


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


def retry_letters(
    letter_ids: Sequence[int],
    *,
    catalog: Catalog,
    connection: Callable[[], Connection],
    keys: Keys,
    clock: Clock,
) -> Retried:
    """Read letters again; doing so twice does what doing so once does.

    The same bytes, published to the events stream, wake a rebuilder at once: the inbox has the
    event's id already, so nothing happens twice.
    """
    again = [
        retry_dead_letter(letter_id, catalog=catalog, clock=clock)
        for letter_id in dict.fromkeys(letter_ids)
    ]
    return Retried(
        letters=tuple(
            LetterOutcome(
                id=each.letter,
                outcome=each.outcome.value,
                reason=None if each.reason is None else visible(each.reason),
            )
            for each in again
        ),
        woken=_wake([each.raw for each in again if each.raw is not None], connection, keys),
    )


def drop_letters(letter_ids: Sequence[int], *, catalog: Catalog) -> tuple[LetterOutcome, ...]:
    """Forget letters for good."""
    return tuple(
        LetterOutcome(
            id=letter_id,
            outcome="dropped"
            if catalog.dead_letters.discard(letter_id)
            else RetryOutcome.GONE.value,
        )
        for letter_id in dict.fromkeys(letter_ids)
    )


def _still_unreadable(letter_id: int, reason: str, catalog: Catalog) -> RetriedLetter:
    if not catalog.dead_letters.amend(letter_id, reason=reason):
        return RetriedLetter(letter=letter_id, outcome=RetryOutcome.GONE)
    return RetriedLetter(letter=letter_id, outcome=RetryOutcome.UNREADABLE, reason=reason)


def _wake(raws: Sequence[bytes], connection: Callable[[], Connection], keys: Keys) -> bool:
    if not raws:
        return False
    try:
        publish_many(connection(), keys.events, raws)
    except (RedisError, IndexRelayError, OSError):
        return False  # the caller reports it; the rows are in the inbox
    return True
