"""Reads streams: as one consumer of a group, or with a cursor of one's own; and what they hold.

A `ConsumerGroup` hands every entry to someone, at least once. What it hands out stays pending until
it is acknowledged. After an error it begins again with what this consumer has pending, then claims
what any consumer had for too long, then reads new entries. A group that is gone is made again,
behind the newest entry up to which nothing was pending (its *anchor*), or from the start.

A `Tail` sees every entry by itself, and leaves no group behind. Its cursor is kept in memory only,
so it cannot know that it saw everything: `TailRead.gap` is true whenever there is doubt, and then
the caller looks at the truth.

Both ask for fewer entries where these are large (`ReadSize`), and log one line when reading begins
to fail and one when it works again (`Outage`). The functions below them say how far a stream got,
where it begins, and how much a group has left to take.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from redis.exceptions import RedisError, ResponseError

from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.messages import FIELD
from indexrelay.streams.connection import Connection, naming, replies_of
from indexrelay.streams.errors import GONE_CODES, refusal_code


class Delivery(NamedTuple):
    """An entry taken from a stream; a tuple, since a burst makes tens of thousands a second."""

    entry_id: bytes
    """``b"<milliseconds>-<sequence>"``, given by the server."""
    raw: bytes | None
    """The event's bytes, unread. ``None``: the entry was trimmed while it was pending; it is no
    poison: acknowledge it, count it, and look at the truth."""
    deliveries: int = 1
    """How often it was handed out, this time included. Crashes and lost replies count as well: of
    use only to catch an event that kills whoever takes it."""


Entry = tuple[bytes, Mapping[bytes, bytes]]


def raw_of(fields: Mapping[bytes, bytes]) -> bytes | None:
    """The event in an entry's fields.

    An entry that is not ours (another field, or several) keeps all its bytes, as ``name=value``
    lines: nothing can parse that as an event, so it ends in the dead letters with what it said.
    """
    if not fields:
        return None
    if len(fields) == 1 and FIELD in fields:
        return fields[FIELD]
    return b"\n".join(name + b"=" + value for name, value in fields.items())


def entries_in(reply: Any) -> list[Entry]:
    """The entries in the reply to a read of one stream, in RESP2's shape; empty for none."""
    return list(reply[0][1]) if reply else []


def deliveries_of(entries: Iterable[Entry]) -> list[Delivery]:
    """Deliveries in the order of the stream, each taken for its first."""
    return [Delivery(entry_id=entry_id, raw=raw_of(fields)) for entry_id, fields in entries]


_log = get_logger(__name__)


class Outage:
    """Watches the reads of one stream; used by the one thread that reads it."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._lasting = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around a read: what it raises goes on to the caller, who backs off."""
        try:
            with naming(self._key):
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
"""Of one reply, as far as the last one tells: a hundredth of a second on a local network."""

_SHRINK: Final = 8
_GROW: Final = 2


