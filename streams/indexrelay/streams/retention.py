"""How much streams may hold, and how much memory the server has left.

A stream is trimmed by id, below what anyone may still need; where that is not enough, the oldest
entries go, read or not. A server that reached its memory limit refuses what is new
(`maxmemory-policy noeviction`). Whoever may write at all can bring it there, since no access list
limits how much; so `status` names the label under which most of it lies.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import NoPermissionError, ResponseError

from indexrelay.schemas.names import split_member_id
from indexrelay.streams.connection import Connection, refusals_of
from indexrelay.streams.consumer import memory_of, stream_size
from indexrelay.streams.keys import Keys, scan


def trim(connection: Connection, key: str, *, below: bytes) -> int:
    """Remove the entries before the id ``below``; returns how many went.

    By id and never by length: a length removes what a slow consumer has not read. ``below`` itself
    stays. Give the lowest of what any group has pending (or was delivered last) and of the living
    readers' cursors: a `Tail` whose cursor is still in the stream knows that it missed nothing.

    Raises:
        BackendRefusedError: the server refused it.
    """
    with refusals_of(key):
        return int(connection.commands.xtrim(key, minid=below, approximate=False))


def cap(connection: Connection, key: str, *, entries: int) -> int:
    """Keep the newest ``entries`` and no more, whoever has not read the others; how many went.

    For when memory is worth more than what was not read: a group finds such an entry trimmed, a
    `Tail` has a gap.

    Raises:
        BackendRefusedError: the server refused it.
    """
    with refusals_of(key):
        return int(connection.commands.xtrim(key, maxlen=entries, approximate=False))


def cap_bytes(connection: Connection, key: str, *, most: int) -> int:
    """Keep as many of the newest entries as take no more than ``most`` bytes; how many went.

    By the server's own estimate, which looks at a few of them; where it makes none, none go.

    Raises:
        BackendRefusedError: the server refused it.
    """
    removed = 0
    while (size := stream_size(connection, key)).bytes is not None and size.bytes > most:
        kept = min(size.entries - 1, size.entries * most // size.bytes)
        gone = cap(connection, key, entries=max(0, kept))
        removed += gone
        if not gone:
            break
    return removed


def server_milliseconds(connection: Connection) -> int:
    """The server's time, which the ids of entries are made from; our own clock may be off.

    Raises:
        redis.exceptions.RedisError: the server is away, or says no.
    """
    seconds, microseconds = connection.commands.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


MEMORY_SHARES: Final = 16
"""No stream may take more than one of so many equal shares of the server's memory limit: whoever
floods one leaves room for the others, and for whoever else writes."""
_SAMPLES: Final = 100
"""States that are measured under one label; the others count as large as these on average."""
_FULL: Final = 0.9


@dataclass(frozen=True, kw_only=True)
class ServerMemory:
    """What a server says of its memory, in bytes."""

    used: int
    limit: int
    """0: none."""
    scripts: int = 0
    """For scripts that it was given to keep; they are given again when they are needed."""
    functions: int = 0

    @property
    def short(self) -> bool:
        """Whether a tenth of it at most is left."""
        return 0 < self.limit * _FULL <= self.used


def server_memory(connection: Connection) -> ServerMemory | None:
    """What the server says; ``None``: it does not tell us.

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


def most_stream_bytes(connection: Connection, wanted: int) -> int:
    """The bytes that one stream may take: ``wanted``, or its share of the server's memory limit.

    Raises:
        redis.exceptions.RedisError: the server is away.
    """
    memory = server_memory(connection)
    if memory is None or not memory.limit:
        return wanted
    return min(wanted, memory.limit // MEMORY_SHARES)


def held_memory(connection: Connection, keys: Keys) -> dict[str, int]:
    """The bytes that states and reports of readers take, by label, estimated.

    Raises:
        redis.exceptions.RedisError: the server is away, or does not allow to ask.
    """
    held: dict[str, int] = {}
    for key in scan(connection, keys.reports("*")):
        label = key.removeprefix(keys.reports(""))
        held[label] = held.get(label, 0) + (memory_of(connection, key) or 0)
    for label, size in _states(connection, keys):
        held[label] = held.get(label, 0) + size
    return held


def _states(connection: Connection, keys: Keys) -> Iterator[tuple[str, int]]:
    samples: dict[str, list[str]] = {}
    counts: dict[str, int] = {}
    for key in scan(connection, keys.reader("*")):
        label, _ = split_member_id(key.removeprefix(keys.reader("")))
        counts[label] = counts.get(label, 0) + 1
        some = samples.setdefault(label, [])
        if len(some) < _SAMPLES:
            some.append(key)
    for label, some in samples.items():
        sizes = [memory_of(connection, key) or 0 for key in some]
        yield label, round(sum(sizes) / len(sizes) * counts[label])
