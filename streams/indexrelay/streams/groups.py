"""A consumer of a group: every entry is handled by someone, at least once.

What `ConsumerGroup.read` hands out stays pending until it is acknowledged. In this order it gives

1. what this consumer took before and did not acknowledge (at its start, and after any error: the
   reply to a read may have been lost on the way, and what it took was never seen);
2. what any consumer took longer than ``claim_idle_seconds`` ago, this one included: whoever had it
   is gone or failed. There is no lock around claiming, the idle time is the guard; the scan goes on
   where it stopped, so that late entries get their turn;
3. new entries, for which it waits.

**When the group is gone.** Somebody deletes the stream, or flushes the server, or it fails over to
a copy that never heard of the group. Redis 6.2 lets a blocked read run out and then says NOGROUP,
Redis 7 says UNBLOCKED at once, Valkey NOGROUP at once: one answer for all, it is made again.
Not from ``$``, which loses what arrived meanwhile. `ConsumerGroup.acknowledge` keeps an **anchor**:
the newest entry up to which nothing was pending, for the whole group and not only this consumer.
If the stream still holds that very entry, id and bytes, the group goes on behind it. If not, from
``0``: an id alone proves nothing, since a stream that is deleted and made again within one
millisecond gives the same ids to other events. What comes again by that is harmless, for the inbox
knows the ids of its events; what is lost would not be. `ConsumerGroup.recreated` counts, for
whoever then looks at the truth.
"""

from collections.abc import Sequence
from typing import Any, Final

from redis.exceptions import RedisError, ResponseError

from indexrelay.schemas.loggers import get_logger
from indexrelay.streams.connection import Connection
from indexrelay.streams.delivery import Delivery, deliveries_of, entries_in
from indexrelay.streams.inspection import group_state
from indexrelay.streams.outage import Outage
from indexrelay.streams.passing import GONE_CODES, refusal_code
from indexrelay.streams.position import Position
from indexrelay.streams.read_size import ReadSize
from indexrelay.streams.refusing import replies_of

_OWN_START: Final = b"0"
_SCAN_START: Final = b"0-0"
_STREAM_START: Final = b"0"
_log = get_logger(__name__)


