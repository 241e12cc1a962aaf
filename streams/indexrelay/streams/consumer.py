"""Reads streams: as one consumer of a group, or with a cursor of one's own.

The consumers of a `ConsumerGroup` share the entries: each is handed to someone, at least once. Each
`Tail` sees every entry. Both ask for fewer entries where these are large (`ReadSize`), and log one
line when reading begins to fail and one when it works again (`Outage`). Places in a stream are
`Position`s, since the bytes of ids do not sort.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from redis.exceptions import RedisError, ResponseError

from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import FIELD
from indexrelay.streams.connection import Connection, reads_of, replies_of
from indexrelay.streams.errors import GONE_CODES, refusal_code

_log = get_logger(__name__)


class Delivery(NamedTuple):
    """An entry taken from a stream; a tuple, since a burst makes tens of thousands a second."""

    entry_id: bytes
    """``b"<milliseconds>-<sequence>"``, given by the server."""
    raw: bytes | None
    """The event's bytes, not parsed. ``None``: the entry was trimmed while it was pending:
    acknowledge it, count it, and look at the truth."""
    deliveries: int = 1
    """How often it was handed out, this time included. Crashes and lost replies count as well, so
    that it only serves to detect an event that ends each process which reads it."""


_OWN_START: Final = b"0"
_SCAN_START: Final = b"0-0"
_STREAM_START: Final = b"0"


class ConsumerGroup:
    """One consumer of one group of one stream, for use by one thread.

    What `read` hands out stays pending until it is acknowledged. In this order it gives

    1. what this consumer took before and did not acknowledge (at its start, and after any error:
       the reply to a read may have been lost on the way);
    2. what any consumer took longer than ``claim_idle_seconds`` ago, this one included. There is no
       lock around claiming, the idle time is the guard; the scan goes on where it stopped, so that
       late entries get their turn;
    3. new entries, for which it waits.

    **When the group is gone** (the stream is deleted, or the server flushed, or it fails over
    to a copy without the group), it is made again. Redis 6.2 answers NOGROUP when a blocked read
    runs out, Valkey at once, Redis 7 UNBLOCKED at once. It is not made from ``$``, which loses what
    arrived meanwhile. `acknowledge` keeps an **anchor**: the newest entry up
    to which nothing was pending, for the whole group. If the stream still holds that very entry, id
    and bytes, the group goes on behind it. If not, from ``0``: an id alone proves nothing, since a
    stream that is deleted and made again within one millisecond gives the same ids to other events.
    What comes again by that is harmless, for the inbox knows the ids of its events. `recreated`
    counts how often, so that the caller looks at the truth.

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
            redis.exceptions.RedisError: the server is away, or refuses; nothing is lost. Call again
                after a while where it is transient (`is_transient`).
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
        """Acknowledge entries, so that they are never handed out again; how many were pending.

        Give them in the order in which they were read: the last one becomes the anchor. Where the
        group is gone none were pending, and the next read makes the group again.

        Raises:
            redis.exceptions.RedisError: they may not be acknowledged, and come again.
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
        """Make the stream and the group, as `read` does; whether they were missing."""
        begin = self._begin()
        try:
            self._connection.commands.xgroup_create(self._key, self._group, begin, mkstream=True)
        except ResponseError as error:
            if not self._is_there(error):
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

    def _is_there(self, error: ResponseError) -> bool:
        """Whether the server refused to make the group because there is one.

        A server without memory refuses before it looks.
        """
        if "BUSYGROUP" in str(error):
            return True
        if refusal_code(error) != "OOM":
            return False
        try:
            groups: Any = self._connection.commands.xinfo_groups(self._key)
        except ResponseError:  # there is no stream either
            return False
        return any(found["name"] == self._group.encode() for found in groups)

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
        # Once per call and without waiting: where the stream is deleted again and again, each
        # call is an empty read, and a second refusal is raised.
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
        """The next of what any consumer had for too long."""
        reply = self._connection.commands.xautoclaim(
            self._key, self._group, self._consumer, self._claim_idle_ms, self._scan, count=count
        )
        self._scan, claimed = reply[0], reply[1]
        # Redis 7 and Valkey drop trimmed entries from the pending list, and name them.
        deleted = reply[2] if len(reply) > 2 else []
        trimmed = [Delivery(entry_id=entry_id, raw=None) for entry_id in deleted]
        found = [entry for entry in claimed if entry[0] is not None]
        if len(found) < len(claimed):
            # Redis 6.2 assigns trimmed ones to us and does not name them: the next read of our own
            # pending entries does.
            self._own = _OWN_START
        return trimmed + self._counted(deliveries_of(found))

    def _new(self, count: int, block: int | None) -> list[Delivery]:
        reply = self._connection.reading(block).xreadgroup(
            self._group, self._consumer, {self._key: ">"}, count=count, block=block
        )
        return deliveries_of(entries_in(reply))

    def _counted(self, deliveries: list[Delivery]) -> list[Delivery]:
        """The same deliveries, with how often each was handed out; such reads are rare."""
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


@dataclass(frozen=True, kw_only=True)
class TailRead:
    """What one read brought."""

    deliveries: list[Delivery]
    gap: bool
    """Something may have been missed: look at the truth."""

    def __bool__(self) -> bool:
        raise TypeError("a TailRead is neither true nor false: ask for .deliveries or .gap")


class Tail:
    """A cursor in the stream ``key``, for use by one thread; it leaves no group behind.

    The cursor begins at the stream's last generated id, taken once (``$`` on each read would drop
    what came between two reads), and is kept in memory only. So a reader cannot know that it saw
    everything: `TailRead.gap` is true whenever there is doubt, and then the caller looks at the
    truth. That is

    - on the first read, which takes the cursor: earlier entries are not seen here;
    - on the first read after any error: the server may have come back without its last second;
    - when the stream no longer holds the cursor: its start is newer (trimmed), it is empty although
      there was more to read, or its last id went backwards (deleted, or a failover to an older
      copy).

    A read in doubt never waits. The ends are looked at **after** the read and compared with the
    cursor that it used: whatever is trimmed after that look cannot have been missed by it.
    """

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
            redis.exceptions.RedisError: the server is away, or refuses. Call again after a while
                where it is transient (`is_transient`); that read has a gap.
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
            self._cursor = stream_info(self._connection, self._key).last_generated
        used = self._cursor
        reply = self._connection.reading(block).xread(
            {self._key: used.to_bytes()}, count=count, block=block
        )
        deliveries = deliveries_of(entries_in(reply))
        now = stream_info(self._connection, self._key)
        gap = self._doubt or _missed(used, now)
        self._cursor = _next(used, now, deliveries)
        self._doubt = False
        return TailRead(deliveries=deliveries, gap=gap)


class Position(NamedTuple):
    """Milliseconds and sequence number; ``0-0`` comes before every entry."""

    milliseconds: int
    sequence: int

    @classmethod
    def of(cls, entry_id: bytes) -> "Position":
        """Read ``b"<milliseconds>-<sequence>"``."""
        milliseconds, _, sequence = entry_id.partition(b"-")
        return cls(int(milliseconds), int(sequence or 0))

    @property
    def next(self) -> "Position":
        """The first place behind it."""
        return Position(self.milliseconds, self.sequence + 1)

    def to_bytes(self) -> bytes:
        """The id as Redis writes it."""
        return b"%d-%d" % self


START: Final = Position(0, 0)
LAST: Final = Position(2**64 - 1, 2**64 - 1)
"""The greatest id; to a stream that has given it nothing can be added."""


@dataclass(frozen=True, kw_only=True)
class StreamInfo:
    """The ends of a stream; of one that does not exist both are `START`."""

    entries: int = 0
    first: Position | None = None
    """The oldest entry; ``None``: there is none."""
    last_generated: Position = START
    """The newest id ever given, even if that entry is gone."""


def _missed(cursor: Position, now: StreamInfo) -> bool:
    """Whether entries behind ``cursor`` may have gone unread."""
    if now.last_generated < cursor:
        return True
    if now.first is None:
        return now.last_generated > cursor
    return now.first > cursor


def _next(used: Position, now: StreamInfo, deliveries: list[Delivery]) -> Position:
    """Where the next read begins."""
    if deliveries:
        return Position.of(deliveries[-1].entry_id)
    if now.last_generated < used:
        return START  # another stream: all of it is news
    if now.first is None:
        return now.last_generated  # what was there is gone, so there is a gap
    return used


Entry = tuple[bytes, Mapping[bytes, bytes]]


def entries_in(reply: Any) -> list[Entry]:
    """The entries in the reply to a read of one stream, in RESP2's shape."""
    return list(reply[0][1]) if reply else []


