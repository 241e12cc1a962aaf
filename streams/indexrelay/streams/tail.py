"""A reader's own place in a stream: every reader sees every entry, and no group is left behind.

The cursor begins at the stream's last generated id, taken once (``$`` on each read would drop what
came between two reads), and is kept in memory only. So a reader cannot know that it saw everything:
`TailRead.gap` is true whenever there is doubt, and then the caller looks at the truth. That is

- on the first read, which takes the cursor: what was said before is not seen here;
- on the first read after any error: the server may have come back without its last second;
- when the stream no longer holds the cursor: its start is newer (trimmed), it is empty although
  there was more to read, or its last id went backwards (deleted, or a failover to an older copy).

A read in doubt never waits. The ends are looked at **after** the read and compared with the cursor
that it used: whatever is trimmed after that look cannot have been missed by it.
"""

from dataclasses import dataclass

from redis.exceptions import RedisError

from indexrelay.streams.connection import Connection
from indexrelay.streams.delivery import Delivery, deliveries_of, entries_in
from indexrelay.streams.inspection import Extent, extent
from indexrelay.streams.outage import Outage
from indexrelay.streams.position import START, Position
from indexrelay.streams.read_size import ReadSize


@dataclass(frozen=True, kw_only=True)
class TailRead:
    """What one read brought."""

    deliveries: list[Delivery]
    gap: bool
    """Something may have been missed: look at the truth."""

    def __bool__(self) -> bool:
        raise TypeError("a TailRead is neither true nor false: ask for .deliveries or .gap")


class Tail:
    """A cursor in the stream ``key``, for use by one thread."""

    def __init__(self, connection: Connection, key: str) -> None:
        self._connection = connection
        self._key = key
        self._outage = Outage(key)
        self._size = ReadSize()
        self._cursor: Position | None = None
        self._doubt = True

    @property
    def cursor(self) -> bytes | None:
        """The id of the last entry read, or where the reading began; ``None`` before that."""
        return None if self._cursor is None else self._cursor.to_bytes()

    def read(self, *, count: int, block_seconds: float) -> TailRead:
        """Read up to ``count`` entries; waits up to ``block_seconds`` when there are none.

        Fewer where they are large (`ReadSize`).

        Raises:
            redis.exceptions.RedisError: the server is away, or says no. Where `is_passing` says so
                call again after a while; that read has a gap.
        """
        block = self._connection.block_milliseconds(block_seconds)
        asked = self._size.of(count)
        with self._outage.watched():
            try:
                read = self._read(asked, None if self._doubt else block)
            except RedisError:
                self._doubt = True
                self._size.broke_off(asked)
                raise
        self._size.brought(asked, (len(each.raw or b"") for each in read.deliveries))
        return read

    def _read(self, count: int, block: int | None) -> TailRead:
        if self._cursor is None:
            self._cursor = extent(self._connection, self._key).last_generated
        used = self._cursor
        reply = self._connection.reading(block).xread(
            {self._key: used.to_bytes()}, count=count, block=block
        )
        deliveries = deliveries_of(entries_in(reply))
        now = extent(self._connection, self._key)
        gap = self._doubt or _missed(used, now)
        self._cursor = _next(used, now, deliveries)
        self._doubt = False
        return TailRead(deliveries=deliveries, gap=gap)


def _missed(cursor: Position, now: Extent) -> bool:
    """Whether entries behind ``cursor`` may have gone unread."""
    if now.last_generated < cursor:
        return True
    if now.first is None:
        return now.last_generated > cursor
    return now.first > cursor


def _next(used: Position, now: Extent, deliveries: list[Delivery]) -> Position:
    """Where the next read begins."""
    if deliveries:
        return Position.of(deliveries[-1].entry_id)
    if now.last_generated < used:
        return START  # another stream: all of it is news
    if now.first is None:
        return now.last_generated  # what was there has gone, and the gap says so
    return used
