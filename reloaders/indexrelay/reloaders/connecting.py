"""A reader's connection, which it can do without.

The one that was handed in is used as it is. Otherwise one is opened when it is first needed, on the
reloading thread, so that a server that does not answer delays nobody's start. Without a URL it is
to the embedded server of the data folder, from when that is first found there; until then there is
none, and the reader lives from the artifact store alone.
"""

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from indexrelay.schemas.loggers import get_logger
from indexrelay.schemas.settings import Settings
from indexrelay.streams import Connection, RedisUrlError
from indexrelay.streams.socket_path import embedded_url

log = get_logger(__name__)


def is_silence(error: Exception) -> bool:
    """Whether the server did not answer at all: asked again at once it would not either."""
    return isinstance(error, RedisConnectionError | RedisTimeoutError)


class Link:
    """Gives the connection, if there is one; closes only what it opened."""

    def __init__(self, settings: Settings, given: Connection | None) -> None:
        self._settings = settings
        self._given = given
        self._own: Connection | None = None
        self._unusable = False

    @property
    def connection(self) -> Connection | None:
        """The connection; ``None``: no server is configured, and no embedded one was started."""
        if self._given is not None:
            return self._given
        if self._own is None and not self._unusable:
            url = self._settings.redis_url or embedded_url(self._settings.data_dir)
            if url is None:
                return None
            try:
                self._own = Connection.open(
                    url,
                    timeout_seconds=self._settings.redis.timeout_seconds,
                    block_seconds=self._settings.reader.block_seconds,
                )
            except RedisUrlError as error:
                self._unusable = True
                log.error("redis.url_unusable", error=str(error))  # noqa: TRY400 - the sentence says it
        return self._own

    def forget(self) -> None:
        """In a forked child: leave the parent's sockets to the parent, and open new ones."""
        self._own = None

    def close(self) -> None:
        """Close what was opened here; safe twice."""
        own, self._own = self._own, None
        if own is not None:
            own.close()
