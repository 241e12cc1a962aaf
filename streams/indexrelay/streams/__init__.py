"""How it travels: Redis connections, streams, groups, cursors, leases, presence, Lua scripts.

Nothing in here knows what an event means, and nothing in Redis is the truth about anything.
Every error is raised to the caller, who backs off where it is transient (`is_transient`): nothing
in this portion sleeps, and nothing loops on an error.
"""

from indexrelay.streams.connection import Connection
from indexrelay.streams.consumer import ConsumerGroup, Delivery, Tail, TailRead
from indexrelay.streams.errors import (
    BackendRefusedError,
    NoServerError,
    RedisUrlError,
    ServerStartError,
    is_transient,
)
from indexrelay.streams.keys import Keys
from indexrelay.streams.leases import Lease
from indexrelay.streams.presence import Identity, Presence, members_of
from indexrelay.streams.publisher import announce, current_release, publish, publish_many
from indexrelay.streams.retention import trim
from indexrelay.streams.server import EmbeddedServer

__all__ = [
    "BackendRefusedError",
    "Connection",
    "ConsumerGroup",
    "Delivery",
    "EmbeddedServer",
    "Identity",
    "Keys",
    "Lease",
    "NoServerError",
    "Presence",
    "RedisUrlError",
    "ServerStartError",
    "Tail",
    "TailRead",
    "announce",
    "current_release",
    "is_transient",
    "members_of",
    "publish",
    "publish_many",
    "trim",
]
