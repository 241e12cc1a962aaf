"""How long the presence of those who are there still lasts."""

from collections.abc import Sequence
from typing import Any

from indexrelay.streams import Connection


def seconds_left(connection: Connection, keys: Sequence[str]) -> dict[str, float]:
    """When these keys end, by the server's clock; those that never do are left out.

    Raises:
        redis.exceptions.RedisError: the server is away, or says no.
    """
    if not keys:
        return {}
    with connection.commands.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.pttl(key)
        replies: list[Any] = pipeline.execute()
    return {
        key: milliseconds / 1000
        for key, milliseconds in zip(keys, replies, strict=True)
        if milliseconds >= 0
    }
