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
"""

from importlib import resources
from typing import Final, Self

from redis import Redis
from redis.commands.core import Script
from redis.exceptions import RedisError, ResponseError

from indexrelay.schemas.loggers import get_logger
from indexrelay.streams.clients import client_of

MAX_BLOCK_SECONDS: Final = 2.0
"""A blocking read is never cancelled (what it took would stay pending, unseen), so a stop waits for
it: not longer than this."""

NO_EVICTION: Final = "noeviction"
"""The one policy under which a full server refuses instead of forgetting."""

_log = get_logger(__name__)


class Connection:
    """The way to one Redis-compatible server.

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

        A server that is away is no error here: whoever uses it first meets that. It is only asked
        whether it evicts keys under memory pressure, which would lose events silently.

        Args:
            url: ``redis://``, ``rediss://``, ``unix://`` or ``redis+sentinel://``; see
                `indexrelay.schemas.server_url`.
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
        """The script ``NAME.lua`` from beside this file; the server is given it when it asks."""
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
        """What the server does at its memory limit; ``None``: it does not tell us.

        Anything but ``noeviction`` may drop events, leases and presence without a word.

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

    def _check_eviction(self) -> None:
        """Warn where the server may drop streams to make room."""
        try:
            policy = self.eviction_policy()
        except RedisError as error:
            _log.warning("redis.away", error=str(error))
        else:
            if policy not in (None, NO_EVICTION):
                _log.warning("redis.evicts", maxmemory_policy=policy, wanted=NO_EVICTION)
