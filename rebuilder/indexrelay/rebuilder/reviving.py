"""A second reading of dead letters: by a later release, say, or after a mistake was found.

The same bytes go the same way as the first time. What can be read leaves the letters for the inbox
in one transaction; what cannot stays where it is, with what is wrong with it now. So asking twice
does what asking once does.
"""

from dataclasses import dataclass
from enum import StrEnum

from indexrelay.rebuilder.reading import read_event
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.errors import UnreadableEventError
from indexrelay.schemas.loggers import get_logger
from indexrelay.storage.catalog import Catalog

_log = get_logger(__name__)


class Rereading(StrEnum):
    """What became of a letter."""

    RECEIVED = "received"
    """It is an event in the inbox now, and no letter any more."""
    UNREADABLE = "unreadable"
    """It stays a letter."""
    GONE = "gone"
    """There is no such letter: it was retried or dropped before, or never was."""


@dataclass(frozen=True, kw_only=True)
class Reread:
    """One letter after its second reading."""

    letter: int
    outcome: Rereading
    reason: str | None = None
    """Why it cannot be read."""
    raw: bytes | None = None
    """The event's bytes, if it was received."""


def reread(letter_id: int, *, catalog: Catalog, clock: Clock) -> Reread:
    """Read one dead letter again."""
    letter = catalog.dead_letters.get(letter_id)
    if letter is None:
        return Reread(letter=letter_id, outcome=Rereading.GONE)
    if not letter.whole:
        kept = f"only its first {len(letter.raw):,} of {letter.size:,} bytes are kept; drop it"
        return _still_unreadable(letter_id, kept, catalog)
    try:
        event = read_event(letter.raw, received_at=clock.now())
    except UnreadableEventError as error:
        return _still_unreadable(letter_id, error.reason, catalog)
    if not catalog.dead_letters.revive(letter_id, event):
        return Reread(letter=letter_id, outcome=Rereading.GONE)
    _log.info("dead_letter.received", dead_letter=letter_id, event_id=event.event_id)
    return Reread(letter=letter_id, outcome=Rereading.RECEIVED, raw=letter.raw)


def _still_unreadable(letter_id: int, reason: str, catalog: Catalog) -> Reread:
    if not catalog.dead_letters.amend(letter_id, reason=reason):
        return Reread(letter=letter_id, outcome=Rereading.GONE)
    return Reread(letter=letter_id, outcome=Rereading.UNREADABLE, reason=reason)
