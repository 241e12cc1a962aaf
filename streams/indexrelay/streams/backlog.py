"""How many entries a group has not taken yet, without looking at them where that can be helped.

A stream shorter than the question answers it at once. Redis 7 and Valkey keep count of a group's
lag; Redis 6.2 does not, nor do they for a group that was made in the middle of a stream, and then
the entries behind the group are counted, as far as it matters.
"""

from typing import Any

from indexrelay.streams.connection import Connection
from indexrelay.streams.position import START, Position


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
