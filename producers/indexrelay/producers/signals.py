"""What a job does with Redis: it adds events and reads presence, and can do without either.

The connection is opened when it is first needed and again after it was lost, so that a job can
start, and commit, while Redis is away. An event carries no truth; one that cannot be added is
logged and left to the rebuilder's reconcile loop, which finds the commit in the catalog.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence

from redis.exceptions import RedisError

from indexrelay.producers.enveloping import Envelopes, Said
from indexrelay.producers.pressing_back import BacklogGauge
from indexrelay.schemas.clock import Clock
from indexrelay.schemas.errors import IndexRelayError
from indexrelay.schemas.events import EventData
from indexrelay.schemas.failpoints import failpoint
from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.results import ReaderState, RebuilderState
from indexrelay.streams.connection import Connection
from indexrelay.streams.errors import BackendRefusedError
from indexrelay.streams.keys import Keys
from indexrelay.streams.presence import Presence, Role, Roster, StateT, present
from indexrelay.streams.publishing import publish_many

log = get_logger(__name__)
_ROSTER_SECONDS = 0.5
"""How long it is taken that the same processes are there."""


class Signals:
    """A job's side of Redis; safe to use from several threads."""

    def __init__(
        self,
        *,
        keys: Keys,
        clock: Clock,
        source: str,
        connect: Callable[[], Connection],
        connection: Connection | None = None,
        max_backlog: int | None = None,
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._envelopes = Envelopes(source)
        self._connect = connect
        self._given = connection
        self._opened: Connection | None = None
        self._opening = threading.Lock()
        self._rosters: dict[Role, tuple[float, Roster]] = {}
        """Who was there, and when that was."""
        self._gauge = BacklogGauge(keys.events, max_backlog=max_backlog, clock=clock)

    def emit(
        self,
        data: EventData,
        *,
        subject: str,
        event_id: str | None = None,
        traceparent: str | None = None,
        refusal_raises: bool = False,
    ) -> bool:
        """Add an event to the events stream; ``False``, and a warning, when that cannot be done.

        ``event_id`` makes it a repeat of a row that is in the inbox already; ``None``: drawn.

        Raises:
            BackendRefusedError: with ``refusal_raises``: the server is there, and said no.
        """
        said = Said(data, subject, event_id, traceparent)
        return self.emit_many([said], refusal_raises=refusal_raises)

    def emit_many(self, said: Sequence[Said], *, refusal_raises: bool = False) -> bool:
        """The same for several events, in this order, in as few round trips as is sensible.

        ``False``: not all of them were added, and perhaps none.
        """
        raws = list(self._envelopes.written(said, self._clock.now()))
        failpoint("producer.before_emit")
        try:
            publish_many(self.connection, self._keys.events, raws)
        except (RedisError, IndexRelayError, OSError) as error:
            log.warning(
                "event.not_emitted",
                type=said[0].data.TYPE,
                subject=said[0].subject,
                events=len(said),
                error=str(error),
                consequence="nothing is lost: the reconcile loop finds it in the catalog",
            )
            if refusal_raises and isinstance(error, BackendRefusedError):
                raise
            return False
        failpoint("producer.after_emit")
        return True

    def backlog_is_full(self) -> bool:
        """Whether more events than ``max_backlog`` wait; no, where that cannot be said."""
        try:
            connection = self.connection
        except (RedisError, IndexRelayError, OSError):
            return False  # adding the event says the same aloud
        return self._gauge.is_full(connection)

    def readers(self, *, known: bool = False) -> list[ReaderState]:
        """What every live reader process says of itself; one of another major version is left out.

        Args:
            known: one that came within the last half second may be missing. For whoever looks
                again and again: finding everyone costs more than reading what they say.

        Raises:
            RedisError, IndexRelayError, OSError: presence cannot be read.
        """
        return self._present("reader", ReaderState, known=known)

    def rebuilders(self, *, known: bool = False) -> list[RebuilderState]:
        """What every live rebuilder process says of itself; as `readers`."""
        return self._present("rebuilder", RebuilderState, known=known)

    def _present(self, role: Role, model: type[StateT], *, known: bool) -> list[StateT]:
        connection, now = self.connection, self._clock.monotonic()
        at, roster = self._rosters.get(role, (now, None))
        if roster is None or not known or now - at >= _ROSTER_SECONDS:
            roster = Presence(connection, self._keys, role).members()
            self._rosters[role] = now, roster
        found = present(connection, self._keys, role, model, roster=roster)
        return [state for state in found.values() if state is not None]

    @property
    def connection(self) -> Connection:
        """The connection that was given, or the one that is opened now."""
        if self._given is not None:
            return self._given
        with self._opening:
            if self._opened is None:
                self._opened = self._connect()
            return self._opened

    def close(self) -> None:
        """Close what was opened here; a connection that was given stays open."""
        with self._opening:
            opened, self._opened = self._opened, None
        if opened is not None:
            # The server may be gone already; there is nothing left to tell it.
            with contextlib.suppress(RedisError, OSError):
                opened.close()
