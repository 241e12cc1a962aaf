"""Two clients of one server: one for commands, one for blocking reads.

redis-py gives every client a socket time-out and ten retries. Under a blocking read a time-out that
is shorter than the block sends the read again and again, and a retried write is a second write. So:

- **No built-in retries anywhere.** Every error goes to the caller, whose loop backs off; a call
  that must not happen twice carries its own guard in a script.
- **Blocking reads have a client of their own**, whose socket waits for the block and then as long
  as any command may take.
- **One shape of replies**: RESP2, bytes. A URL's query cannot change that, nor the time-outs.
- Idle sockets are checked before they are used again, so that a command rarely meets a dead one.

Both clients may be used from several threads. After a fork the child gets sockets of its own:
redis-py's pools compare the process id and drop what they inherited without closing it.

Behind Sentinels every new socket goes to the server that is the primary at that moment, so a
failover needs nothing but the reconnecting that follows any error. What was not yet copied to the
new primary is lost in Redis, and found by the look that follows every error. Until the Sentinels
agree on a primary there is none, which is a transient error.
"""

import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any, Final, Self, TypeVar

from redis import Redis, SSLConnection
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.commands.core import Script
from redis.connection import ConnectionPool, UnixDomainSocketConnection, parse_url
from redis.exceptions import (
    AskError,
    ClusterCrossSlotError,
    ClusterDownError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry
from redis.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)

from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.urls import SentinelUrl, read_server_url
from indexrelay.streams.errors import (
    CLUSTER_ADVICE,
    BackendRefusedError,
    ClusterNodeError,
    RedisUrlError,
    WrongTypeError,
    refusal_code,
)

ItemT = TypeVar("ItemT")

MAX_BLOCK_SECONDS: Final = 2.0
"""A blocking read is never cancelled (what it took would stay pending, unseen), so a stop waits for
it: not longer than this."""
ROUND_TRIP_BYTES: Final = 4 * 1024 * 1024
"""Of one round trip with many commands: a server keeps in memory what it has not done or sent yet,
and the time-out of the socket counts for all of it."""

NO_EVICTION: Final = "noeviction"
"""The one policy under which a full server refuses what is new, instead of dropping other keys."""
_log = get_logger(__name__)


