"""The janitor: lets go of stream entries that nobody needs any more.

Below the slowest group, and for the reload messages below the slowest live reader as well, every
entry was read. A reader's cursor is in its presence, so one that is gone holds up nothing after its
TTL. The entry *at* the place that was reached stays: by it a group, or a reader, proves that it is
in the same stream as before. Results and reports are read by people, and kept for a while.

Above all that stands a hard cap: memory that runs out would stop every producer. What is cut off by
it costs a look and no truth: events are found in the catalog, and a reader has a gap and looks at
the newest release. Every rebuilder does all this; doing it twice changes nothing.
"""

from collections.abc import Iterator
from typing import Final

from redis.exceptions import NoPermissionError

from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.results import ReaderState
from indexrelay.schemas.settings import Settings
from indexrelay.streams import Connection, Keys, present, trim
from indexrelay.streams.inspection import extent, group_state, group_states
from indexrelay.streams.keys import REBUILDERS_GROUP
from indexrelay.streams.position import Position
from indexrelay.streams.scanning import scan
from indexrelay.streams.trimming import cap, cap_bytes, server_milliseconds

MAX_HISTORY_BYTES: Final = 16_777_216
"""Of the results, and of the reports under one label: some hundred of a fleet's largest."""

_log = get_logger(__name__)
_FORGET_SECONDS: Final = 86_400.0
"""A consumer that asked for nothing for a day is forgotten: a rebuilder without an id of its own is
another one after each restart."""


class Janitor:
    """Trims the streams of one installation."""

    def __init__(self, settings: Settings, connection: Connection, keys: Keys) -> None:
        self._limits = settings.rebuilder
        self._connection = connection
        self._keys = keys

    def trim(self) -> bool:
        """Trim every stream once; whether the hard cap removed events, so that one has to look.

        Raises:
            redis.exceptions.RedisError, BackendRefusedError: the server is away, or says no.
        """
        keys, most = self._keys, self._limits.stream_max_entries
        self._trim(keys.events, [])
        self._trim(keys.reloads, [*self._reached_by_readers(), *self._ends(keys.reloads)])
        kept_since = server_milliseconds(self._connection) - self._limits.history_seconds * 1000
        history = min(most, self._limits.history_entries)
        reports = {*scan(self._connection, keys.reports("*"))}
        for key in {keys.results, *reports}:
            self._trim(key, [Position(max(0, round(kept_since)), 0)])
            cap(self._connection, key, entries=history)
            cap_bytes(self._connection, key, most=MAX_HISTORY_BYTES)
        for key in reports:
            self._end(key)
        self._forget_consumers()
        self._cap(keys.reloads, most)
        return self._cap(keys.events, most)

    def _trim(self, key: str, reached: list[Position]) -> None:
        """Remove what lies below all of ``reached``, and below what any group has reached."""
        floor = min([*reached, *self._reached_by_groups(key)], default=None)
        if floor is None:
            return
        removed = trim(self._connection, key, below=floor.to_bytes())
        if removed:
            _log.debug("stream.trimmed", key=key, entries=removed)

    def _cap(self, key: str, entries: int) -> bool:
        removed = cap(self._connection, key, entries=entries)
        removed += cap_bytes(self._connection, key, most=self._limits.stream_max_bytes)
        if removed:
            _log.warning(
                "stream.capped",
                key=key,
                entries=removed,
                consequence="somebody has not read these; the catalog and the artifacts are looked "
                "at instead",
            )
        return removed > 0

    def _end(self, key: str) -> None:
        """Let a stream end that would stay for ever, though nobody reports under its label."""
        commands = self._connection.commands
        if commands.pttl(key) == -1:
            commands.pexpire(key, round(self._limits.history_seconds * 1000))

    def _forget_consumers(self) -> None:
        """Let go of rebuilders that are gone for good; one that comes back is simply there again.

        One with entries to its name stays: whoever claims them empties it.
        """
        state = group_state(self._connection, self._keys.events, REBUILDERS_GROUP)
        for consumer in state.consumers if state is not None else ():
            if not consumer.pending and consumer.idle_seconds > _FORGET_SECONDS:
                try:
                    self._connection.commands.xgroup_delconsumer(
                        self._keys.events, REBUILDERS_GROUP, consumer.name
                    )
                except NoPermissionError as error:
                    _log.debug("consumer.not_forgotten", error=str(error))  # by the server's ACL

    def _reached_by_groups(self, key: str) -> Iterator[Position]:
        for group in group_states(self._connection, key).values():
            yield group.lowest_pending or group.last_delivered

    def _reached_by_readers(self) -> Iterator[Position]:
        for state in present(self._connection, self._keys, "reader", ReaderState).values():
            if state is not None and state.cursor is not None:
                yield Position.of(state.cursor.encode())

    def _ends(self, key: str) -> Iterator[Position]:
        """The newest entry: it stays even where no reader is alive."""
        yield extent(self._connection, key).last_generated
