"""Putting events on a stream: a plain XADD of one field.

No dedupe markers: an event only says "look now", the inbox drops repeats by the event's id, and a
marker per event would cost a tenth of the rate. So a publish whose reply was lost may be repeated
freely.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from redis.exceptions import ResponseError

from indexrelay.schemas.events import FIELD, MAX_EVENT_BYTES
from indexrelay.streams.connection import Connection
from indexrelay.streams.errors import MessageTooLargeError
from indexrelay.streams.refusing import refused
from indexrelay.streams.round_trip import packed, round_trip

MOST_EVENTS: Final = 1000
"""Events in one round trip: beyond this it is no faster."""
MOST_BYTES: Final = 4 * 1024 * 1024
"""Bytes of events in one round trip, if it is more than one event: a server holds what it has read
and not yet done, and the time-out of the socket counts for all of it."""


def publish(
    connection: Connection, key: str, raw: bytes, *, keep_seconds: float | None = None
) -> bytes:
    """Add one event; returns its entry id.

    Args:
        keep_seconds: the stream ends so long after its last event; ``None``: never.

    Raises:
        MessageTooLargeError: it has more than `MAX_EVENT_BYTES`.
        BackendRefusedError: the server refused it (out of memory, a replica, forbidden).
        redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: it did not answer; the
            event may have arrived or not.
    """
    check_size(key, raw)
    commands = [packed(b"XADD", key.encode(), b"*", FIELD, raw)]
    if keep_seconds is not None:
        milliseconds = b"%d" % round(keep_seconds * 1000)
        commands.append(packed(b"PEXPIRE", key.encode(), milliseconds))
    replies = round_trip(connection.commands, commands)
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise refused(key, reply) from reply
    entry_id: bytes = replies[0]
    return entry_id


def publish_many(connection: Connection, key: str, raws: Sequence[bytes]) -> list[bytes]:
    """Add events in as few round trips as is sensible, in this order; returns their entry ids.

    Not a transaction: when one is refused, others may stand.

    Raises:
        MessageTooLargeError, BackendRefusedError, redis.exceptions.ConnectionError,
            redis.exceptions.TimeoutError: as `publish`; nothing is added where one is too large.
    """
    name = key.encode()
    for raw in raws:
        check_size(key, raw)
    entry_ids: list[bytes] = []
    for some in _portions(raws):
        commands = [packed(b"XADD", name, b"*", FIELD, raw) for raw in some]
        for reply in round_trip(connection.commands, commands):
            if isinstance(reply, ResponseError):
                raise refused(key, reply) from reply
            entry_ids.append(reply)
    return entry_ids


def check_size(key: str, raw: bytes) -> None:
    """Refuse what its readers would refuse.

    Raises:
        MessageTooLargeError: it has more than `MAX_EVENT_BYTES`.
    """
    if len(raw) > MAX_EVENT_BYTES:
        raise MessageTooLargeError(key, len(raw), MAX_EVENT_BYTES)


def _portions(raws: Sequence[bytes]) -> Iterator[list[bytes]]:
    """What goes together."""
    portion: list[bytes] = []
    size = 0
    for raw in raws:
        if portion and (len(portion) == MOST_EVENTS or size + len(raw) > MOST_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(raw)
        size += len(raw)
    if portion:
        yield portion