def deliveries_of(entries: Iterable[Entry]) -> list[Delivery]:
    """Deliveries in the order of the stream, each counted as the first of its entry."""
    return [Delivery(entry_id, raw_of(fields)) for entry_id, fields in entries]


def raw_of(fields: Mapping[bytes, bytes]) -> bytes | None:
    """The event in an entry's fields.

    An entry that is not ours (another field, or several) keeps all its bytes, as ``name=value``
    lines: nothing can parse that as an event, so it becomes a dead letter with all it held.
    """
    if FIELD in fields and len(fields) == 1:
        return fields[FIELD]
    if not fields:
        return None
    return b"\n".join(name + b"=" + value for name, value in fields.items())


class Outage:
    """Logs when reading a stream begins to fail and when it works again; used by one thread."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._lasting = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around a read; its error is raised to the caller, who backs off."""
        try:
            with reads_of(self._key):
                yield
        except RedisError as error:
            if not self._lasting:
                # redis-py's errors name the address, never the password.
                _log.warning("stream.unreadable", key=self._key, error=str(error))
            self._lasting = True
            raise
        if self._lasting:
            _log.info("stream.readable", key=self._key)
        self._lasting = False


MOST_BYTES: Final = 4 * 1024 * 1024
"""Of one reply, judged by the last one: a hundredth of a second on a local network."""
_MOST_ENTRIES: Final = 10_000
"""More than any caller asks for."""
_SHRINK: Final = 8
_GROW: Final = 2