class ConsumerGroup:
    """One consumer of one group of one stream, for use by one thread.

    Args:
        connection: to the server that holds the stream.
        key: the stream; made when it is missing.
        group: the group's name.
        consumer: this consumer's name; the same after a restart, so that it finds what it had.
        claim_idle_seconds: how long an entry may stay unacknowledged before anyone may take it.
    """

    def __init__(
        self,
        connection: Connection,
        key: str,
        *,
        group: str,
        consumer: str,
        claim_idle_seconds: float = 10.0,
    ) -> None:
        self._connection = connection
        self._key = key
        self._group = group
        self._consumer = consumer
        self._claim_idle_ms = round(claim_idle_seconds * 1000)
        self._outage = Outage(key)
        self._size = ReadSize()
        self._ensured = False
        self._own: bytes | None = _OWN_START
        self._scan = _SCAN_START
        self._anchor: list[Any] = []
        self.recreated = 0
        """How often the group was found gone: events may have gone with it."""

    def read(self, *, count: int, block_seconds: float) -> list[Delivery]:
        """Take up to ``count`` entries; waits up to ``block_seconds`` when there are none.

        Fewer where they are large (`ReadSize`). Never cancel it: let the wait run out.
        ``block_seconds=0`` does not wait at all.

        Raises:
            redis.exceptions.RedisError: the server is away, or says no. Where `is_passing` says so
                call again after a while; nothing is lost.
        """
        block = self._connection.block_milliseconds(block_seconds)
        asked = self._size.of(count)
        with self._outage.watched():
            try:
                deliveries = self._read_or_recreate(asked, block)
            except RedisError:
                self._own = _OWN_START
                self._size.broke_off(asked)
                raise
        self._size.brought(asked, (len(each.raw or b"") for each in deliveries))
        return deliveries

    def acknowledge(self, entry_ids: Sequence[bytes]) -> int:
        """Say that these need never be handed out again; returns how many were still pending.

        Given in the order in which they were read, the last is the newest, and the group finds its
        place again without a step back. None are where the group has gone: the next read makes it
        again.

        Raises:
            redis.exceptions.RedisError: not acknowledged, as far as is known: they come again.
        """
        if not entry_ids:
            return 0
        newest = entry_ids[-1]
        with self._connection.commands.pipeline(transaction=False) as pipeline:
            pipeline.xack(self._key, self._group, *entry_ids)
            pipeline.xpending(self._key, self._group)
            pipeline.xrange(self._key, newest, newest)
            try:
                acknowledged, pending, entry = replies_of(pipeline)
            except ResponseError as error:
                if refusal_code(error) in GONE_CODES:
                    return 0
                raise
        # Entries are handed out in order, so below the lowest pending one all are acknowledged.
        if not pending["min"] or Position.of(pending["min"]) > Position.of(newest):
            self._anchor = entry
        return int(acknowledged)

    def ensure(self) -> bool:
        """Make the stream and the group where they are missing; says whether they were.

        `read` does it by itself.
        """
        begin = self._begin()
        try:
            self._connection.commands.xgroup_create(self._key, self._group, begin, mkstream=True)
        except ResponseError as error:
            if not self._is_there(refusal_code(error)):
                raise
            created = False
        else:
            created = True
        if self._ensured and created:
            self.recreated += 1
            _log.warning(
                "stream.group_recreated", key=self._key, group=self._group, begin=begin.decode()
            )
        self._ensured = True
        return created

    def _is_there(self, code: str) -> bool:
        """Whether the server refused to make the group because there is one.

        One without memory refuses before it looks.
        """
        return code == "BUSYGROUP" or (
            code == "OOM" and group_state(self._connection, self._key, self._group) is not None
        )

    def _begin(self) -> bytes:
        """Where a group that is made now begins."""
        if not self._anchor:
            return _STREAM_START
        entry_id: bytes = self._anchor[0][0]
        found = self._connection.commands.xrange(self._key, entry_id, entry_id)
        return entry_id if found == self._anchor else _STREAM_START

    def _read_or_recreate(self, count: int, block: int | None) -> list[Delivery]:
        if not self._ensured:
            self.ensure()
        try:
            return self._own_entries(count) or self._claimed(count) or self._new(count, block)
        except ResponseError as error:
            if refusal_code(error) not in GONE_CODES:
                raise
        # Once per call and without waiting: a stream that somebody keeps deleting costs the
        # caller an empty read each time, and a second refusal is raised.
        self.ensure()
        self._own, self._scan = None, _SCAN_START
        return self._new(count, None)

    def _own_entries(self, count: int) -> list[Delivery]:
        """The next of what this consumer has pending, from the cursor on."""
        if self._own is None:
            return []
        reply = self._connection.commands.xreadgroup(
            self._group, self._consumer, {self._key: self._own}, count=count
        )
        deliveries = deliveries_of(entries_in(reply))
        self._own = deliveries[-1].entry_id if deliveries else None
        return self._counted(deliveries)

    def _claimed(self, count: int) -> list[Delivery]:
        """The next of what lay with any consumer for too long."""
        reply = self._connection.commands.xautoclaim(
            self._key, self._group, self._consumer, self._claim_idle_ms, self._scan, count=count
        )
        self._scan, claimed = reply[0], reply[1]
        # Redis 7 and Valkey drop trimmed entries from the pending list, and name them.
        deleted = reply[2] if len(reply) > 2 else []
        trimmed = [Delivery(entry_id=entry_id, raw=None) for entry_id in deleted]
        found = [entry for entry in claimed if entry[0] is not None]
        if len(found) < len(claimed):
            # Redis 6.2 gives trimmed ones to us without saying which: the next read of our own
            # pending entries names them.
            self._own = _OWN_START
        return trimmed + self._counted(deliveries_of(found))

    def _new(self, count: int, block: int | None) -> list[Delivery]:
        reply = self._connection.reading(block).xreadgroup(
            self._group, self._consumer, {self._key: ">"}, count=count, block=block
        )
        return deliveries_of(entries_in(reply))

    def _counted(self, deliveries: list[Delivery]) -> list[Delivery]:
        """The same, with how often each was handed out; such reads are rare."""
        if not deliveries:
            return []
        with self._connection.commands.pipeline(transaction=False) as pipeline:
            for delivery in deliveries:
                entry_id = delivery.entry_id
                pipeline.xpending_range(self._key, self._group, min=entry_id, max=entry_id, count=1)
            pending = replies_of(pipeline)
        return [
            Delivery(
                entry_id=delivery.entry_id,
                raw=delivery.raw,
                deliveries=rows[0]["times_delivered"] if rows else 1,
            )
            for delivery, rows in zip(deliveries, pending, strict=True)
        ]
