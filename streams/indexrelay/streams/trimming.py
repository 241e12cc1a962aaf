"""Letting go of entries that nobody needs any more."""

from indexrelay.streams.connection import Connection
from indexrelay.streams.inspection import stream_size
from indexrelay.streams.refusing import refusals_of


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
