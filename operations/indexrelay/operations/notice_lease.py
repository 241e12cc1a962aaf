"""One of several operators tells people: the one that holds a lease, a row of the catalog.

Every operator looks, and evaluates the alerts. The holder sends notices, and writes down at each
look what the next one has to go on with: since when each alert holds, which have been told of, and
what has not been sent yet. So another one that takes over tells of what was not told, and twice
only of what was on its way at that moment; and an alert goes on waiting where it was.

Whoever does not hold the lease watches the count that the holder raises. Where it has stood still
for `lease_seconds` by the watcher's own clock, the holder is taken to be gone. So no two clocks are
compared. An operator that stops gives the lease back, and the next one has it at once.

Where the catalog does not answer, the holder goes on telling, since nobody could say that it is not
the holder any more; and any other tells as well, once that has lasted for `lease_seconds`. Nothing
may be told twice then. The other choice would be silence when it matters most.
"""

import os
import secrets
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from indexrelay.schemas.clock import Clock
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.loggers import get_logger
from indexrelay.storage.catalog.notices import NOBODY, NoticeHolder, NoticeRow
from indexrelay.streams.presence import host_name

_log = get_logger(__name__)
_AWAY: Final = (SQLAlchemyError, IndexRelayError, OSError)


class NoticeLease:
    """The lease, as one operator sees it; for the thread that looks."""

    def __init__(self, row: NoticeRow, clock: Clock, *, lease_seconds: float) -> None:
        """Nothing is read before the first `look`.

        Args:
            lease_seconds: for how long a holder may say nothing; longer than a look takes.
        """
        self._row = row
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._me = f"{host_name()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._held: NoticeHolder | None = None
        self._seen: NoticeHolder | None = None
        """Another holder, as it was seen last."""
        self._unchanged_since: float | None = None
        """Since when it has said nothing, or the catalog does not answer."""
        self._watched: tuple[str, int] | None = None
        """The holder and its beat, as the thread saw it last that watches a look that hangs …"""
        self._watched_since: float | None = None
        """… and since when it has been so."""
        self._has_ended = False
        self.tells = False
        """Whether this operator sends notices."""

    @property
    def other_beat(self) -> int:
        """How many looks the holder has written down, where it is another operator."""
        return 0 if self._seen is None else self._seen.beat

    def look(self, taken: Callable[[dict[str, Any]], None]) -> None:
        """See whether this operator tells; called before each look at the installation.

        Args:
            taken: called with what there is to go on with, where it begins to.
        """
        if self._held is not None or self._has_ended:
            return  # `save` finds out whether it is still held
        try:
            self._follow(taken)
        except _AWAY as error:
            _log.debug("notices.holder_unknown", error=str(error))
            if not self.tells and self._is_silent():
                _log.warning("notices.told_by_each", reason="the catalog does not answer")
                self.tells = True
                taken({} if self._seen is None else self._seen.state)

    def is_holder_silent(self) -> bool:
        """Whether nobody has told for `lease_seconds`; for a thread beside the one that looks,
        again and again while a look does not end."""
        now = self._clock.monotonic()
        try:
            found = self._row.read()
        except _AWAY as error:
            _log.debug("notices.holder_unknown", error=str(error))
        else:
            if found is None or found.owner == NOBODY:
                return True
            seen = (found.owner, found.beat)
            if seen != self._watched:
                self._watched, self._watched_since = seen, now
        if self._watched_since is None:
            self._watched_since = now
        return now - self._watched_since >= self._lease_seconds

    def save(self, state: dict[str, Any]) -> bool:
        """Write down what the next holder goes on with; ``False``: another one tells by now."""
        if self._held is None:
            return True
        try:
            self._held = self._renewed(self._held, state)
        except _AWAY as error:
            _log.debug("notices.not_renewed", error=str(error))
            return True
        if self._held is None:
            _log.warning("notices.lost", consequence="another operator tells people")
            self._follow_anew()
        return self.tells

    def _renewed(self, held: NoticeHolder, state: dict[str, Any]) -> NoticeHolder | None:
        """The row, renewed; ``None``: another one holds it."""
        renewed = self._row.renew(held, owner=self._me, state=state)
        if renewed is not None:
            return renewed
        found = self._row.read()
        if found is None or found.owner != self._me:
            return None
        # The answer to an earlier renewal was lost: it was written all the same.
        return self._row.renew(found, owner=self._me, state=state)

    def give_back(self, state: dict[str, Any]) -> None:
        """Let another one have it at once, for good; where the catalog is away, it waits."""
        held, self._held = self._held, None
        self.tells, self._has_ended = False, True
        if held is None:
            return
        try:
            self._row.renew(held, owner=NOBODY, state=state)
        except _AWAY as error:
            _log.debug("notices.not_given_back", error=str(error))

    def _follow(self, taken: Callable[[dict[str, Any]], None]) -> None:
        """Watch the holder, and take its place where there is none any more."""
        found = self._row.read()
        if self.tells:  # each told by itself while the catalog was away
            self._follow_anew()
        if self._unchanged_since is None or not _is_same(found, self._seen):
            self._seen, self._unchanged_since = found, self._clock.monotonic()
        is_free = found is None or found.owner == NOBODY
        if not (is_free or self._is_silent()):
            return
        held = self._row.take(self._me, seen=found)
        if held is None:
            return  # another one was faster
        if not is_free and found is not None:
            _log.warning(
                "notices.taken_over", holder=found.owner, silent_seconds=self._lease_seconds
            )
        self._held, self._seen, self.tells = held, None, True
        taken(held.state)

    def _follow_anew(self) -> None:
        self.tells, self._seen, self._unchanged_since = False, None, None

    def _is_silent(self) -> bool:
        now = self._clock.monotonic()
        if self._unchanged_since is None:
            self._unchanged_since = now
        return now - self._unchanged_since >= self._lease_seconds


def _is_same(found: NoticeHolder | None, seen: NoticeHolder | None) -> bool:
    if found is None or seen is None:
        return found is seen
    return (found.owner, found.beat) == (seen.owner, seen.beat)
