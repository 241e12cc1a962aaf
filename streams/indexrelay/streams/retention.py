"""What groups have left to take of a stream, what may be trimmed, and the server's memory.

A stream is trimmed by id, below what anyone may still need; where that is not enough, the oldest
entries go, read or not. A server at its memory limit refuses what is new (`maxmemory-policy
noeviction`). Every user who may write can fill it, since no access list limits how much; so
`status` names the label under which most of it lies, and no stream may take more than a share.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import NoPermissionError, ResponseError

from indexrelay.streams.connection import Connection, writes_to
from indexrelay.streams.consumer import (
    MOST_BYTES,
    START,
    Position,
    ReadSize,
    memory_of,
    stream_info,
)
from indexrelay.streams.errors import GONE_CODES, refusal_code
from indexrelay.streams.keys import Keys, keys_by_label, label_of, scan


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
    """How far a group got."""

    last_delivered: Position
    lag: int | None
    """Entries that it has not taken; ``None``: the server does not count them."""
    lowest_pending: Position | None
    """The oldest entry that was taken and not acknowledged; ``None``: there is none."""
    consumers: tuple[ConsumerState, ...]


def group_states(connection: Connection, key: str) -> dict[str, GroupState]:
    """Look at every group of the stream ``key``, by their names; none where it is missing.

    Raises:
        redis.exceptions.RedisError: the server is away, or refuses.
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
        # It may go between two of these commands; each server reports that in other words.
        if "no such key" in str(error) or refusal_code(error) in GONE_CODES:
            return {}
        raise


def group_state(connection: Connection, key: str, group: str) -> GroupState | None:
    """Look at one group; ``None``: the stream or the group is missing.

    Raises:
        redis.exceptions.RedisError: the server is away, or refuses.
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
        redis.exceptions.RedisError: the server is away, or refuses.
    """
    commands: Any = connection.commands
    after = START if group is None else group.last_delivered
    behind = after.next.to_bytes()
    oldest = commands.xrange(key, behind, "+", count=1)
    if not oldest:
        return None
    count = int(commands.xlen(key)) if group is None else group.lag
    if count is None:
        count = _counted(commands, key, behind, most)
    waited_ms = connection.server_milliseconds() - Position.of(oldest[0][0]).milliseconds
    return Waiting(count=max(1, min(count, most)), seconds=max(0.0, waited_ms / 1000))


def backlog(connection: Connection, key: str, group: str, *, most: int) -> int:
    """Entries of the stream ``key`` that ``group`` has not taken; ``most + 1`` stands for more.

    A group that does not exist yet has taken none. Of a stream that is shorter than ``most`` only
    the length is asked. Redis 7 and Valkey know a group's lag; Redis 6.2 does not, nor do they for
    a group that was made in the middle of a stream: then the entries behind it are read.

    Raises:
        redis.exceptions.RedisError: the server is away, or refuses.
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
    behind = after.next.to_bytes()
    return len(commands.xrange(key, behind, "+", count=most + 1))


_PAGE: Final = 10
"""Entries that are read at once where they have to be counted by reading them."""


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
        behind = Position.of(entries[-1][0]).next.to_bytes()
    return count


def trim(connection: Connection, key: str, *, below: bytes) -> int:
    """Remove the entries before the id ``below``; returns how many went.

    By id and never by length, which would remove what a slow consumer has not read. ``below``
    itself stays. Give the lowest of what any group has pending (or was delivered last) and of the
    cursors of present readers: a `Tail` whose cursor is still in the stream has no gap.

    Raises:
        BackendRefusedError: the server refused it.
    """
    with writes_to(key):
        return int(connection.commands.xtrim(key, minid=below, approximate=False))


def cap(connection: Connection, key: str, *, entries: int) -> int:
    """Keep the newest ``entries`` and no more, read or not; how many went.

    A group finds such an entry trimmed, a `Tail` has a gap.

    Raises:
        BackendRefusedError: the server refused it.
    """
    with writes_to(key):
        return int(connection.commands.xtrim(key, maxlen=entries, approximate=False))


def cap_bytes(connection: Connection, key: str, *, most: int) -> int:
    """Keep as many of the newest entries as take no more than ``most`` bytes; how many went.

    By the server's own count; where it makes none, none go. Entries differ in size, so it is asked
    again until they fit; each time at least a twentieth of them goes, so that this has an end.

    Raises:
        BackendRefusedError: the server refused it.
    """
    removed = 0
    while (size := memory_of(connection, key)) is not None and size > most:
        entries = stream_info(connection, key).entries
        kept = min(entries - max(1, entries // 20), entries * most // size)
        gone = cap(connection, key, entries=max(0, kept))
        removed += gone
        if not gone:
            break
    return removed


MEMORY_SHARES: Final = 16
"""No stream may take more than one of so many equal shares of the server's memory limit, so that a
flood of one leaves room for the others."""


def most_stream_bytes(connection: Connection, wanted: int) -> int:
    """The bytes that one stream may take: ``wanted``, or its share of the server's memory limit.

    Raises:
        redis.exceptions.RedisError: the server is away.
    """
    memory = server_memory(connection)
    if memory is None or not memory.limit:
        return wanted
    return min(wanted, memory.limit // MEMORY_SHARES)


_SHORT_SHARE: Final = 0.9


@dataclass(frozen=True, kw_only=True)
class ServerMemory:
    """A server's memory, in bytes."""

    used: int
    limit: int
    """0: none."""
    scripts: int = 0
    """For cached scripts; each is sent again when it is needed."""
    functions: int = 0

    @property
    def short(self) -> bool:
        """Whether at most a tenth of it is left."""
        return 0 < self.limit * _SHORT_SHARE <= self.used


def server_memory(connection: Connection) -> ServerMemory | None:
    """Ask the server; ``None``: its ACL does not allow that.

    Raises:
        redis.exceptions.RedisError: the server is away.
    """
    try:
        found: Any = connection.commands.info("memory")
    except NoPermissionError:
        return None
    except ResponseError as error:
        if "unknown command" in str(error).lower():  # fakeredis
            return None
        raise
    # Redis 6.2 counts scripts under another name, and has no functions.
    scripts = found.get("used_memory_scripts_eval", found.get("used_memory_lua", 0))
    return ServerMemory(
        used=int(found.get("used_memory", 0)),
        limit=int(found.get("maxmemory", 0)),
        scripts=int(scripts),
        functions=int(found.get("used_memory_functions", 0)),
    )


def held_memory(connection: Connection, keys: Keys) -> dict[str, int]:
    """The bytes that states and reports of readers take, by label, estimated; set aside or not.

    Raises:
        redis.exceptions.RedisError: the server is away, or does not allow to ask.
    """
    held: dict[str, int] = {}
    for key in scan(connection, keys.reports("*")):
        label = key.removeprefix(keys.reports(""))
        held[label] = held.get(label, 0) + (memory_of(connection, key) or 0)
    for key in scan(connection, keys.aside_of("*")):
        owner = label_of(key)
        if owner is not None:
            held[owner] = held.get(owner, 0) + (memory_of(connection, key) or 0)
    for label, size in _states(connection, keys):
        held[label] = held.get(label, 0) + size
    return held


def _states(connection: Connection, keys: Keys) -> Iterator[tuple[str, int]]:
    found = keys_by_label(connection, keys.reader(""), most=_SAMPLES)
    for label, some in found.keys.items():
        sizes = [memory_of(connection, key) or 0 for key in some]
        count = found.crowded.get(label, len(sizes))
        yield label, round(sum(sizes) / len(sizes) * count)


_SAMPLES: Final = 100
"""States that are measured under one label; the others count as large as these on average."""
