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
        self._complaint = ""

    @property
    def connection(self) -> Connection | None:
        """The connection; ``None``: no server is configured, and no embedded one was started."""
        if self._given is not None:
            return self._given
        if self._own is None and not self._unusable:
            url = self._settings.redis_url or self._embedded_url()
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

    def _embedded_url(self) -> str | None:
        """The embedded server's; ``None``, and a line in the log once, where it cannot be seen."""
        try:
            url = embedded_url(self._settings.data_dir)
        except OSError as error:
            if self._complaint != str(error):
                self._complaint = str(error)
                log.warning(
                    "redis.unreachable",
                    error=f"{type(error).__name__}: {error}",
                    consequence="releases are looked for every poll_seconds, and nobody sees "
                    "that this reader is there",
                    advice="let its user read that folder, or run a Redis and name it in redis.url",
                )
            return None
        self._complaint = ""
        return url

    def forget(self) -> None:
        """In a forked child: leave the parent's sockets to the parent, and open new ones."""
        self._own = None

    def close(self) -> None:
        """Close what was opened here; safe twice."""
        own, self._own = self._own, None
        if own is not None:
            own.close()