class Connection:
    """Two clients of one Redis-compatible server.

    `open` takes a URL. Built directly from two clients (``Connection(commands=…, blocking=…)``) it
    runs on whatever they are, fakeredis for example; both must answer bytes in RESP2's shape.
    """

    commands: Redis
    """For everything that answers at once."""
    blocking: Redis
    """For reads that wait."""

    def __init__(
        self, *, commands: Redis, blocking: Redis, block_seconds: float = MAX_BLOCK_SECONDS
    ) -> None:
        if not 0 < block_seconds <= MAX_BLOCK_SECONDS:
            raise ValueError(f"block_seconds={block_seconds}: above 0, up to {MAX_BLOCK_SECONDS}")
        self.commands = commands
        self.blocking = blocking
        self.block_seconds = block_seconds
        self._scripts: dict[str, Script] = {}

    @classmethod
    def open(
        cls,
        url: str,
        *,
        timeout_seconds: float = 5.0,
        block_seconds: float = MAX_BLOCK_SECONDS,
        warn: bool = True,
    ) -> Self:
        """Make the clients; sockets are opened when they are needed.

        A server that is away is no error here: the first command raises it. It is only asked
        whether it evicts keys under memory pressure, which would lose events silently.

        Args:
            url: ``redis://``, ``rediss://``, ``unix://`` or ``redis+sentinel://``; see
                `indexrelay.schemas.urls`.
            timeout_seconds: how long connecting, and one command, may take.
            block_seconds: the longest wait of a blocking read on this connection; at most 2.
            warn: log a server that is away, or that evicts; else it is not asked yet.

        Raises:
            RedisUrlError: the URL cannot be read.
            ValueError: ``block_seconds`` is out of range.
        """
        connection = cls(
            commands=client_of(
                url, connect_seconds=timeout_seconds, answer_seconds=timeout_seconds
            ),
            blocking=client_of(
                url,
                connect_seconds=timeout_seconds,
                answer_seconds=block_seconds + timeout_seconds,
            ),
            block_seconds=block_seconds,
        )
        if warn:
            connection._check_eviction()
        return connection

    def block_milliseconds(self, block_seconds: float) -> int | None:
        """What BLOCK takes for a wait; ``None`` for 0, since BLOCK 0 means for ever.

        Raises:
            ValueError: negative, or longer than this connection's sockets wait.
        """
        if not 0 <= block_seconds <= self.block_seconds:
            raise ValueError(f"block_seconds={block_seconds}: 0 to {self.block_seconds}")
        return max(1, round(block_seconds * 1000)) if block_seconds else None

    def reading(self, block: int | None) -> Redis:
        """The client for a read: the blocking one only where it may wait."""
        return self.commands if block is None else self.blocking

    def script(self, name: str) -> Script:
        """The script ``NAME.lua`` beside this file; a server that does not have it is sent it."""
        if name not in self._scripts:
            source = resources.files(__package__).joinpath(f"{name}.lua").read_bytes()
            self._scripts[name] = self.commands.register_script(source)
        return self._scripts[name]

    def close(self) -> None:
        """Close every socket; safe twice. The clients open new ones if they are used again."""
        self.commands.close()
        self.blocking.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def eviction_policy(self) -> str | None:
        """What the server does at its memory limit; ``None``: its ACL does not allow to ask.

        Anything but ``noeviction`` may drop events, leases and presence silently.

        Raises:
            redis.exceptions.RedisError: the server is away.
        """
        try:
            policy = self.commands.info("memory").get("maxmemory_policy")
        except ResponseError as error:
            # An ACL may forbid INFO, and that is no fault.
            _log.debug("redis.eviction_unknown", error=str(error))
            return None
        return None if policy is None else str(policy)

    def server_milliseconds(self) -> int:
        """The server's time, which the ids of entries are made from; our own clock may be off.

        Raises:
            redis.exceptions.RedisError: the server is away, or refuses.
        """
        seconds, microseconds = self.commands.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    def _check_eviction(self) -> None:
        """Warn where the server may drop streams to make room."""
        try:
            policy = self.eviction_policy()
        except RedisError as error:
            _log.warning("redis.away", error=str(error))
        else:
            if policy not in (None, NO_EVICTION):
                _log.warning("redis.evicts", maxmemory_policy=policy, wanted=NO_EVICTION)


@contextmanager
def writes_to(key: str) -> Iterator[None]:
    """Around a write to ``key``.

    Raises:
        BackendRefusedError: the server refused it.
    """
    try:
        yield
    except BackendRefusedError:
        raise
    except ResponseError as error:
        raise BackendRefusedError.of(key, error) from error


@contextmanager
def reads_of(key: str) -> Iterator[None]:
    """Around reads of ``key``.

    Raises:
        WrongTypeError: it holds another type than what is read there.
    """
    try:
        yield
    except WrongTypeError:
        raise
    except ResponseError as error:
        if refusal_code(error) == "WRONGTYPE":
            raise WrongTypeError(key) from error
        raise


def portions(
    items: Iterable[ItemT], sizes: Iterable[int], *, most: int | None = None
) -> Iterator[list[ItemT]]:
    """Split ``items`` into what one round trip takes: together at most `ROUND_TRIP_BYTES`, or one.

    Args:
        sizes: of the items, in bytes.
        most: items in one round trip; ``None``: any number.
    """
    portion: list[ItemT] = []
    total = 0
    for item, size in zip(items, sizes, strict=True):
        if portion and (len(portion) == most or total + size > ROUND_TRIP_BYTES):
            yield portion
            portion, total = [], 0
        portion.append(item)
        total += size
    if portion:
        yield portion


def replies_of(pipeline: Pipeline) -> list[Any]:
    """Send what is in ``pipeline``.

    By itself redis-py raises a pipeline's first error with the whole command written before it: the
    code is no longer the first word, and an event's bytes end up in a log.

    Raises:
        redis.exceptions.RedisError: the first refusal, unchanged; or the server did not answer.
    """
    replies: list[Any] = pipeline.execute(raise_on_error=False)
    for reply in replies:
        if isinstance(reply, RedisError):
            raise reply
    return replies


