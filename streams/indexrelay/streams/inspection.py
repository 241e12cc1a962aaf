"""What a stream says about itself: how far it got, and where it begins."""

from dataclasses import dataclass

from redis.exceptions import ResponseError

from indexrelay.streams.connection import Connection
from indexrelay.streams.position import START, Position


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
