"""What a stream says about itself: how far it got, where it begins, and who lags in it."""

from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import ResponseError

from indexrelay.streams.connection import Connection
from indexrelay.streams.passing import GONE_CODES, refusal_code
from indexrelay.streams.position import START, Position
from indexrelay.streams.read_size import MOST_BYTES, ReadSize

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
