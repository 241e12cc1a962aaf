"""From a URL to a client: of one server, or of whichever the Sentinels call the primary.

Whatever the URL says, three things hold for each client: no built-in retries, replies in RESP2 as
bytes, and the time-outs that were asked for (`indexrelay.streams.connection` says why).

Behind Sentinels every new socket goes to the server that they call the primary at that moment, so
a failover needs nothing but the reconnecting that any error brings: the old primary's sockets die
with it, or it hangs up when it is made a replica, or answers READONLY, which closes them as well.
What the new primary never heard of is lost in Redis, and found by the look that follows every
error. Until a primary is agreed on there is none, which is an error that passes.
"""

import socket
from typing import Any, Final

from redis import Redis, SSLConnection
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool, UnixDomainSocketConnection, parse_url
from redis.exceptions import AskError, ClusterCrossSlotError, ClusterDownError, RedisError
from redis.retry import Retry
from redis.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)

from indexrelay.schemas.server_url import SentinelUrl, read_server_url
from indexrelay.streams.errors import CLUSTER_ADVICE, ClusterNodeError, RedisUrlError

_REFUSED: Final = "an option in its query is not known or cannot be read"
_OPTIONS: Final = frozenset(
    {
        *("host", "port", "path", "db", "username", "password", "client_name", "max_connections"),
        *("timeout", "connection_class"),
        # Read, and set to what holds for every client.
        *("decode_responses", "health_check_interval", "protocol", "retry_on_timeout"),
        *("socket_connect_timeout", "socket_keepalive", "socket_timeout"),
    }
)
"""What a URL's query may say, besides ``ssl_…``. redis-py takes any argument of a connection's
class as text, and fails over most of them at the first command."""
HEALTH_CHECK_SECONDS: Final = 30
"""A socket that was idle for longer is pinged before its next command."""


def client_of(url: str, *, connect_seconds: float, answer_seconds: float) -> Redis:
    """A client that owns its pool; no socket is opened yet.

    Args:
        url: as `indexrelay.schemas.server_url` reads it.
        connect_seconds: how long connecting may take, to the server or to one Sentinel.
        answer_seconds: how long the server may take to answer.

    Raises:
        RedisUrlError: the URL cannot be read.
    """
    try:
        understood = read_server_url(url)
    except ValueError as error:
        raise RedisUrlError(str(error)) from None
    try:
        if isinstance(understood, SentinelUrl):
            pool = _guarded(understood, connect_seconds, answer_seconds)
        else:
            pool = ConnectionPool(**_settings(url, connect_seconds, answer_seconds))
        pool.make_connection()  # no socket yet: only what the options mean is looked at
    except (TypeError, ValueError, RedisError):
        # It may quote what it could not read, which may be the password.
        raise RedisUrlError(_REFUSED) from None
    return _OneServer.from_pool(pool)


class _OneServer(Redis):
    """Says what it means when the server turns out to be one of a cluster."""

    def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        """The reply to one command.

        Raises:
            ClusterNodeError, ClusterDownError: a cluster's node that does not serve the key.
        """
        try:
            return super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call] # redis-py has no types here
        except (AskError, ClusterCrossSlotError) as error:
            raise ClusterNodeError(error) from error
        except ClusterDownError as error:
            said = f"the server is a node of a Redis Cluster that is down: {error}"
            raise type(error)(f"{said}; {CLUSTER_ADVICE}") from error


def try_url(url: str) -> None:
    """Read ``url`` as `client_of` does, and its options as a connection will; connects to nothing.

    Raises:
        RedisUrlError: a client of it could not connect, whatever the server is.
    """
    client = client_of(url, connect_seconds=1.0, answer_seconds=1.0)
    connection = client.connection_pool.make_connection()
    client.close()
    if not isinstance(connection, SSLConnection):
        return
    connection.host = getattr(connection, "host", None) or "localhost"
    connection.ssl_validate_ocsp = False  # it would ask a server
    try:
        # redis-py reads these options when it wraps a socket, and an unconnected one is enough.
        with socket.socket() as unconnected:
            connection._wrap_socket_with_ssl(unconnected).close()  # type: ignore[no-untyped-call] # noqa: SLF001
    except OSError as error:
        raise RedisUrlError(
            "a certificate or key that its query names cannot be read: "
            f"{error.strerror or type(error).__name__}"
        ) from None
    except (TypeError, ValueError, RedisError, AttributeError):
        raise RedisUrlError(_REFUSED) from None


def _guarded(url: SentinelUrl, connect: float, answer: float) -> ConnectionPool:
    settings = _settings(url.server, connect, answer)
    encrypted = settings.pop("connection_class", None) is SSLConnection
    asking = _settings(url.sentinel, connect, connect)
    asking["ssl"] = asking.pop("connection_class", None) is SSLConnection
    del settings["host"], asking["host"]
    del asking["retry_on_timeout"]  # `retry` says it all, and `Redis` warns of both
    sentinels = _Sentinels(url.sentinels, sentinel_kwargs=asking)  # type: ignore[no-untyped-call] # redis-py has no types here
    return SentinelConnectionPool(  # type: ignore[no-untyped-call] # as above
        url.service,
        sentinels,
        connection_class=SentinelManagedSSLConnection if encrypted else SentinelManagedConnection,
        **settings,
    )


class _Sentinels(Sentinel):
    """Says what to do where no primary is found."""

    def discover_master(self, service_name: str) -> Any:
        """Host and port of the primary, as the first Sentinel that can tell has it."""
        try:
            return super().discover_master(service_name)  # type: ignore[no-untyped-call] # as above
        except MasterNotFoundError as error:
            raise MasterNotFoundError(
                f"{error}; a failover may be under way. If it lasts: are the Sentinels in "
                "redis.url right, can they be reached, and do they watch a service named "
                f"{service_name!r} (SENTINEL MASTERS)?"
            ) from error


def _settings(url: str, connect: float, answer: float) -> dict[str, Any]:
    """redis-py's arguments for one connection."""
    settings: dict[str, Any] = dict(parse_url(url))  # type: ignore[no-untyped-call] # as above
    if any(name not in _OPTIONS and not name.startswith("ssl_") for name in settings):
        raise ValueError(_REFUSED)
    settings |= {
        "decode_responses": False,
        "health_check_interval": HEALTH_CHECK_SECONDS,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "retry_on_timeout": False,
        "socket_connect_timeout": connect,
        "socket_timeout": answer,
    }
    if settings.get("connection_class") is not UnixDomainSocketConnection:
        settings["socket_keepalive"] = True
    return settings
