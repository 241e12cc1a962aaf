"""Putting events on a stream: a plain XADD of one field.

No dedupe markers: an event only says "look now", the inbox drops repeats by the event's id, and a
marker per event would cost a tenth of the rate. So a publish whose reply was lost may be repeated
freely.
"""

from collections.abc import Sequence

from indexrelay.schemas.events import FIELD
from indexrelay.streams.connection import Connection
from indexrelay.streams.refusing import refusals_of, replies_of


def publish(connection: Connection, key: str, raw: bytes) -> bytes:
    """Add one event; returns its entry id.

    Raises:
        BackendRefusedError: the server refused it (out of memory, a replica, forbidden).
        redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: it did not answer; the
            event may have arrived or not.
    """
    return publish_many(connection, key, [raw])[0]


def publish_many(connection: Connection, key: str, raws: Sequence[bytes]) -> list[bytes]:
    """Add events in one round trip, in this order; returns their entry ids.

    Not a transaction: when one is refused, those before it stand.

    Raises:
        BackendRefusedError, redis.exceptions.ConnectionError, redis.exceptions.TimeoutError: as
            `publish`.
    """
    with refusals_of(key), connection.commands.pipeline(transaction=False) as pipeline:
        for raw in raws:
            pipeline.xadd(key, {FIELD: raw})
        return replies_of(pipeline)
