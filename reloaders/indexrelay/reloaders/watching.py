"""When to look: a message, a gap, or a number that is higher than ours.

Nothing that comes from Redis is believed. A message is not even read: that there is one means "look
now", and what is there to see is in the artifact store. So a forged or damaged message costs one
look, and the number in Redis only helps to say that the store lags behind.
"""

import threading

from redis.exceptions import RedisError

from indexrelay.reloaders.connecting import Link, is_silence
from indexrelay.schemas.backoff import backoff_seconds
from indexrelay.schemas.loggers import get_logger
from indexrelay.streams import Keys, Tail, current_release, is_passing

log = get_logger(__name__)

_BURST = 1000
"""Messages taken at once; they are worth one look together."""
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0


class ReleaseWatch:
    """Waits for releases; `wait` belongs to the reloading thread."""

    def __init__(self, link: Link, keys: Keys, *, member: str) -> None:
        self._member = member
        self._link = link
        self._keys = keys
        self._tail: Tail | None = None
        self._failures = 0
        self._away = False
        self.silent = False
        """Whether the server did not answer when it was asked last; a refusal is an answer."""

    def wait(self, seconds: float, stopping: threading.Event) -> bool:
        """Wait up to ``seconds``, or until ``stopping``; whether there is a reason to look.

        A blocking read is never cancelled, so it is cut into pieces that are short enough for
        `stop` to wait for.
        """
        connection = self._link.connection
        if connection is None:
            stopping.wait(seconds)
            return False
        try:
            if self._tail is None:
                self._tail = Tail(connection, self._keys.reloads)
            read = self._tail.read(
                count=_BURST, block_seconds=min(seconds, connection.block_seconds)
            )
        except RedisError as error:
            self.silent = is_silence(error)
            # The tail has logged it; its next read has a gap, and that is a reason to look.
            self._failures += 1
            pause = backoff_seconds(
                self._failures,
                first=_FIRST_PAUSE_SECONDS,
                longest=_LONGEST_PAUSE_SECONDS,
                key=self._member,  # a server that comes back is not met by all at once
            )
            stopping.wait(min(seconds, pause))
            return False
        self._failures = 0
        self.silent = False
        return read.gap or bool(read.deliveries)

    @property
    def cursor(self) -> str | None:
        """How far the reload messages were read; ``None``: not at all."""
        cursor = self._tail.cursor if self._tail is not None else None
        return None if cursor is None else cursor.decode()

    def announced(self) -> int:
        """The newest announced release; 0 when none is, or nobody can say."""
        connection = self._link.connection
        if connection is None:
            return 0
        try:
            number = current_release(connection, self._keys)
        except RedisError as error:
            self.silent = is_silence(error)
            if not self._away:
                advice = "it may come back" if is_passing(error) else "see the server's ACL"
                log.warning("release.number_unknown", error=str(error), advice=advice)
            self._away = True
            return 0
        self._away = self.silent = False
        return number