HEALTH_CHECK_SECONDS: Final = 30
"""A socket that was idle for longer is pinged before its next command."""
_OPTIONS: Final = frozenset(
    {
        *("host", "port", "path", "db", "username", "password", "client_name", "max_connections"),
        *("timeout", "connection_class"),
        # Read, and set to what holds for every client.
        *("decode_responses", "health_check_interval", "protocol", "retry_on_timeout"),
        *("socket_connect_timeout", "socket_keepalive", "socket_timeout"),
    }
)
"""What a URL's query may hold, besides ``ssl_…``. redis-py takes any argument of a connection's
class as text, and fails over most of them at the first command."""
_REFUSED: Final = "an option in its query is not known or cannot be read"


def import_driver() -> None:
    """Import what redis-py imports only when it makes its first connection.

    For a process that may fork while another of its threads connects: a module that is being
    imported then stays locked in the child, and whatever imports it there waits for ever.
    """
    ConnectionPool().make_connection()  # no socket is opened before it is used


def client_of(url: str, *, connect_seconds: float, answer_seconds: float) -> Redis:
    """A client that owns its pool; no socket is opened yet.

    Args:
        url: as `indexrelay.schemas.urls` reads it.
        connect_seconds: how long connecting may take, to the server or to one Sentinel.
        answer_seconds: how long the server may take to answer.

    Raises:
        RedisUrlError: the URL cannot be read.
    """
    try:
        parsed = read_server_url(url)
    except ValueError as error:
        raise RedisUrlError(str(error)) from None
    try:
        if isinstance(parsed, SentinelUrl):
            pool = _sentinel_pool(parsed, connect_seconds, answer_seconds)
        else:
            pool = ConnectionPool(**_settings(url, connect_seconds, answer_seconds))
        pool.make_connection()  # no socket yet: it only reads the options
    except (TypeError, ValueError, RedisError):
        # It may quote what it could not read, which may be the password.
        raise RedisUrlError(_REFUSED) from None
    return _OneServer.from_pool(pool)


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


def _settings(url: str, connect: float, answer: float) -> dict[str, Any]:
    """redis-py's arguments for one connection."""
    settings: dict[str, Any] = dict(parse_url(url))  # type: ignore[no-untyped-call] # redis-py has no types
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


class _OneServer(Redis):
    """A client whose errors explain that the server is a node of a cluster."""

    def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        """The reply to one command.

        Raises:
            ClusterNodeError, ClusterDownError: a cluster's node that does not serve the key.
        """
        try:
            return super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call] # redis-py has no types
        except (AskError, ClusterCrossSlotError) as error:
            raise ClusterNodeError(error) from error
        except ClusterDownError as error:
            what = f"the server is a node of a Redis Cluster that is down: {error}"
            raise type(error)(f"{what}; {CLUSTER_ADVICE}") from error


def _sentinel_pool(url: SentinelUrl, connect: float, answer: float) -> ConnectionPool:
    settings = _settings(url.server, connect, answer)
    encrypted = settings.pop("connection_class", None) is SSLConnection
    to_sentinels = _settings(url.sentinel, connect, connect)
    to_sentinels["ssl"] = to_sentinels.pop("connection_class", None) is SSLConnection
    del settings["host"], to_sentinels["host"]
    del to_sentinels["retry_on_timeout"]  # `Redis` warns where `retry` is given as well
    sentinels = _Sentinels(url.sentinels, sentinel_kwargs=to_sentinels)  # type: ignore[no-untyped-call] # redis-py has no types
    return SentinelConnectionPool(  # type: ignore[no-untyped-call] # redis-py has no types
        url.service,
        sentinels,
        connection_class=SentinelManagedSSLConnection if encrypted else SentinelManagedConnection,
        **settings,
    )


class _Sentinels(Sentinel):
    """Sentinels whose error says what to do where no primary is found."""

    def discover_master(self, service_name: str) -> Any:
        """Host and port of the primary, from the first Sentinel that knows it."""
        try:
            return super().discover_master(service_name)  # type: ignore[no-untyped-call] # redis-py has no types
        except MasterNotFoundError as error:
            raise MasterNotFoundError(
                f"{error}; a failover may be under way. If it lasts: are the Sentinels in "
                "redis.url right, can they be reached, and do they watch a service named "
                f"{service_name!r} (SENTINEL MASTERS)?"
            ) from error