class ReadSize:
    """How many entries of a stream to ask for at once: fewer where they are large; for one thread.

    A reply that is larger than the server wants to hold for one client
    (``client-output-buffer-limit``) ends the connection, and the same question would end the next
    one, too. So after a read that broke off, and after one that brought much, the next one asks for
    fewer, down to one; after small ones for more again.
    """

    def __init__(self) -> None:
        self._most: int | None = None
        """``None``: as many as the caller wants."""

    def of(self, wanted: int) -> int:
        """How many to ask for, where ``wanted`` are wanted."""
        return wanted if self._most is None else min(wanted, self._most)

    def broke_off(self, asked: int) -> None:
        """A read of ``asked`` entries raised an error."""
        self._most = max(1, asked // _SHRINK)

    def brought(self, asked: int, sizes: Iterable[int]) -> None:
        """A read of ``asked`` entries returned some of these sizes, in bytes."""
        size = sum(sizes)
        if size > MOST_BYTES:
            self._most = max(1, asked * MOST_BYTES // size)
        elif self._most is not None:
            self._most = max(asked, self._most) * _GROW
            if self._most > _MOST_ENTRIES:
                self._most = None


def stream_info(connection: Connection, key: str) -> StreamInfo:
    """Look at the stream ``key``.

    Raises:
        redis.exceptions.RedisError: the server is away, or refuses.
    """
    try:
        info = connection.commands.xinfo_stream(key)
    except ResponseError as error:
        if "no such key" not in str(error):
            raise
        return StreamInfo()
    first = info["first-entry"]
    return StreamInfo(
        entries=info["length"],
        first=None if first is None else Position.of(first[0]),
        last_generated=Position.of(info["last-generated-id"]),
    )


SAMPLED_NODES: Final = 20_000
"""More than a stream within its limits has. Where there are more, these stand for the others: to
count 100,000 nodes keeps the server from everybody else for 15 ms, or 60 on a busy machine. To make
all of these small, a writer needs a hundred entries for each: so many are seen by their number."""


def memory_of(connection: Connection, key: str) -> int | None:
    """The bytes that a key takes, by its first `SAMPLED_NODES` elements; ``None``: unknown.

    By default a server counts the first five nodes of a stream, which its writer may make small.

    Raises:
        redis.exceptions.RedisError: the server is away, or does not allow to ask.
    """
    try:
        used = connection.commands.memory_usage(key, samples=SAMPLED_NODES)
    except ResponseError as error:
        if "unknown command" in str(error).lower():  # fakeredis
            return None
        raise
    return None if used is None else int(used)