class ReadSize:
    """For one stream; used by the one thread that reads it."""

    def __init__(self) -> None:
        self._most: int | None = None
        """``None``: as many as anybody wants."""

    def of(self, wanted: int) -> int:
        """How many to ask for, of so many that are ``wanted``."""
        return wanted if self._most is None else min(wanted, self._most)

    def broke_off(self, asked: int) -> None:
        """A read of so many brought an error."""
        self._most = max(1, asked // _SHRINK)

    def brought(self, asked: int, sizes: Iterable[int]) -> None:
        """A read of so many brought entries of these sizes, in bytes."""
        size = sum(sizes)
        if size > MOST_BYTES:
            self._most = max(1, asked * MOST_BYTES // size)
        elif self._most is not None:
            self._most = max(asked, self._most) * _GROW
            if self._most > _ENOUGH:
                self._most = None


_ENOUGH: Final = 10_000
"""Nobody wants as many."""


class Position(NamedTuple):
    """Milliseconds and sequence number; ``0-0`` comes before every entry."""

    milliseconds: int
    sequence: int

    @classmethod
    def of(cls, entry_id: bytes) -> "Position":
        """Read ``b"<milliseconds>-<sequence>"``."""
        milliseconds, _, sequence = entry_id.partition(b"-")
        return cls(int(milliseconds), int(sequence or 0))

    def to_bytes(self) -> bytes:
        """The id as Redis writes it."""
        return b"%d-%d" % self


START: Final = Position(0, 0)
LAST: Final = Position(2**64 - 1, 2**64 - 1)
"""The greatest id; a stream that has given it takes nothing more."""


_PAGE: Final = 10
"""Entries that are read at once where they have to be counted by reading them."""


@dataclass(frozen=True, kw_only=True)
class Extent:
    """A stream's ends; both `START` for one that does not exist."""

    first: Position | None
    """The oldest entry; ``None``: there is none."""
    last_generated: Position
    """The newest id ever given, even if that entry has gone."""


def extent(connection: Connection, key: str) -> Extent:
    """Look at the stream ``key``."""
    try:
        info = connection.commands.xinfo_stream(key)
    except ResponseError as error:
        if "no such key" not in str(error):
            raise
        return Extent(first=None, last_generated=START)
    first = info["first-entry"]
    return Extent(
        first=None if first is None else Position.of(first[0]),
        last_generated=Position.of(info["last-generated-id"]),
    )


@dataclass(frozen=True, kw_only=True)
class StreamSize:
    """How much a stream holds, and how far its ids got."""

    entries: int
    last_generated: Position
    bytes: int | None
    """By the server's estimate; ``None``: it makes none."""


def stream_size(connection: Connection, key: str) -> StreamSize:
    """Measure the stream ``key``; all zero for one that does not exist.

    Raises:
        redis.exceptions.RedisError: the server is away, or says no.
    """
    try:
        info = connection.commands.xinfo_stream(key)
    except ResponseError as error:
        if "no such key" not in str(error):
            raise
        return StreamSize(entries=0, last_generated=START, bytes=0)
    return StreamSize(
        entries=info["length"],
        last_generated=Position.of(info["last-generated-id"]),
        bytes=memory_of(connection, key),
    )


def memory_of(connection: Connection, key: str) -> int | None:
    """The bytes that a key takes, estimated from a few of its elements; ``None``: unknown.

    Raises:
        redis.exceptions.RedisError: the server is away, or does not allow to ask.
    """
    try:
        used = connection.commands.memory_usage(key)
    except ResponseError as error:
        if "unknown command" in str(error).lower():  # fakeredis
            return None
        raise
    return None if used is None else int(used)


@dataclass(frozen=True, kw_only=True)
class ConsumerState:
    """One consumer of a group."""

    name: str
    pending: int
    """Entries that it took and did not acknowledge."""
    idle_seconds: float
    """Since it last asked for any."""


@dataclass(frozen=True, kw_only=True)
class GroupState:
    """Where a group stands."""

    last_delivered: Position
    lag: int | None
    """Entries that it has not taken; ``None``: the server does not count them."""
    lowest_pending: Position | None
    """The oldest entry that was taken and not acknowledged; ``None``: there is none."""
    consumers: tuple[ConsumerState, ...]


def group_states(connection: Connection, key: str) -> dict[str, GroupState]:
    """Look at every group of the stream ``key``, by their names; none where it is missing.

    Raises:
        redis.exceptions.RedisError: the server is away, or says no.
    """
    commands: Any = connection.commands
    try:
        return {
            found["name"].decode(errors="replace"): GroupState(
                last_delivered=Position.of(found["last-delivered-id"]),
                lag=found.get("lag"),
                lowest_pending=_lowest_pending(commands.xpending(key, found["name"])),
                consumers=tuple(
                    ConsumerState(
                        name=each["name"].decode(errors="replace"),
                        pending=each["pending"],
                        idle_seconds=each["idle"] / 1000,
                    )
                    for each in commands.xinfo_consumers(key, found["name"])
                ),
            )
            for found in commands.xinfo_groups(key)
        }
    except ResponseError as error:
        # It may go between two of these questions, and the servers say so differently.
        if "no such key" in str(error) or refusal_code(error) in GONE_CODES:
            return {}
        raise


def group_state(connection: Connection, key: str, group: str) -> GroupState | None:
    """Look at one group; ``None``: the stream or the group is missing.

    Raises:
        redis.exceptions.RedisError: the server is away, or says no.
    """
    return group_states(connection, key).get(group)


def _lowest_pending(summary: Any) -> Position | None:
    return Position.of(summary["min"]) if summary["min"] else None


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Entries that a group has not taken."""

    count: int
    seconds: float
    """For how long the oldest has waited, by the server's clock."""


def waiting_entries(
    connection: Connection, key: str, group: GroupState | None, *, most: int
) -> Waiting | None:
    """The entries of the stream ``key`` that ``group`` has not taken, counted up to ``most``.

    Only the oldest is read, where the server counts the others: they may be large. ``None``: none.

    Raises:
        redis.exceptions.RedisError: the server is away, or says no.
    """
    commands: Any = connection.commands
    after = START if group is None else group.last_delivered
    behind = Position(after.milliseconds, after.sequence + 1).to_bytes()
    oldest = commands.xrange(key, behind, "+", count=1)
    if not oldest:
        return None
    count = int(commands.xlen(key)) if group is None else group.lag
    if count is None:
        count = _counted(commands, key, behind, most)
    seconds, microseconds = commands.time()
    added = Position.of(oldest[0][0]).milliseconds / 1000
    waited = max(0.0, seconds + microseconds / 1e6 - added)
    return Waiting(count=max(1, min(count, most)), seconds=waited)


def _counted(commands: Any, key: str, behind: bytes, most: int) -> int:
    """Entries from ``behind`` on, up to ``most``, or as many as are not too large to be read."""
    count, size = 0, ReadSize()
    while count < most:
        asked = size.of(min(_PAGE, most - count))
        entries = commands.xrange(key, behind, "+", count=asked)
        count += len(entries)
        sizes = [sum(map(len, fields.values())) for _, fields in entries]
        if len(entries) < asked or sum(sizes) > MOST_BYTES:
            break
        size.brought(asked, sizes)
        last = Position.of(entries[-1][0])
        behind = Position(last.milliseconds, last.sequence + 1).to_bytes()
    return count


_OWN_START: Final = b"0"
_SCAN_START: Final = b"0-0"
_STREAM_START: Final = b"0"


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
            redis.exceptions.RedisError: the server is away, or refuses. Where that is transient
                (`is_transient`) call again after a while; nothing is lost.
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
            redis.exceptions.RedisError: the server is away, or refuses. Where that is transient
                (`is_transient`) call again after a while; that read has a gap.
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


def backlog(connection: Connection, key: str, group: str, *, most: int) -> int:
    """Entries of the stream ``key`` that ``group`` has not taken; ``most + 1`` stands for more.

    A group that does not exist yet has taken none.

    Raises:
        redis.exceptions.RedisError: the server is away, or says no.
    """
    commands: Any = connection.commands
    length = int(commands.xlen(key))
    if length <= most:
        return length
    after = START
    for found in commands.xinfo_groups(key):
        if found["name"] == group.encode():
            if found.get("lag") is not None:
                return min(int(found["lag"]), most + 1)
            after = Position.of(found["last-delivered-id"])
    behind = Position(after.milliseconds, after.sequence + 1).to_bytes()
    return len(commands.xrange(key, behind, "+", count=most + 1))
